// A chain with nested shortcuts (a UNet, an autoencoder with skips) as a U: down on the left, up on the right, shortcuts straight across.
// In: sizes in order of execution and edges. Out: places and routes as dagre.js gives them, or null where the graph is no such chain.
import { bounds } from "./bounds.js";

const [ROW, SIDE, LEAST, HIGH, RIM] = [26, 64, 3, 6, 4]; // gap between boxes, gap between arms, shortcuts that make a U, boxes of its arms together, the shade of a box

export function uPlaces(sizes, edges, ports) {
  const skips = skipsOf(sizes.length, edges);
  if (!skips || ports.ins.some((i) => i !== 0) || ports.outs.some((i) => i !== sizes.length - 1)) return null;
  const turn = turnOf(skips);
  const places = setArms(sizes, skips, turn);
  const routes = edges.map(([a, b]) => route(a, b, turn, places, sizes));
  const first = places[0];
  const last = places[sizes.length - 1];
  const inPort = ports.ins.length ? [first[0] + sizes[0].inX, first[1] - ROW] : null;
  const outPort = ports.outs.length ? [last[0] + sizes.at(-1).outX, Math.max(...places.map(([, y], i) => y + sizes[i].h)) + ROW] : null;
  if (inPort) routes.push({ from: -1, to: 0, points: [inPort, [first[0] + sizes[0].inX, first[1]]] });
  if (outPort) {
    const right = Math.max(...places.map(([x], i) => x + sizes[i].w)) + 18;
    const top = last[1] - 14;
    const middle = last[0] + sizes.at(-1).w / 2;
    routes.push({ from: sizes.length - 1, to: -1, points: [[middle, last[1]], [middle, top], [right, top], [right, outPort[1] - 12], [outPort[0], outPort[1] - 12], outPort], bent: [0, 5] });
  }
  return { ...bounds(places, sizes, routes), places, routes, inPort, outPort };
}

/** The shortcuts of a chain, the outermost first, where they are nested; null where the graph is no chain with such. */
function skipsOf(n, edges) {
  const chain = new Set(edges.filter(([a, b]) => b === a + 1).map(([a]) => a));
  if (n < HIGH || chain.size !== n - 1) return null;
  const skips = edges.filter(([a, b]) => b !== a + 1).sort((one, other) => one[0] - other[0]);
  const long = skips.filter(([a, b]) => b - a > 2 || skips.length >= LEAST);
  if (long.length < LEAST) return null;
  const nested = skips.every(([a, b], i) => a < b && (i === 0 || (skips[i - 1][0] < a && skips[i - 1][1] > b)));
  return nested ? skips : null;
}

/** The last box of the left arm: half-way inside the innermost shortcut. */
function turnOf(skips) {
  const [a, b] = skips.at(-1);
  return a + Math.ceil((b - a - 1) / 2);
}

/** Both arms from the bottom upwards; the ends of a shortcut stand on one height. */
function setArms(sizes, skips, turn) {
  const n = sizes.length;
  const top = new Float64Array(n);
  let [left, right] = [turn, turn + 1];
  let [yl, yr] = [0, 0]; // upper edge of what stands so far in each arm
  const lift = (i, y) => (top[i] = y - ROW - sizes[i].h);
  for (const [a, b] of [...skips].reverse()) {
    while (left > a) yl = lift(left--, yl);
    while (right < b) yr = lift(right++, yr);
    const middle = Math.min(yl - ROW - sizes[a].h / 2, yr - ROW - sizes[b].h / 2);
    yl = top[a] = middle - sizes[a].h / 2;
    yr = top[b] = middle - sizes[b].h / 2;
    [left, right] = [a - 1, b + 1];
  }
  while (left >= 0) yl = lift(left--, yl);
  while (right < n) yr = lift(right++, yr);
  const wide = (from, to) => Math.max(...sizes.slice(from, to).map(({ w }) => w));
  const [one, other] = [wide(0, turn + 1), wide(turn + 1, n)];
  return sizes.map(({ w }, i) => [(i <= turn ? one / 2 : one + SIDE + other / 2) - w / 2, top[i]]);
}

function route(from, to, turn, places, sizes) {
  const [a, b] = [places[from], places[to]];
  const middle = (i) => places[i][0] + sizes[i].w / 2;
  if (to <= turn) return { from, to, points: [[a[0] + sizes[from].outX, a[1] + sizes[from].h], [b[0] + sizes[to].inX, b[1]]] };
  if (from > turn) return { from, to, points: [[middle(from), a[1]], [middle(to), b[1] + sizes[to].h + RIM]], head: "up" };
  const y = a[1] + sizes[from].h / 2;
  if (to !== from + 1) return { from, to, points: [[a[0] + sizes[from].w, y], [b[0], b[1] + sizes[to].h / 2]], head: "right" };
  const floor = Math.max(a[1] + sizes[from].h, b[1] + sizes[to].h) + 16; // around the foot of the U
  const points = [[a[0] + sizes[from].outX, a[1] + sizes[from].h], [a[0] + sizes[from].outX, floor], [middle(to), floor], [middle(to), b[1] + sizes[to].h + RIM]];
  return { from, to, points, head: "up", bent: [0, 3] };
}
