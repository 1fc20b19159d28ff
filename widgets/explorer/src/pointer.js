// Mouse, touch, wheel and keys on the canvas.
import { onPill } from "./marks.js";
import { groupWords } from "./stacks.js";

const STILL = 4; // pixels a click may move

export class Pointer {
  constructor(view) {
    this.view = view;
    this.down = new Map();
    const { canvas, element } = view;
    canvas.addEventListener("pointerdown", (event) => this._press(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    canvas.addEventListener("pointerup", (event) => this._release(event));
    canvas.addEventListener("pointercancel", (event) => this.down.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this._tip(null));
    canvas.addEventListener("dblclick", (event) => this._double(event));
    canvas.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this._key(event));
    element.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || (event.shiftKey && event.key === "Enter")) return;
      event.stopPropagation(); // a letter typed here is no command to the notebook around
      if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
      event.preventDefault();
      view.toolbar.search.focus();
    });
  }

  _at(event) {
    const box = this.view.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  _press(event) {
    if (event.button > 1) return;
    this.view.canvas.focus({ preventScroll: true });
    this.view.canvas.setPointerCapture(event.pointerId);
    this.down.set(event.pointerId, { start: this._at(event), last: this._at(event), moved: false });
  }

  _move(event) {
    const press = this.down.get(event.pointerId);
    const here = this._at(event);
    if (!press) return this._over(here);
    const [dx, dy] = [here[0] - press.last[0], here[1] - press.last[1]];
    if (!press.moved && Math.hypot(here[0] - press.start[0], here[1] - press.start[1]) < STILL) return undefined;
    press.moved = true;
    this._tip(null);
    this.view.canvas.classList.add("gx-drag");
    if (this.down.size === 2) this._pinch(event.pointerId, here);
    else this.view.pan(dx, dy);
    press.last = here;
    return undefined;
  }

  _pinch(id, here) {
    const [other] = [...this.down].filter(([key]) => key !== id).map(([, press]) => press.last);
    const before = this.down.get(id).last;
    const span = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    this.view.zoom(span(here) / Math.max(span(before), 1), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
  }

  _release(event) {
    const press = this.down.get(event.pointerId);
    this.down.delete(event.pointerId);
    this.view.canvas.classList.remove("gx-drag");
    if (!press || press.moved) return;
    const found = this.view.hitAt(...press.start);
    if (found.item && this._onPill(found, press.start)) this.view.spread(found.item);
    else if (found.item && this._onArrow(found, press.start)) this.view.toggle(found.item);
    else this.view.select(found.item && (found.header || found.item.leaf) ? found.item : null);
  }

  /** Whether a click is on the arrow that opens or closes a module. */
  _onArrow({ item, header }, [px, py]) {
    if (item.leaf || !header || this.view.camera.scale < 0.42) return false;
    const [x] = this.view.place(item);
    const inside = this.view.camera.x + px / this.view.camera.scale - x;
    return item.open ? inside < 24 : inside > item.w - 24;
  }

  /** Whether a click is on the pill of an open stack. */
  _onPill({ item, header }, [px, py]) {
    const { camera, painter } = this.view;
    if (!item.stack || !item.open || !header || camera.scale < 0.42) return false;
    const [x, y] = this.view.place(item);
    return onPill(painter, item, camera.x + px / camera.scale - x, camera.y + py / camera.scale - y);
  }

  _double(event) {
    const { item } = this.view.hitAt(...this._at(event));
    if (item && !item.leaf) this.view.toggle(item);
  }

  _wheel(event) {
    const { view } = this;
    const wanted = event.ctrlKey || event.metaKey || document.activeElement === view.canvas;
    if (!wanted) return; // the page scrolls on
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    view.zoom(Math.exp(-Math.max(-120, Math.min(120, pixels)) * (event.ctrlKey ? 0.006 : 0.0022)), ...this._at(event));
    this._tip(null);
  }

  _key(event) {
    const { view } = this;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const move = 60;
    const keys = {
      ArrowLeft: () => view.pan(move, 0), ArrowRight: () => view.pan(-move, 0), ArrowUp: () => view.pan(0, move), ArrowDown: () => view.pan(0, -move),
      "+": () => view.zoom(1.25), "=": () => view.zoom(1.25), "-": () => view.zoom(0.8), 0: () => view.fit(true), f: () => view.fit(true),
      Escape: () => view.select(null), Enter: () => view.selected && view.toggle(view.selected),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }

  _over(here) {
    const { view } = this;
    const { item, header } = view.hitAt(...here);
    const shown = item && (item.leaf || header) ? item : null;
    view.canvas.classList.toggle("gx-hand", Boolean(shown));
    if (shown !== view.hover) {
      view.hover = shown;
      view._draw();
    }
    this._tip(shown, here);
  }

  _tip(item, [px, py] = [0, 0]) {
    const { tip, graph, scheme, width, height } = this.view;
    tip.hidden = !item;
    if (!item) return;
    if (item !== this.tipped) {
      const lines = item.leaf
        ? [graph.operator(item.id), graph.name(item.id), graph.modulePath(item.id), graph.shape(item.id), scheme.word(item.id)]
        : item.group ? [item.label, item.path, groupWords(item, graph, this.view.state)] : [item.label, item.path, item.type, `${item.leaves} nodes`];
      const cut = (text) => (text.length > 240 ? `${text.slice(0, 120)}…${text.slice(-100)}` : text);
      tip.replaceChildren(...[...new Set(lines)].filter(Boolean).map((text, i) => Object.assign(document.createElement(i ? "span" : "b"), { textContent: cut(text) })));
    }
    this.tipped = item;
    const [w, h] = [tip.offsetWidth, tip.offsetHeight];
    tip.style.left = `${Math.max(4, Math.min(px + 14, width - w - 6))}px`;
    tip.style.top = `${py + 18 + h > height ? Math.max(4, py - h - 10) : py + 18}px`;
  }
}
