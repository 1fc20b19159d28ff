// What may be typed into the search: words, "words as they stand", /regular expressions/, and filters such as type:linear bits<8 kept<50%.
// In: a text. Out: a test of one vertex's record (see search.js), or in words what is wrong with the text. Pure; no DOM.

const TEXTS = {
  type: "operator or class", name: "name of the vertex", module: "path of the module", family: "name of a family", tensor: "name of a parameter", shape: "output shape",
};
const NUMBERS = {
  bits: "weight bits", inputbits: "input bits", kept: "share of the family kept", params: "parameters", macs: "MACs", bops: "BOPs", cost: "share of all BOPs",
  bytes: "bytes in fp32", groups: "groups of the family",
};
const FLAGS = { protected: "may not be pruned", quantized: "has a quantizer", pruned: "has lost groups" };
const UNITS = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, "%": 0.01 };

/** Rows of the help: what is typed, and what it finds. */
export const HELP = [
  ["attention", "names, operators, modules and parameters that hold this; several words: all of them"],
  ['"two words"', "the text as it stands"],
  ["/layer\\.(0|1)\\./", "a regular expression; /…/i takes upper and lower case alike"],
  ["type:linear", "operators and classes that begin so; type:conv,linear one of them; type:*norm* with anything at *"],
  ["module:encoder", "in this module; name: family: tensor: shape: alike; module:/…/ too"],
  ["bits<8", "weight bits; inputbits for inputs; <, <=, >, >=, =, !=, and bits:4..8"],
  ["kept<50%", "share of the family that is kept"],
  ["params>1e6", "parameters; macs, bops, bytes, groups alike; 1e6, 1M and 500k are numbers"],
  ["cost>5%", "share of all BOPs"],
  ["protected", "may not be pruned; quantized and pruned alike"],
  ["-type:linear", "a minus in front: all others"],
];

class Wrong extends Error {}

/** @returns {empty, problem, test(record)}; a text that is wrong matches nothing, and `problem` says why. */
export function parse(text) {
  try {
    const parts = [...partsOf(text)];
    return { empty: !parts.length, problem: "", test: (record) => parts.every(({ not, test }) => test(record) !== not) };
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    return { empty: false, problem: error.message, test: () => false };
  }
}

function* partsOf(text) {
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at += 1;
      continue;
    }
    const not = text[at] === "-" && /\S/.test(text[at + 1] ?? "");
    const [test, end] = part(text, at + (not ? 1 : 0));
    yield { not, test };
    at = end;
  }
}

function part(text, at) {
  const filter = /^([a-z]+)\s*(<=|>=|!=|[<>=:])\s*/i.exec(text.slice(at));
  if (filter) return filterPart(text, at + filter[0].length, filter[1].toLowerCase(), filter[2]);
  const [value, end] = valueAt(text, at);
  if (typeof value === "string" && text[at] !== '"' && Object.hasOwn(FLAGS, value.toLowerCase())) return [(record) => record[value.toLowerCase()], end];
  const matches = holds(value);
  return [(record) => record.texts.some(matches), end];
}

function filterPart(text, at, key, sign) {
  const known = Object.hasOwn(TEXTS, key) || Object.hasOwn(NUMBERS, key);
  if (!known) throw new Wrong(`There is no filter “${key}”; there are ${[...Object.keys(TEXTS), ...Object.keys(NUMBERS)].join(", ")}. A text with ${sign} in it wants quotes.`);
  const [value, end] = valueAt(text, at);
  if (value === "") throw new Wrong(`“${key}${sign}” wants a value, such as ${Object.hasOwn(TEXTS, key) ? `${key}:conv` : `${key}<8`}.`);
  return [Object.hasOwn(TEXTS, key) ? textTest(key, sign, value) : numberTest(key, sign, value), end];
}

/** The word, quoted text or regular expression at a place, and where it ends. */
function valueAt(text, at) {
  if (text[at] === '"') {
    const end = text.indexOf('"', at + 1);
    return [text.slice(at + 1, end < 0 ? text.length : end), end < 0 ? text.length : end + 1];
  }
  if (text[at] === "/") return regexAt(text, at);
  const [word] = /^\S*/.exec(text.slice(at));
  return [word, at + word.length];
}

function regexAt(text, at) {
  const found = /^\/((?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\])+)\/([a-z]*)/.exec(text.slice(at));
  if (!found) throw new Wrong("A regular expression stands between two strokes: /layer\\.[0-3]/. A text that begins with one wants quotes.");
  const [all, body, flags] = found;
  if (/[^imsu]/.test(flags)) throw new Wrong(`After a regular expression may stand i, m, s or u, not “${flags}”.`);
  try {
    return [new RegExp(body, flags), at + all.length];
  } catch (error) {
    throw new Wrong(`The regular expression is not understood: ${error.message.replace(/^Invalid regular expression:\s*/i, "")}`);
  }
}

function holds(value) {
  if (value instanceof RegExp) return (text) => value.test(text);
  const wanted = value.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}

function textTest(key, sign, value) {
  if (sign !== ":" && sign !== "=") throw new Wrong(`“${key}” is a text: ${key}:… finds it.`);
  if (value instanceof RegExp) return (record) => record[key].some((text) => value.test(text));
  const wanted = value.toLowerCase().split(",").filter(Boolean).map((one) => pattern(one, key === "type"));
  return (record) => record[key].some((text) => wanted.some((matches) => matches(text.toLowerCase())));
}

/** With * all of the text, anything at the star; else its beginning, or any part of it. */
function pattern(wanted, begins) {
  if (!wanted.includes("*")) return (text) => (begins ? text.startsWith(wanted) : text.includes(wanted));
  const parts = wanted.split("*");
  return (text) => {
    if (!text.startsWith(parts[0])) return false;
    let at = parts[0].length;
    for (const one of parts.slice(1, -1)) {
      const found = text.indexOf(one, at);
      if (found < 0) return false;
      at = found + one.length;
    }
    return text.length - at >= parts.at(-1).length && text.endsWith(parts.at(-1));
  };
}

function numberTest(key, sign, value) {
  if (value instanceof RegExp) throw new Wrong(`“${key}” is a number: ${key}<8.`);
  const range = sign === ":" ? /^(.+)\.\.(.+)$/.exec(value) : null;
  if (range) {
    const [low, high] = [number(key, range[1]), number(key, range[2])];
    return (record) => record[key] != null && record[key] >= low && record[key] <= high;
  }
  const wanted = number(key, value);
  const near = /bits/.test(key) ? 0.05 : 1e-9 * Math.abs(wanted); // bits are shown with one digit behind the point
  const same = (found) => Math.abs(found - wanted) <= near;
  const compare = { "<": (v) => v < wanted, ">": (v) => v > wanted, "<=": (v) => v < wanted || same(v), ">=": (v) => v > wanted || same(v), "=": same, ":": same, "!=": (v) => !same(v) }[sign];
  return (record) => record[key] != null && compare(record[key]);
}

function number(key, text) {
  const found = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)([kmgt%]?)$/i.exec(text.trim());
  if (!found) throw new Wrong(`“${text}” is no number: ${key}<8, 1e6, 500k or 50% are.`);
  return Number(found[1]) * UNITS[found[2].toLowerCase()];
}
