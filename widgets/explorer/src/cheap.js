// Places for a module with very many children, in linear time: ranks by longest path, two sweeps of barycentres, straight edges.
import { bounds } from "./bounds.js";

const [GAP, RANK_GAP] = [18, 26];

export function cheapPlaces(sizes, edges, ports) {
  const n = sizes.length;
  const down = edges.filter(([a, b]) => a < b); // children stand in order of execution: what runs upwards closes a cycle
  const rank = new Int32Array(n);
  for (const [a, b] of [...down].sort((x, y) => x[0] - y[0])) rank[b] = Math.max(rank[b], rank[a] + 1);
  const rows = splitWide(ordered(rank, down, n), n);
  const places = new Array(n);
  let y = 12;
  for (const row of rows) {
    const width = row.reduce((sum, i) => sum + sizes[i].w, GAP * (row.length - 1));
    let x = -width / 2;
    for (const i of row) {
      places[i] = [x, y];
      x += sizes[i].w + GAP;
    }
    y += Math.max(...row.map((i) => sizes[i].h)) + RANK_GAP;
  }
  const below = (i) => [places[i][0] + sizes[i].outX, places[i][1] + sizes[i].h];
  const above = (i) => [places[i][0] + sizes[i].inX, places[i][1]];
  const [inPort, outPort] = [ports.ins.length ? [0, 0] : null, ports.outs.length ? [0, y - RANK_GAP + 12] : null];
  const routes = edges.map(([from, to]) => ({ from, to, points: [below(from), above(to)], up: from > to }));
  for (const to of ports.ins) routes.push({ from: -1, to, points: [inPort, above(to)] });
  for (const from of ports.outs) routes.push({ from, to: -1, points: [below(from), outPort] });
  return { ...bounds(places, sizes, routes), places, routes, inPort, outPort };
}

function ordered(rank, down, n) {
  const rows = [];
  for (let i = 0; i < n; i++) (rows[rank[i]] ??= []).push(i);
  const above = Array.from({ length: n }, () => []);
  for (const [a, b] of down) above[b].push(a);
  const place = new Float64Array(n);
  for (let sweep = 0; sweep < 2; sweep++) {
    for (const row of rows) {
      const middle = (i) => (above[i].length ? above[i].reduce((sum, a) => sum + place[a], 0) / above[i].length : place[i]);
      const key = new Map(row.map((i) => [i, middle(i)]));
      row.sort((a, b) => key.get(a) - key.get(b) || a - b);
      row.forEach((i, k) => (place[i] = k - row.length / 2));
    }
  }
  return rows;
}

/** A rank that is far wider than the picture becomes several rows. */
function splitWide(rows, n) {
  const most = Math.max(12, Math.ceil(Math.sqrt(n)));
  return rows.flatMap((row) => {
    const parts = [];
    for (let i = 0; i < row.length; i += most) parts.push(row.slice(i, i + most));
    return parts;
  });
}
