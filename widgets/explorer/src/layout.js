// Places of all open boxes, bottom-up; boxes of one structure and size share one layout. In: a tree of boxes. Out: sizes and routes.
import { cheapPlaces } from "./cheap.js";
import { dagrePlaces } from "./dagre.js";
import { wrapColumns } from "./wrap.js";

export const HEADER = 26;
export const PAD = 12;
export const LEAF_HEIGHT = 38;
export const MANY = 150; // children above which dagre is too slow

export class LayoutEngine {
  /** @param measure (item) => width in pixels of a leaf or a closed box */
  constructor(measure) {
    this.measure = measure;
    this.ids = new Map();
    this.layouts = new Map();
  }

  /** Lay out `box` and everything open in it; sets `w`, `h` and `layout` of each item. */
  run(box) {
    this._visit(box);
    return box;
  }

  _visit(item) {
    if (item.leaf || !item.open) {
      item.width ??= Math.ceil(this.measure(item) / 4) * 4;
      item.w = item.width;
      item.h = LEAF_HEIGHT;
      item.layout = null;
      return this._id(`${item.w}`);
    }
    const inner = item.children.map((child) => this._visit(child)).join(",");
    item.shape ??= this._id(JSON.stringify([item.edges.map(([a, b]) => [a, b]), item.ins, item.outs, !item.parent]));
    const wide = Math.ceil(this.headWidth?.(item) ?? 0);
    const id = this._id(`${item.shape}:${wide}:${inner}`);
    if (!this.layouts.has(id)) this.layouts.set(id, place(item, wide));
    item.layout = this.layouts.get(id);
    item.w = item.layout.w;
    item.h = item.layout.h;
    return id;
  }

  _id(text) {
    if (!this.ids.has(text)) this.ids.set(text, this.ids.size);
    return this.ids.get(text);
  }
}

function place(box, headWidth) {
  const sizes = box.children.map(({ w, h, layout }) => ({ w, h, inX: layout?.ports.in?.[0] ?? w / 2, outX: layout?.ports.out?.[0] ?? w / 2 }));
  const ports = box.parent ? { ins: box.ins, outs: box.outs } : { ins: [], outs: [] };
  const many = box.children.length > MANY;
  const found = wrapColumns(many ? cheapPlaces(sizes, box.edges, ports) : dagrePlaces(sizes, box.edges, ports));
  const top = box.parent ? HEADER : PAD;
  const w = Math.max(found.w + 2 * PAD, headWidth);
  const dx = (w - found.w) / 2;
  const move = ([x, y]) => [x + dx, y + top];
  const h = found.h + top + PAD;
  const routes = found.routes.map((route) => ({ ...route, points: route.points.map(move) }));
  const ports2 = { in: found.inPort && [found.inPort[0] + dx, HEADER - 2], out: found.outPort && [found.outPort[0] + dx, h] };
  for (const route of routes) {
    if (route.from < 0 && ports2.in) route.points[0] = ports2.in;
    if (route.to < 0 && ports2.out) route.points[route.points.length - 1] = ports2.out;
  }
  return { w, h, places: found.places.map(move), routes, ports: ports2, index: rowsOf(found.places.map(move), sizes) };
}

/** Children sorted by their upper edge, so that what is out of sight is skipped quickly. */
function rowsOf(places, sizes) {
  const order = places.map((_, i) => i).sort((a, b) => places[a][1] - places[b][1]);
  const tallest = sizes.reduce((most, { h }) => Math.max(most, h), 0);
  return { order, tops: order.map((i) => places[i][1]), tallest };
}
