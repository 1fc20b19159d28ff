// Which steps the pictures of a run show: all, or a range chosen by dragging over the curves, by keys or by buttons.
import { make } from "./theme.js";

const LEAST = 4; // steps that stay in sight
const FINE = 0.2; // share of the range that a key moves or takes away

/** A range of steps inside [0, total], at least a few steps long. */
export function rangeWithin(from, to, total) {
  const length = Math.min(Math.max(to - from, Math.min(LEAST, total)), total);
  const start = Math.min(Math.max(from, 0), total - length);
  return { from: start, to: start + length };
}

/** The range with its length times `factor`, around `centre`. */
export function scaledRange({ from, to }, total, factor, centre = (from + to) / 2) {
  const share = to > from ? (centre - from) / (to - from) : 0.5, length = Math.min((to - from) * factor, total);
  return rangeWithin(centre - share * length, centre + (1 - share) * length, total);
}

/** Steers the range of one live view. `axis()` is the present axis, `changed()` is called when the range is another. */
export class StepZoom {
  constructor(canvas, axis, changed) {
    this.canvas = canvas;
    this.axis = axis;
    this.changed = changed;
    this.range = null; // all
    this.drag = null;
    const button = (words, label, act) => {
      const made = make("button", { type: "button", class: "gp-button gp-small", "aria-label": label, title: label }, words);
      made.addEventListener("click", act);
      return made;
    };
    this.all = button("All steps", "show all steps (0)", () => this.set(null));
    this.words = make("span", { class: "gp-dim", role: "status", "data-testid": "geta-live-range" });
    this.bar = make("div", { class: "gp-zoom", role: "group", "aria-label": "steps shown" }, null, [
      button("−", "show more steps (-)", () => this.scale(2)), button("+", "show fewer steps (+)", () => this.scale(0.5)), this.all, this.words,
    ]);
    canvas.tabIndex = 0;
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    canvas.addEventListener("pointerup", (event) => this._up(event));
    canvas.addEventListener("pointercancel", () => this._end());
    canvas.addEventListener("dblclick", () => this.set(null));
    canvas.addEventListener("keydown", (event) => this._key(event));
    this.show();
  }

  get span() {
    return this.range ?? { from: 0, to: this.axis().total };
  }

  set(range) {
    const { total } = this.axis();
    this.range = range && (range.from > 0 || range.to < total) ? rangeWithin(range.from, range.to, total) : null;
    this.show();
    this.changed();
  }

  scale(factor) {
    this.set(scaledRange(this.span, this.axis().total, factor));
  }

  move(share) {
    const { from, to } = this.span;
    this.set(this.range && { from: from + share * (to - from), to: to + share * (to - from) });
  }

  show() {
    this.all.disabled = !this.range;
    this.words.textContent = this.range ? `steps ${Math.round(this.range.from)} to ${Math.round(this.range.to)}` : "drag over the curves to see fewer steps";
  }

  /** The part that is being chosen, in pixels; null when nothing is. */
  get chosen() {
    return this.drag && Math.abs(this.drag.now - this.drag.start) > 3 ? this.drag : null;
  }

  _down(event) {
    if (event.button !== 0) return;
    this.drag = { start: event.offsetX, now: event.offsetX };
    this.canvas.setPointerCapture?.(event.pointerId);
  }

  _move(event) {
    if (!this.drag) return;
    this.drag.now = event.offsetX;
    this.changed();
  }

  _up() {
    const chosen = this.chosen, axis = this.axis();
    this._end();
    if (chosen) this.set({ from: axis.step(Math.min(chosen.start, chosen.now)), to: axis.step(Math.max(chosen.start, chosen.now)) });
  }

  _end() {
    this.drag = null;
    this.changed();
  }

  _key(event) {
    const act = {
      "+": () => this.scale(0.5), "=": () => this.scale(0.5), "-": () => this.scale(2), 0: () => this.set(null), Escape: () => this.set(null),
      ArrowLeft: () => this.move(-FINE), ArrowRight: () => this.move(FINE),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }
}
