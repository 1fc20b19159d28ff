import assert from "node:assert/strict";
import test from "node:test";
import { HELP, parse } from "../src/query.js";

const LINEAR = {
  texts: ["linear_3", "linear", "encoder.layer.1.dense", "encoder.layer.1.dense.weight"], name: ["linear_3"], module: ["encoder.layer.1.dense"], type: ["linear", "Linear"], family: ["encoder.layer.1"],
  tensor: ["encoder.layer.1.dense.weight"], shape: ["2 × 8", "2x8"], bits: 4.02, inputbits: 8, kept: 0.5, params: 1.5e6, macs: 100, bops: 1e9, cost: 0.06, bytes: 6e6, groups: 64, protected: false, quantized: true, pruned: true,
};
const NORM = { ...LINEAR, texts: ["layer_norm", "protected", "encoder.norm"], name: ["layer_norm"], module: ["encoder.norm"], type: ["layer_norm", "LayerNorm"], tensor: [], bits: undefined, inputbits: undefined, kept: null, cost: null, params: 16, protected: true, quantized: false, pruned: false };
const finds = (text, record = LINEAR) => {
  const { problem, test: matches } = parse(text);
  assert.equal(problem, "", text);
  return matches(record);
};

test("an empty text asks for nothing", () => {
  for (const text of ["", "  "]) assert.deepEqual([parse(text).empty, parse(text).problem], [true, ""]);
});

test("words are found in any text, in upper and lower case alike, and all of them must be", () => {
  assert.ok(finds("LINEAR"));
  assert.ok(finds("layer.1 dense"));
  assert.ok(!finds("layer.1 norm"));
  assert.ok(!finds('"layer.1 dense"'));
  assert.ok(finds('"layer.1.dense"'));
});

test("a regular expression stands between strokes, with its flags and its spaces", () => {
  assert.ok(finds("/layer\\.(0|1)\\.d/"));
  assert.ok(!finds("/LAYER/"));
  assert.ok(finds("/LAYER/i"));
  assert.ok(finds("/^linear_\\d$/ bits<8"));
  assert.ok(!finds("/a b/"));
  assert.ok(finds("/[/]|linear/"));
});

test("what is wrong is said in words, and finds nothing", () => {
  const bad = [
    ["/(/", /regular expression is not understood/], ["/abc", /between two strokes/], ["/a/q", /may stand i, m, s or u, not “q”/], ["colour:red", /no filter “colour”.*type/], ["bits<", /wants a value/],
    ["bits<few", /“few” is no number/], ["type<3", /is a text/], ["bits:/4/", /is a number/], ["kept:0.1..x", /no number/],
  ];
  for (const [text, words] of bad) {
    const { problem, test: matches, empty } = parse(text);
    assert.match(problem, words, text);
    assert.ok(!matches(LINEAR) && !empty);
  }
});

test("type is the beginning of an operator or class, with alternatives and stars", () => {
  for (const text of ["type:lin", "type:Linear", "type:conv,linear", "type:*near", "type:l*r", "type:/^lin/"]) assert.ok(finds(text), text);
  for (const text of ["type:near", "type:conv", "type:l*x", "type:bilinear"]) assert.ok(!finds(text), text);
  assert.ok(finds("type:*norm*", NORM) && !finds("type:norm", NORM));
});

test("other texts are found anywhere in theirs", () => {
  for (const text of ["module:layer.1", "family:encoder", "tensor:weight", "name:_3", "shape:2x8", 'module:"layer.1"', "module:/dense$/"]) assert.ok(finds(text), text);
  assert.ok(!finds("module:weight") && !finds("tensor:weight", NORM));
});

test("numbers compare, with units, and what has none is not found", () => {
  for (const text of ["bits<8", "bits < 8", "bits<=4", "bits=4", "bits:4", "bits:4..8", "inputbits>=8", "kept<=50%", "kept<0.51", "params>1e6", "params>1M", "params:1500k", "cost>5%", "macs!=5", "groups=64", "bytes<1g"]) assert.ok(finds(text), text);
  for (const text of ["bits<4", "bits!=4", "kept<50%", "params>2M", "bits:5..8", "groups>64"]) assert.ok(!finds(text), text);
  for (const text of ["bits<8", "bits>0", "kept<1", "cost>0", "bits!=3"]) assert.ok(!finds(text, NORM), text);
});

test("flags, and a minus in front, combine with everything", () => {
  assert.ok(!finds("protected") && finds("protected", NORM));
  assert.ok(finds('"protected"', NORM) && !finds('"protected"'));
  assert.ok(finds("-protected quantized pruned"));
  assert.ok(finds("-type:conv layer.1 bits<8 -/norm/"));
  assert.ok(!finds("-type:linear"));
  assert.ok(finds("-", { ...LINEAR, texts: ["a-b"] }), "a lone minus is a text");
});

test("every line of the help is understood", () => {
  for (const [text] of HELP) assert.equal(parse(text).problem, "", text);
});
