// The search as a tool: a field, the list of what was found, the help of its language, and the earlier searches of the session.
import { percent, round } from "./colours.js";
import { make, swatch } from "./dom.js";
import { allBops } from "./facts.js";
import { HELP, parse } from "./query.js";

const CHUNK = 150; // rows that are made at once; more come when they are reached
const EARLIER = 12;
let numbered = 0;

/** What the language of query.js asks of one vertex; read when it is asked for. */
class Record {
  constructor(view, id) {
    Object.assign(this, { graph: view.graph, state: view.state, budget: view.budget, id, facts: view.graph.facts(id) });
  }

  get own() {
    return this.graph.data.nodes.vertex[this.id] === this.id;
  }

  get name() {
    return [this.graph.name(this.id)];
  }

  get module() {
    return [this.graph.modulePath(this.id)];
  }

  get shape() {
    return [this.graph.shape(this.id), this.graph.shape(this.id).replaceAll(" × ", "x")];
  }

  get type() {
    const { modules, nodes } = this.graph.data;
    return [this.graph.operator(this.id), modules.type[nodes.module[this.id]] ?? ""];
  }

  get tensor() {
    return this.own ? (this.facts.t ?? []).map((i) => this.graph.data.tensors[i][0]) : [];
  }

  get families() {
    return this.own ? this.graph.families(this.id) : [];
  }

  get family() {
    return this.families.map((i) => this.graph.data.families[i].name);
  }

  get texts() {
    return [...this.name, this.graph.operator(this.id), ...this.module, ...this.tensor];
  }

  get bits() {
    return this.own ? this.state.weight[this.facts.w] : null;
  }

  get inputbits() {
    return this.own ? this.state.input[this.facts.a] : null;
  }

  get kept() {
    const family = this.own ? this.graph.family(this.id) : -1;
    return family < 0 ? null : this.state.kept[family];
  }

  get groups() {
    const family = this.own ? this.graph.family(this.id) : -1;
    return family < 0 ? null : this.graph.data.families[family].groups;
  }

  cost_(i) {
    return this.own ? this.facts.k?.[i] : null;
  }

  get macs() {
    return this.cost_(0);
  }

  get bops() {
    return this.cost_(1);
  }

  get bytes() {
    return this.cost_(2);
  }

  get params() {
    return this.cost_(3);
  }

  get cost() {
    const bops = this.cost_(1);
    return bops == null ? null : bops / (allBops(this.graph) || 1);
  }

  get quantized() {
    return this.own && (this.facts.w !== undefined || this.facts.a !== undefined);
  }

  get pruned() {
    return this.kept != null && this.kept < 1;
  }

  get protected() {
    const { p = [], t = [] } = this.facts;
    if (!this.own) return false;
    if (p.length) return p.every((family) => Boolean(this.budget.protect?.[family]));
    return t.some((tensor) => this.graph.data.tensors[tensor][2].length > 0);
  }
}

/** @returns {hits: leaves in the order of the picture, problem: what is wrong with the text} */
export function findHits(view, text) {
  const query = parse(text);
  if (query.empty || query.problem) return { hits: [], problem: query.problem };
  return { hits: [...view.picture.leaves.values()].filter((leaf) => query.test(new Record(view, leaf.id))), problem: "" };
}

export class Search {
  /** @param actions {search(text), next(step), go(leaf), leave(), remember(text), earlier()} */
  constructor(actions) {
    this.actions = actions;
    this.hits = [];
    this.active = -1;
    const id = `gx-found-${(numbered += 1)}`;
    this.input = make("input", {
      type: "search", class: "gx-search", placeholder: "Search  ( / )", autocomplete: "off", spellcheck: "false", "aria-label": "search vertices", role: "combobox",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": id, "aria-haspopup": "listbox", "data-testid": "geta-explorer-search",
    });
    this.count = make("span", { class: "gx-count", role: "status" });
    this.helpButton = make("button", { type: "button", class: "gx-help-button", text: "?", title: "what can be searched for", "aria-label": "what can be searched for", "aria-expanded": "false", "data-testid": "geta-explorer-search-help", onclick: () => this._help(this.help.hidden) });
    this.list = make("ul", { role: "listbox", id, "aria-label": "found vertices" });
    this.message = make("div", {});
    this.box = make("div", { class: "gx-results", "data-testid": "geta-explorer-results", hidden: true }, this.message, this.list);
    this.help = make("div", { class: "gx-help", role: "group", "aria-label": "what can be searched for", hidden: true });
    this.element = make("span", { class: "gx-find" }, this.input, this.helpButton, this.count, this.box, this.help);
    this._listen();
  }

  _listen() {
    this.input.addEventListener("input", () => (this._help(false), this.actions.search(this.input.value), this._open(true)));
    this.input.addEventListener("keydown", (event) => this._key(event));
    this.element.addEventListener("focusout", (event) => {
      if (this.element.contains(event.relatedTarget)) return;
      this._keep();
      this._open(false);
      this._help(false);
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.target === this.input || this.help.hidden) return;
      event.preventDefault();
      event.stopPropagation();
      this._help(false);
      this.helpButton.focus();
    });
    this.box.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the field
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest('[role="option"]');
      if (row) this._take(Number(row.dataset.at));
    });
    this.list.addEventListener("scroll", () => this.list.scrollTop + this.list.clientHeight > this.list.scrollHeight - 80 && this._more());
  }

  /** Show a text without opening the list: when the explorer is shown again. */
  set(text) {
    this.input.value = text;
  }

  /** @param found {hits, problem, colour(leaf), describe(leaf)} */
  results({ hits, problem, view }) {
    Object.assign(this, { hits, problem, view });
    this.active = -1;
    const asked = this.input.value.trim();
    this.count.textContent = problem ? "not understood" : asked ? `${hits.length.toLocaleString("en-US")} found` : "";
    if (problem) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
    if (!this.box.hidden) (this._fill(), this._show(this.active));
  }

  at(index) {
    this.active = index;
    this.count.textContent = `${index + 1} of ${this.hits.length}`;
  }

  get isOpen() {
    return !this.box.hidden || !this.help.hidden;
  }

  _open(on) {
    const open = on && (this.input.value.trim() !== "" || this.actions.earlier().length > 0);
    this.box.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    if (open) (this._fill(), (this.list.scrollTop = 0), this._show(this.active));
    else this.input.removeAttribute("aria-activedescendant");
  }

  _fill() {
    const asked = this.input.value.trim() !== "";
    this.list.setAttribute("aria-label", asked ? "found vertices" : "earlier searches");
    this.rows = asked ? this.hits : this.actions.earlier();
    this.made = 0;
    const head = this.problem && asked ? this.problem : !asked ? "Earlier searches" : this.hits.length ? "" : "Nothing found in this layer.";
    Object.assign(this.message, { textContent: head, hidden: !head, className: this.problem && asked ? "gx-problem" : "gx-dim" });
    this.list.replaceChildren();
    this.list.hidden = !this.rows.length;
    this._more();
  }

  _more() {
    if (!this.rows || this.made >= this.rows.length) return;
    const next = this.rows.slice(this.made, this.made + CHUNK).map((row, i) => this._row(row, this.made + i));
    this.made += next.length;
    this.list.append(...next);
  }

  _row(row, at) {
    const options = { role: "option", id: `${this.list.id}-${at}`, "data-at": at, "aria-selected": "false", "aria-setsize": this.rows.length, "aria-posinset": at + 1 };
    if (typeof row === "string") return make("li", options, make("code", { text: row }));
    const { graph, scheme } = this.view;
    const record = new Record(this.view, row.id);
    const path = record.module[0] || graph.name(row.id);
    const bits = [["W", record.bits], ["A", record.inputbits]].filter(([, value]) => value != null).map(([mark, value]) => `${mark} ${round(value)}`).join("  ");
    const cells = [
      swatch(scheme.colour(row.id)), cutInTheMiddle(path, graph.name(row.id)), make("span", { class: "gx-type", text: graph.operator(row.id) }),
      make("span", { class: "gx-bits", text: bits }), make("span", { class: "gx-kept", text: record.kept == null ? "" : `${percent(record.kept)} kept` }),
    ];
    const element = make("li", { ...options, title: `${path}\n${graph.name(row.id)}` }, ...cells);
    element.dataset.vertex = graph.name(row.id);
    return element;
  }

  _show(at) {
    for (const row of this.list.querySelectorAll('[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
    this.active = at;
    while (at >= this.made && this.made < this.rows.length) this._more();
    const row = at < 0 ? null : this.list.querySelector(`[data-at="${at}"]`);
    if (!row) return this.input.removeAttribute("aria-activedescendant");
    row.setAttribute("aria-selected", "true");
    this.input.setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
    return undefined;
  }

  _take(at) {
    const row = this.rows[at];
    if (typeof row === "string") {
      this.input.value = row;
      this.actions.search(row);
      this._open(true);
      return;
    }
    this._keep();
    this._open(false);
    this.at(at);
    this.actions.go(at);
  }

  _keep() {
    const text = this.input.value.trim();
    if (text && this.hits.length) this.actions.remember(text);
  }

  _key(event) {
    event.stopPropagation();
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (move) return event.preventDefault(), this._move(move);
    if (event.key === "Enter") return event.preventDefault(), this._enter(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") return event.preventDefault(), this._escape();
    return undefined;
  }

  _move(step) {
    this._help(false);
    if (this.box.hidden) {
      this._open(true);
      if (this.box.hidden || this.active >= 0) return;
    }
    const many = this.rows.length;
    if (many) this._show(this.active < 0 ? (step > 0 ? 0 : many - 1) : Math.min(Math.max(this.active + step, 0), many - 1));
  }

  _enter(step) {
    if (!this.box.hidden && this.active >= 0) return this._take(this.active);
    this._keep();
    if (this.input.value.trim()) this._open(false);
    return this.actions.next(step);
  }

  /** First the list goes, and the picture has the keys; asked again, the search is empty. */
  _escape() {
    if (!this.help.hidden) return this._help(false);
    if (!this.box.hidden) {
      this._keep();
      this._open(false);
      return this.actions.leave();
    }
    this.input.value = "";
    return this.actions.search("");
  }

  _help(on) {
    if (on) {
      this._open(false);
      const rows = HELP.map(([text, words]) => make("tr", {}, make("td", {}, make("button", { type: "button", onclick: () => this._add(text) }, make("code", { text }))), make("td", { text: words })));
      const keys = make("p", { class: "gx-dim", text: "↓ ↑ walk through what was found, Enter goes there, Shift+Enter back, Escape leaves." });
      this.help.replaceChildren(make("table", { "aria-label": "what can be searched for" }, make("tbody", {}, ...rows)), keys);
    }
    this.help.hidden = !on;
    this.helpButton.setAttribute("aria-expanded", String(on));
  }

  _add(text) {
    this.input.value = `${this.input.value.trim()} ${text}`.trim();
    this._help(false);
    this.input.focus();
    this.actions.search(this.input.value);
    this._open(true);
  }
}

/** What differs between the paths of repeated blocks stands at their end: the end is never cut off. */
function cutInTheMiddle(path, name) {
  const cut = Math.max(0, path.length - 26);
  const own = name === path ? null : make("span", { class: "gx-own", text: name });
  return make("span", { class: "gx-path" }, make("span", { class: "gx-head", text: path.slice(0, cut) }), make("span", { class: "gx-tail", text: path.slice(cut) }), own);
}

/** The earlier searches with one more, the last first. */
export const remembered = (before, text) => [text, ...before.filter((other) => other !== text)].slice(0, EARLIER);
