// What is known of the selected vertex, module and family, and the buttons that change the budget.
import { amount, percent, round } from "./colours.js";
import { leavesOf } from "./graph.js";
import { make, swatch } from "./dom.js";
import { groupRows, blockList } from "./group_details.js";

export class Details {
  /** @param host sends requests to Python; @param actions {selectFamily(index), clear()} */
  constructor(host, actions) {
    this.host = host;
    this.actions = actions;
    this.body = make("div", { class: "gx-facts" });
    this.line = make("code", { class: "gx-line", "data-testid": "geta-explorer-budget" });
    this.note = make("div", { class: "gx-note", role: "status", "aria-live": "polite" });
    const copy = make("button", { type: "button", text: "Copy", title: "copy the budget as a line of Python", onclick: () => this._copy() });
    this.budget = make("section", { class: "gx-budget" }, make("h4", { text: "Budget" }, copy), this.line, this.note);
    this.element = make("aside", { class: "gx-details", "data-testid": "geta-explorer-details", "aria-label": "details" }, make("h2", { class: "gx-heard", text: "Details" }), this.body, this.budget);
  }

  _copy() {
    navigator.clipboard?.writeText(this.line.textContent).then(() => this.say("copied"), () => this.say("select the line and copy it"));
  }

  say(text) {
    this.note.textContent = text ?? "";
  }

  /** @param shown {graph, item, family, state, budget, scheme} */
  show(shown) {
    Object.assign(this, shown);
    this.line.textContent = this.budgetState.line ?? "";
    this.budget.hidden = !this.budgetState.line;
    const parts = [];
    if (!this.item && this.family < 0) parts.push(this._overview());
    if (this.item?.leaf) parts.push(...this._vertex(this.item));
    else if (this.item) parts.push(...this._module(this.item));
    if (this.family >= 0) parts.push(...this._family(this.family));
    this.body.replaceChildren(...parts);
  }

  _overview() {
    const { graph } = this;
    const { families, layers, branches } = graph.data;
    const head = make("h3", { text: graph.data.title });
    const rows = [
      ["vertices", amount(layers.QADG.nodes.length)], ["raw nodes", amount(layers.raw.nodes.length)], ["folded branches", amount(branches.length)],
      ["families", amount(families.length)], ["groups", amount(families.reduce((sum, { groups }) => sum + groups, 0))],
    ];
    const hint = "Click a vertex to see its family. Double-click a module, or click its arrow, to open or close it. Drag to move; Ctrl and the wheel, or + and −, to zoom; 0 to fit; / to search.";
    return make("div", {}, head, table(rows), make("p", { class: "gx-dim", text: hint }));
  }

  _vertex({ id }) {
    const { graph, state } = this;
    const facts = graph.facts(id);
    const { w = -1, a = -1, t = [], k } = facts;
    const vertex = graph.data.nodes.vertex[id];
    const branch = graph.data.nodes.branch[id];
    const rows = [["operator", graph.operator(id)], ["module", graph.modulePath(id) || "(root)"], ["shape", graph.shape(id) || "–"]];
    if (vertex >= 0 && vertex !== id) rows.push(["serves", graph.name(vertex)]);
    if (branch >= 0) rows.push([`${graph.data.branches[branch][1]} branch`, graph.data.branches[branch][0]]);
    if (w >= 0) rows.push(["weight bits", `${round(state.weight[w])} (${graph.data.quantizers.weight[w]})`]);
    if (a >= 0) rows.push(["input bits", `${round(state.input[a])} (${graph.data.quantizers.input[a]})`]);
    if (k) rows.push(["MACs", amount(k[0])], ["share of BOPs", percent(k[1] / (this._allBops() || 1))], ["parameters", amount(k[3])], ["bytes (fp32)", amount(k[2])]);
    const parts = [make("h3", { text: graph.name(id) }), table(rows)];
    if (t.length) parts.push(make("h4", { text: "Tensors" }), ...t.map((tensor) => this._tensor(tensor)));
    return parts;
  }

  _tensor(index) {
    const { tensors, reasons } = this.graph.data;
    const [name, shape, why] = tensors[index];
    const lines = why.map(([axis, reason]) => make("div", { class: "gx-why", text: `${axis < 0 ? "" : `axis ${axis} stays: `}${reasons[reason][0]}` }));
    return make("div", { class: "gx-tensor" }, make("code", { text: name }), make("span", { class: "gx-dim", text: ` ${shape.join(" × ")}` }), ...lines);
  }

  _module(box) {
    const { graph } = this;
    const leaves = [...leavesOf(box)];
    const vertices = new Set(leaves.map(({ id }) => graph.data.nodes.vertex[id]).filter((vertex) => vertex >= 0));
    const costs = [...vertices].map((vertex) => graph.data.vertices[vertex]?.k).filter(Boolean);
    const sum = (i) => costs.reduce((total, row) => total + row[i], 0);
    const rows = [["module", box.path || "(root)"], ["class", box.type === "branch" ? `${box.branch} branch` : box.type || "–"], ["nodes", amount(leaves.length)]];
    if (box.group) rows.splice(0, 3, ...groupRows(box, graph, this.state));
    if (costs.length) rows.push(["MACs", amount(sum(0))], ["share of BOPs", percent(sum(1) / (this._allBops() || 1))], ["parameters", amount(sum(3))]);
    const families = [...new Set(leaves.flatMap(({ id }) => graph.facts(id).p ?? []))];
    const chips = families.slice(0, 24).map((family) => this._chip(family));
    const list = families.length ? [make("h4", { text: `Families made here (${families.length})` }), make("div", { class: "gx-chips" }, ...chips)] : [];
    return [make("h3", { text: box.label }), table(rows), ...blockList(box, this.actions), ...list];
  }

  _allBops() {
    this.graph.bops ??= Object.values(this.graph.data.vertices).reduce((sum, { k }) => sum + (k?.[1] ?? 0), 0);
    return this.graph.bops;
  }

  _chip(family) {
    const { name } = this.graph.data.families[family];
    return make("button", { type: "button", class: "gx-chip", title: name, onclick: () => this.actions.selectFamily(family) }, make("span", { text: name }));
  }

  _family(index) {
    const { graph, state, budgetState } = this;
    const family = graph.data.families[index];
    const others = this.item?.leaf ? graph.families(this.item.id).filter((other) => other !== index) : [];
    const rows = [
      ["groups", amount(family.groups)], ["kept now", percent(state.kept[index] ?? 1)], ["elements", amount(family.elements)],
      ["cut", family.exact ? "exact" : "near: a norm runs over it"],
    ];
    const slices = family.slices.map(([name, axis, many, producing, which]) =>
      make("tr", {}, make("td", {}, make("code", { text: name })), make("td", { text: axis }), make("td", { text: many === 1 ? which : `${many}: ${which}` }), make("td", { text: producing ? "made" : "read" })));
    const head = make("tr", {}, ...["slice of one group", "axis", "first", "role"].map((text) => make("th", { scope: "col", text })));
    return [
      make("h4", { class: "gx-familyname" }, swatch("var(--gx-accent)"), make("span", { text: `Family ${family.name}` })),
      table(rows),
      this._controls(index, budgetState),
      make("div", { class: "gx-scroll" }, make("table", { class: "gx-slices" }, make("thead", {}, head), make("tbody", {}, ...slices))),
      ...(others.length ? [make("h4", { text: "Also meets" }), make("div", { class: "gx-chips" }, ...others.slice(0, 24).map((other) => this._chip(other)))] : []),
    ];
  }

  _controls(index, budget) {
    const { name } = this.graph.data.families[index];
    if (!this.host.live) return make("p", { class: "gx-dim" }, "In a notebook with a kernel: ", make("code", { text: `explorer.protect(${quote(name)})` }), ", ", make("code", { text: `.set_bits(${quote(name)}, 8, 8)` }));
    const on = Boolean(budget.protect?.[index]);
    const [low, high] = this._bitsOf(index);
    const send = (message) => this.host.send({ ...message, family: index });
    const number = (value, options, id) => make("input", { type: "number", value: value ?? "", "data-testid": id, ...options });
    const lowInput = number(low, { min: 2, max: 32, step: 1, "aria-label": "lowest bits" }, "geta-explorer-bits-low");
    const highInput = number(high, { min: 2, max: 32, step: 1, "aria-label": "highest bits" }, "geta-explorer-bits-high");
    const share = number(budget.sparsity?.[index], { min: 0, max: 1, step: 0.05, placeholder: "no limit", "aria-label": "sparsity at most" }, "geta-explorer-sparsity");
    const button = (text, id, onclick, more = {}) => make("button", { type: "button", text, "data-testid": id, onclick, ...more });
    const whole = (input) => Number.parseInt(input.value, 10);
    return make("div", { class: "gx-controls" },
      button(on ? "Unprotect" : "Protect", "geta-explorer-protect", () => send({ kind: "protect", on: !on }), { "aria-pressed": String(on), class: on ? "gx-on" : "" }),
      button("As in the budget", "geta-explorer-reset", () => send({ kind: "reset" })),
      make("label", {}, make("span", { text: "bits" }), lowInput, "to", highInput, button("Set", "geta-explorer-set-bits", () => send({ kind: "bits", low: whole(lowInput), high: whole(highInput) }))),
      make("label", {}, make("span", { text: "sparsity ≤" }), share, button("Set", "geta-explorer-set-sparsity", () => send({ kind: "sparsity", share: share.value === "" ? null : Number(share.value) }))));
  }

  _bitsOf(index) {
    const { graph, budgetState } = this;
    const makers = Object.values(graph.data.vertices).filter(({ p, w }) => p?.includes(index) && w !== undefined);
    const ranges = makers.map(({ w }) => budgetState.bits?.[w]).filter(Boolean);
    return ranges[0] ?? [4, 16];
  }
}

const quote = (text) => JSON.stringify(text);

function table(rows) {
  const lines = rows.map(([key, value]) => make("tr", {}, make("th", { scope: "row", text: key }), make("td", { text: value })));
  return make("table", { class: "gx-table" }, make("tbody", {}, ...lines));
}
