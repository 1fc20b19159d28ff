// Colours of vertices: Okabe and Ito's hues for kinds, viridis for amounts; both are told apart with every common colour blindness.
import { overlayScheme } from "./overlay.js";

const LIGHT = ["#0072b2", "#d98a00", "#009e73", "#4aa3d8", "#d55e00", "#b8578f", "#b3a100", "#8a8a8a"];
const DARK = ["#4c9fd6", "#e69f00", "#1db88c", "#7cc7f0", "#f07f2e", "#d88bb5", "#e3d64f", "#9a9a9a"];
const VIRIDIS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37],
];
const [BLUE, ORANGE, , , VERMILION, PURPLE] = [0, 1, 2, 3, 4, 5];
const GREEN = 2;
const SKY = 3;
const YELLOW = 6;
const GREY = 7;

export const SCHEMES = [
  ["operator", "operator"],
  ["family", "family"],
  ["bits", "bit width"],
  ["kept", "kept share"],
  ["cost", "cost"],
  ["protected", "protected and why"],
];

export function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const [low, part] = [Math.min(Math.floor(at), VIRIDIS.length - 2), at - Math.min(Math.floor(at), VIRIDIS.length - 2)];
  const mix = VIRIDIS[low].map((value, i) => Math.round(value + part * (VIRIDIS[low + 1][i] - value)));
  return `rgb(${mix.join(",")})`;
}

/** One way to colour: `colour(node)`, a legend, and a word for the tooltip. */
export class Scheme {
  constructor(name, graph, state, budget, dark, overlay) {
    Object.assign(this, { name, graph, state, budget, hues: dark ? DARK : LIGHT, memo: new Map() });
    const make = { operator: operators, family: families, bits, kept, cost, protected: protection }[name] ?? operators;
    Object.assign(this, overlay ? overlayScheme(this, overlay, viridis) : make(this));
  }

  colour(node) {
    if (!this.memo.has(node)) this.memo.set(node, this.of(node) ?? this.hues[GREY]);
    return this.memo.get(node);
  }

  /** Colours of all leaves of a box: what multiplies first, then the commonest, what is nothing special last: [colour, share]. */
  mixture(leaves) {
    const counts = new Map();
    let total = 0;
    for (const { id } of leaves) {
      const colour = this.colour(id);
      counts.set(colour, (counts.get(colour) ?? 0) + 1);
      total += 1;
    }
    const rank = (colour) => (colour === this.hues[GREY] ? 1 : this.name === "operator" && colour === this.hues[BLUE] ? -1 : 0);
    return [...counts].map(([colour, many]) => [colour, many / total]).sort((a, b) => rank(a[0]) - rank(b[0]) || b[1] - a[1]);
  }
}

function operators({ graph, hues }) {
  const { kinds, kindOfText, nodes } = graph.data;
  const inBranch = (node) => nodes.branch[node] >= 0 && nodes.vertex[node] !== node;
  const hueOf = (node) => (inBranch(node) ? VERMILION : kindOfText[nodes.op[node]] ?? GREY);
  const used = new Set(nodes.op.map((_, node) => hueOf(node)));
  return {
    of: (node) => hues[hueOf(node)],
    word: (node) => kinds[hueOf(node)],
    legend: Object.entries(kinds).filter(([hue]) => used.has(Number(hue))).map(([hue, words]) => [hues[hue], words]),
  };
}

function shade(hex, turn) {
  const amount = [0, 0.35, -0.3][turn % 3];
  const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgb(${parts.map((v) => Math.round(amount > 0 ? v + (255 - v) * amount : v * (1 + amount))).join(",")})`;
}

function families({ graph, hues }) {
  const rows = graph.data.families;
  const colourOf = (family) => shade(hues[family % 7], Math.floor(family / 7));
  return {
    of: (node) => (graph.family(node) < 0 ? null : colourOf(graph.family(node))),
    word: (node) => rows[graph.family(node)]?.name ?? "no family",
    legend: [...rows.map(({ name, groups }, i) => [colourOf(i), `${name} (${groups})`, i]), [hues[GREY], "no family"]],
  };
}

function bits({ graph, state, hues }) {
  const known = [...state.weight, ...state.input].filter((value) => value != null);
  const top = Math.max(16, ...known);
  const of = (node) => {
    const { w = -1, a = -1 } = graph.facts(node);
    return w >= 0 ? state.weight[w] : a >= 0 ? state.input[a] : null;
  };
  return {
    of: (node) => (of(node) == null ? null : viridis((of(node) - 2) / (top - 2))),
    word: (node) => (of(node) == null ? "no quantizer" : `${round(of(node))} bits`),
    legend: [[hues[GREY], "no quantizer"]],
    scale: { from: "2", to: `${round(top)} bits` },
  };
}

function kept({ graph, state, hues }) {
  const of = (node) => state.kept[graph.family(node)];
  return {
    of: (node) => (of(node) == null ? null : viridis(of(node))),
    word: (node) => (of(node) == null ? "no family" : `${percent(of(node))} kept`),
    legend: [[hues[GREY], "no family"]],
    scale: { from: "0 %", to: "100 % kept" },
  };
}

function cost({ graph, hues }) {
  const rows = Object.values(graph.data.vertices).map((facts) => facts.k?.[1] ?? 0);
  const total = rows.reduce((sum, value) => sum + value, 0) || 1;
  const most = rows.reduce((a, b) => Math.max(a, b), 0) || 1;
  const of = (node) => graph.facts(node).k?.[1];
  const level = (value) => 1 + Math.log10(Math.max(value / most, 1e-3)) / 3;
  return {
    of: (node) => (of(node) ? viridis(level(of(node))) : null),
    word: (node) => (of(node) ? `${percent(of(node) / total)} of all BOPs` : "no products"),
    legend: [[hues[GREY], "no products"]],
    scale: { from: percent(most / total / 1000), to: `${percent(most / total)} of BOPs` },
  };
}

function protection({ graph, budget, hues }) {
  const { reasons, tensors } = graph.data;
  const why = (node) => {
    const { p = [], t = [] } = graph.facts(node);
    if (p.length) return p.every((family) => budget.protect[family]) ? "budget" : "free";
    const found = t.flatMap((tensor) => tensors[tensor][2].map(([, reason]) => reason));
    return found.length ? general(reasons[found[0]][0]) : null;
  };
  const counts = new Map();
  for (const node of Object.keys(graph.data.vertices)) {
    const word = why(Number(node));
    if (word && word !== "free" && word !== "budget") counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const common = [...counts].sort((a, b) => b[1] - a[1]).map(([word]) => word);
  const hueOf = new Map([["free", GREEN], ["budget", ORANGE], ...common.map((word, i) => [word, [VERMILION, PURPLE, SKY, YELLOW, BLUE][Math.min(i, 4)]])]);
  const words = { free: "may be pruned", budget: "protected by the budget" };
  const more = common.length > 5 ? [[hues[BLUE], `${common.length - 4} other reasons`]] : [];
  const shown = ["free", "budget", ...common.slice(0, more.length ? 4 : 5)];
  return {
    of: (node) => (why(node) ? hues[hueOf.get(why(node))] : null),
    word: (node) => words[why(node)] ?? why(node) ?? "nothing to prune",
    legend: [...shown.map((word) => [hues[hueOf.get(word)], words[word] ?? word]), ...more, [hues[GREY], "nothing to prune"]],
  };
}

/** A reason without the module it names at its end. */
export const general = (reason) => reason.replace(/ in [^ ]+$/, "");

export const round = (value) => (value == null ? "–" : String(Math.round(value * 10) / 10));
export const percent = (share) => {
  const value = 100 * share;
  return `${value >= 9.95 || value === 0 ? Math.round(value) : value >= 0.095 ? value.toFixed(1) : value.toPrecision(1)} %`;
};
export const amount = (value) => {
  if (value == null) return "–";
  const units = ["", " k", " M", " G", " T", " P"];
  let power = 0;
  if (value >= 10000) while (value >= 999.5 && power < units.length - 1) [value, power] = [value / 1000, power + 1];
  if (power === 0) return Number.isInteger(value) ? value.toLocaleString("en-US") : value.toFixed(1);
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)}${units[power]}`;
};
