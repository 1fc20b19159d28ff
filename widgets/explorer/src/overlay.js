// An overlay: the user's own numbers or words as colours and labels. The same colours as geta_nb/widgets/overlay_colours.py. No DOM.

const DIVERGING = [[33, 102, 172], [103, 169, 207], [150, 150, 150], [239, 138, 98], [178, 24, 43]];
const LOG_FROM = 1000; // largest over least from which a scale of positive numbers is logarithmic
const MOST = 7;
const ODD = 5; // hue of what is not finite: in no scale

/** Values of one overlay by vertex. */
export class Values {
  constructor(overlay) {
    this.overlay = overlay;
    this.at = new Map(overlay.nodes.map((node, i) => [node, i]));
  }

  word(vertex) {
    const i = this.at.get(vertex);
    if (i === undefined) return "";
    return this.overlay.odd[i] ?? word(this.overlay.values[i], this.overlay.unit);
  }

  value(vertex) {
    const i = this.at.get(vertex);
    return i === undefined ? undefined : this.overlay.values[i];
  }
}

/** A number with three digits, a text as it is. */
export function word(value, unit = "") {
  if (value == null || typeof value === "string") return value || "–";
  const size = Math.abs(value);
  let text;
  if (size >= 1000 && size < 1e15) {
    const power = Math.min(Math.floor(Math.log10(size) / 3), 4);
    text = `${digits(value / 1000 ** power)}${["", "k", "M", "G", "T"][power]}`;
  } else text = size >= 1e-3 || size === 0 ? digits(value) : value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
  return unit ? `${text} ${unit}` : text;
}

const digits = (value) => (Math.abs(value) < 1e15 ? String(Number(value.toPrecision(3))) : value.toExponential(2).replace(/\.?0+e/, "e"));

function mix(ramp, share) {
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return `rgb(${ramp[low].map((value, i) => Math.round(value + (at - low) * (ramp[low + 1][i] - value))).join(",")})`;
}

/** Colour of a number, the colours of the scale from its least to its largest, and what is to be said of it. */
export function scaleOf(known, viridis) {
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    const colour = (value) => mix(DIVERGING, (value / most + 1) / 2);
    return { colour, steps: [0, 1, 2, 3, 4].map((k) => colour(low + ((high - low) * k) / 4)), low, high, log: false };
  }
  const log = low > 0 && high / low >= LOG_FROM;
  const change = log ? Math.log : Number;
  const span = change(high) - change(low) || 1;
  const start = high > low ? change(low) : change(low) - 0.5;
  return { colour: (value) => viridis((change(value) - start) / span), steps: [0, 0.25, 0.5, 0.75, 1].map(viridis), low, high, log };
}

/** The parts of a colour scheme: `of(node)`, `word(node)`, `legend`, `scale`. */
export function overlayScheme({ graph, hues }, overlay, viridis) {
  const values = new Values(overlay);
  const vertexOf = (node) => graph.data.nodes.vertex[node];
  const label = (node) => values.word(vertexOf(node)) || "no value";
  const grey = hues.at(-1);
  const missing = [grey, "no value"];
  if (overlay.kind === "texts") {
    const counts = new Map();
    for (const text of overlay.values) counts.set(text, (counts.get(text) ?? 0) + 1);
    const common = [...counts].sort((a, b) => b[1] - a[1]).map(([text]) => text);
    const hueOf = new Map(common.slice(0, MOST).map((text, i) => [text, hues[i]]));
    const more = common.length > MOST ? [[grey, `${common.length - MOST} others`]] : [];
    const of = (node) => hueOf.get(values.value(vertexOf(node))) ?? null;
    return { of, word: label, legend: [...common.slice(0, MOST).map((text) => [hueOf.get(text), text]), ...more, missing] };
  }
  const known = overlay.values.filter((value) => value != null);
  const odd = Object.keys(overlay.odd).length;
  const stark = hues[ODD];
  const legend = [...(odd ? [[stark, `NaN or infinite (${odd})`]] : []), missing];
  const isOdd = (node) => values.value(vertexOf(node)) === null;
  if (!known.length) return { of: (node) => (isOdd(node) ? stark : null), word: label, legend };
  const { colour, steps, low, high, log } = scaleOf(known, viridis);
  const of = (node) => {
    const value = values.value(vertexOf(node));
    return value == null ? (value === null ? stark : null) : colour(value);
  };
  return { of, word: label, legend, scale: { from: word(low, overlay.unit), to: word(high, overlay.unit) + (log ? " (log)" : ""), colours: steps } };
}
