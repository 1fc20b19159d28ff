import assert from "node:assert/strict";
import test from "node:test";
import { Graph, ancestors, leavesOf, openToFit } from "../src/graph.js";

/** A net of modules: rows are [operator, module path], edges pairs of positions. */
export function graphOf(paths, rows, edges) {
  const layer = { nodes: rows.map((_, i) => i), edges: edges.flat() };
  const texts = [...new Set(rows.map(([operator]) => operator)), "8"];
  const nodes = {
    name: rows.map(([operator], i) => `${operator}_${i}`), op: rows.map(([operator]) => texts.indexOf(operator)), shape: rows.map(() => texts.length - 1),
    module: rows.map(([, path]) => paths.indexOf(path)), branch: rows.map(() => -1), vertex: rows.map((_, i) => i),
  };
  return new Graph({ title: "net", texts, nodes, modules: { path: paths, type: paths.map(() => "M") }, branches: [], layers: { raw: layer, branches: layer, QADG: layer }, vertices: {}, families: [], tensors: [], reasons: [] });
}

const PATHS = ["", "a", "a.x", "a.y", "b"];
const ROWS = [["input", ""], ["conv", "a.x"], ["relu", "a.x"], ["conv", "a.y"], ["add", "a"], ["linear", "b"]];
const EDGES = [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4], [4, 5]];

test("a module with one vertex is that vertex, with the module's name", () => {
  const { root } = graphOf(PATHS, ROWS, EDGES).picture("QADG");
  assert.deepEqual(root.children.map(({ label, local }) => [label, local]), [["input", ""], ["a", undefined], ["linear", "b"]]);
  const [x, y, add] = root.children[1].children;
  assert.deepEqual([x.leaf, y.leaf, y.local, add.label], [false, true, "y", "add"]);
});

test("edges stand in the lowest box that holds both ends, and pass the ports of those between", () => {
  const { root } = graphOf(PATHS, ROWS, EDGES).picture("QADG");
  const a = root.children[1];
  assert.deepEqual(root.edges, [[0, 1, 2], [1, 2, 1]]);
  assert.deepEqual(a.edges, [[0, 1, 1], [1, 2, 1]]);
  assert.deepEqual([a.ins, a.outs], [[0, 2], [2]]);
  assert.deepEqual([a.children[0].ins, a.children[0].outs], [[0], [1]]);
});

test("every vertex is in the picture once", () => {
  const picture = graphOf(PATHS, ROWS, EDGES).picture("QADG");
  assert.deepEqual([...leavesOf(picture.root)].map(({ id }) => id).sort(), [0, 1, 2, 3, 4, 5]);
  assert.equal(picture.root.leaves, 6);
  for (const leaf of leavesOf(picture.root)) assert.equal(ancestors(leaf).at(-1), picture.root);
});

test("the start opens level by level and stays within its limit", () => {
  const rows = Array.from({ length: 40 }, (_, i) => ["conv", `m.${Math.floor(i / 4)}`]);
  const paths = ["", "m", ...Array.from({ length: 10 }, (_, i) => `m.${i}`)];
  const edges = rows.slice(1).map((_, i) => [i, i + 1]);
  const open = (limit) => {
    const { root } = graphOf(paths, [["input", ""], ...rows], edges).picture("QADG");
    return [openToFit(root, limit), root];
  };
  assert.equal(open(60)[0], 52);
  const [seen, root] = open(20);
  assert.equal(seen, 12);
  assert.ok(root.children[1].open && !root.children[1].children[0].open);
});

test("a branch that data is folded into is a box of its own, in the layer of branches only", () => {
  const graph = graphOf(["", "f"], [["input", ""], ["round", "f"], ["mul", "f"], ["conv", "f"]], [[0, 1], [1, 2], [2, 3]]);
  graph.data.nodes.branch = [-1, 0, 0, -1];
  graph.data.nodes.vertex = [0, 3, 3, 3];
  graph.data.branches = [["f.weight", "attached", "f"]];
  const box = graph.picture("branches").root.children[1].children[0];
  assert.deepEqual([box.label, box.branch, box.children.length], ["weight quantizer", "attached", 2]);
  assert.ok(graph.picture("raw").root.children[1].children.every(({ leaf }) => leaf));
});
