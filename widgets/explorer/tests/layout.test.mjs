import assert from "node:assert/strict";
import test from "node:test";
import { cheapPlaces } from "../src/cheap.js";
import { wrapColumns } from "../src/wrap.js";
import { Scheme, amount, percent, viridis } from "../src/colours.js";

const sized = (n, w = 100, h = 38) => Array.from({ length: n }, () => ({ w, h, inX: w / 2, outX: w / 2 }));
const chain = (n) => Array.from({ length: n - 1 }, (_, i) => [i, i + 1]);
const NONE = { ins: [], outs: [] };

function assertApart(places, sizes, w, h) {
  places.forEach(([x, y], i) => {
    assert.ok(x >= -1e-6 && y >= -1e-6 && x + sizes[i].w <= w + 1e-6 && y + sizes[i].h <= h + 1e-6, `box ${i} leaves the picture`);
    places.slice(0, i).forEach(([a, b], j) => {
      const over = x < a + sizes[j].w && a < x + sizes[i].w && y < b + sizes[j].h && b < y + sizes[i].h;
      assert.ok(!over, `boxes ${i} and ${j} overlap`);
    });
  });
}

for (const [name, n, edges] of [
  ["a chain", 300, chain(300)],
  ["a chain with shortcuts", 400, [...chain(400), ...Array.from({ length: 39 }, (_, i) => [10 * i, 10 * i + 7])]],
  ["a thousand beside each other", 1000, []],
  ["a fan", 300, Array.from({ length: 299 }, (_, i) => [0, i + 1])],
  ["a cycle between modules", 200, [...chain(200), [150, 3]]],
]) {
  test(`${name}: no two boxes overlap, none leaves the picture, the picture is no ribbon`, () => {
    const sizes = sized(n);
    const flat = cheapPlaces(sizes, edges, { ins: [0], outs: [n - 1] });
    const found = wrapColumns(flat);
    assertApart(found.places, sizes, found.w, found.h);
    assert.ok(found.h / found.w < 4 && found.w / found.h < 6, `${found.w} x ${found.h}`);
    assert.equal(found.routes.length, edges.length + 2);
  });
}

test("an edge begins below its first box and ends above its second, in whichever column they are", () => {
  const sizes = sized(300);
  const { places, routes } = wrapColumns(cheapPlaces(sizes, chain(300), NONE));
  for (const { from, to, points } of routes) {
    assert.deepEqual(points[0], [places[from][0] + 50, places[from][1] + 38]);
    assert.deepEqual(points.at(-1), [places[to][0] + 50, places[to][1]]);
  }
});

test("a low picture stays as it is", () => {
  const found = wrapColumns(cheapPlaces(sized(6), chain(6), NONE));
  assert.equal(new Set(found.places.map(([x]) => x)).size, 1);
});

test("viridis runs from dark to light and stays in range", () => {
  assert.equal(viridis(0), "rgb(68,1,84)");
  assert.equal(viridis(1), "rgb(253,231,37)");
  assert.equal(viridis(7), viridis(1));
});

test("numbers read as people write them", () => {
  assert.deepEqual([amount(448), amount(221184), amount(7.5e10), amount(null)], ["448", "221 k", "75.0 G", "–"]);
  assert.deepEqual([percent(1), percent(0.045), percent(0.0004), percent(0)], ["100 %", "4.5 %", "0.04 %", "0 %"]);
});

test("hues of kinds differ in the light and in the dark", () => {
  const data = { kinds: { 0: "multiplies", 7: "other" }, kindOfText: [0, 7], nodes: { op: [0, 1], branch: [-1, -1], vertex: [0, 1] } };
  const make = (dark) => new Scheme("operator", { data }, {}, {}, dark);
  assert.notEqual(make(false).colour(0), make(true).colour(0));
  assert.deepEqual(make(false).mixture([{ id: 0 }, { id: 0 }, { id: 1 }]).map(([, share]) => share), [2 / 3, 1 / 3]);
});

test("an edge between columns runs through the gutter, not through a box", () => {
  const sizes = sized(400, 120);
  const { places, routes } = wrapColumns(cheapPlaces(sizes, [...chain(400), ...Array.from({ length: 13 }, (_, i) => [30 * i, 30 * i + 9])], NONE));
  for (const { points, bent } of routes.filter((route) => route.bent)) {
    for (let i = bent[0] + 1; i <= bent[1] - 1; i++) {
      const [[x0, y0], [x1, y1]] = [points[i], points[i + 1]];
      const hits = places.filter(([x, y]) => Math.max(x0, x1) > x + 1 && Math.min(x0, x1) < x + 119 && Math.max(y0, y1) > y + 1 && Math.min(y0, y1) < y + 37);
      assert.equal(hits.length, 0);
    }
  }
});
