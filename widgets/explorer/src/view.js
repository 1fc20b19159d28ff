// The explorer: one network, one picture at a time, a camera over it, and what is selected. Puts the parts together.
import { Scheme } from "./colours.js";
import { Details } from "./details.js";
import { THEME_MARKS, make, readTheme } from "./dom.js";
import { Graph, ancestors, openNew, openToFit } from "./graph.js";
import { LayoutEngine } from "./layout.js";
import { Minimap } from "./minimap.js";
import { Painter, hit } from "./paint.js";
import { Toolbar } from "./toolbar.js";
import { Outline } from "./tree.js";
import { Pointer } from "./pointer.js";
import { turnTo } from "./stacks.js";

const STARTS = [60, 40, 28, 20, 16, 13, 10]; // boxes in sight at the start
const LEGIBLE = 0.62; // scale from which most people read the names
const [SMALLEST, LARGEST] = [0.02, 4];

export class Explorer {
  constructor(parent, host, { page = false } = {}) {
    this.host = host;
    this.camera = { x: 0, y: 0, scale: 1 };
    this.selected = this.hover = this.marked = null;
    this.family = -1;
    this.found = new Set();
    this.layer = host.get("layer") ?? "QADG";
    this.schemeName = host.get("colour") ?? "operator";
    this._build(parent, page);
    this.graph = new Graph(host.graph);
    this.state = host.get("live_state");
    this.budget = host.get("budget_state");
    this.theme = readTheme(this.element);
    this._resize();
    this.setLayer(this.layer);
    this._watch();
    this._draw();
    this._later(() => {
      this.outline.show(this.root, this.graph, this.state);
      this.ready = performance.now();
    });
  }

  _build(parent, page) {
    const select = { select: (item) => this.select(item, { reveal: true }), toggle: (item) => this.toggle(item) };
    this.outline = new Outline(select);
    this.toolbar = new Toolbar({
      search: (text) => this.search(text), next: (step) => this.next(step), layer: (name) => this.setLayer(name), scheme: (name) => this.setScheme(name),
      fit: () => this.fit(true), zoom: (factor) => this.zoom(factor), deeper: (step) => this.deeper(step),
      outline: () => (this.element.classList.toggle("gx-hidden"), this._resize()), selectFamily: (family) => this.selectFamily(family),
    });
    this.details = new Details(this.host, {
      selectFamily: (family) => this.selectFamily(family), show: (item) => this.select(item, { reveal: true }), spread: (stack) => this.spread(stack),
    });
    this.canvas = make("canvas", { class: "gx-canvas", tabindex: "0", role: "img", "aria-label": "graph; the tree beside it has the same vertices", "data-testid": "geta-explorer-canvas" });
    this.painter = new Painter(this.canvas.getContext("2d", { alpha: false }));
    this.minimap = new Minimap((x, y) => this.centre(x, y));
    this.tip = make("div", { class: "gx-tip", role: "tooltip", hidden: true });
    this.stage = make("div", { class: "gx-stage" }, this.canvas, this.minimap.canvas, this.tip);
    const body = make("div", { class: "gx-body" }, make("nav", { class: "gx-outline", "aria-label": "outline" }, this.outline.list), this.stage, this.details.element);
    this.element = make("div", { class: `gx${page ? " gx-page" : ""}`, "data-testid": "geta-explorer" }, this.toolbar.bar, this.toolbar.legend, body);
    if (!page && this.host.get("height")) this.element.style.height = `${this.host.get("height")}px`;
    parent.append(this.element);
    this.pointer = new Pointer(this);
  }

  _watch() {
    const theme = () => {
      this.theme = readTheme(this.element);
      this._recolour();
    };
    this.sizes = new ResizeObserver(() => this._resize());
    this.sizes.observe(this.stage);
    this.themes = new MutationObserver(theme);
    for (const marked of [document.documentElement, document.body]) this.themes.observe(marked, { attributes: true, attributeFilter: THEME_MARKS });
    this.scheme_ = matchMedia("(prefers-color-scheme: dark)");
    this.scheme_.addEventListener("change", theme);
    this._theme = theme;
    const changed = (key, act) => this.host.on(key, act);
    changed("live_state", () => ((this.state = this.host.get("live_state")), this._recolour(), this._details()));
    changed("budget_state", () => ((this.budget = this.host.get("budget_state")), this._recolour(), this._details()));
    changed("message", () => this.details.say(this.host.get("message")));
    changed("layer", () => this.host.get("layer") !== this.layer && this.setLayer(this.host.get("layer")));
    changed("colour", () => this.host.get("colour") !== this.schemeName && this.setScheme(this.host.get("colour")));
    changed("selected", () => this._selectNamed(this.host.get("selected")));
  }

  destroy() {
    this.sizes.disconnect();
    this.themes.disconnect();
    this.scheme_.removeEventListener("change", this._theme);
    cancelAnimationFrame(this.frame);
    this.dead = true;
  }

  /** After the next drawing; a page that nobody sees does not draw. */
  _later(act) {
    const soon = () => setTimeout(() => this.dead || act(), 0);
    if (document.hidden) soon();
    else requestAnimationFrame(soon);
  }

  setLayer(layer) {
    this.layer = layer;
    const before = this.picture && new Map(this.picture.boxes.map((box) => [box.path, box.open]));
    const peeks = new Map(this.picture?.boxes.filter(({ stack }) => stack).map(({ path, peek }) => [path, peek]));
    this.picture = this.graph.picture(layer);
    this.root = this.picture.root;
    this.engine = new LayoutEngine((item) => this.painter.measure(item));
    this.engine.headWidth = (box) => this.painter.headWidth(box);
    Object.assign(this.painter, { graph: this.graph, state: this.state, layer });
    for (const box of this.picture.boxes) Object.assign(box, { open: false, peek: box.stack ? (peeks.get(box.path) ?? 0) : -1 });
    if (before) {
      this.root.open = true;
      for (const box of this.picture.boxes) box.open ||= !box.branch && before.get(box.path) === true;
      openNew(this.root, before, STARTS[0] + 30);
    } else this._open();
    if (this.selected) this.selected = this.selected.leaf ? (this.picture.leaves.get(this.selected.id) ?? null) : null;
    this.hover = null;
    this.engine.run(this.root);
    this._scheme();
    this.host.set("layer", layer);
    this.fit();
    this._details();
    if (this.term) this.search(this.term);
    if (before) this._later(() => (this.outline.show(this.root, this.graph, this.state), this.outline.select(this.selected)));
  }

  /** Open as much as can be read at once; where nothing can, as little as can be read across. */
  _open() {
    const start = (limit) => {
      for (const box of this.picture.boxes) box.open = false;
      openToFit(this.root, limit);
      this.engine.run(this.root);
      return [this.width / (this.root.w + 24), this.height / (this.root.h + 24)];
    };
    const tried = [];
    for (const limit of STARTS) {
      const [across, down] = start(limit);
      if (Math.min(across, down) >= 1.05 * LEGIBLE) return; // a legend may still take some of the height
      tried.push([limit, across]);
    }
    start((tried.findLast(([, across]) => across >= LEGIBLE) ?? tried.at(-1))[0]);
  }

  setScheme(name) {
    this.schemeName = name;
    this.host.set("colour", name);
    this._scheme();
    this._draw();
  }

  _scheme() {
    this.scheme = new Scheme(this.schemeName, this.graph, this.state, this.budget, this.theme.dark);
    this.toolbar.show(this.layer, this.scheme);
    this.mapStale = true;
  }

  _recolour() {
    this.painter.state = this.state;
    this._scheme();
    this._draw();
  }

  _resize() {
    const { clientWidth, clientHeight } = this.stage;
    const ratio = window.devicePixelRatio || 1;
    if (!clientWidth || (clientWidth === this.width && clientHeight === this.height && ratio === this.ratio)) return;
    const first = !this.width;
    Object.assign(this, { width: clientWidth, height: clientHeight, ratio });
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    this.mapStale = true;
    if (this.root && (first || !this.moved)) this.fit();
    else if (this.root) this._paint();
  }

  /** The whole picture where it can be read so, else its width from the top; asked again, the whole all the same. */
  fit(again = false) {
    if (!this.width || !this.root) return;
    const { w, h } = this.root;
    const whole = Math.min(this.width / (w + 24), this.height / (h + 24), 1.15);
    const wide = Math.min(Math.max(this.width / (w + 24), LEGIBLE - 0.05), 0.9);
    const readable = whole >= LEGIBLE || (again && this.fitted === "width");
    const scale = readable ? whole : Math.max(whole, wide);
    this.fitted = scale > whole ? "width" : "whole";
    const [sightW, sightH] = [this.width / scale, this.height / scale];
    const begin = this.root.layout.places[0][0] + this.root.children[0].w / 2 - sightW / 2;
    const x = w <= sightW ? w / 2 - sightW / 2 : Math.min(Math.max(begin, -12 / scale), w - sightW + 12 / scale);
    this.camera = { scale, x, y: h > sightH ? -10 / scale : h / 2 - sightH / 2 };
    this.moved = false;
    this._draw();
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const { x, y, scale } = this.camera;
    const next = Math.min(Math.max(scale * factor, SMALLEST), LARGEST);
    this.camera = { scale: next, x: x + px / scale - px / next, y: y + py / scale - py / next };
    this.moved = true;
    this._draw();
  }

  pan(dx, dy) {
    this.camera.x -= dx / this.camera.scale;
    this.camera.y -= dy / this.camera.scale;
    this.moved = true;
    this._draw();
  }

  centre(x, y) {
    this.camera.x = x - this.width / this.camera.scale / 2;
    this.camera.y = y - this.height / this.camera.scale / 2;
    this.moved = true;
    this._draw();
  }

  place(item) {
    let [x, y] = [0, 0];
    for (let child = item; child.parent; child = child.parent) {
      const [px, py] = child.parent.layout.places[child.place];
      [x, y] = [x + px, y + py];
    }
    return [x, y];
  }

  toggle(box, open = !box.open) {
    if (box.leaf || box === this.root || box.open === open) return;
    if (turnTo(box)) this.engine.run(this.root);
    const [x, y] = this.place(box);
    const corner = [(x - this.camera.x) * this.camera.scale, (y - this.camera.y) * this.camera.scale];
    box.open = open;
    this.engine.run(this.root);
    const [nx, ny] = this.place(box);
    Object.assign(this.camera, { x: nx - corner[0] / this.camera.scale, y: ny - corner[1] / this.camera.scale });
    this.moved = true;
    this._changed();
  }

  /** A stack shows all its blocks, or one of them. */
  spread(stack, all = stack.peek >= 0) {
    stack.peek = all ? -1 : Math.max(0, stack.children.findIndex((child) => child === this.selected || ancestors(this.selected ?? child).includes(child)));
    if (stack.open) this.engine.run(this.root);
    else this.toggle(stack, true);
    this.moved = true;
    this._changed();
    this._details();
  }

  deeper(step) {
    const deepest = Math.max(0, ...this.picture.boxes.filter((box) => box.open && box.parent && seen(box)).map((box) => box.depth));
    for (const box of this.picture.boxes) {
      if (!box.parent) continue;
      if (step > 0 && box.depth <= deepest + 1) box.open = true;
      if (step < 0 && box.depth >= deepest) Object.assign(box, { open: false, peek: box.stack ? Math.max(box.peek, 0) : -1 });
    }
    this.engine.run(this.root);
    this.fit();
    this._changed();
  }

  _changed() {
    this.mapStale = true;
    this._draw();
    this._later(() => (this.outline.sync(), this.outline.select(this.selected)));
  }

  /** Open all that hides an item. */
  reveal(item) {
    const closed = ancestors(item).filter((box) => !box.open);
    if (!turnTo(item) && !closed.length) return;
    for (const box of closed) box.open = true;
    this.engine.run(this.root);
    this._changed();
  }

  select(item, { reveal = false } = {}) {
    this.selected = item;
    const families = item?.leaf ? this.graph.families(item.id) : [];
    this._mark(families.length ? families[0] : -1);
    if (item && reveal) {
      this.reveal(item);
      this._see(item);
    }
    this.host.set("selected", item?.leaf ? this.graph.name(item.id) : "");
    this.outline.select(item, true);
  }

  selectFamily(family) {
    if (this.selected && !(this.selected.leaf && this.graph.families(this.selected.id).includes(family))) this.selected = null;
    this._mark(family);
  }

  _mark(family) {
    this.family = family;
    this.marked = family < 0 ? null : this.members(family);
    this.host.set("selected_family", family < 0 ? "" : this.graph.data.families[family].name);
    this._details();
    this._draw();
  }

  /** Every node, of every layer, that a family runs through. */
  members(family) {
    const { vertices, nodes } = this.graph.data;
    const inside = new Set(Object.keys(vertices).filter((v) => ["p", "c", "u"].some((role) => vertices[v][role]?.includes(family))).map(Number));
    return new Set(nodes.vertex.flatMap((vertex, node) => (inside.has(vertex) ? [node] : [])));
  }

  _selectNamed(name) {
    if (!name || (this.selected?.leaf && this.graph.name(this.selected.id) === name)) return;
    const leaf = [...this.picture.leaves.values()].find(({ id }) => this.graph.name(id) === name);
    if (leaf) this.select(leaf, { reveal: true });
  }

  _see(item) {
    const [x, y] = this.place(item);
    const { x: cx, y: cy, scale } = this.camera;
    const inside = x >= cx && y >= cy && x + item.w <= cx + this.width / scale && y + Math.min(item.h, 60) <= cy + this.height / scale;
    if (scale < 0.5) this.camera.scale = 0.8;
    if (!inside || scale < 0.5) this.centre(x + item.w / 2, y + item.h / 2);
  }

  search(text) {
    this.term = text;
    const wanted = text.trim().toLowerCase();
    this.hits = [];
    if (wanted) {
      const { graph } = this;
      const matches = (...texts) => texts.some((one) => one.toLowerCase().includes(wanted));
      for (const leaf of this.picture.leaves.values()) {
        const { t = [] } = graph.facts(leaf.id);
        const tensors = graph.data.nodes.vertex[leaf.id] === leaf.id ? t.map((i) => graph.data.tensors[i][0]) : [];
        if (matches(graph.name(leaf.id), graph.operator(leaf.id), graph.modulePath(leaf.id), ...tensors)) this.hits.push(leaf);
      }
    }
    this.at = -1;
    this.found = new Set(this.hits.map(({ id }) => id));
    this.toolbar.found(wanted ? `${this.hits.length} found` : "");
    this._draw();
  }

  next(step) {
    if (!this.hits?.length) return;
    this.at = (this.at + step + this.hits.length) % this.hits.length;
    this.select(this.hits[this.at], { reveal: true });
    this.toolbar.found(`${this.at + 1} of ${this.hits.length}`);
  }

  _details() {
    this.details.show({ graph: this.graph, item: this.selected, family: this.family, state: this.state, budgetState: this.budget });
  }

  hitAt(px, py) {
    const { x, y, scale } = this.camera;
    return hit(this.root, x + px / scale, y + py / scale);
  }

  _draw() {
    this.frame ??= requestAnimationFrame(() => this._paint());
  }

  _paint() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    if (this.dead || !this.width || !this.root.layout) return;
    const { root, camera, width, height, ratio, theme, scheme, marked, found, selected, hover } = this;
    this.painter.draw({ root, camera, width, height, ratio, theme, scheme, marked, found, selected, hover });
    if (this.mapStale) this.minimap.render(root, this.painter, theme, ratio);
    this.mapStale = false;
    this.minimap.update(camera, width, height, root);
    this.painted = performance.now();
    this.firstPainted ??= this.painted;
  }
}

const seen = (box) => ancestors(box).every(({ open }) => open);
