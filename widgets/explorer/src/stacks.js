// Groups of a picture: stacks of equal blocks and folded plain steps. A stack shows one of its blocks (`peek`) or all of them (`peek` -1).
// In: boxes of graph.js. Out: what is in sight, words about it, places of a stack that shows one block. No DOM.

const [SHEET, SHEETS] = [5, 2]; // pixels that a sheet behind the block stands out, and how many are drawn

/** The children of an open box that are in sight. */
export const shownOf = (box) => (box.stack && box.peek >= 0 ? [box.children[box.peek]] : box.children);

/** Have every stack around an item show the block that holds it; says whether one had to turn. */
export function turnTo(item) {
  let turned = false;
  for (let child = item; child.parent; child = child.parent) {
    const stack = child.parent;
    if (!stack.stack || stack.peek < 0 || stack.peek === child.place) continue;
    stack.peek = child.place;
    turned = true;
  }
  return turned;
}

/** Make the equal parts of a stack's blocks as wide as each other, so that all blocks share one layout. */
export function pair(stack) {
  const [first, ...others] = stack.children;
  const walk = (items) => {
    const twins = { items, width: null };
    for (const item of items) item.twins = twins;
    const [one] = items;
    if (one.leaf) return;
    one.children.forEach((_, i) => walk(items.map(({ children }) => children[i])));
  };
  walk([first, ...others.filter((other) => alike(first, other))]);
}

function alike(a, b) {
  if (a.leaf || b.leaf) return a.leaf === b.leaf;
  return a.children.length === b.children.length && a.children.every((child, i) => alike(child, b.children[i]));
}

/** Places of a stack that shows one block, the others as sheets behind it. */
export function peekPlaces(stack, headWidth, header, pad) {
  const block = stack.children[stack.peek];
  const rim = SHEET * SHEETS;
  const w = Math.max(block.w + 2 * pad + rim, headWidth);
  const place = [(w - rim - block.w) / 2, header];
  const h = header + block.h + rim + pad;
  const inX = place[0] + (block.layout?.ports.in?.[0] ?? block.w / 2);
  const outX = place[0] + (block.layout?.ports.out?.[0] ?? block.w / 2);
  const ports = { in: stack.ins.length ? [inX, header - 2] : null, out: stack.outs.length ? [outX, h] : null };
  const routes = [];
  if (ports.out) routes.push({ from: stack.peek, to: -1, points: [[outX, header + block.h + rim], ports.out] });
  const index = { order: [stack.peek], tops: [header], tallest: block.h };
  return { w, h, places: stack.children.map(() => place), routes, ports, index, only: stack.peek, sheets: SHEETS, sheet: SHEET, tags: [] };
}

/** What is said of a group beside its name: how many, how wide, how many bits; of plain steps that they cost nothing. */
export function groupWords(box, graph, state) {
  if (box.group === "quiet") return `${box.leaves} steps, no cost`;
  const { widths, bits } = spread(box, graph, state);
  return [box.type, widths && `${widths} wide`, bits && `${bits} bit`].filter(Boolean).join(" · ");
}

/** Ranges over all blocks: of what their weights give out, and of the bits of their weights. */
export function spread(box, graph, state) {
  const tensors = new Set();
  const quantizers = new Set();
  const walk = (item) => {
    if (!item.leaf) return item.children.forEach(walk);
    const { t = [], w = -1 } = graph.facts(item.id);
    for (const tensor of t) tensors.add(tensor);
    if (w >= 0) quantizers.add(w);
    return undefined;
  };
  if (!box.holds) {
    walk(box);
    const shapes = [...tensors].map((tensor) => graph.data.tensors[tensor][1]);
    box.holds = { widths: range(shapes.filter((shape) => shape.length > 1).map(([first]) => first)), quantizers: [...quantizers] };
  }
  const bits = box.holds.quantizers.map((w) => state?.weight[w]).filter((value) => value != null);
  return { widths: box.holds.widths, bits: range(bits.map((value) => Math.round(value * 10) / 10)) };
}

function range(values) {
  if (!values.length) return "";
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return low === high ? String(low) : `${low}–${high}`;
}
