import assert from "node:assert/strict";
import test from "node:test";
import { cameraFor, changes, copyOpen, counterpart, keyOf, missingIn, snapshot } from "../src/link.js";
import { LayoutEngine } from "../src/layout.js";
import { Notes, Steps, chain } from "../src/notes.js";
import { addressOf, itemOf, selectionAt, selectionOf } from "../src/select.js";
import { graphOf } from "./graph.test.mjs";

const PATHS = ["", "a", "a.x", "a.y", "b"];
const ROWS = [["input", ""], ["conv", "a.x"], ["relu", "a.x"], ["conv", "a.y"], ["add", "a"], ["linear", "b"]];
const EDGES = [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4], [4, 5]];
const net = () => graphOf([...PATHS], ROWS, EDGES);
const shorter = () => graphOf([...PATHS], ROWS.filter((_, i) => i !== 2), [[0, 1], [1, 2], [2, 3], [0, 3], [3, 4]]);

const COUNTED = { nodes: [1, 2, 5], dense: [8, 8, 10], now: [8, 4, 10], budget: [2, 4, 10], subnet: [6, 3, 10], bits: { budget: [4], subnet: [5.25] } };

test("channels are said from dense to the budget, and once where nothing changes", () => {
  const steps = new Steps(COUNTED, "alone");
  assert.deepEqual([1, 2, 5, 3].map((vertex) => steps.words(vertex)), ["8 → 2", "8 → 4", "10", ""]);
  assert.equal(steps.words(1, 0), "8 → 2, 4 bit");
  assert.equal(chain([8, 4, 2]), "8 → 4 → 2");
  assert.deepEqual(new Steps(COUNTED, "before").words(1), "8");
  assert.equal(new Steps(COUNTED, "after").words(1, 0), "8 → 6, 5.3 bit");
});

test("of two networks the right one is compared with the left one, where that has the vertex", () => {
  const steps = new Steps(COUNTED, "other", (node) => (node === 1 ? 16 : null));
  assert.deepEqual([steps.words(1), steps.words(2)], ["16 → 8", "4"]);
  assert.deepEqual(steps.shares([1, 2]), [12 / 20]);
});

test("the share that is left counts channels of all vertices of a box, after each step", () => {
  assert.deepEqual(new Steps(COUNTED, "alone").shares([1, 2, 5]), [22 / 26, 16 / 26]);
  assert.deepEqual(new Steps(COUNTED, "alone").shares([3]), []);
  const graph = net();
  const notes = new Notes({ graph, steps: new Steps(COUNTED, "after"), values: null });
  const box = graph.picture("QADG").root.children[1];
  assert.deepEqual(notes.shares(box), [9 / 16]);
  assert.equal(notes.words(box), "56 % left");
  assert.equal(notes.longest(box), "100 % left");
});

test("the width is that of the longest words, on either side", () => {
  for (const side of ["before", "after"]) assert.equal(new Steps(COUNTED, side).longest(1, 0), "8 → 8, 16 bit");
  assert.equal(new Steps(COUNTED, "alone").longest(5), "10 → 10 → 10");
});

test("what is selected is a text, and the text finds it again in every layer", () => {
  const graph = net();
  const picture = graph.picture("QADG");
  for (const item of [...picture.leaves.values(), ...picture.boxes.filter((box) => box.parent)]) {
    assert.equal(itemOf(selectionOf(item, graph), picture, graph), item);
    assert.equal(itemOf(selectionOf(item, graph), graph.picture("raw"), graph)?.label, item.label);
  }
  assert.equal(selectionOf(null, graph), "");
  assert.equal(itemOf("module:a.y", picture, graph).label, "conv", "a module without a box of its own is its only vertex");
  assert.deepEqual([itemOf("", picture, graph), itemOf("vertex:none", picture, graph), itemOf("module:none", picture, graph)], [null, null, null]);
});

test("an address names a module, or a vertex where its module runs several, and is read back", () => {
  const graph = net();
  assert.deepEqual(["module:a.x", "vertex:conv_3", "vertex:relu_2", "vertex:input_0"].map((one) => addressOf(one, graph)), ["a.x", "a.y", "relu_2", "input_0"]);
  assert.deepEqual(["#a.x", "#a.y", "#relu_2", "#", "#nothing", "#%E0%A4%A"].map((hash) => selectionAt(hash, graph)), ["module:a.x", "module:a.y", "vertex:relu_2", "", "", ""]);
  graph.data.modules.path[4] = "b c/<d>";
  assert.equal(selectionAt(`#${addressOf("module:b c/<d>", graph)}`, graph), "module:b c/<d>");
});

test("the same item is found in a picture of another network, and what it has not is missing", () => {
  const [one, two] = [net(), shorter()];
  const [left, right] = [one.picture("QADG"), two.picture("QADG")];
  for (const leaf of left.leaves.values()) {
    const twin = counterpart(leaf, right, [one, two]);
    assert.equal(twin?.label ?? null, leaf.id === 2 ? null : leaf.label);
  }
  assert.deepEqual([...missingIn(left, right, [one, two])].map(({ label }) => label), ["relu"]);
  assert.deepEqual([...missingIn(right, left, [two, one])], []);
  assert.equal(new Set([...left.leaves.values(), ...left.boxes].map(keyOf)).size, left.leaves.size + left.boxes.length);
});

function laidOut(graph, width) {
  const picture = graph.picture("QADG");
  for (const box of picture.boxes) box.open = true;
  const engine = new LayoutEngine(() => width);
  engine.run(picture.root);
  return picture;
}

function view(picture, camera) {
  const place = (item) => {
    let [x, y] = [0, 0];
    for (let child = item; child.parent; child = child.parent) {
      const [px, py] = child.parent.layout.places[child.place];
      [x, y] = [x + px, y + py];
    }
    return [x, y];
  };
  return { root: picture.root, picture, camera, width: 300, height: 200, place };
}

test("the other camera stands so that the same thing is in the middle, whatever its size", () => {
  const [one, two] = [net(), net()];
  const [from, to] = [view(laidOut(one, 80)), view(laidOut(two, 200))];
  const twin = (item) => counterpart(item, to.picture, [one, two]);
  for (const leaf of from.picture.leaves.values()) {
    const [x, y] = from.place(leaf);
    from.camera = { scale: 2, x: x + leaf.w / 2 - 75, y: y + leaf.h / 2 - 50 };
    const camera = cameraFor(from, to, twin);
    const [tx, ty] = to.place(twin(leaf));
    assert.equal(camera.scale, 2);
    assert.ok(Math.abs(camera.x + 75 - tx - twin(leaf).w / 2) < 1e-6 && Math.abs(camera.y + 50 - ty - twin(leaf).h / 2) < 1e-6, leaf.label);
  }
});

test("equal pictures have equal cameras, also beside everything", () => {
  const [one, two] = [net(), net()];
  const [from, to] = [view(laidOut(one, 80)), view(laidOut(two, 80))];
  for (const camera of [{ scale: 1, x: -900, y: -700 }, { scale: 0.3, x: 40, y: 90 }, { scale: 3, x: 33.5, y: 61 }]) {
    from.camera = camera;
    const found = cameraFor(from, to, (item) => counterpart(item, to.picture, [one, two]));
    for (const key of ["scale", "x", "y"]) assert.ok(Math.abs(found[key] - camera[key]) < 1e-6, `${key} ${found[key]} ${camera[key]}`);
  }
});

test("what is closed on one side closes on the other, and what stays the same says so", () => {
  const [left, right] = [laidOut(net(), 80), laidOut(shorter(), 80)];
  assert.equal(copyOpen(left, right), false);
  left.boxes.find(({ label }) => label === "a").open = false;
  assert.equal(copyOpen(left, right), true);
  assert.equal(right.boxes.find(({ label }) => label === "a").open, false);
  assert.equal(right.root.open, true);
});

test("a module opens on the other side also where it stands in another box", () => {
  const [left, right] = [laidOut(net(), 80), laidOut(net(), 80)];
  const moved = right.boxes.find(({ label }) => label === "a");
  moved.key = "/elsewhere";
  right.byKey = undefined;
  left.boxes.find(({ label }) => label === "a").open = false;
  assert.equal(copyOpen(left, right), true);
  assert.equal(moved.open, false);
});

test("only what changed is done on the other side", () => {
  const one = { camera: { x: 0, y: 0, scale: 1 }, layer: "QADG", schemeName: "bits", selected: null, family: -1, root: { layout: {} } };
  const before = snapshot(one);
  assert.deepEqual(changes(before, snapshot(one)), []);
  one.camera = { x: 5, y: 0, scale: 1 };
  one.term = "conv";
  assert.deepEqual(changes(before, snapshot(one)), ["term", "camera"]);
});

/** The same net with both vertices of "a.x" and the one of "a.y" as blocks of a stack that shows its second block. */
function stacked(picture, peek) {
  const stack = picture.boxes.find(({ label }) => label === "a");
  Object.assign(stack, { stack: true, group: "stack", peek, path: "a.x … a" });
  return stack;
}

test("a stack is selected as all its modules, and is found again", () => {
  const graph = net();
  const picture = graph.picture("QADG");
  const stack = stacked(picture, 0);
  assert.equal(selectionOf(stack, graph), "modules:a.x\na.y\na");
  assert.equal(itemOf("modules:a.x\na.y\na", picture, graph), stack);
  assert.equal(itemOf("modules:b\nc", picture, graph).label, "linear", "in a picture without this stack, its first block");
  assert.equal(addressOf(selectionOf(stack, graph), graph), "a.x");
});

test("the block that a stack shows follows, and a block that is hidden holds no camera", () => {
  const [one, two] = [net(), net()];
  const [from, to] = [view(laidOut(one, 80)), view(laidOut(two, 80))];
  const [left, right] = [stacked(from.picture, 1), stacked(to.picture, 0)];
  assert.equal(copyOpen(from.picture, to.picture), true);
  assert.equal(right.peek, 1);
  const fewer = laidOut(net(), 80);
  const other = stacked(fewer, 0);
  other.children.shift(); // its blocks are counted otherwise
  copyOpen(from.picture, fewer);
  assert.equal(other.peek, 0, "the same block, not the same number");
  assert.equal(copyOpen(from.picture, to.picture), false);
  const hidden = left.children[0].children[0];
  const [x, y] = from.place(hidden);
  from.camera = { scale: 1, x: x - 140, y: y - 90 };
  const found = cameraFor(from, to, (item) => {
    assert.ok(item !== hidden && item !== left.children[0], "what is hidden is not asked for");
    return counterpart(item, to.picture, [one, two]);
  });
  assert.ok(Math.abs(found.x - from.camera.x) < 1e-6 && Math.abs(found.y - from.camera.y) < 1e-6);
});
