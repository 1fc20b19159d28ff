// Budgets under names, in columns beside the present one; what differs from it is marked.
import { cutMiddle } from "./names.js";
import { bytes, count, make, number, percent } from "./theme.js";

const bitsOf = (pair) => (pair[0] === pair[1] ? `${pair[0]}` : `${pair[0]} – ${pair[1]}`);

function targetOf(form) {
  if (form.mode === "size_bytes") return `${bytes(form.size_bytes)} at most`;
  return form.mode === "relative_bops" ? `${percent(form.relative_bops)} of the BOPs` : `${percent(form.group_sparsity)} of the groups`;
}

/** An exception in words. */
export function exceptionWords(own) {
  if (!own) return "–";
  const words = [];
  if (own.protect) words.push("keep");
  if (own.bit_range) words.push(`${bitsOf(own.bit_range)} bit`);
  if (own.activation_bit_range) words.push(`inputs ${bitsOf(own.activation_bit_range)} bit`);
  if ((own.max_sparsity ?? null) !== null) words.push(`sparsity ≤ ${number(own.max_sparsity)}`);
  return words.join(", ") || "–";
}

/** Rows of [words, cells, isCost] over `columns` ({form, totals, group_sparsity, rise}), the first of which is the present budget. A cell is
 * {text, differs, change}: `differs` from the first, and for a cost by how much, as a share. */
export function rowsOf(columns, { weights = true, activations = true } = {}) {
  const patterns = [...new Set(columns.flatMap(({ form }) => Object.keys(form.exceptions)))];
  const settings = [
    ["prune until", ({ form }) => targetOf(form)], ...(weights ? [["weight bits", ({ form }) => bitsOf(form.bits)]] : []),
    ...(activations ? [["input bits", ({ form }) => bitsOf(form.activation_bits)]] : []),
    ["channels a multiple of", ({ form }) => String(form.round_to)], ["allocation", ({ form }) => form.allocation],
    ...patterns.map((pattern) => [pattern, ({ form }) => exceptionWords(form.exceptions[pattern])]),
  ];
  const costs = [["parameters", "parameters", count], ["size", "size_bytes", bytes], ["MACs", "macs", count], ["BOPs", "bops", count]]
    .map(([words, name, format]) => [words, ({ totals }) => totals[name], format]);
  costs.push(["relative BOPs", ({ totals }) => totals.relative_bops, percent], ["groups removed", ({ group_sparsity: share }) => share, percent]);
  if (columns.some(({ rise }) => rise !== null && rise !== undefined)) costs.push(["predicted rise", ({ rise }) => rise ?? null, number]);
  const told = settings.map(([words, read]) => {
    const texts = columns.map(read);
    return [words, texts.map((text) => ({ text, differs: text !== texts[0], change: null })), false];
  });
  return [...told, ...costs.map(([words, read, format]) => {
    const values = columns.map(read);
    return [words, values.map((value) => {
      const text = format(value), differs = text !== format(values[0]);
      return { text, differs, change: differs && values[0] > 0 && value !== null ? value / values[0] - 1 : null };
    }), true];
  })];
}

/** A change as a share with its sign: "+12 %". */
export function changeWords(share) {
  const value = 100 * share, size = Math.abs(value);
  return `${value < 0 ? "−" : "+"}${size >= 10 ? Math.round(size) : Number(size.toPrecision(2))} %`;
}

/** The part of the panel; `send({action, name})` asks Python. */
export function namedBudgets(facts, send) {
  const name = make("input", { type: "text", maxlength: 40, "aria-label": "name for the present budget", placeholder: "name", "data-testid": "geta-budget-keep-name" });
  const keep = make("button", { type: "button", class: "gp-button", "data-testid": "geta-budget-keep", title: "keep this budget beside the next ones, to compare them" }, "Keep this budget");
  const table = make("table", { class: "gp-table gp-columns", "aria-label": "named budgets beside the present one" });
  const head = make("tr"), body = make("tbody");
  table.append(make("thead", {}, null, [head]), body);
  const scroll = make("div", { class: "gp-scroll gp-columns-scroll", role: "region", tabindex: "0", "aria-label": "named budgets", hidden: "" }, null, [table]);
  const note = make("span", { class: "gp-dim" }, "named budgets stand beside each other here");
  const element = make("div", { class: "gp-named", role: "group", "aria-label": "named budgets", "data-testid": "geta-budget-named" }, null,
    [make("div", { class: "gp-keep" }, null, [name, keep, note]), scroll]);
  const ask = () => { send({ action: "keep", name: name.value.trim() }); name.value = ""; };
  keep.addEventListener("click", ask);
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") ask(); });
  let heads = "";

  function column(own) {
    const use = make("button", { type: "button", class: "gp-mini", title: own.code, "aria-label": `use budget ${own.name}`, "data-testid": "geta-budget-use" }, "Use");
    const drop = make("button", { type: "button", class: "gp-mini", title: `forget ${own.name}`, "aria-label": `forget budget ${own.name}`, "data-testid": "geta-budget-forget" }, "×");
    use.addEventListener("click", () => send({ action: "use", name: own.name }));
    drop.addEventListener("click", () => { send({ action: "forget", name: own.name }); name.focus(); });
    return make("th", { scope: "col" }, null, [make("span", { class: "gp-own", title: own.name }, own.name), " ", use, " ", drop]);
  }

  return {
    element,
    show(columns, form, result, locked) {
      const named = columns || [];
      scroll.hidden = !named.length;
      note.hidden = Boolean(named.length);
      const present = JSON.stringify(named.map((own) => [own.name, own.code]));
      if (present !== heads) {
        head.replaceChildren(make("th", { scope: "col" }, ""), make("th", { scope: "col" }, "now"), ...named.map(column));
        heads = present;
      }
      for (const use of head.querySelectorAll("[data-testid=geta-budget-use]")) use.disabled = Boolean(locked);
      if (!named.length) return;
      const now = { form, totals: result.totals, group_sparsity: result.group_sparsity, rise: result.rise };
      body.replaceChildren(...rowsOf([now, ...named], facts).map(([words, cells, cost]) => make("tr", { class: cost ? "gp-cost" : null }, null, [
        make("th", { scope: "row", title: words }, cutMiddle(words, 30)), ...cells.map(({ text, differs, change }) => {
          const mark = differs ? make("span", { class: "gp-change" }, change === null ? "≠" : changeWords(change)) : "";
          return make("td", differs ? { class: "gp-differs", "data-differs": "true" } : {}, null, [make("span", {}, text), mark]);
        })])));
    },
  };
}
