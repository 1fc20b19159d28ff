import assert from "node:assert/strict";
import test from "node:test";
import { viridis } from "../src/colours.js";
import { Notes } from "../src/notes.js";
import { Values, overlayScheme, scaleOf, word } from "../src/overlay.js";
import { graphOf } from "./graph.test.mjs";

const HUES = ["b", "o", "g", "s", "v", "p", "y", "grey"];
const graph = graphOf(["", "m"], Array.from({ length: 12 }, (_, i) => [`op${i}`, "m"]), []);
const scheme = (overlay) => overlayScheme({ graph, hues: HUES }, { name: "mine", unit: "", odd: {}, ...overlay }, viridis);

test("numbers have a scale from the least to the largest, and what has none is grey", () => {
  const made = scheme({ kind: "numbers", nodes: [0, 1, 2], values: [1, 2, 3] });
  assert.deepEqual([0, 1, 2].map(made.of), [0, 0.5, 1].map(viridis));
  assert.deepEqual([made.of(3), made.word(3), made.word(1)], [null, "no value", "2"]);
  assert.deepEqual([made.scale.from, made.scale.to], ["1", "3"]);
});

test("where some are negative, zero is the grey in the middle and both sides have their hue", () => {
  const made = scheme({ kind: "numbers", nodes: [0, 1, 2, 3], values: [-2, 0, 1, 2] });
  assert.deepEqual([0, 1, 3].map(made.of), ["rgb(33,102,172)", "rgb(150,150,150)", "rgb(178,24,43)"]);
  const parts = scaleOf([-1, 3], viridis);
  assert.equal(parts.steps[0], parts.colour(-1));
  assert.equal(parts.steps[4], parts.colour(3));
});

test("numbers over three decades are on a logarithmic scale, and the legend says so", () => {
  const made = scheme({ kind: "numbers", nodes: [0, 1, 2], values: [1e-4, 1e-2, 1] });
  assert.equal(made.of(1), viridis(0.5));
  assert.match(made.scale.to, /log/);
  assert.equal(scheme({ kind: "numbers", nodes: [0, 1], values: [0, 5000] }).scale.to, "5k");
});

test("one number, or equal ones, have a colour too", () => {
  assert.equal(scheme({ kind: "numbers", nodes: [0, 1], values: [7, 7] }).of(0), viridis(0.5));
});

test("what is not finite has a colour and a word of its own, and is counted", () => {
  const made = scheme({ kind: "numbers", nodes: [0, 1, 2], values: [1, null, null], odd: { 1: "NaN", 2: "-inf" } });
  assert.deepEqual([made.of(1), made.word(1), made.word(2)], ["p", "NaN", "-inf"]);
  assert.deepEqual(made.legend[0], ["p", "NaN or infinite (2)"]);
  const none = scheme({ kind: "numbers", nodes: [0], values: [null], odd: { 0: "inf" } });
  assert.deepEqual([none.of(0), none.scale], ["p", undefined]);
});

test("texts are categories, the commonest first; more than there are hues are one", () => {
  const few = scheme({ kind: "texts", nodes: [0, 1, 2], values: ["x", "y", "y"] });
  assert.deepEqual(few.legend.slice(0, 2), [["b", "y"], ["o", "x"]]);
  const many = scheme({ kind: "texts", nodes: [...Array(12).keys()], values: Array.from({ length: 12 }, (_, i) => `t${i}`) });
  assert.deepEqual([many.of(0), many.of(11), many.legend[7]], ["b", null, ["grey", "5 others"]]);
});

test("numbers are written with three digits", () => {
  const cases = [[0.01234, "0.0123"], [12345, "12.3k"], [0, "0"], [-2.5, "-2.5"], [1e-7, "1.0e-07"], [3e20, "3e+20"], [2, "2"]];
  for (const [value, text] of cases) assert.equal(word(value), text);
  assert.deepEqual([word(1.5, "ms"), word("head"), word(null)], ["1.5 ms", "head", "–"]);
});

test("a node of another layer has the value of the vertex that it serves", () => {
  const served = graphOf(["", "m"], [["a", "m"], ["b", "m"]], []);
  served.data.nodes.vertex = [1, 1];
  const made = overlayScheme({ graph: served, hues: HUES }, { kind: "texts", nodes: [1], values: ["x"], odd: {}, unit: "" }, viridis);
  assert.equal(made.of(0), "b");
  assert.equal(new Values({ nodes: [1], values: ["x"], odd: {} }).word(0), "");
});

test("a closed module says the value that all it runs has, and no other", () => {
  const net = graphOf(["", "m", "n"], [["a", "m"], ["b", "m"], ["c", "n"], ["d", "n"]], [[0, 1], [1, 2], [2, 3]]);
  const [m, n] = net.picture("QADG").root.children;
  const notes = new Notes({ graph: net, steps: null, values: new Values({ nodes: [0, 1, 2, 3], values: [2, 2, 1, 2], odd: {}, unit: "ms" }) });
  assert.deepEqual([notes.words(m), notes.words(n), notes.words(m.children[0])], ["2 ms", "", "2 ms"]);
});
