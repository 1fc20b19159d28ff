// The budget panel: a form on the left of what it costs. Python prices; the page only asks, one question at a time.
import { frontChart } from "./front.js";
import { Acts, stepButtons } from "./history.js";
import { isEmpty, keepFamilies } from "./keep.js";
import { freeFocus, layerTable, setValue, valueOf } from "./layers.js";
import { namedBudgets } from "./named.js";
import { Newest } from "./sync.js";
import { keepKeys, bytes, count, make, number, percent } from "./theme.js";

const MODES = [["group_sparsity", "a share of all groups"], ["relative_bops", "relative BOPs"], ["size_bytes", "size in bytes"]];

function row(label, slider, field, testid, name) {
  const id = `gp-${name}-${Math.random().toString(36).slice(2)}`;
  slider.id = id;
  slider.dataset.testid = testid;
  field.dataset.testid = `${testid}-number`;
  field.setAttribute("aria-label", `${label}, exactly`);
  const error = make("div", { class: "gp-error", role: "alert", "data-testid": `geta-budget-error-${name}`, hidden: "" });
  const words = make("label", { for: id }, label);
  return { words, slider, field, error, name, elements: [words, slider, field, error] };
}

function range(min, max, step) {
  return make("input", { type: "range", min, max, step });
}

function field(min, max, step) {
  return make("input", { type: "number", min, max, step });
}

function build(facts) {
  const parts = {};
  parts.mode = make("select", { "data-testid": "geta-budget-mode", "aria-label": "what decides how much is pruned" }, null,
    MODES.map(([value, words]) => make("option", { value }, words)));
  parts.sparsity = row("group sparsity", range(0, 1, 0.01), field(0, 1, 0.01), "geta-budget-sparsity", "sparsity");
  parts.target = row("target", range(0, 1000, 1), field(0, null, "any"), "geta-budget-target", "target");
  parts.low = row("fewest bits", range(2, facts.most_bits, 1), field(2, facts.most_bits, 1), "geta-budget-bits-low", "bits");
  parts.high = row("most bits", range(2, facts.most_bits, 1), field(2, facts.most_bits, 1), "geta-budget-bits-high", "bits-high");
  parts.inputLow = row("fewest bits of inputs", range(2, facts.most_bits, 1), field(2, facts.most_bits, 1), "geta-budget-input-bits-low", "activation_bits");
  parts.inputHigh = row("most bits of inputs", range(2, facts.most_bits, 1), field(2, facts.most_bits, 1), "geta-budget-input-bits-high", "inputs-high");
  parts.round = row("kept channels a multiple of", range(1, 64, 1), field(1, null, 1), "geta-budget-round-to", "round_to");
  const rows = [parts.sparsity, parts.target, ...(facts.weights ? [parts.low, parts.high] : []),
    ...(facts.activations ? [parts.inputLow, parts.inputHigh] : []), parts.round];
  const modeWords = make("span", { class: "gp-label" }, "prune until");
  parts.grid = make("div", { class: "gp-grid" }, null, [modeWords, make("div", { class: "gp-pair" }, null, [parts.mode]), ...rows.flatMap((r) => r.elements)]);
  parts.notice = make("div", { class: "gp-note", role: "status", "aria-live": "polite", "data-testid": "geta-budget-notice", hidden: "" });
  parts.totals = make("div", { class: "gp-facts", role: "status", "aria-live": "polite", "data-testid": "geta-budget-preview" });
  parts.assumption = make("div", { class: "gp-dim" });
  parts.code = make("code", { "data-testid": "geta-budget-code", tabindex: "0" });
  parts.copy = make("button", { type: "button", class: "gp-button", "data-testid": "geta-budget-copy" }, "Copy");
  parts.front = make("div", { hidden: "" });
  parts.patterns = make("div", { class: "gp-dim" });
  parts.errors = make("div", { class: "gp-error", role: "alert", hidden: "", "data-testid": "geta-budget-error-layers" });
  parts.search = make("input", { type: "search", placeholder: "find a layer", "aria-label": "find a layer", "data-testid": "geta-budget-search" });
  parts.scroll = make("div", { class: "gp-scroll", tabindex: "0", role: "region", "aria-label": "layers" });
  parts.log = make("input", { type: "checkbox", checked: "", "data-testid": "geta-budget-log" });
  parts.head = make("div", { class: "gp-head" }, null, [make("div", { class: "gp-title" }, "Budget")]);
  parts.named = make("div", {});
  const bars = make("span", { class: "gp-dim" }, "grey: the dense fp32 network; blue: what this budget leaves");
  parts.root = make("div", { class: "geta-view gp-panel gp-budget", role: "region", "aria-label": "budget", "data-testid": "geta-budget" }, null, [
    parts.head, parts.notice,
    make("div", { class: "gp-top" }, null, [parts.grid, make("div", {}, null, [parts.totals, parts.assumption, parts.front])]),
    make("div", { class: "gp-code" }, null, [parts.code, parts.copy]), parts.named, parts.patterns, parts.errors,
    make("div", { class: "gp-filter" }, null, [parts.search, make("label", { class: "gp-log" }, null, [parts.log, "logarithmic bars"]), bars]), parts.scroll,
  ]);
  return parts;
}

/** Cost targets span orders of magnitude: their slider is logarithmic, over three decades below the dense network. */
function toSlider(value, most) {
  return Math.round(Math.min(Math.max(1000 + (1000 / 3) * Math.log10(Math.max(value, 1e-12) / most), 0), 1000));
}

function fromSlider(position, most) {
  return Number((most * 10 ** ((position - 1000) * 3 / 1000)).toPrecision(3));
}

export function render({ model, el }) {
  const facts = model.get("facts"), parts = build(facts);
  let form = structuredClone(model.get("form"));
  const mostOf = (mode) => (mode === "size_bytes" ? facts.dense.size_bytes : 1);
  const newest = new Newest((number, value) => {
    model.set("form", { ...value, sent: number });
    model.save_changes();
  });
  // numbers of this page begin where another page's have ended
  newest.number = Math.max((model.get("form") || {}).sent || 0, (model.get("result") || {}).answers || 0);
  const ask = (control) => newest.ask({ ...structuredClone(form), act: acts.of(control) });
  const acts = new Acts();
  let freed = null; // a layer whose families were asked to go
  const table = layerTable(facts, (pattern, values) => {
    if (isEmpty(values)) delete form.exceptions[pattern]; else form.exceptions[pattern] = values;
    ask(null);
  }, (layer, on) => {
    const kept = new Set(model.get("result").kept);
    for (const family of layer.families) if (on) kept.add(family); else kept.delete(family);
    keepFamilies(form.exceptions, layer, facts.makers, on);
    freed = on ? null : layer;
    table.tick(kept);
    ask(null);
  });
  parts.scroll.append(table.element);
  parts.log.addEventListener("change", () => table.scale(parts.log.checked));
  /** Ask Python for what is no value of the form; what waits to be asked is no longer wanted. */
  const send = (message) => {
    if (message.action !== "keep" && message.action !== "forget") { newest.next = null; freeFocus(); }
    model.send(message);
  };
  const steps = stepButtons(parts.root, (name) => send({ action: name }));
  parts.head.append(steps.element);
  const named = namedBudgets(facts, send);
  parts.named.append(named.element);
  const chart = facts.front ? frontChart(facts.front, (index) => {
    if (parts.root.dataset.locked === "true") return;
    form = structuredClone(facts.front.points[index][2]);
    chart.chosen(index);
    show();
    ask("front");
  }) : null;
  if (chart) { parts.front.append(chart.element); parts.front.hidden = false; }

  function connect(part, read, write) {
    part.slider.addEventListener("input", () => { write(read(part.slider)); setValue(part.field, shown(part)); show(); ask(part.name); });
    part.field.addEventListener("input", () => { write(valueOf(part.field)); show(); ask(`${part.name} typed`); });
  }
  const shown = (part) => (part === parts.target ? form[form.mode] : Number(part.slider.value));
  const plain = (slider) => Number(slider.value);
  connect(parts.sparsity, plain, (v) => { form.group_sparsity = v; });
  connect(parts.target, (s) => (form.mode === "size_bytes" ? Math.round(fromSlider(s.value, mostOf(form.mode))) : fromSlider(s.value, 1)),
    (v) => { form[form.mode] = v; });
  connect(parts.low, plain, (v) => { form.bits = [v, form.bits[1]]; });
  connect(parts.high, plain, (v) => { form.bits = [form.bits[0], v]; });
  connect(parts.inputLow, plain, (v) => { form.activation_bits = [v, form.activation_bits[1]]; });
  connect(parts.inputHigh, plain, (v) => { form.activation_bits = [form.activation_bits[0], v]; });
  connect(parts.round, plain, (v) => { form.round_to = v; });
  parts.mode.addEventListener("change", () => {
    const before = model.get("result");
    form.mode = parts.mode.value;
    // a mode begins where the one before has come to, so that nothing jumps
    if (form.mode === "group_sparsity") form.group_sparsity ??= Number(before.group_sparsity.toPrecision(3));
    else form[form.mode] ??= Number((form.mode === "size_bytes" ? Math.ceil(before.totals.size_bytes) : Math.min(1, before.totals.relative_bops * 1.0005)).toPrecision(4));
    show();
    ask(null);
  });
  parts.search.addEventListener("input", () => table.filter(parts.search.value));
  parts.copy.addEventListener("click", async () => {
    const text = parts.code.textContent;
    try { await navigator.clipboard.writeText(text); } catch { window.getSelection().selectAllChildren(parts.code); document.execCommand("copy"); }
    parts.copy.textContent = "Copied";
    setTimeout(() => { parts.copy.textContent = "Copy"; }, 1500);
  });

  /** The controls, from the form alone: they follow the hand without waiting for Python. */
  function show() {
    const target = form.mode !== "group_sparsity", result = model.get("result");
    if (parts.mode.value !== form.mode) parts.mode.value = form.mode;
    const sparsity = target ? result.group_sparsity : form.group_sparsity;
    put(parts.sparsity, sparsity, sparsity === null ? null : Number(sparsity.toPrecision(4)));
    parts.sparsity.words.textContent = target ? "expected group sparsity" : "group sparsity";
    showNotice(target);
    for (const element of parts.target.elements.slice(0, 3)) element.hidden = !target;
    if (target) {
      parts.target.words.textContent = form.mode === "size_bytes" ? "at most this many bytes" : "relative BOPs at most";
      put(parts.target, form[form.mode] === null ? null : toSlider(form[form.mode], mostOf(form.mode)), form[form.mode]);
      parts.target.slider.setAttribute("aria-valuetext", form.mode === "size_bytes" ? bytes(form.size_bytes) : percent(form.relative_bops));
    }
    put(parts.low, form.bits[0]);
    put(parts.high, form.bits[1]);
    put(parts.inputLow, form.activation_bits[0]);
    put(parts.inputHigh, form.activation_bits[1]);
    put(parts.round, form.round_to);
  }

  /** What Python says of a run over this network: while one goes on, nothing here can be changed. */
  function showNotice(target) {
    const { locked, words } = model.get("notice") || {};
    const free = new Set([parts.search, parts.log, ...parts.named.querySelectorAll("input")]);
    for (const input of parts.root.querySelectorAll("input, select")) if (!free.has(input)) input.disabled = Boolean(locked);
    steps.show(model.get("steps"), locked);
    if (target) parts.sparsity.slider.disabled = parts.sparsity.field.disabled = true;
    parts.root.dataset.locked = Boolean(locked);
    parts.notice.hidden = !words;
    if (parts.notice.textContent !== (words || "")) parts.notice.textContent = words || "";
  }

  function put(part, position, value = position) {
    if (position !== null && Number(part.slider.value) !== position) part.slider.value = position;
    if (value !== null) setValue(part.field, value);
  }

  /** What Python answered. */
  function showResult() {
    const result = model.get("result"), errors = result.errors;
    if (result.answers > newest.number) { // another page of the same panel asked: follow it
      newest.number = result.answers;
      form = structuredClone(model.get("form"));
    }
    newest.answered(result.answers);
    const rows = { target: form.mode === "group_sparsity" ? parts.sparsity : parts.target, bits: parts.low, activation_bits: parts.inputLow, round_to: parts.round };
    for (const part of [parts.sparsity, parts.target, parts.low, parts.inputLow, parts.round]) showError(part, null);
    for (const [name, part] of Object.entries(rows)) if (errors[name]) showError(part, errors[name]);
    const inLayers = Object.entries(errors).filter(([name]) => name.startsWith("exceptions.")).map(([, text]) => text);
    if (freed && freed.families.some((family) => (result.kept || []).includes(family))) {
      const others = Object.keys(form.exceptions).filter((pattern) => form.exceptions[pattern].protect);
      inLayers.push(`${freed.name} is still kept by ${others.slice(0, 4).map((pattern) => `"${pattern}"`).join(", ")}`);
    } else freed = null;
    parts.errors.hidden = !inLayers.length;
    parts.errors.textContent = inLayers.join("\n");
    parts.root.dataset.answers = result.answers;
    const totals = result.totals, dense = facts.dense;
    const figures = [["parameters", count, "parameters"], ["size", bytes, "size_bytes"], ["MACs", count, "macs"], ["BOPs", count, "bops"]];
    const shares = figures.map(([words, format, name]) => [words, `${format(totals[name])} (${percent(totals[name] / (dense[name] || 1))})`]);
    shares.push(["relative BOPs", percent(totals.relative_bops)], ["groups removed", percent(result.group_sparsity)]);
    if (totals.relative_bops_full !== totals.relative_bops) shares.splice(5, 0, ["with attention", percent(totals.relative_bops_full)]);
    if (result.rise !== null && result.rise !== undefined) shares.push(["predicted rise", number(result.rise)]);
    if (chart) chart.show(totals.relative_bops, result.rise);
    parts.totals.replaceChildren(...shares.map(([words, value]) => make("div", { class: "gp-fact" }, null, [make("span", {}, words), make("b", {}, value)])));
    parts.assumption.textContent = result.assumption;
    parts.code.textContent = result.code;
    const known = new Set(facts.layers.map((l) => l.pattern)), rest = Object.keys(form.exceptions).filter((p) => !known.has(p));
    parts.patterns.textContent = rest.length ? `also with exceptions, set in Python: ${rest.join(", ")}` : "";
    table.show(form, result);
    show();
    showNamed();
  }

  const showNamed = () => named.show(model.get("columns"), form, model.get("result"), (model.get("notice") || {}).locked);
  const showPlan = () => table.plan(model.get("plan"));

  function showError(part, text) {
    part.error.hidden = !text;
    part.error.textContent = text || "";
    for (const input of [part.slider, part.field]) { if (text) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid"); }
  }

  const onForm = () => {
    const next = model.get("form");
    if (next.sent) return; // this page's own, or another page's that Python will answer
    form = structuredClone(next);
    show();
  };
  const heard = { form: onForm, result: showResult, notice: () => { show(); showNamed(); }, steps: show, columns: showNamed, plan: showPlan };
  for (const [name, act] of Object.entries(heard)) model.on(`change:${name}`, act);
  keepKeys(parts.root);
  el.append(parts.root);
  showResult();
  showPlan();
  if (chart) chart.draw();
  return () => {
    if (chart) chart.end();
    for (const [name, act] of Object.entries(heard)) model.off(`change:${name}`, act);
  };
}

export default { render };
