import assert from "node:assert/strict";
import test from "node:test";
import { Graph, leavesOf, openToFit } from "../src/graph.js";
import { LayoutEngine } from "../src/layout.js";
import { portsOf } from "../src/ports.js";
import { groupWords, shownOf, spread, turnTo } from "../src/stacks.js";
import { uPlaces } from "../src/ushape.js";

const DEPTH = 5;

/** A mask of three plain steps and five equal blocks in a list that never runs, as graph_data.py describes them. */
function network(groups = true) {
  const paths = ["", "layer", ...Array.from({ length: DEPTH }, (_, i) => `layer.${i}`)];
  const rows = [["input", 0, 0], ["arange", 0, 1], ["ge", 0, 1], ["expand", 0, 1]];
  const edges = [[1, 2], [2, 3]];
  let last = 0;
  for (let i = 0; i < DEPTH; i++) {
    const at = rows.length;
    rows.push(["linear", 2 + i, 0], ["attention", 2 + i, 0], ["add", 2 + i, 0]);
    edges.push([last, at], [at, at + 1], [3, at + 1], [at + 1, at + 2], [last, at + 2]);
    last = at + 2;
  }
  rows.push(["output", 0, 0]);
  edges.push([last, rows.length - 1]);
  const texts = [...new Set(rows.map(([operator]) => operator)), "8"];
  const found = [{ kind: "quiet", label: "mask", nodes: [1, 2, 3], modules: [] }, { kind: "stack", label: "layer", nodes: [], modules: paths.slice(2).map((_, i) => i + 2) }];
  const layer = { nodes: rows.map((_, i) => i), edges: edges.flat(), groups: groups ? found : [] };
  const vertices = {};
  rows.forEach(([operator], i) => operator === "linear" && (vertices[i] = { t: [(i - 4) / 3], w: (i - 4) / 3, k: [1, 1, 1, 1] }));
  return new Graph({
    title: "net", texts, layers: { raw: layer, branches: layer, QADG: layer }, vertices, families: [], branches: [], reasons: [],
    tensors: Array.from({ length: DEPTH }, (_, i) => [`w${i}`, [64 - 8 * i, 64], []]),
    modules: { path: paths, type: paths.map((path) => (path === "layer" ? "List" : "Block")), called: paths.map((path) => Number(path !== "layer")) },
    nodes: {
      name: rows.map(([operator], i) => `${operator}_${i}`), op: rows.map(([operator]) => texts.indexOf(operator)), shape: rows.map(() => texts.length - 1),
      module: rows.map(([, module]) => module), branch: rows.map(() => -1), vertex: rows.map((_, i) => i), quiet: rows.map(([, , quiet]) => quiet),
    },
  });
}

const laidOut = (root) => new LayoutEngine((item) => 60 + 3 * (item.name ?? item.label).length).run(root);

test("a list that never runs is left out, its modules keep its name; without groups they stand one by one", () => {
  const { root } = network(false).picture("QADG");
  assert.deepEqual(root.children.map(({ label }) => label), ["input", "arange", "ge", "expand", "layer.0", "layer.1", "layer.2", "layer.3", "layer.4", "output"]);
});

test("plain steps are one quiet box and equal blocks one stack, each where its first stood; nothing is lost", () => {
  const { root, leaves } = network().picture("QADG");
  assert.deepEqual(root.children.map(({ label, group }) => [label, group]), [["input", undefined], ["mask", "quiet"], ["layer", "stack"], ["output", undefined]]);
  assert.equal(root.children[2].children.length, DEPTH);
  assert.equal([...leavesOf(root)].length, leaves.size);
  assert.ok(root.children[1].quiet && !root.children[2].quiet);
});

test("the start shows one block of a stack with what is in it, and leaves plain steps closed", () => {
  const { root } = network().picture("QADG");
  openToFit(root, 60);
  const [, mask, stack] = root.children;
  assert.ok(!mask.open && stack.open && stack.peek === 0 && stack.children[0].open);
  assert.deepEqual(shownOf(stack), [stack.children[0]]);
});

test("what is looked for turns a stack to its block", () => {
  const { root } = network().picture("QADG");
  openToFit(root, 60);
  const stack = root.children[2];
  const leaf = stack.children[3].children[1];
  assert.equal(turnTo(leaf), true);
  assert.equal(stack.peek, 3);
  assert.equal(turnTo(leaf), false);
  laidOut(root);
  assert.equal(stack.layout.only, 3);
});

test("all blocks of an open stack share one layout, however long their names", () => {
  const graph = network();
  const { root, boxes } = graph.picture("QADG");
  const stack = root.children[2];
  for (const box of boxes) box.open = true;
  stack.peek = -1;
  graph.data.nodes.name.forEach((_, i) => i % 2 && (graph.picture("QADG").leaves.get(i).name = "a much longer name than others have"));
  laidOut(root);
  assert.equal(new Set(stack.children.map(({ layout }) => layout)).size, 1);
});

test("a mask to every block is a port at each, and no line; what chains the blocks stays lines", () => {
  const { root } = network().picture("QADG");
  const stack = root.children[2];
  const { edges, ins, tags } = portsOf(stack);
  assert.deepEqual(edges.map(([a, b]) => [a, b]), [[0, 1], [1, 2], [2, 3], [3, 4]]);
  assert.deepEqual(ins, [0]);
  assert.deepEqual(tags.map(([place, words, source]) => [place, words, source]), [0, 1, 2, 3, 4].map((place) => [place, "mask", false]));
});

test("without a stack the source has a port too", () => {
  const graph = network();
  graph.data.layers.QADG.groups.pop();
  const { root } = graph.picture("QADG");
  const { tags } = portsOf(root);
  assert.deepEqual(tags[0].slice(0, 3), [1, `mask → ${DEPTH}`, true]);
  assert.equal(tags.length, DEPTH + 1);
});

test("branches that have no other source keep their lines", () => {
  const children = Array.from({ length: 7 }, (_, place) => ({ leaf: true, name: `n${place}`, place }));
  const box = { children, edges: [1, 2, 3, 4, 5].flatMap((i) => [[0, i, 1], [i, 6, 1]]), ins: [], feeds: new Map() };
  for (const child of children) child.parent = box;
  assert.deepEqual(portsOf(box).edges, box.edges);
});

test("every vertex keeps a line, also where all sources have many readers", () => {
  const n = 8;
  const children = Array.from({ length: n }, (_, place) => ({ leaf: true, name: `n${place}`, place }));
  const edges = [];
  for (let a = 0; a < n; a++) for (let b = a + 1; b < n; b++) edges.push([a, b, 1]);
  const box = { children, edges, ins: [], feeds: new Map() };
  for (const child of children) child.parent = box;
  const kept = portsOf(box).edges;
  for (let b = 1; b < n; b++) assert.ok(kept.some(([, to]) => to === b), `${b} hangs in the air`);
  assert.ok(kept.length < edges.length);
});

test("a stack tells the ranges over its blocks", () => {
  const graph = network();
  const stack = graph.picture("QADG").root.children[2];
  assert.deepEqual(spread(stack, graph, { weight: [4, 8, 6, null, 16] }), { widths: "32–64", bits: "4–16" });
  assert.equal(groupWords(stack, graph, { weight: [8, 8, 8, 8, 8] }), "Block · 32–64 wide · 8 bit");
});

const CHAIN = Array.from({ length: 11 }, (_, i) => [i, i + 1]);
const SKIPS = [[1, 10], [2, 9], [3, 8]];
const sized = (n) => Array.from({ length: n }, (_, i) => ({ w: 80 + 5 * (i % 4), h: 38 + 40 * (i % 3), inX: 40, outX: 40 }));

test("nested shortcuts make a U: their ends on one height, arms apart, no two boxes over each other", () => {
  const sizes = sized(12);
  const { places, routes } = uPlaces(sizes, [...CHAIN, ...SKIPS], { ins: [], outs: [] });
  const middle = (i) => places[i][1] + sizes[i].h / 2;
  for (const [a, b] of SKIPS) {
    assert.equal(middle(a), middle(b));
    assert.ok(places[a][0] + sizes[a].w < places[b][0]);
  }
  places.forEach(([x, y], i) => places.slice(0, i).forEach(([a, b], j) => {
    assert.ok(!(x < a + sizes[j].w && a < x + sizes[i].w && y < b + sizes[j].h && b < y + sizes[i].h), `boxes ${i} and ${j} overlap`);
  }));
  assert.equal(routes.length, CHAIN.length + SKIPS.length);
});

test("what is no chain with nested shortcuts is no U", () => {
  const none = { ins: [], outs: [] };
  assert.equal(uPlaces(sized(12), CHAIN, none), null);
  assert.equal(uPlaces(sized(12), [...CHAIN, [1, 5], [2, 9], [3, 8]], none), null);
  assert.equal(uPlaces(sized(12), [...CHAIN.slice(1), ...SKIPS], none), null);
  assert.equal(uPlaces(sized(12), [...CHAIN, [0, 3], [3, 6], [6, 9]], none), null);
});
