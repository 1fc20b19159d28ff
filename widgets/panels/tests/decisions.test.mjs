// Decisions in the panel without a browser: what is one step, short names, families, bars, and budgets beside each other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Acts, stepOfKey } from "../src/history.js";
import { isEmpty, isKept, keepFamilies } from "../src/keep.js";
import { channelWords } from "../src/layers.js";
import { changeWords, exceptionWords, rowsOf } from "../src/named.js";
import { NAME_SIGNS, cutMiddle, shortNames } from "../src/names.js";
import { barScale } from "../src/scale.js";

const bert = Array.from({ length: 12 }, (_, i) => ["attention.self.query", "attention.self.key", "attention.self", "attention.output.dense", "intermediate.dense",
  "output.dense"].map((part) => `encoder.layer.${i}.${part}`)).flat().concat("embeddings.word_embeddings", "pooler.dense");

test("changes of one control in one go are one act, a click is always one of its own", () => {
  let time = 0;
  const acts = new Acts(() => time, "page");
  const seen = [];
  for (const [control, later] of [["a", 0], ["a", 500], ["a", 900], ["b", 10], ["b", 5000], [null, 1], [null, 1], ["a", 1]]) {
    time += later;
    seen.push(acts.of(control));
  }
  assert.deepEqual(seen, ["page.1", "page.1", "page.1", "page.2", "page.3", "page.4", "page.5", "page.6"]);
});

test("keys of undo and redo, which a field of words keeps for itself", () => {
  const key = (k, more = {}, target = { tagName: "INPUT", type: "range" }) => stepOfKey({ key: k, ctrlKey: true, metaKey: false, altKey: false, shiftKey: false, target, ...more });
  assert.equal(key("z"), "undo");
  assert.equal(key("Z", { shiftKey: true }), "redo");
  assert.equal(key("y"), "redo");
  assert.equal(key("z", { ctrlKey: false, metaKey: true }, { tagName: "DIV" }), "undo");
  for (const event of [key("z", { ctrlKey: false }), key("z", { altKey: true }), key("x"), key("z", {}, { tagName: "INPUT", type: "search" }), key("z", {}, { tagName: "INPUT", type: "text" })]) assert.equal(event, null);
});

test("names are cut in the middle, and what differs stays", () => {
  const short = shortNames(bert);
  assert.equal(short[0], "enc…0.attention.self.query");
  assert.equal(short[5], "enc…0.output.dense");
  assert.equal(new Set(short).size, bert.length);
  assert.ok(short.every((text) => [...text].length <= NAME_SIGNS));
  assert.deepEqual(short.slice(-2), ["embeddings.word_embeddings", "pooler.dense"]);
  for (const name of bert) assert.ok(short[bert.indexOf(name)].endsWith(name.split(".").at(-1)));
});

test("names that fit are left alone, and names that would become one keep all that they have", () => {
  assert.deepEqual(shortNames(["0", "3", "head.fc"]), ["0", "3", "head.fc"]);
  const alike = ["a".repeat(60) + "1" + "b".repeat(60), "a".repeat(60) + "2" + "b".repeat(60)];
  assert.deepEqual(shortNames(alike), alike);
  assert.deepEqual(shortNames(["🦋".repeat(40)]), [cutMiddle("🦋".repeat(40), NAME_SIGNS)]);
  assert.deepEqual(shortNames(["", "a..b", "."]), ["", "a..b", "."]);
  assert.equal(cutMiddle("abcdefghij", 7), "ab…ghij");
});

const LAYERS = [{ pattern: "q", families: [0] }, { pattern: "k", families: [0] }, { pattern: "mha", families: [0, 1] }, { pattern: "fc", families: [] }];
const MAKERS = [["q", "q.weight", "k", "k.weight"], ["v", "v.weight"]];

test("a tick keeps the whole family, and taking any of its ticks away lets it go", () => {
  const exceptions = {};
  keepFamilies(exceptions, LAYERS[0], MAKERS, true);
  assert.deepEqual(exceptions, { q: { protect: true } });
  exceptions.q.bit_range = [8, 8];
  exceptions["k.weight"] = { protect: true, max_sparsity: null };
  keepFamilies(exceptions, LAYERS[1], MAKERS, false);
  assert.deepEqual(exceptions, { q: { protect: false, bit_range: [8, 8] } });
  exceptions["enc.*"] = { protect: true };
  keepFamilies(exceptions, LAYERS[0], MAKERS, false);
  assert.deepEqual(exceptions["enc.*"], { protect: true });
});

test("a layer of several families is half ticked where only some are kept", () => {
  assert.deepEqual(LAYERS.map((layer) => isKept(layer, new Set([0]))), [true, true, null, false]);
  assert.deepEqual(LAYERS.map((layer) => isKept(layer, new Set())), [false, false, false, false]);
  assert.equal(isKept(LAYERS[2], new Set([0, 1])), true);
  assert.deepEqual([isEmpty({}), isEmpty({ max_sparsity: 0 }), isEmpty({ protect: false, bit_range: null })], [true, false, true]);
});

test("on a logarithmic scale a layer of a thousandth is seen, on a plain one lengths are values", () => {
  const values = [1e6, 1e3, 0], plain = barScale(values, false), log = barScale(values, true);
  assert.deepEqual([plain(1e6), plain(5e5), plain(0)], [1, 0.5, 0]);
  assert.ok(log(1e3) > 0.2 && plain(1e3) < 0.01);
  assert.ok(log(1e6) === 1 && log(0) === 0 && log(1e3 / 8) > 0 && log(1e3 / 8) < log(1e3));
  assert.deepEqual([barScale([0, 0], true)(0), barScale([], false)(3)], [0, 0]);
});

const form = (more = {}) => ({ mode: "group_sparsity", group_sparsity: 0.5, relative_bops: null, size_bytes: null, bits: [4, 16], activation_bits: [4, 16], round_to: 1, allocation: "joint", exceptions: {}, ...more });
const totals = (bops) => ({ parameters: 1000, size_bytes: 500, macs: 2000, bops, relative_bops: bops / 1e6 });
const column = (own, bops, rise = null) => ({ form: own, totals: totals(bops), group_sparsity: 0.5, rise });

test("budgets stand beside each other, and what differs from the present one is marked, costs with by how much", () => {
  const other = form({ mode: "relative_bops", relative_bops: 0.05, bits: [8, 8], exceptions: { head: { protect: true } } });
  const rows = new Map(rowsOf([column(form(), 1e5), column(form(), 1e5), column(other, 5e4)]).map(([words, cells]) => [words, cells]));
  assert.deepEqual(rows.get("prune until").map((c) => [c.text, c.differs]), [["50 % of the groups", false], ["50 % of the groups", false], ["5 % of the BOPs", true]]);
  assert.deepEqual(rows.get("weight bits").map((c) => c.text), ["4 – 16", "4 – 16", "8"]);
  assert.deepEqual(rows.get("head").map((c) => [c.text, c.differs]), [["–", false], ["–", false], ["keep", true]]);
  assert.deepEqual(rows.get("BOPs").map((c) => c.change), [null, null, -0.5]);
  assert.deepEqual(rows.get("MACs").map((c) => c.differs), [false, false, false]);
  assert.equal(rows.has("predicted rise"), false);
  assert.equal(rowsOf([column(form(), 1, 0.5)]).at(-1)[0], "predicted rise");
  assert.equal(rowsOf([column(form(), 1)], { weights: false, activations: false }).some(([words]) => words.endsWith(" bits")), false);
});

test("changes, exceptions and channels in words", () => {
  assert.deepEqual([changeWords(0.1234), changeWords(-0.5), changeWords(0.004)], ["+12 %", "−50 %", "+0.4 %"]);
  assert.equal(exceptionWords({ protect: true, bit_range: [8, 8], activation_bit_range: [4, 8], max_sparsity: 0 }), "keep, 8 bit, inputs 4 – 8 bit, sparsity ≤ 0");
  assert.equal(exceptionWords(undefined), "–");
  assert.deepEqual([channelWords(384, 768), channelWords(null, 8), channelWords(3, null)], ["384 / 768", "0 / 8", ""]);
});
