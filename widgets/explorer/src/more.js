// What an explorer has besides the graph: the switch for channels before and after, overlays among the colours, the legend of ghosts,
// and in the details a table of channels and a link to what is selected.
import { showsChannels } from "./annotate.js";
import { make } from "./dom.js";
import { addressOf, selectionOf } from "./select.js";

export class More {
  constructor(view, page) {
    this.view = view;
    this.page = page;
    this.box = make("input", { type: "checkbox", "data-testid": "geta-explorer-before-after", onchange: () => view.host.set("before_after", this.box.checked) });
    this.toggle = make("label", { class: "gx-switch", title: "channels of each vertex: dense, now, under the budget; what is gone as a ghost" }, this.box, "before → after");
    this.toggle.hidden = view.side !== "alone";
    view.toolbar.scheme.parentElement.after(this.toggle);
    this.group = make("optgroup", { label: "overlays" });
    this.table = make("div", { class: "gx-more", "data-testid": "geta-explorer-more" });
    this.sync();
  }

  /** The switch and the overlays as they are now. */
  sync() {
    const { host, toolbar } = this.view;
    this.box.checked = showsChannels(this.view);
    const overlays = host.get("overlays") ?? [];
    this.group.replaceChildren(...overlays.map(({ name }) => make("option", { value: name, text: name })));
    if (!overlays.length) this.group.remove();
    else toolbar.scheme.append(this.group);
    toolbar.scheme.value = this.view.schemeName;
  }

  /** Entries of the legend for what is drawn besides colours. */
  legend() {
    const { notes } = this.view.painter;
    const { missing } = this.view;
    const parts = [];
    const key = (kind, words) => parts.push(make("span", { class: "gx-key", title: words }, make("span", { class: `gx-ghost gx-${kind}`, "aria-hidden": "true" }), make("span", { text: words })));
    if (notes?.steps) {
      key("gone", "gone");
      if (this.view.side === "alone" && notes.steps.counted.budget) key("going", "goes under the budget");
    }
    if (missing?.size) key("missing", `on this side only (${missing.size})`);
    this.view.toolbar.legend.append(...parts);
  }

  /** In the details: the channels of the selected vertex, its value, and its address. */
  show() {
    const { view } = this;
    const { selected, graph, host } = view;
    const parts = [];
    const vertex = selected?.leaf ? graph.data.nodes.vertex[selected.id] : -1;
    const rows = vertex >= 0 ? this._rows(vertex) : [];
    if (rows.length) parts.push(...section("Before and after", rows));
    const said = vertex >= 0 ? view.painter.notes?.values?.word(vertex) : "";
    if (said) parts.push(...section("Overlay", [[view.schemeName, said]]));
    const refused = (host.get("compare_state") ?? {}).refused;
    if (refused && showsChannels(view)) parts.push(make("p", { class: "gx-dim", text: `budget: ${refused}` }));
    const address = selected && this.page ? addressOf(selectionOf(selected, graph), graph) : "";
    const key = JSON.stringify([rows, said, refused, address, view.schemeName]);
    if (this.shown === key && view.details.body.contains(this.table)) return; // what has the focus keeps it
    this.shown = key;
    if (address) parts.push(this._link(address));
    this.table.replaceChildren(...parts);
    const facts = view.details.body.querySelector("table");
    if (facts) facts.after(this.table);
    else view.details.body.append(this.table);
  }

  _rows(vertex) {
    const { view } = this;
    const { nodes = [], bits = {}, ...counted } = view.host.get("compare_state") ?? {};
    const i = nodes.indexOf(vertex);
    if (i < 0 || !showsChannels(view)) return [];
    const { w = -1 } = view.graph.facts(vertex);
    const words = { dense: "channels, dense", now: "now", budget: "under the budget", subnet: "in the subnet" };
    const known = Object.entries(words).filter(([name]) => counted[name]);
    const rows = known.map(([name, text]) => [text, `${counted[name][i]}${bits[name]?.[w] == null ? "" : `, ${Math.round(bits[name][w] * 10) / 10} bit`}`]);
    if (view.firstOf?.(vertex) != null) rows.push(["on the other side", String(view.firstOf(vertex))]);
    return rows;
  }

  _link(address) {
    const note = make("span", { class: "gx-dim", role: "status" });
    const copy = () => {
      const whole = `${location.href.split("#")[0]}#${address}`;
      const done = navigator.clipboard?.writeText(whole) ?? Promise.reject(new Error("no clipboard"));
      done.then(() => (note.textContent = " copied"), () => (note.textContent = " select the link and copy it"));
    };
    const anchor = make("a", { href: `#${address}`, "data-testid": "geta-explorer-link", text: `#${address}` });
    return make("div", { class: "gx-link" }, anchor, make("button", { type: "button", text: "Copy link", onclick: copy }), note);
  }
}

function section(title, rows) {
  const lines = rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", { text: value })));
  return [make("h4", { text: title }), make("table", { class: "gx-table" }, make("tbody", {}, ...lines))];
}
