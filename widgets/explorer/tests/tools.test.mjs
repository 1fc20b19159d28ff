import assert from "node:assert/strict";
import test from "node:test";
import { labelsOf } from "../src/edgelabels.js";
import { neighbours } from "../src/facts.js";
import { codesOf, sightOf, valueOf } from "../src/histogram.js";
import { answering, asking } from "../src/host.js";
import { LayoutEngine } from "../src/layout.js";
import { remembered } from "../src/search.js";
import { cellsOf } from "../src/strip.js";
import { short, unpack } from "../src/svg.js";
import { SvgContext, escapeXml } from "../src/svgcontext.js";
import { graphOf } from "./graph.test.mjs";

const PATHS = ["", "a", "a.x", "a.y", "b"];
const ROWS = [["input", ""], ["conv", "a.x"], ["relu", "a.x"], ["conv", "a.y"], ["add", "a"], ["linear", "b"]];
const EDGES = [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4], [4, 5]];

test("who feeds and who reads a vertex, and a module as a whole", () => {
  const graph = graphOf(PATHS, ROWS, EDGES);
  const picture = graph.picture("QADG");
  const nodes = (item) => {
    const { sources, readers } = neighbours(graph, "QADG", item);
    return [sources.map(({ node }) => node), readers.map(({ node }) => node)];
  };
  assert.deepEqual(nodes(picture.leaves.get(4)), [[0, 3], [5]]);
  assert.deepEqual(nodes(picture.root.children[1]), [[0], [5]]);
  assert.deepEqual(nodes(picture.root), [[], []]);
  assert.equal(neighbours(graph, "QADG", picture.leaves.get(4)).sources[0].shape, "8");
});

test("the edges of a vertex bear the shapes that pass along them, at its own end", () => {
  const graph = graphOf(PATHS, ROWS, EDGES);
  const picture = graph.picture("QADG");
  for (const box of picture.boxes) box.open = true;
  new LayoutEngine(() => 80).run(picture.root);
  const leaf = picture.leaves.get(3);
  const labels = labelsOf(graph, "QADG", leaf);
  assert.deepEqual(labels.map(({ words }) => words), ["8", "8"]);
  const [, top] = leaf.parent.layout.places[leaf.place];
  assert.ok(labels.some(({ at }) => at[1] < top) && labels.some(({ at }) => at[1] > top + leaf.h), "one above, one below");
});

test("a quantizer's codes follow from its bits, sign and range", () => {
  const grid = (bits, more) => ({ clip: 1.5, exponent: 1, signed: true, narrow: true, step: 1.5 / (2 ** (bits - 1) - 1), ...more });
  assert.deepEqual(codesOf(grid(4)), { count: 15, lowest: -7, highest: 7 });
  assert.deepEqual(codesOf(grid(4, { narrow: false })), { count: 16, lowest: -8, highest: 7 });
  assert.deepEqual(codesOf({ ...grid(4), signed: false, step: 1.5 / 15 }), { count: 16, lowest: 0, highest: 15 });
  assert.equal(codesOf(grid(16)).count, 65535);
  const bent = { clip: 1.5, exponent: 0.5, signed: true, narrow: true, step: 1.5 ** 0.5 / 7 };
  assert.deepEqual([codesOf(bent).count, Number(valueOf(7, bent).toFixed(9)), valueOf(-7, bent) < 0], [15, 1.5, true]);
  assert.ok(Math.abs(Math.round(Math.abs(valueOf(3, bent)) ** 0.5 / bent.step) - 3) === 0, "the value of a code is rounded to that code");
});

test("the range of the picture holds all values and the whole grid", () => {
  const [left, right] = sightOf({ low: -0.2, high: 3, grid: { clip: 1, step: 1, exponent: 1, signed: true, narrow: true } });
  assert.ok(left < -1 && right > 3);
  const [one, other] = sightOf({ low: 2, high: 2 });
  assert.ok(one < 2 && other > 2, "of a constant too");
});

test("cells tell which groups they stand for, without gap or overlap", () => {
  const bytes = (list) => btoa(String.fromCharCode(...list));
  const cells = cellsOf({ n: 10, high: 4, levels: bytes([0, 128, 255]), kept: bytes([0, 255, 255]) });
  assert.deepEqual(cells.map(({ from, to }) => [from, to]), [[0, 3], [3, 6], [6, 10]]);
  assert.deepEqual([cells[0].score, cells[2].score, cells[0].kept, cells[0].fading], [0, 4, 0, 0]);
  assert.ok(Math.abs(cells[1].score - 4 * (128 / 255) ** 2) < 1e-12);
  assert.deepEqual(unpack(""), []);
});

test("short numbers keep three digits", () => {
  assert.deepEqual([0, 1, -0.01234, 123.456, 0.0000123, 1e7].map(short), ["0", "1", "−0.0123", "123", "1.2e−5", "1.0e+7"]);
});

test("earlier searches: the last first, each once, and not without end", () => {
  assert.deepEqual(remembered(["a", "b"], "b"), ["b", "a"]);
  assert.equal(Array.from({ length: 50 }, (_, i) => `q${i}`).reduce(remembered, []).length, 12);
});

test("names are escaped in a picture, and what XML forbids is replaced", () => {
  assert.equal(escapeXml(`<img onerror="x" a='b'>&\u0000`), "&lt;img onerror=&quot;x&quot; a=&#39;b&#39;&gt;&amp;\ufffd");
  const context = new SvgContext(10, 10, null);
  context.fillStyle = 'red"/><script>';
  context.fillText("</text><script>alert(1)</script>", 1, 2);
  const text = context.toString("</title><script>");
  assert.ok(!text.includes("<script"));
  assert.equal((text.match(/<text/g) ?? []).length, 1);
});

test("paths, transforms, clips and opacity become vectors at the same places", () => {
  const context = new SvgContext(100, 50, null);
  context.setTransform(2, 0, 0, 2, 10, 20);
  context.globalAlpha = 0.5;
  context.fillStyle = "rgba(1,2,3,.5)";
  context.save();
  context.beginPath();
  context.rect(0, 0, 5, 5);
  context.clip();
  context.fillRect(1, 2, 3, 4);
  context.restore();
  context.strokeStyle = "#00f";
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(0, 0);
  context.arcTo(10, 0, 10, 10, 4);
  context.lineTo(10, 10);
  context.stroke();
  const text = context.toString("t");
  assert.match(text, /<path d="M12 24L18 24L18 32L12 32Z" fill="rgb\(1,2,3\)" fill-opacity="0.25"\/>/);
  assert.match(text, /<path d="M10 20L22 20A8 8 0 0 1 30 28L30 40" fill="none" stroke="#00f" stroke-opacity="0.5" stroke-width="2" stroke-dasharray="8 6"\/>/);
  assert.match(text, /<clipPath id="clip0"><path d="M10 20L20 20L20 30L10 30Z"\/><\/clipPath>/);
  assert.equal((text.match(/<g/g) ?? []).length, (text.match(/<\/g>/g) ?? []).length);
});

test("a full circle is drawn by two arcs", () => {
  const context = new SvgContext(10, 10, null);
  context.beginPath();
  context.arc(5, 5, 2, 0, 7);
  context.fill();
  assert.match(context.toString("t"), /M7 5A2 2 0 0 1 3 5A2 2 0 0 1 7 5/);
});

test("an answer goes to the question with its key, whatever the order", async () => {
  const heard = [];
  const sent = [];
  const undo = [];
  const model = { on: (_, act) => heard.push(act), off: (_, act) => heard.splice(heard.indexOf(act), 1), send: (message) => sent.push(message) };
  const ask = asking(model, undo);
  const answers = [ask({ vertex: 1, family: null }), ask({ vertex: 2, family: 0 })];
  for (const message of [{ kind: "other" }, { kind: "details", key: "another view's", weight: "no" }, { kind: "details", key: sent[1].key, weight: "two" }, { kind: "details", key: sent[0].key, weight: "one" }]) heard[0](message);
  assert.deepEqual((await Promise.all(answers)).map(({ weight }) => weight), ["one", "two"]);
  assert.deepEqual([sent[0].kind, sent[0].vertex, sent[1].family], ["details", 1, 0]);
  undo.forEach((act) => act());
  assert.equal(heard.length, 0);
});

test("a page answers from what it brought along, and one without has nothing to say", async () => {
  const ask = answering({ attributes: { texts: [[["stride", "1"]]], of: { 3: 0 } }, vertices: { 3: { weight: { n: 1 } } }, strips: [{ n: 8 }] });
  assert.deepEqual(await ask({ vertex: 3, family: 0 }), { attributes: [["stride", "1"]], weight: { n: 1 }, strip: { n: 8 } });
  assert.deepEqual(await ask({ vertex: 4, family: null }), { attributes: undefined, strip: undefined });
  assert.deepEqual(await answering(undefined)({ vertex: 3, family: 0 }), {});
});
