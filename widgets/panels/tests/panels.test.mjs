// The panels' modules without a browser: the log of a run, one question at a time, words, and what a strip is cut into.
import assert from "node:assert/strict";
import { test } from "node:test";
import { earlierWords, linesOf, scales, stepAxis } from "../src/curves.js";
import { LIMIT, RunLog, spansOf, thin } from "../src/log.js";
import { HEAD, ROW, describeAt, spokenStrips, stripsOf } from "../src/strips.js";
import { Newest } from "../src/sync.js";
import { bytes, count, duration, fitText, metric, number, percent, plainColour } from "../src/theme.js";
import { rangeWithin, scaledRange } from "../src/zoom.js";

const record = (step, bits = [8], metrics = null) => [step, 1 / step, metrics, bits, [], [1], 8];

test("a log takes what is new once, whatever comes twice", () => {
  const log = new RunLog();
  assert.equal(log.extend(-1, [record(1), record(2)]), true);
  assert.equal(log.extend(1, [record(2), record(3)]), true);
  assert.deepEqual(log.records.map((r) => r[0]), [1, 2, 3]);
});

test("a log notices that something in between never came, and takes the whole", () => {
  const log = new RunLog();
  log.extend(-1, [record(1)]);
  assert.equal(log.extend(5, [record(6)]), false);
  assert.equal(log.lastStep, 1);
  log.replace([1, 2, 5, 6].map((s) => record(s)));
  assert.equal(log.lastStep, 6);
});

test("a log forgets what was before its run began anew, and news from before that are none", () => {
  const log = new RunLog();
  assert.equal(log.begin(undefined), true); // a page that was saved before there were beginnings
  log.extend(-1, [record(1), record(9)]);
  assert.equal(log.begin(1), true);
  assert.equal(log.lastStep, -1);
  assert.equal(log.extend(-1, [record(2)]), true);
  assert.equal(log.begin(0), false);
  assert.equal(log.begin(1), true);
  assert.deepEqual(log.records.map((r) => r[0]), [2]);
});

test("an old whole log does not undo what is known", () => {
  const log = new RunLog();
  log.extend(-1, [record(1), record(9)]);
  log.replace([record(1)]);
  assert.equal(log.lastStep, 9);
});

test("a log stays bounded and keeps first, last and measured records", () => {
  const log = new RunLog();
  for (let step = 1; step <= 3 * LIMIT; step += 1) log.extend(log.lastStep, [record(step, [8], step % 500 ? null : { accuracy: 1 })]);
  assert.ok(log.records.length <= LIMIT);
  assert.equal(log.records[0][0], 1);
  assert.equal(log.lastStep, 3 * LIMIT);
  assert.equal(log.points((r) => r[2] && r[2].accuracy).length, 12);
  assert.deepEqual(thin([record(1), record(2)]).length, 2);
});

test("a strip is cut where the value changes", () => {
  assert.deepEqual(spansOf([record(1, [8]), record(2, [8]), record(5, [4])], (r) => r[3][0]), [[0, 2, 8], [2, 5, 4]]);
});

test("what lies under the pointer is said in words, names as they are", () => {
  const log = new RunLog(), name = "<img src=x onerror=alert(1)>";
  log.extend(-1, [record(50, [8]), record(100, [4])]);
  const strips = stripsOf({ bits: [name], activation_bits: [], kept: ["family"] }), axis = stepAxis(800, 100);
  assert.equal(strips.length, 2);
  assert.equal(describeAt(axis, log, strips, axis.x(80), HEAD + 2), `${name}\nweight bits: 4 at step 100`);
  assert.equal(describeAt(axis, log, strips, axis.x(80), HEAD + ROW + 1), null);
  assert.match(spokenStrips(log, strips), /weight bits: 1 rows, 4 to 4, mean 4/);
});

test("only one question is under way, and the newest follows it", () => {
  const sent = [];
  const newest = new Newest((n, value) => sent.push([n, value]), () => 0);
  for (const value of ["a", "b", "c", "d"]) newest.ask(value);
  assert.deepEqual(sent, [[1, "a"]]);
  newest.answered(1);
  assert.deepEqual(sent, [[1, "a"], [2, "d"]]);
  newest.answered(1);
  assert.equal(newest.busy, true);
  newest.answered(2);
  assert.equal(newest.busy, false);
});

test("an answer that never comes does not block for ever", () => {
  let time = 0;
  const sent = [];
  const newest = new Newest((n, value) => sent.push(value), () => time);
  newest.ask("a");
  time = 10_000;
  newest.ask("b");
  assert.deepEqual(sent, ["a", "b"]);
});

test("numbers read as in the static views", () => {
  assert.deepEqual([count(1234), count(82_314), count(110_104_890)], ["1234", "82.3 k", "110 M"]);
  assert.deepEqual([bytes(20_480), bytes(12)], ["20.5 kB", "12 B"]);
  assert.deepEqual([percent(0.0308), percent(1), percent(null)], ["3.08 %", "100 %", "–"]);
  assert.deepEqual([metric(0.5), metric(12.5), number(0.123456), number(NaN)], ["50 %", "12.5", "0.1235", "–"]);
  assert.deepEqual([duration(0.2), duration(42), duration(600), duration(7200), duration(null)], ["under 1 s", "42 s", "10 min", "2.0 h", "–"]);
});

test("a name that is too long loses its beginning", () => {
  const context = { measureText: (text) => ({ width: 7 * text.length }) };
  assert.equal(fitText(context, "encoder.layer.11.output.dense", 100), "….output.dense");
  assert.equal(fitText(context, "fc", 100), "fc");
});

test("shares have one scale, which the axis shows; what is none says its own", () => {
  const line = (values, left = false) => ({ left, points: values.map((value, i) => [i, value]) });
  const [loss, accuracy, recall, psnr, none] = [line([2, 1], true), line([0.9, 0.95]), line([0.5, 0.6]), line([20, 30]), line([])];
  scales([loss, none, accuracy, recall, psnr]);
  assert.deepEqual([loss.low, loss.high, loss.axis, loss.own], [0, 2, true, false]);
  assert.deepEqual([accuracy.low, accuracy.high, accuracy.axis, accuracy.own], [0.5, 0.95, true, false]);
  assert.deepEqual([recall.low, recall.high, recall.axis, recall.own], [0.5, 0.95, undefined, false]);
  assert.deepEqual([psnr.low, psnr.high, psnr.axis, psnr.own], [20, 30, undefined, true]);
  assert.equal(none.axis, undefined);
  const [first, second] = [line([30]), line([0.5])];
  scales([first, second]);
  assert.deepEqual([first.axis, second.own], [true, true]);
});

test("a mixture of colours is told as every canvas knows it", () => {
  assert.equal(plainColour("color(srgb 0.5 0 1)"), "rgb(128, 0, 255)");
  assert.equal(plainColour("rgb(1, 2, 3)"), "rgb(1, 2, 3)");
  assert.equal(plainColour("rgba(0, 0, 0, 0.87)"), "rgba(0, 0, 0, 0.87)");
});

test("a range of steps stays inside the run and keeps its centre", () => {
  assert.deepEqual(rangeWithin(-10, 20, 100), { from: 0, to: 30 });
  assert.deepEqual(rangeWithin(90, 130, 100), { from: 60, to: 100 });
  assert.deepEqual(rangeWithin(50, 50, 100), { from: 50, to: 54 });
  assert.deepEqual(rangeWithin(0, 9, 3), { from: 0, to: 3 });
  assert.deepEqual(scaledRange({ from: 0, to: 100 }, 100, 0.5), { from: 25, to: 75 });
  assert.deepEqual(scaledRange({ from: 25, to: 75 }, 100, 2), { from: 0, to: 100 });
  assert.deepEqual(scaledRange({ from: 0, to: 100 }, 100, 0.5, 0), { from: 0, to: 50 });
});

test("an axis of a range goes from steps to pixels and back", () => {
  const axis = stepAxis(800, 1000, { from: 200, to: 300 });
  for (const step of [200, 250, 300]) assert.ok(Math.abs(axis.step(axis.x(step)) - step) < 1e-9);
  assert.equal(axis.x(0), axis.left);
  assert.ok(axis.at(0) < 0 && axis.at(1000) > 800);
  assert.equal(stepAxis(800, 1000).x(500), stepAxis(800, 1000, { from: 0, to: 1000 }).x(500));
});

test("earlier runs share the scales of this one and say what they ended with", () => {
  const log = new RunLog();
  log.extend(-1, [record(1, [8], { accuracy: 0.5 }), record(2, [8], { accuracy: 0.75 })]);
  const earlier = [{ name: "<b>", loss: [[1, 4], [2, 3]], metrics: { accuracy: [[2, 0.25]], other: [[1, 7]] } }, { name: "none", loss: [], metrics: {} }];
  const lines = linesOf(log, earlier);
  assert.deepEqual(lines.map((line) => line.words), ["loss", "accuracy", "other"]);
  scales(lines.map((line) => Object.assign(line, { seenUnder: line.under })));
  assert.deepEqual([lines[0].low, lines[0].high], [0, 4]);
  assert.deepEqual([lines[1].low, lines[1].high], [0.25, 0.75]);
  assert.equal(earlierWords(earlier[0], lines, 0), "<b>: loss 3, accuracy 25 %, other 7");
  assert.equal(earlierWords(earlier[1], lines, 1), "none: nothing was recorded");
});
