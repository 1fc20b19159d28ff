// The table of layers: what each costs before and after, and its exceptions, editable.
import { bytes, count, make, number } from "./theme.js";

const MOST = 400;
const COLUMNS = [["parameters", count], ["bytes", bytes], ["MACs", count], ["BOPs", count]];

/** A table over `facts.layers`; `change(pattern, values)` is called when an exception is edited. */
export function layerTable(facts, change) {
  const head = ["layer", "keep", ...(facts.weights ? ["bits"] : []), "sparsity ≤", "now", ...(facts.front ? ["rise"] : []), ...COLUMNS.map((c) => c[0])];
  const table = make("table", { class: "gp-table", "aria-label": "layers and their exceptions" }, null, [
    make("thead", {}, null, [make("tr", {}, null, head.map((words) => make("th", { scope: "col" }, words)))]),
  ]);
  const body = make("tbody");
  const most = COLUMNS.map((_, i) => Math.max(...facts.layers.map((l) => l.dense[i]), 1));
  const rows = facts.layers.slice(0, MOST).map((layer) => layerRow(layer, facts, change, most));
  body.append(...rows.map((row) => row.element));
  table.append(body);
  return {
    element: table,
    hidden: facts.layers.length - rows.length,
    filter(words) {
      const wanted = words.toLowerCase();
      for (const row of rows) row.element.hidden = !row.layer.name.toLowerCase().includes(wanted);
    },
    show(form, result) { for (const row of rows) row.show(form, result); },
  };
}

function numberField(label, attributes) {
  return make("input", { type: "number", "aria-label": label, ...attributes });
}

function layerRow(layer, facts, change, most) {
  const name = make("td", { class: "gp-name", title: layer.name }, null, [make("bdi", {}, layer.name)]);
  const keep = make("input", { type: "checkbox", "aria-label": `keep all groups of ${layer.name}` });
  const low = numberField(`fewest bits of ${layer.name}`, { min: 2, max: 32, step: 1 });
  const high = numberField(`most bits of ${layer.name}`, { min: 2, max: 32, step: 1 });
  const share = numberField(`most sparsity of ${layer.name}`, { min: 0, max: 1, step: 0.05 });
  const now = make("td", {}), rise = make("td", { class: "gp-rise" });
  const cells = [name, make("td", {}, null, layer.prunable ? [keep] : [])];
  if (facts.weights) cells.push(make("td", {}, null, layer.quantized ? [low, " – ", high] : []));
  cells.push(make("td", {}, null, layer.prunable ? [share] : []), now, ...(facts.front ? [rise] : []));
  const bars = COLUMNS.map(([, format], i) => barCell(format, layer.dense[i], most[i]));
  const element = make("tr", { "data-layer": layer.name }, null, [...cells, ...bars.map((b) => b.cell)]);
  let others = {};
  const edited = () => {
    const pair = low.value === "" && high.value === "" ? null : [valueOf(low), valueOf(high)];
    change(layer.pattern, { ...others, protect: keep.checked, bit_range: pair, max_sparsity: share.value === "" ? null : valueOf(share) });
  };
  for (const input of [keep, share]) input.addEventListener("change", edited);
  for (const input of [low, high]) input.addEventListener("change", () => {
    const other = input === low ? high : low;
    if (input.value !== "" && other.value === "") other.value = other.placeholder;
    if (input.value === "" && other.value !== "") other.value = "";
    edited();
  });
  return {
    element, layer,
    show(form, result) {
      const own = form.exceptions[layer.pattern] || {};
      others = own.activation_bit_range ? { activation_bit_range: own.activation_bit_range } : {};
      keep.checked = Boolean(own.protect);
      setValue(share, own.max_sparsity ?? "");
      setValue(low, own.bit_range ? own.bit_range[0] : "");
      setValue(high, own.bit_range ? own.bit_range[1] : "");
      low.placeholder = form.bits[0];
      high.placeholder = form.bits[1];
      const wrong = result.errors[`exceptions.${layer.pattern}`];
      for (const input of [low, high, share]) { if (wrong) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid"); }
      element.title = wrong || "";
      const figures = result.layers[layer.name] || [0, 0, 0, 0, null];
      bars.forEach((bar, i) => bar.show(figures[i]));
      if (facts.front) {
        const parts = Object.entries((result.rises || {})[layer.name] || {});
        rise.textContent = parts.length ? number(parts.reduce((sum, [, value]) => sum + value, 0)) : "";
        rise.title = parts.map(([words, value]) => `${words}: ${number(value)}`).join("\n");
      }
      now.textContent = figures[4] === null || figures[4] === undefined ? "–" : `${number(figures[4])} bit`;
    },
  };
}

function barCell(format, dense, most) {
  const before = make("i"), after = make("i"), words = make("span", { class: "gp-figure" });
  before.style.width = `${(100 * dense) / most}%`;
  const cell = make("td", { title: `before: ${format(dense)}` }, null, [make("span", { class: "gp-bar" }, null, [before, after]), words]);
  return {
    cell,
    show(value) {
      const width = `${((100 * value) / most).toFixed(2)}%`;
      if (after.style.width !== width) after.style.width = width;
      const text = format(value);
      if (words.textContent !== text) words.textContent = text;
    },
  };
}

export function valueOf(input) {
  return input.value.trim() === "" ? null : Number(input.value);
}

/** Write a value, but never under the hands of who is typing it. */
export function setValue(input, value) {
  if (document.activeElement === input || input.value === String(value)) return;
  input.value = value;
}
