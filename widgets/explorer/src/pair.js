// Two explorers beside each other that move together: one toolbar, two pictures, the details of the one that was touched last.
import { make } from "./dom.js";
import { changes, cameraFor, copyOpen, counterpart, missingIn, snapshot } from "./link.js";
import { Explorer } from "./view.js";

export class Pair {
  /** @param hosts of both; @param options {words: titles of both, page, sides: see notes.js, subnet: whether both show one network} */
  constructor(parent, hosts, { words, page = false, sides = ["before", "after"], height = 0 }) {
    this.bodies = words.map((title, i) => make("section", { class: "gx-side", "aria-label": title, "data-testid": i ? "geta-explorer-right" : "geta-explorer-left" }, make("h3", { class: "gx-title", text: title })));
    this.aside = make("div", { class: "gx-aside" });
    this.head = make("div", { class: "gx-head" });
    this.element = make("div", { class: `gx gx-pair${page ? " gx-page" : ""}`, "data-testid": "geta-comparison" }, this.head, make("div", { class: "gx-both" }, ...this.bodies, this.aside));
    if (!page && height) this.element.style.height = `${height}px`;
    parent.append(this.element);
    this.element.addEventListener("keydown", (event) => !event.altKey && !event.ctrlKey && !event.metaKey && event.stopPropagation());
    this.views = hosts.map((host, i) => new Explorer(this.bodies[i], host, { side: sides[i] }));
    this._share(words);
    this.seen = this.views.map(snapshot);
    this.views.forEach((view, i) => {
      view.watcher = () => this._follow(i);
    });
    this._compare();
    for (const view of this.views) view._resize(); // the toolbar that went to the top has left room
    this.views[0].bring(this.views[0].selected);
    this._adopt(0);
  }

  /** One toolbar and one legend above both; details at the side. */
  _share(words) {
    const [left, right] = this.views;
    this.views.forEach((view, i) => {
      view.details.element.setAttribute("aria-label", `details: ${words[i]}`);
      view.element.querySelector(".gx-outline").setAttribute("aria-label", `outline: ${words[i]}`);
    });
    this.head.append(left.toolbar.bar, left.toolbar.legend);
    for (const part of [right.toolbar.bar, right.toolbar.legend]) part.hidden = true;
    right.toolbar.search = left.toolbar.search; // which "/" goes to
    for (const view of this.views) {
      view.element.classList.add("gx-hidden");
      this.aside.append(view.details.element);
    }
    this._touch(1);
  }

  /** The details of one side are shown. */
  _touch(i) {
    this.active = i;
    this.views.forEach((view, k) => {
      view.details.element.hidden = k !== i;
    });
  }

  /** Let each side know what the other has. */
  _compare() {
    const [left, right] = this.views;
    const graphs = [left.graph, right.graph];
    if (left.graph.data === right.graph.data) return;
    const twins = new Map([...right.picture.leaves.values()].map((leaf) => [leaf.id, counterpart(leaf, left.picture, [...graphs].reverse())]));
    right.firstOf = (node) => {
      const twin = twins.get(node);
      return twin ? (left.widthOf(twin.id) ?? null) : null;
    };
    left.missing = missingIn(left.picture, right.picture, graphs);
    right.missing = missingIn(right.picture, left.picture, [...graphs].reverse());
    for (const view of this.views) view.annotate();
  }

  /** A view was drawn: what changed on it is done on the other, which is not asked again for it. */
  _follow(i) {
    if (this.busy) return;
    const [view, other] = [this.views[i], this.views[1 - i]];
    const changed = changes(this.seen[i], snapshot(view));
    if (!changed.length) return;
    this.busy = true;
    try {
      if (changed.includes("selected") || changed.includes("family")) this._touch(i);
      if (changed.includes("layer")) {
        other.setLayer(view.layer);
        this._compare();
      }
      if (changed.includes("scheme")) other.setScheme(view.schemeName);
      if (changed.includes("term")) other.search(view.term);
      if (changed.includes("selected")) this._select(view, other);
      else if (changed.includes("family")) other.selectFamily(this._family(view, other));
      this._adopt(i);
    } finally {
      this.busy = false;
    }
  }

  _select(view, other) {
    const twin = view.selected && counterpart(view.selected, other.picture, [view.graph, other.graph]);
    other.select(twin || null, { reveal: true });
  }

  /** The family of the same name on the other side. */
  _family(view, other) {
    const name = view.graph.data.families[view.family]?.name;
    return name === undefined ? -1 : other.graph.data.families.findIndex((family) => family.name === name);
  }

  /** Open boxes and camera of the other follow those of view i. */
  _adopt(i) {
    const [view, other] = [this.views[i], this.views[1 - i]];
    if (view.root?.layout && other.root?.layout && copyOpen(view.picture, other.picture)) {
      other.engine.run(other.root);
      other._changed();
    }
    if (view.width && other.width) {
      const graphs = [view.graph, other.graph];
      const same = ["w", "h"].every((side) => view.root[side] === other.root[side]) && view.width === other.width && view.height === other.height;
      other.camera = same ? { ...view.camera } : cameraFor(view, other, (item) => counterpart(item, other.picture, graphs));
      other.moved = view.moved;
    }
    this.seen = this.views.map(snapshot);
    other._draw();
  }

  destroy() {
    for (const view of this.views) view.destroy();
  }
}
