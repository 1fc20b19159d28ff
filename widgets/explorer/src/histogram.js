// The histogram of a weight with the levels of its quantizer on it. In: the answer of geta_nb/widgets/weight_histogram.py. Out: elements.
import { amount, percent } from "./colours.js";
import { make } from "./dom.js";
import { short, svg, unpack } from "./svg.js";

const [WIDTH, HEIGHT, FOOT] = [276, 92, 16];
const APART = 2.5; // pixels between two levels that can be told apart

/** How many levels a quantizer has: {count, lowest, highest}, the codes it may give. */
export function codesOf({ step, clip, exponent, signed, narrow }) {
  const highest = Math.round(clip ** exponent / step);
  const lowest = signed ? -(narrow ? highest : highest + 1) : 0;
  return { count: highest - lowest + 1, lowest, highest };
}

/** The value that comes to stand exactly on a code: (|k| d)^(1/t), with the sign of k. */
export const valueOf = (code, { step, exponent }) => Math.sign(code) * (Math.abs(code) * step) ** (1 / exponent);

/** The range that is drawn: all values, and of a quantizer its whole clip range. */
export function sightOf({ low, high, grid }) {
  const { lowest = 0, highest = 0 } = grid ? codesOf(grid) : {};
  const [left, right] = grid ? [Math.min(low, valueOf(lowest, grid)), Math.max(high, valueOf(highest, grid))] : [low, high];
  const room = (right - left || Math.abs(right) || 1) * 0.02;
  return [left - room, right + room];
}

export function histogram(weight) {
  const { grid } = weight;
  const [left, right] = sightOf(weight);
  const x = (value) => ((value - left) / (right - left)) * WIDTH;
  const words = [about(weight), ...(grid ? [aboutGrid(grid)] : [])];
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, class: "gx-histogram", role: "img", "aria-label": words.join("; "), "data-testid": "geta-explorer-histogram" });
  const drawn = grid ? levels(grid, x) : null;
  if (grid) picture.append(...clipped(grid, x));
  picture.append(bars(weight, x), ...(drawn ? [drawn] : []));
  picture.append(svg("path", { d: `M0 ${HEIGHT + 0.5}H${WIDTH}`, class: "gx-axis" }));
  const marks = [[weight.low, "start"], [weight.high, "end"]];
  picture.append(...marks.map(([value, anchor]) => svg("text", { x: anchor === "start" ? 0 : WIDTH, y: HEIGHT + 12, "text-anchor": anchor, class: "gx-tick", text: short(value) })));
  const zero = x(0);
  if (zero > 45 && zero < WIDTH - 45) picture.append(svg("path", { d: `M${zero} ${HEIGHT}v3`, class: "gx-axis" }), svg("text", { x: zero, y: HEIGHT + 12, "text-anchor": "middle", class: "gx-tick", text: "0" }));
  if (grid && !drawn) words.push("the levels lie closer than a pixel: the range is shaded");
  return make("div", { class: "gx-figure" }, picture, ...words.map((text) => make("div", { class: "gx-dim", text })));
}

function bars({ low, high, bins }, x) {
  const shares = unpack(bins);
  const wide = (high - low) / shares.length;
  const path = shares.map((share, i) => {
    const [from, to] = wide ? [x(low + i * wide), x(low + (i + 1) * wide)] : [x(low) - 2, x(low) + 2];
    const tall = share ? Math.max(share * (HEIGHT - 4), 1) : 0; // what there is, is seen
    return tall ? `M${from.toFixed(2)} ${HEIGHT}V${(HEIGHT - tall).toFixed(2)}H${to.toFixed(2)}V${HEIGHT}Z` : "";
  });
  return svg("path", { d: path.join(""), class: "gx-bars" });
}

/** One line a level; nothing where they could not be told apart. */
function levels(grid, x) {
  const { count, lowest, highest } = codesOf(grid);
  const [from, to] = [x(valueOf(lowest, grid)), x(valueOf(highest, grid))];
  if ((to - from) / Math.max(count - 1, 1) < APART) return null;
  const path = Array.from({ length: count }, (_, i) => `M${x(valueOf(lowest + i, grid)).toFixed(2)} 0V${HEIGHT}`);
  return svg("path", { d: path.join(""), class: "gx-levels", "data-levels": count });
}

/** What lies beyond the range of the quantizer is shaded; it becomes the outermost level. */
function clipped(grid, x) {
  const { lowest, highest } = codesOf(grid);
  const [from, to] = [Math.max(x(valueOf(lowest, grid)), 0), Math.min(x(valueOf(highest, grid)), WIDTH)];
  return [svg("rect", { x: from.toFixed(2), y: 0, width: Math.max(to - from, 1).toFixed(2), height: HEIGHT, class: "gx-range" })];
}

function about({ n, zero, beyond, bad, every, grid }) {
  const parts = [`${amount(n)} values`];
  if (zero) parts.push(`${percent(zero)} exactly 0, not drawn`);
  if (grid && beyond) parts.push(`${percent(beyond)} beyond the clip`);
  if (bad) parts.push(`${amount(bad)} not finite`);
  if (every) parts.push(`every ${every}th counted`);
  return parts.join("; ");
}

export function aboutGrid(grid) {
  const { count } = codesOf(grid);
  const bent = Math.abs(grid.exponent - 1) < 5e-4 ? "" : `, exponent ${short(grid.exponent)}`;
  const range = grid.signed ? `±${short(grid.clip)}` : `0 … ${short(grid.clip)}`;
  const channels = grid.channels ? `; a range for each of ${amount(grid.channels)} channels, from ±${short(grid.narrowest)}: the widest is drawn` : "";
  return `${amount(count)} levels (${Math.round(grid.bits * 10) / 10} bits), step ${short(grid.step)}, clip ${range}${bent}${channels}`;
}
