// The table of layers: what each costs before and after, and its exceptions, editable.
import { isKept } from "./keep.js";
import { shortNames } from "./names.js";
import { barScale } from "./scale.js";
import { bytes, count, make, number } from "./theme.js";

const MOST = 400;
const COLUMNS = [["parameters", count], ["bytes", bytes], ["MACs", count], ["BOPs", count]];
const TITLES = {
  keep: "keep all groups of the layer's families: all layers that make them are ticked with it", channels: "channels kept / channels before",
  now: "bits of the weights, as this budget is priced", run: "what the last run over this network gave the layer",
};

/** A table over `facts.layers`; `change(pattern, values)` is called when an exception is edited, `keep(layer, on)` when a tick is. */
export function layerTable(facts, change, keep) {
  const head = ["layer", "keep", "channels", ...(facts.weights ? ["bits"] : []), "sparsity ≤", "now", "run", ...(facts.front ? ["rise"] : []), ...COLUMNS.map((c) => c[0])];
  const cells = head.map((words) => make("th", { scope: "col", "data-column": words, title: TITLES[words] || null }, words));
  const table = make("table", { class: "gp-table gp-layers", "aria-label": "layers and their exceptions" }, null, [make("thead", {}, null, [make("tr", {}, null, cells)])]);
  const body = make("tbody");
  const shown = facts.layers.slice(0, MOST), short = shortNames(shown.map((layer) => layer.name));
  const rows = shown.map((layer, i) => layerRow(layer, short[i], facts, change, keep));
  body.append(...rows.map((row) => row.element));
  table.append(body);
  const scales = (log) => COLUMNS.map((_, i) => barScale(facts.layers.map((l) => l.dense[i]), log));
  const table_ = {
    element: table,
    hidden: facts.layers.length - rows.length,
    filter(words) {
      const wanted = words.toLowerCase();
      for (const row of rows) row.element.hidden = !row.layer.name.toLowerCase().includes(wanted);
    },
    /** Draw the bars by the values, or by their logarithms. */
    scale(log) { const found = scales(log); for (const row of rows) row.scale(found); },
    tick(kept) { for (const row of rows) row.tick(kept); },
    show(form, result) { const kept = new Set(result.kept || []); for (const row of rows) { row.show(form, result); row.tick(kept); } },
    /** What a run that has ended gave each layer: layer -> [words, why]. */
    plan(plan) {
      table.classList.toggle("gp-has-run", Object.keys(plan || {}).length > 0);
      for (const row of rows) row.plan((plan || {})[row.layer.name]);
    },
  };
  table_.scale(true);
  return table_;
}

function numberField(label, attributes) {
  return make("input", { type: "number", "aria-label": label, ...attributes });
}

function layerRow(layer, short, facts, change, keepIt) {
  const name = make("th", { class: "gp-name", scope: "row", title: layer.name, "aria-label": layer.name }, null, [make("bdi", {}, short)]);
  const families = layer.families.map((family) => facts.families[family]).join(", ");
  const keep = make("input", { type: "checkbox", "aria-label": `keep all groups of ${layer.name}`, title: families ? `keeps the whole family: ${families}` : null });
  const low = numberField(`fewest bits of ${layer.name}`, { min: 2, max: 32, step: 1 });
  const high = numberField(`most bits of ${layer.name}`, { min: 2, max: 32, step: 1 });
  const share = numberField(`most sparsity of ${layer.name}`, { min: 0, max: 1, step: 0.05 });
  const now = make("td", {}), run = make("td", { class: "gp-run" }), rise = make("td", { class: "gp-rise" }), channels = make("td", { class: "gp-channels" });
  const cells = [name, make("td", {}, null, layer.prunable ? [keep] : []), channels];
  if (facts.weights) cells.push(make("td", { class: "gp-bits" }, null, layer.quantized ? [low, "–", high] : []));
  cells.push(make("td", {}, null, layer.prunable ? [share] : []), now, run, ...(facts.front ? [rise] : []));
  const bars = COLUMNS.map(([, format], i) => barCell(format, layer.dense[i]));
  const element = make("tr", { "data-layer": layer.name }, null, [...cells, ...bars.map((b) => b.cell)]);
  let own = {};
  const edited = () => {
    const pair = low.value === "" && high.value === "" ? null : [valueOf(low), valueOf(high)];
    const others = own.activation_bit_range ? { activation_bit_range: own.activation_bit_range } : {};
    change(layer.pattern, { ...others, protect: Boolean(own.protect), bit_range: pair, max_sparsity: share.value === "" ? null : valueOf(share) });
  };
  keep.addEventListener("change", () => keepIt(layer, keep.checked));
  share.addEventListener("change", edited);
  for (const input of [low, high]) input.addEventListener("change", () => {
    const other = input === low ? high : low;
    if (input.value !== "" && other.value === "") other.value = other.placeholder;
    if (input.value === "" && other.value !== "") other.value = "";
    edited();
  });
  return {
    element, layer,
    tick(kept) {
      const whole = isKept(layer, kept);
      keep.checked = whole === true;
      keep.indeterminate = whole === null;
    },
    scale(scales) { bars.forEach((bar, i) => bar.scale(scales[i])); },
    plan(found) {
      const [words, why] = found || ["", ""];
      if (run.textContent !== words) run.textContent = words;
      run.title = why;
    },
    show(form, result) {
      own = form.exceptions[layer.pattern] || {};
      setValue(share, own.max_sparsity ?? "");
      setValue(low, own.bit_range ? own.bit_range[0] : "");
      setValue(high, own.bit_range ? own.bit_range[1] : "");
      low.placeholder = form.bits[0];
      high.placeholder = form.bits[1];
      const wrong = result.errors[`exceptions.${layer.pattern}`];
      for (const input of [low, high, share]) { if (wrong) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid"); }
      element.title = wrong || "";
      const figures = result.layers[layer.name] || [0, 0, 0, 0, null, null];
      bars.forEach((bar, i) => bar.show(figures[i]));
      write(channels, channelWords(figures[5], layer.channels));
      if (facts.front) {
        const parts = Object.entries((result.rises || {})[layer.name] || {});
        write(rise, parts.length ? number(parts.reduce((sum, [, value]) => sum + value, 0)) : "");
        rise.title = parts.map(([words, value]) => `${words}: ${number(value)}`).join("\n");
      }
      write(now, figures[4] === null || figures[4] === undefined ? "–" : `${number(figures[4])} bit`);
    },
  };
}

/** How many channels are kept, of how many. */
export function channelWords(kept, dense) {
  if (dense === null || dense === undefined) return "";
  return `${kept ?? 0} / ${dense}`;
}

function write(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

function barCell(format, dense) {
  const before = make("i"), after = make("i"), words = make("span", { class: "gp-figure" });
  const cell = make("td", { class: "gp-cost", title: `before: ${format(dense)}` }, null, [words, make("span", { class: "gp-bar", "aria-hidden": "true" }, null, [before, after])]);
  let last = 0, length = () => 0;
  const draw = () => {
    const width = `${(100 * length(last)).toFixed(2)}%`;
    if (after.style.width !== width) after.style.width = width;
    after.style.minWidth = last > 0 ? "" : "0";
  };
  return {
    cell,
    scale(next) {
      length = next;
      before.style.width = `${(100 * length(dense)).toFixed(2)}%`;
      before.style.minWidth = dense > 0 ? "" : "0";
      draw();
    },
    show(value) {
      last = value;
      draw();
      write(words, format(value));
    },
  };
}

export function valueOf(input) {
  return input.value.trim() === "" ? null : Number(input.value);
}

/** Write a value, but never under the hands of who is typing it. */
export function setValue(input, value) {
  if ((document.activeElement === input && !input.dataset.free) || input.value === String(value)) return;
  input.value = value;
}

/** Let the next values be written into the field that has the focus, until somebody types there: its own value was taken back. */
export function freeFocus() {
  const input = document.activeElement;
  if (!input || input.tagName !== "INPUT") return;
  input.dataset.free = "true";
  input.addEventListener("input", () => delete input.dataset.free, { once: true });
}
