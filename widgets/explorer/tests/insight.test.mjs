// How far the details scroll so that what one acts with is seen.
import assert from "node:assert/strict";
import { test } from "node:test";
import { scrollBy } from "../src/insight.js";

test("as little as shows the part, and its top where both ends do not fit", () => {
  assert.equal(scrollBy(10, 60, 100), 0);
  assert.equal(scrollBy(120, 180, 100), 80);
  assert.equal(scrollBy(-30, 20, 100), -30);
  assert.equal(scrollBy(50, 300, 100), 50);
  for (const [top, bottom, room] of [[5, 90, 40], [300, 340, 60], [-5, 500, 50], [0, 20, 20]]) {
    const by = scrollBy(top, bottom, room);
    assert.ok(top - by >= 0 && (bottom - by <= room || top - by === 0));
  }
});
