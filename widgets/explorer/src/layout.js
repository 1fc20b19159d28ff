// Places of all open boxes, bottom-up; boxes of one structure and size share one layout. In: a tree of boxes. Out: sizes and routes.
import { cheapPlaces } from "./cheap.js";
import { dagrePlaces } from "./dagre.js";
import { portsOf } from "./ports.js";
import { peekPlaces, shownOf } from "./stacks.js";
import { uPlaces } from "./ushape.js";
import { fromCorner, wrapColumns } from "./wrap.js";

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
      item.width ??= this._width(item);
      item.w = item.width;
      item.h = LEAF_HEIGHT;
      item.layout = null;
      return this._id(`${item.w}`);
    }
    const inner = shownOf(item).map((child) => this._visit(child)).join(",");
    const wide = this._headWidth(item);
    if (item.stack && item.peek >= 0) {
      item.layout = peekPlaces(item, wide, HEADER, PAD);
      Object.assign(item, { w: item.layout.w, h: item.layout.h });
      return this._id(`peek:${item.ins.length > 0}:${item.outs.length > 0}:${wide}:${inner}`);
    }
    item.ports ??= portsOf(item);
    item.shape ??= this._id(JSON.stringify([item.ports.edges.map(([a, b]) => [a, b]), item.ports.ins, item.outs, !item.parent]));
    const id = this._id(`${item.shape}:${wide}:${inner}`);
    if (!this.layouts.has(id)) this.layouts.set(id, place(item, wide));
    item.layout = this.layouts.get(id);
    item.w = item.layout.w;
    item.h = item.layout.h;
    return id;
  }

  /** Equal parts of equal blocks are as wide as the widest, so that they share a layout. */
  _width(item) {
    if (!item.twins) return Math.ceil(this.measure(item) / 4) * 4;
    item.twins.width ??= Math.ceil(Math.max(...item.twins.items.map((twin) => this.measure(twin))) / 4) * 4;
    return item.twins.width;
  }

  _headWidth(item) {
    if (!this.headWidth) return 0;
    if (!item.twins) return Math.ceil(this.headWidth(item));
    item.twins.head ??= Math.ceil(Math.max(...item.twins.items.map((twin) => this.headWidth(twin))));
    return item.twins.head;
  }

  _id(text) {
    if (!this.ids.has(text)) this.ids.set(text, this.ids.size);
    return this.ids.get(text);
  }
}

function place(box, headWidth) {
  const sizes = box.children.map(({ w, h, layout }) => ({ w, h, inX: layout?.ports.in?.[0] ?? w / 2, outX: layout?.ports.out?.[0] ?? w / 2 }));
  const ports = box.parent ? { ins: box.ports.ins, outs: box.outs } : { ins: [], outs: [] };
  const many = box.children.length > MANY;
  const { edges } = box.ports;
  const u = many ? null : uPlaces(sizes, edges, ports);
  const found = u ? fromCorner(u) : wrapColumns(many ? cheapPlaces(sizes, edges, ports) : dagrePlaces(sizes, edges, ports));
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
