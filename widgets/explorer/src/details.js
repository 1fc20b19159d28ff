// What is known of the selected vertex, module and family, and the buttons that change the budget. What is heavy is asked for when
// something is selected; what changes while it is selected is written into place, so that nothing typed or focused is lost.
import { allBops, neighbours } from "./facts.js";
import { aboutGrid, codesOf, histogram, valueOf } from "./histogram.js";
import { groupStrip } from "./strip.js";
import { short } from "./svg.js";
import { amount, percent, round } from "./colours.js";
import { leavesOf } from "./graph.js";
import { make, swatch } from "./dom.js";
import { groupRows, blockList } from "./group_details.js";

const PATIENCE = 1500; // milliseconds until it is said that the kernel is busy
const [SOME, ALL] = [6, 200]; // neighbours that are listed

export class Details {
  /** @param host sends requests to Python and asks it; @param actions {selectFamily(index), selectNode(id)} */
  constructor(host, actions) {
    this.host = host;
    this.actions = actions;
    this.answers = new Map();
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

  /** @param shown {graph, layer, item, family, state, budgetState} */
  show(shown) {
    Object.assign(this, shown);
    this.line.textContent = this.budgetState.line ?? "";
    this.budget.hidden = !this.budgetState.line;
    const { item, family, layer, graph, state } = shown;
    const built = { item, family, layer, graph, peek: item?.peek };
    const same = this.built && Object.keys(built).every((key) => this.built[key] === built[key]);
    if (same && (!item?.group || this.body.contains(document.activeElement))) {
      this.lives.forEach((write) => write());
      this.element.classList.toggle("gx-stale", Boolean(this.host.live && this.asked && state !== this.asked));
      return;
    }
    this.built = built;
    this.lives = [];
    this.slots = {};
    this.body.replaceChildren(...this._parts());
    this.body.parentElement.scrollTop = 0;
    this._ask();
  }

  _parts() {
    const { item, family } = this;
    if (!item && family < 0) return [this._overview()];
    const parts = item?.leaf ? this._vertex(item) : item ? this._module(item) : [];
    if (family >= 0 && this.host.live && parts.length) parts[0] = make("div", { class: "gx-title" }, parts[0], this._protect(family)); // in sight, however low the window
    if (family >= 0) parts.push(...this._familyHead(family));
    if (item?.leaf) parts.push(this._slot("attributes"), this._slot("weight"), this._slot("input"));
    if (family >= 0) parts.push(this._slot("strip"));
    if (item) parts.push(...this._neighbours(item));
    if (item?.leaf) parts.push(...this._tensors(item));
    if (family >= 0) parts.push(...this._family(family));
    return parts;
  }

  // -- what Python is asked for -----------------------------------------------------------------------------------------------------

  _slot(name) {
    this.slots[name] = make("section", { class: `gx-slot gx-slot-${name}`, "data-testid": `geta-explorer-${name === "strip" ? "groups" : name}` });
    return this.slots[name];
  }

  _ask() {
    const { item, family, built, slots } = this;
    if (!Object.keys(slots).length || !this.host.ask) return;
    const asked = { vertex: item?.leaf ? item.id : null, family: family < 0 ? null : family };
    const key = `${asked.vertex} ${asked.family}`;
    this.element.classList.remove("gx-stale");
    this.asked = this.state;
    if (this.answers.has(key)) this._fill(this.answers.get(key));
    const first = Object.values(slots).find((slot) => !slot.childElementCount) ?? Object.values(slots)[0];
    const waiting = setTimeout(() => this.built === built && !this.answers.has(key) && first.replaceChildren(make("p", { class: "gx-dim", text: "The kernel is busy: more comes when it is free." })), PATIENCE);
    this.host.ask(asked).then((answer) => {
      clearTimeout(waiting);
      this.answers.delete(key);
      this.answers.set(key, answer);
      if (this.answers.size > 60) this.answers.delete(this.answers.keys().next().value);
      if (this.built === built) this._fill(answer);
    });
  }

  _fill(answer) {
    const { attributes, weight, input, strip, problem } = answer;
    const write = (name, ...parts) => this.slots[name]?.replaceChildren(...parts);
    const again = () => (this.host.live ? make("button", { type: "button", class: "gx-again", text: "↻", title: "read again", "aria-label": "read again", onclick: () => this._ask() }) : null);
    write("attributes", ...(attributes?.length ? [make("h4", { text: "Attributes" }), table(attributes)] : []));
    write("weight", ...(weight ? [make("h4", {}, make("span", { text: `Values of ${this._nameOf(weight.tensor)}` }), again()), histogram(weight)] : []));
    write("input", ...(input ? [make("h4", { text: "Input" }), ...this._input(input)] : []));
    write("strip", ...(strip ? [make("h4", {}, make("span", { text: "Groups, the first to go first" }), weight ? null : again()), groupStrip(strip)] : []));
    const last = Object.values(this.slots).at(-1);
    if (problem && last) last.append(make("p", { class: "gx-problem", text: problem }));
  }

  _nameOf(tensor) {
    const name = this.graph.data.tensors[tensor]?.[0] ?? "";
    return name.slice(name.lastIndexOf(".") + 1);
  }

  _input(input) {
    if (input.missing) return [make("p", {}, "No range yet: ", make("code", { text: "geta.calibrate(batches)" }))];
    const { lowest, highest } = codesOf(input);
    const range = `${short(valueOf(lowest, input))} … ${short(valueOf(highest, input))}`;
    const from = input.steps ? `calibrated, then learned for ${amount(input.steps)} steps` : "calibrated";
    return [table([["range", range], ["from", from]]), make("div", { class: "gx-dim", text: aboutGrid(input) })];
  }

  // -- facts ------------------------------------------------------------------------------------------------------------------------

  /** A value that may change while it is shown. */
  _live(read) {
    const cell = make("span", { text: read() });
    this.lives.push(() => {
      const now = read();
      if (cell.textContent !== String(now)) cell.textContent = now;
    });
    return cell;
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
    const { graph } = this;
    const { w = -1, a = -1, k } = graph.facts(id);
    const vertex = graph.data.nodes.vertex[id];
    const branch = graph.data.nodes.branch[id];
    const rows = [["operator", graph.operator(id)], ["module", graph.modulePath(id) || "(root)"], ["shape", graph.shape(id) || "–"]];
    if (vertex >= 0 && vertex !== id) rows.push(["serves", graph.name(vertex)]);
    if (branch >= 0) rows.push([`${graph.data.branches[branch][1]} branch`, graph.data.branches[branch][0]]);
    if (w >= 0) rows.push(["weight bits", this._live(() => bitsOf(this.state.weight[w], graph.data.quantizers.weight[w], graph.modulePath(id)))]);
    if (a >= 0) rows.push(["input bits", this._live(() => bitsOf(this.state.input[a], graph.data.quantizers.input[a], graph.modulePath(id)))]);
    if (k) rows.push(["MACs", amount(k[0])], ["share of BOPs", percent(k[1] / (this._allBops() || 1))], ["parameters", amount(k[3])], ["bytes (fp32)", amount(k[2])]);
    return [make("h3", { text: graph.name(id) }), table(rows)];
  }

  _tensors({ id }) {
    const { t = [] } = this.graph.facts(id);
    return t.length ? [make("h4", { text: "Tensors" }), ...t.map((tensor) => this._tensor(tensor))] : [];
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
    return allBops(this.graph);
  }

  // -- who feeds it, who reads it ---------------------------------------------------------------------------------------------------

  _neighbours(item) {
    const { sources, readers } = neighbours(this.graph, this.layer, item);
    return [...this._ends("Fed by", "geta-explorer-sources", sources), ...this._ends("Read by", "geta-explorer-readers", readers)];
  }

  _ends(title, hook, rows) {
    if (!rows.length) return [];
    const list = make("ul", { class: "gx-ends", "data-testid": hook, "aria-label": title });
    const fill = (many) => {
      list.replaceChildren(...rows.slice(0, many).map((row) => make("li", {}, this._end(row))));
      const left = rows.length - Math.min(many, rows.length);
      if (left) list.append(make("li", {}, many === SOME ? make("button", { type: "button", class: "gx-more", text: `${left} more`, onclick: () => (fill(ALL), list.querySelector(`li:nth-child(${SOME + 1}) button`)?.focus()) }) : make("span", { class: "gx-dim", text: `and ${left} more` })));
    };
    fill(SOME);
    return [make("h4", { text: rows.length > 1 ? `${title} (${rows.length})` : title }), list];
  }

  _end({ node, shape }) {
    const { graph } = this;
    const path = graph.modulePath(node) || graph.name(node);
    const parts = [make("b", { text: graph.operator(node) }), make("span", { class: "gx-dim gx-where", text: path.length > 20 ? `…${path.slice(-19)}` : path }), make("span", { class: "gx-shape", text: shape })];
    return make("button", { type: "button", title: `${graph.name(node)}\n${path}`, "data-node": graph.name(node), onclick: () => this.actions.selectNode(node) }, ...parts);
  }

  // -- families ---------------------------------------------------------------------------------------------------------------------

  _chip(family) {
    const { name } = this.graph.data.families[family];
    return make("button", { type: "button", class: "gx-chip", title: name, onclick: () => this.actions.selectFamily(family) }, make("span", { text: name }));
  }

  _familyHead(index) {
    const { name } = this.graph.data.families[index];
    return [make("h4", { class: "gx-familyname" }, swatch("var(--gx-accent)"), make("span", { text: `Family ${name}` })), this._controls(index)];
  }

  _family(index) {
    const { graph } = this;
    const family = graph.data.families[index];
    const others = this.item?.leaf ? graph.families(this.item.id).filter((other) => other !== index) : [];
    const rows = [
      ["groups", amount(family.groups)], ["kept now", this._live(() => percent(this.state.kept[index] ?? 1))], ["elements", amount(family.elements)],
      ["cut", family.exact ? "exact" : "near: a norm runs over it"],
    ];
    const slices = family.slices.map(([name, axis, many, producing, which]) =>
      make("tr", {}, make("td", {}, make("code", { text: name })), make("td", { text: axis }), make("td", { text: many === 1 ? which : `${many}: ${which}` }), make("td", { text: producing ? "made" : "read" })));
    const head = make("tr", {}, ...["slice of one group", "axis", "first", "role"].map((text) => make("th", { scope: "col", text })));
    return [
      make("h4", { text: "The family" }), table(rows),
      make("div", { class: "gx-scroll", tabindex: "0", role: "group", "aria-label": "slices of one group" }, make("table", { class: "gx-slices" }, make("thead", {}, head), make("tbody", {}, ...slices))),
      ...(others.length ? [make("h4", { text: "Also meets" }), make("div", { class: "gx-chips" }, ...others.slice(0, 24).map((other) => this._chip(other)))] : []),
    ];
  }

  _controls(index) {
    const { name } = this.graph.data.families[index];
    if (!this.host.live) return make("p", { class: "gx-dim" }, "In a notebook with a kernel: ", make("code", { text: `explorer.protect(${quote(name)})` }), ", ", make("code", { text: `.set_bits(${quote(name)}, 8, 8)` }));
    const send = (message) => this.host.send({ ...message, family: index });
    const whole = (input) => Number.parseInt(input.value, 10);
    const lowInput = this._number(() => this._bitsOf(index)[0], { min: 2, max: 32, step: 1, "aria-label": "lowest bits", "data-testid": "geta-explorer-bits-low" });
    const highInput = this._number(() => this._bitsOf(index)[1], { min: 2, max: 32, step: 1, "aria-label": "highest bits", "data-testid": "geta-explorer-bits-high" });
    const share = this._number(() => this.budgetState.sparsity?.[index], { min: 0, max: 1, step: 0.05, placeholder: "no limit", "aria-label": "sparsity at most", "data-testid": "geta-explorer-sparsity" });
    const clean = (...inputs) => inputs.forEach((input) => delete input.dataset.typed);
    const button = (text, id, onclick) => make("button", { type: "button", text, "data-testid": id, onclick });
    const set = (id, message, ...inputs) => button("Set", id, () => (clean(...inputs), send(message())));
    return make("div", { class: "gx-controls" },
      ...(this.item ? [] : [this._protect(index)]),
      button("As in the budget", "geta-explorer-reset", () => (clean(lowInput, highInput, share), send({ kind: "reset" }))),
      make("label", {}, make("span", { text: "bits" }), lowInput, "to", highInput, set("geta-explorer-set-bits", () => ({ kind: "bits", low: whole(lowInput), high: whole(highInput) }), lowInput, highInput)),
      make("label", {}, make("span", { text: "sparsity ≤" }), share, set("geta-explorer-set-sparsity", () => ({ kind: "sparsity", share: share.value === "" ? null : Number(share.value) }), share)));
  }

  _protect(index) {
    const send = (message) => this.host.send({ ...message, family: index });
    const isOn = () => Boolean(this.budgetState.protect?.[index]);
    const button = make("button", { type: "button", "data-testid": "geta-explorer-protect", title: `keep every group of family ${this.graph.data.families[index].name}`, onclick: () => send({ kind: "protect", on: !isOn() }) });
    const write = () => {
      button.textContent = isOn() ? "Unprotect" : "Protect";
      button.setAttribute("aria-pressed", String(isOn()));
      button.classList.toggle("gx-on", isOn());
    };
    write();
    this.lives.push(write);
    return button;
  }

  /** A field that follows what Python says, except for what is being typed into it. */
  _number(read, options) {
    const input = make("input", { type: "number", value: read() ?? "", ...options });
    input.addEventListener("input", () => (input.dataset.typed = "yes"));
    this.lives.push(() => {
      const now = String(read() ?? "");
      if (!input.dataset.typed && input.value !== now) input.value = now;
    });
    return input;
  }

  _bitsOf(index) {
    const { graph, budgetState } = this;
    const makers = Object.values(graph.data.vertices).filter(({ p, w }) => p?.includes(index) && w !== undefined);
    const ranges = makers.map(({ w }) => budgetState.bits?.[w]).filter(Boolean);
    return ranges[0] ?? [4, 16];
  }
}

/** Bits, and whose where that is not the module itself, such as a weight that is tied. */
const bitsOf = (bits, layer, module) => (layer === module ? round(bits) : `${round(bits)} (${layer})`);

const quote = (text) => JSON.stringify(text);

function table(rows) {
  const lines = rows.map(([key, value]) => make("tr", {}, make("th", { scope: "row", text: key }), value instanceof Element ? make("td", {}, value) : make("td", { text: value })));
  return make("table", { class: "gx-table" }, make("tbody", {}, ...lines));
}
