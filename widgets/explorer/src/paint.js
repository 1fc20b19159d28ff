// Draws the open part of a picture on a canvas. What is out of sight is skipped; what is too small to read is drawn without text.
import { HEADER } from "./layout.js";
import { drawGhost, drawMissing } from "./ghost.js";
import { leavesOf } from "./graph.js";
import { drawPill, drawSheets, drawTags, pillWidth } from "./marks.js";
import { groupWords } from "./stacks.js";

export const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", "Liberation Sans", sans-serif';
const [HEAD, SMALL] = [`600 12px ${FONT}`, `10.5px ${FONT}`];
const TEXT_FROM = 0.42; // scale from which text is drawn
const LONGEST = 230; // pixels of a leaf's text
const [BADGE, SLOT] = [39, 42]; // pixels of a badge, wide enough for "W 11.9", and of its place

export class Painter {
  constructor(context) {
    this.context = context;
    this.widths = new Map();
    this.cuts = new Map();
  }

  textWidth(text, font) {
    const key = font === HEAD ? `h${text}` : `s${text}`;
    if (!this.widths.has(key)) {
      this.context.font = font;
      this.widths.set(key, this.context.measureText(text).width);
    }
    return this.widths.get(key);
  }

  /** The text, its middle left out where it is longer than `room`. */
  fit(text, room, font) {
    if (text.length > 400) text = `${text.slice(0, 160)}…${text.slice(-200)}`;
    if (this.textWidth(text, font) <= room) return text;
    const key = `${font === HEAD}${Math.round(room)}${text}`;
    if (!this.cuts.has(key)) {
      const letters = [...text];
      let [low, high] = [1, letters.length];
      const cut = (keep) => `${letters.slice(0, Math.floor(keep * 0.4)).join("")}…${letters.slice(letters.length - Math.ceil(keep * 0.6)).join("")}`;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.textWidth(cut(middle), font) <= room) low = middle;
        else high = middle - 1;
      }
      this.cuts.set(key, cut(low));
    }
    return this.cuts.get(key);
  }

  /** Head and second line; `longest`: as they may come to be, for the width. */
  lines(item, longest = false) {
    const noted = longest ? this.notes?.longest(item) : this.notes?.words(item);
    const after = noted ? ` · ${noted}` : "";
    if (item.group) return [item.stack ? `${item.label}  × ${item.children.length}` : item.label, groupWords(item, this.graph, this.state) + after];
    if (!item.leaf) return [item.label, (item.type && item.type !== "branch" ? `${item.type} · ${item.leaves}` : `${item.leaves} nodes`) + after];
    const { graph } = this;
    const shape = graph.shape(item.id).replaceAll(" × ", "×");
    const own = item.local || graph.name(item.id);
    const said = noted || shape;
    return [item.label, said ? `${own} · ${said}` : own];
  }

  /** Width that an item needs; badges of quantizers stand beside the first line. */
  measure(item) {
    const [head, below] = this.lines(item, true);
    const extra = item.leaf ? this.badges(item).length * SLOT : 18;
    const wide = Math.max(this.textWidth(this.fit(head, LONGEST, HEAD), HEAD) + extra, this.textWidth(this.fit(below, LONGEST, SMALL), SMALL));
    return Math.max(wide + 24, 64);
  }

  headWidth(box) {
    if (box.group) return this.textWidth(box.label, HEAD) + this.textWidth(this.fit(groupWords(box, this.graph, this.state), LONGEST, SMALL), SMALL) + (box.stack ? pillWidth(this, box) : 0) + 64;
    const type = box.type && box.type !== "branch" ? this.textWidth(this.fit(box.type, LONGEST, SMALL), SMALL) : 0;
    return box.parent ? this.textWidth(this.fit(box.label, LONGEST, HEAD), HEAD) + type + 48 : 0;
  }

  badges(leaf) {
    if (this.layer !== "QADG") return [];
    const { w = -1, a = -1 } = this.graph.facts(leaf.id);
    const words = [];
    if (a >= 0) words.push(["A", this.state.input[a]]);
    if (w >= 0) words.push(["W", this.state.weight[w]]);
    return words;
  }

  /** @param frame {root, camera: {x, y, scale}, width, height, ratio, theme, scheme, marked: Set|null, found: Set, selected, hover} */
  draw(frame) {
    const { context: g } = this;
    Object.assign(this, frame);
    const { x, y, scale } = frame.camera;
    g.setTransform(frame.ratio, 0, 0, frame.ratio, 0, 0);
    g.fillStyle = frame.theme.bg;
    g.fillRect(0, 0, frame.width, frame.height);
    g.setTransform(frame.ratio * scale, 0, 0, frame.ratio * scale, -x * scale * frame.ratio, -y * scale * frame.ratio);
    this.sight = { left: x, top: y, right: x + frame.width / scale, bottom: y + frame.height / scale };
    this.readable = scale >= TEXT_FROM;
    this.thin = Math.max(1 / scale, 0.8);
    g.textBaseline = "alphabetic";
    this._inside(frame.root, 0, 0);
  }

  _inside(box, ox, oy) {
    const { layout, children } = box;
    const { sight } = this;
    this._edges(layout, ox, oy);
    const { order, tops, tallest } = layout.index;
    for (let k = firstFrom(tops, sight.top - oy - tallest); k < order.length && tops[k] + oy <= sight.bottom; k++) {
      const child = children[order[k]];
      const [px, py] = layout.places[order[k]];
      const [left, top] = [ox + px, oy + py];
      if (left > sight.right || left + child.w < sight.left || top + child.h < sight.top) continue;
      if (child.leaf || !child.open) this._closed(child, left, top);
      else this._open(child, left, top);
    }
    if (this.readable && box.ports?.tags.length && layout.only === undefined) drawTags(this, box, ox, oy);
  }

  _edges(layout, ox, oy) {
    const { context: g, sight, theme } = this;
    g.lineWidth = this.thin;
    g.strokeStyle = theme.edge;
    const least = 8 + (this.readable ? 0 : 4 / this.camera.scale);
    g.beginPath();
    for (const route of layout.routes) {
      const box = (route.box ??= boxOf(route.points));
      if (box[2] - box[0] < least && box[3] - box[1] < least) continue; // shorter than can be seen
      if (box[0] + ox > sight.right || box[2] + ox < sight.left || box[1] + oy > sight.bottom || box[3] + oy < sight.top) continue;
      trace(g, route, ox, oy, this.readable);
    }
    g.stroke();
    if (!this.readable) return;
    g.fillStyle = theme.edge;
    g.beginPath();
    for (const { points, up, to, box, head } of layout.routes) {
      const [x, y] = points[points.length - 1];
      if (to < 0 || up || box[3] + oy < sight.top || y + oy > sight.bottom + 10) continue;
      arrow(g, x + ox, y + oy, head);
    }
    g.fill();
  }

  _open(box, left, top) {
    const { context: g, theme } = this;
    const small = box.h * this.camera.scale < 22 || box.w * this.camera.scale < 22;
    if (small) return this._closed(box, left, top);
    this._panel(left, top, box.w, box.h, box.depth % 2 ? theme.soft : theme.bg, box === this.hover || box === this.selected);
    if (this.readable) {
      g.fillStyle = theme.dim;
      chevron(g, left + 13, top + 13.5, true);
      g.fillStyle = theme.fg;
      g.font = HEAD;
      const label = this.fit(box.label, box.w - 36, HEAD);
      g.fillText(label, left + 24, top + 18);
      const words = box.group ? groupWords(box, this.graph, this.state) : box.type;
      const rest = box.w - 44 - this.textWidth(label, HEAD) - (box.stack ? drawPill(this, box, left, top) : 0);
      if (words && words !== "branch" && rest > 30) {
        g.fillStyle = theme.dim;
        g.font = SMALL;
        g.fillText(this.fit(words, rest, SMALL), left + 32 + this.textWidth(label, HEAD), top + 18);
      }
    }
    if (box.layout.sheets) drawSheets(this, box, left, top);
    this._inside(box, left, top);
    if (this.readable) {
      g.fillStyle = theme.edge;
      for (const port of [box.layout.ports.in, box.layout.ports.out]) if (port) dot(g, left + port[0], top + port[1]);
    }
    return undefined;
  }

  _panel(x, y, w, h, fill, strong) {
    const { context: g, theme } = this;
    g.beginPath();
    g.roundRect(x, y, w, h, 7);
    g.fillStyle = fill;
    g.fill();
    g.lineWidth = strong ? 2 * this.thin : this.thin;
    g.strokeStyle = strong ? theme.accent : theme.line;
    g.stroke();
  }

  /** A leaf, or a box that is closed or too small to look into. */
  _closed(item, x, y) {
    const { context: g, theme } = this;
    const [w, h] = [item.w, item.h];
    const mixture = this.mixture(item);
    const marked = this.marked && this._isIn(item, this.marked);
    const faded = this.marked && !marked;
    if (!this.readable && !marked && !this.found?.size && item !== this.selected && item !== this.hover) {
      g.globalAlpha = faded ? 0.12 : 0.75; // far away a box is its colour
      g.fillStyle = mixture[0][0];
      g.fillRect(x, y, w, h);
      g.globalAlpha = 1;
      const left = this.notes?.shares(item) ?? [];
      if (left.some((share) => share < 1)) drawGhost(g, { x, y, w, h }, left, theme, this);
      return;
    }
    if (!item.leaf && this.readable && !item.quiet) {
      for (const out of item.stack ? [7, 3.5] : [3]) {
        g.beginPath();
        g.roundRect(x + out, y + out, w, h, 5);
        g.fillStyle = theme.bg;
        g.fill();
        g.lineWidth = this.thin;
        g.strokeStyle = theme.line;
        g.stroke();
      }
    }
    g.beginPath();
    if (this.readable) g.roundRect(x, y, w, h, 5);
    else g.rect(x, y, w, h);
    g.fillStyle = theme.box;
    g.fill();
    g.globalAlpha = faded ? 0.06 : this.readable ? (item.quiet ? 0 : theme.tint) : 0.75;
    g.fillStyle = mixture[0][0];
    g.fill();
    g.globalAlpha = faded ? 0.3 : 1;
    this._bar(item, x, y, h, mixture);
    const left = this.notes?.shares(item) ?? [];
    if (left.some((share) => share < 1)) drawGhost(g, { x, y, w, h }, left, theme, { readable: this.readable, thin: this.thin, ink: faded ? 0.45 : 1 });
    if (this.readable && this.notes?.isMissing(item)) drawMissing(g, { x, y, w, h }, theme, this.thin);
    const found = this.found?.size && this._isIn(item, this.found);
    const strong = item === this.selected || item === this.hover;
    g.globalAlpha = 1;
    if (this.readable || strong || found || marked) {
      g.beginPath();
      g.roundRect(x, y, w, h, 5);
      g.lineWidth = (strong || found || marked ? (item === this.selected ? 3 : 2) : 1) * this.thin;
      g.strokeStyle = found ? theme.found : strong || marked ? theme.accent : theme.line;
      if (item.quiet) g.setLineDash([4, 3]);
      g.stroke();
      if (item.quiet) g.setLineDash([]);
    }
    if (this.readable) this._words(item, x, y, faded);
  }

  /** The left border tells the colour; that of a closed box tells all that is in it. */
  _bar(item, x, y, h, mixture) {
    const { context: g } = this;
    const wide = 5;
    let top = y + 1.5;
    const room = h - 3;
    for (const [colour, share] of item.leaf ? [[mixture[0][0], 1]] : mixture.slice(0, 8)) {
      g.fillStyle = colour;
      g.fillRect(x + 1.5, top, wide, room * share);
      top += room * share;
    }
  }

  _words(item, x, y, faded) {
    const { context: g, theme } = this;
    const [head, below] = this.lines(item);
    const badges = item.leaf ? this.badges(item) : [];
    const left = x + 13;
    g.globalAlpha = faded ? 0.45 : 1;
    g.font = HEAD;
    g.fillStyle = item.quiet ? theme.dim : theme.fg;
    const room = item.w - 22 - (item.leaf ? badges.length * SLOT : 18);
    g.fillText(this.fit(head, room, HEAD), left, y + 16);
    g.font = SMALL;
    g.fillStyle = theme.dim;
    g.fillText(this.fit(below, item.w - 22, SMALL), left, y + 30);
    if (!item.leaf) {
      g.fillStyle = theme.dim;
      chevron(g, x + item.w - 12, y + 12, false);
    }
    badges.forEach(([mark, bits], k) => {
      const right = x + item.w - 5 - (badges.length - 1 - k) * SLOT;
      g.fillStyle = mark === "W" ? theme.weight : theme.input;
      g.beginPath();
      g.roundRect(right - BADGE, y + 5, BADGE, 13, 6.5);
      g.fill();
      g.fillStyle = "#000";
      g.font = `600 9.5px ${FONT}`;
      g.textAlign = "center";
      g.fillText(`${mark} ${bits == null ? "–" : Math.round(bits * 10) / 10}`, right - BADGE / 2, y + 15);
      g.textAlign = "left";
    });
    g.globalAlpha = 1;
  }

  mixture(item) {
    if (item.mixtureOf !== this.scheme) {
      item.mixtureOf = this.scheme;
      item.mixture = item.leaf ? [[this.scheme.colour(item.id), 1]] : this.scheme.mixture(leavesOf(item));
    }
    return item.mixture;
  }

  _isIn(item, set) {
    if (item.leaf) return set.has(item.id);
    if (item.inSet?.set !== set) {
      let inside = false;
      for (const leaf of leavesOf(item)) {
        if (set.has(leaf.id)) {
          inside = true;
          break;
        }
      }
      item.inSet = { set, inside };
    }
    return item.inSet.inside;
  }
}

export function hit(root, px, py) {
  let [box, ox, oy] = [root, 0, 0];
  for (;;) {
    const { only } = box.layout;
    const at = box.layout.places.findIndex(([x, y], i) => (only ?? i) === i && px >= ox + x && py >= oy + y && px <= ox + x + box.children[i].w && py <= oy + y + box.children[i].h);
    if (at < 0) return { item: box === root ? null : box, header: box !== root && py <= oy + HEADER };
    const [x, y] = box.layout.places[at];
    const child = box.children[at];
    if (child.leaf || !child.open) return { item: child, header: true };
    [box, ox, oy] = [child, ox + x, oy + y];
  }
}

function firstFrom(tops, y) {
  let [low, high] = [0, tops.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle] < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

function boxOf(points) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  return [Math.min(...xs) - 4, Math.min(...ys) - 4, Math.max(...xs) + 4, Math.max(...ys) + 4];
}

function trace(g, { points, bent, up }, ox, oy, curved) {
  const at = (i) => [points[i][0] + ox, points[i][1] + oy];
  g.moveTo(...at(0));
  for (let i = 1; i < points.length; i++) {
    const [[x0, y0], [x, y]] = [at(i - 1), at(i)];
    const square = bent && i > bent[0] && i <= bent[1];
    if (!curved || up || Math.abs(x - x0) < 0.5) g.lineTo(x, y);
    else if (square && i < points.length - 1) {
      const [nx, ny] = at(i + 1);
      g.arcTo(x, y, nx, ny, Math.min(9, Math.hypot(x - x0, y - y0) / 2, Math.hypot(nx - x, ny - y) / 2));
    } else if (square) g.lineTo(x, y);
    else g.bezierCurveTo(x0, (y0 + y) / 2, x, (y0 + y) / 2, x, y);
  }
}

/** The head of an arrow that comes from above, or in a U from below or from the left. */
function arrow(g, x, y, head) {
  const [dx, dy] = head === "right" ? [-6, 0] : head === "up" ? [0, 6] : [0, -6];
  g.moveTo(x, y);
  g.lineTo(x + dx - (dy ? 3.5 : 0), y + dy - (dx ? 3.5 : 0));
  g.lineTo(x + dx + (dy ? 3.5 : 0), y + dy + (dx ? 3.5 : 0));
}

function chevron(g, x, y, open) {
  g.beginPath();
  if (open) {
    g.moveTo(x - 4, y - 2.5);
    g.lineTo(x + 4, y - 2.5);
    g.lineTo(x, y + 3);
  } else {
    g.moveTo(x - 2.5, y - 4);
    g.lineTo(x + 3, y);
    g.lineTo(x - 2.5, y + 4);
  }
  g.fill();
}

function dot(g, x, y) {
  g.beginPath();
  g.arc(x, y, 2.5, 0, 7);
  g.fill();
}
