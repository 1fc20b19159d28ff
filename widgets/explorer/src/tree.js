// The same vertices as a tree for the keyboard, screen readers and scripts: it opens and closes with the picture.
import { make } from "./dom.js";
import { groupWords } from "./stacks.js";

export class Outline {
  /** @param actions {select(item), toggle(item)} */
  constructor(actions) {
    this.actions = actions;
    this.items = new Map();
    this.list = make("ul", { role: "tree", class: "gx-tree", "aria-label": "vertices", "data-testid": "geta-explorer-tree" });
    this.list.addEventListener("keydown", (event) => this._key(event));
    this.list.addEventListener("click", (event) => this._click(event));
    this.list.addEventListener("focusin", (event) => this._focus(this._item(event.target)));
  }

  show(root, graph, state) {
    this.root = root;
    this.state = state;
    this.graph = graph;
    this.items = new Map();
    this.list.replaceChildren(...this._children(root, 1));
    const first = root.children[0];
    if (first) this._element(first).tabIndex = 0;
    this.current = first;
  }

  /** Follow what was opened and closed in the picture. */
  sync(box = this.root, level = 1) {
    if (!box) return;
    for (const child of box.children) {
      const element = this.items.get(child);
      if (child.leaf || !element) continue;
      const group = element.querySelector(":scope > ul");
      element.setAttribute("aria-expanded", String(child.open));
      if (child.open && !group) element.append(make("ul", { role: "group" }, ...this._children(child, level + 1)));
      else if (!child.open && group) group.remove();
      if (child.open && group) this.sync(child, level + 1);
    }
  }

  select(item, reveal) {
    for (const element of this.list.querySelectorAll('[aria-selected="true"]')) element.setAttribute("aria-selected", "false");
    const element = item && this.items.get(item);
    if (!element) return;
    element.setAttribute("aria-selected", "true");
    this._focus(item);
    if (reveal) element.querySelector(".gx-row").scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  _children(box, level) {
    const fragment = box.children.map((child, i) => this._make(child, level, i, box.children.length));
    return fragment;
  }

  _make(item, level, position, count) {
    const { graph } = this;
    const detail = item.leaf ? item.local || graph.name(item.id) : item.group ? `${item.stack ? `× ${item.children.length} · ` : ""}${groupWords(item, graph, this.state)}` : item.type === "branch" ? item.path : item.type;
    const row = make("span", { class: "gx-row" }, make("span", { class: "gx-twist", "aria-hidden": "true" }), make("b", { text: item.label }), make("span", { class: "gx-dim", text: ` ${detail}` }));
    const element = make("li", {
      role: "treeitem", tabindex: "-1", "aria-level": level, "aria-posinset": position + 1, "aria-setsize": count, "aria-selected": "false",
      "aria-expanded": item.leaf ? null : String(item.open),
      "data-vertex": item.leaf ? graph.name(item.id) : null,
      "data-module": item.leaf ? null : item.path || item.label,
    }, row);
    this.items.set(item, element);
    element.item = item;
    if (!item.leaf && item.open) element.append(make("ul", { role: "group" }, ...this._children(item, level + 1)));
    return element;
  }

  _element(item) {
    return this.items.get(item);
  }

  _item(target) {
    return target.closest?.('[role="treeitem"]')?.item ?? null;
  }

  _focus(item) {
    if (!item) return;
    const before = this.current && this._element(this.current);
    if (before) before.tabIndex = -1;
    this.current = item;
    const element = this._element(item);
    if (element) element.tabIndex = 0;
  }

  _click(event) {
    const item = this._item(event.target);
    if (!item) return;
    if (!item.leaf && event.target.closest(".gx-twist")) this.actions.toggle(item);
    else this.actions.select(item);
  }

  _key(event) {
    const item = this._item(event.target);
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = () => [...this.list.querySelectorAll('[role="treeitem"]')];
    const go = (element) => element && (this._focus(element.item), element.focus());
    const near = (step) => {
      const all = rows();
      go(all[all.indexOf(event.target.closest('[role="treeitem"]')) + step]);
    };
    const keys = {
      ArrowDown: () => near(1),
      ArrowUp: () => near(-1),
      Home: () => go(rows()[0]),
      End: () => go(rows().at(-1)),
      ArrowRight: () => (item.leaf ? null : item.open ? near(1) : this.actions.toggle(item)),
      ArrowLeft: () => (!item.leaf && item.open ? this.actions.toggle(item) : go(this._element(item.parent))),
      Enter: () => this.actions.select(item),
      " ": () => (item.leaf ? this.actions.select(item) : this.actions.toggle(item)),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }
}
