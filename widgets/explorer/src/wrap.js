// A tall picture is cut between ranks and set in columns, as a page of print is; edges across a cut run through the gutter.

const [ASPECT, TOO_TALL, LONE, GUTTER, LANE, LANES, NEAR] = [1.35, 760, 0.45, 28, 5, 6, 40];

/** The same, with its upper left corner at 0, 0. */
export function fromCorner(found) {
  const { places, routes, left = 0, top = 0 } = found;
  const moveAll = ([x, y]) => [x - left, y - top];
  return {
    w: found.w,
    h: found.h,
    places: places.map(moveAll),
    routes: routes.map((route) => ({ ...route, points: route.points.map(moveAll) })),
    inPort: found.inPort && moveAll(found.inPort),
    outPort: found.outPort && moveAll(found.outPort),
  };
}

export function wrapColumns(found) {
  const { places, sizes } = found;
  if (!places.length) return { ...found, w: found.w, h: found.h };
  const flat = fromCorner(found);
  const columns = Math.round(Math.sqrt((ASPECT * flat.h) / Math.max(flat.w + GUTTER, 1)));
  const tallest = sizes.reduce((most, { h }) => Math.max(most, h), 0);
  if (flat.h < TOO_TALL || columns < 2 || tallest > LONE * flat.h) return flat; // what one box makes tall gains nothing
  const cuts = chooseCuts(flat, sizes, columns);
  return cuts.length ? setColumns(flat, sizes, cuts) : flat;
}

/** Heights between ranks where the picture may be cut: no box lies across, and few edges. */
function chooseCuts({ places, routes, h }, sizes, columns) {
  const spans = places.map(([, y], i) => [y, y + sizes[i].h]).sort((a, b) => a[0] - b[0]);
  const gaps = [];
  let low = spans[0][1];
  for (const [a, b] of spans) {
    if (a > low + 8) gaps.push({ y: (low + a) / 2, cost: 0 });
    low = Math.max(low, b);
  }
  for (const { points } of routes) {
    const [y0, y1] = [points[0][1], points[points.length - 1][1]];
    const [from, to] = y0 < y1 ? [y0, y1] : [y1, y0];
    for (let k = lowerBound(gaps, from); k < gaps.length && gaps[k].y < to; k++) gaps[k].cost += 1;
  }
  const step = h / columns;
  const cuts = [];
  for (let k = 1; k < columns; k++) {
    const near = gaps.filter(({ y }) => Math.abs(y - k * step) < step * 0.35 && y > (cuts.at(-1) ?? 0) + step * 0.4);
    const score = (gap) => gap.cost + (3 * Math.abs(gap.y - k * step)) / step;
    const best = near.reduce((found, gap) => (!found || score(gap) < score(found) ? gap : found), null);
    if (best && best.cost <= 6) cuts.push(best.y);
  }
  return cuts;
}

function lowerBound(gaps, y) {
  let [low, high] = [0, gaps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (gaps[middle].y < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

function setColumns(flat, sizes, cuts) {
  const edges = [0, ...cuts, flat.h];
  const columnOf = (y) => {
    const found = cuts.findIndex((cut) => y < cut);
    return found < 0 ? cuts.length : found;
  };
  const columns = edges.slice(1).map(() => ({ left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity, lanes: 0 }));
  const see = (column, x, y) => {
    const c = columns[column];
    c.left = Math.min(c.left, x);
    c.right = Math.max(c.right, x);
    c.top = Math.min(c.top, y);
    c.bottom = Math.max(c.bottom, y);
  };
  flat.places.forEach(([x, y], i) => {
    see(columnOf(y), x, y);
    see(columnOf(y), x + sizes[i].w, y + sizes[i].h);
  });
  const pieces = flat.routes.map((route) => split(route, columnOf));
  for (const route of pieces) {
    for (const [column, points] of route.parts) for (const [x, y] of points) see(column, x, y);
    const [first, last] = [route.parts[0][0], route.parts.at(-1)[0]];
    for (let c = Math.min(first, last) + 1; c <= Math.max(first, last); c++) columns[c].lanes += 1;
  }
  const crossing = pieces.filter((route) => route.parts.length > 1).length;
  const margin = 14 + LANE * Math.min(crossing, LANES);
  let x = 0;
  columns.forEach((c, i) => {
    if (i) x += GUTTER + LANE * Math.min(c.lanes, LANES);
    c.dx = x - c.left;
    c.dy = margin - c.top;
    c.start = x;
    x += c.right - c.left;
  });
  const tallest = Math.max(...columns.map((c) => c.bottom - c.top));
  const floor = margin + tallest;
  const shift = (column, [px, py]) => [px + columns[column].dx, py + columns[column].dy];
  const taken = columns.map(() => 0); // lanes of each gutter, and of the floor below all columns
  let floorLane = 0;
  const routes = pieces.map(({ route, parts }) => {
    if (parts.length === 1) return { ...route, points: parts[0][1].map((p) => shift(parts[0][0], p)) };
    const [first, last] = [parts[0], parts.at(-1)];
    const k = taken[last[0]]++ % LANES;
    const a = shorten(first[1], 0, columns[first[0]].bottom).map((p) => shift(first[0], p));
    const b = shorten(last[1], last[1].length - 1, columns[last[0]].top).map((p) => shift(last[0], p));
    const next = last[0] === first[0] + 1;
    const depth = next ? k : floorLane++ % LANES;
    const low = (next ? margin + columns[first[0]].bottom - columns[first[0]].top : floor) + 7 + LANE * depth;
    const gutter = columns[last[0]].start - 12 - LANE * k;
    const high = margin - 7 - LANE * k;
    const [ax, bx] = [a.at(-1)[0], b[0][0]];
    const turn = [[ax, low], [gutter, low], [gutter, high], [bx, high]];
    return { ...route, points: [...a, ...turn, ...b], bent: [a.length - 1, a.length + 4] };
  });
  const inColumn = flat.inPort && columnOf(flat.inPort[1]);
  const outColumn = flat.outPort && columnOf(flat.outPort[1]);
  return {
    w: x,
    h: floor + margin,
    places: flat.places.map((p) => shift(columnOf(p[1]), p)),
    routes,
    inPort: flat.inPort && shift(inColumn, flat.inPort),
    outPort: flat.outPort && shift(outColumn, flat.outPort),
  };
}

/** An end that lies at its column's border needs no points on the way there. */
const shorten = (points, end, border) => (Math.abs(points[end][1] - border) < NEAR ? [points[end]] : points);

/** A route's points by column: only its first and last column matter, between them it runs through the gutter. */
function split(route, columnOf) {
  const points = route.points;
  const [first, last] = [columnOf(points[0][1]), columnOf(points.at(-1)[1])];
  if (first === last) return { route, parts: [[first, points]] };
  const begin = points.filter(([, y], i) => i === 0 || (columnOf(y) === first && i < points.length - 1));
  const end = points.filter(([, y], i) => i === points.length - 1 || (columnOf(y) === last && i > 0));
  return { route, parts: [[first, begin], [last, end]] };
}
