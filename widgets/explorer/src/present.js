// Presentation: the explorer alone, in the full window, with large type. It goes to the browser's top layer where it stands: what
// surrounds it in a notebook (clipping, transforms, other widgets) cannot hide it, and nothing is moved in the page.

const LARGE = 1.5;
const READABLE = 1.4; // scale from which names are read from the last row

export class Presentation {
  constructor(view) {
    this.view = view;
    this.on = false;
    view.element.addEventListener("keydown", (event) => this._key(event), true); // before the canvas, to which Escape means something else
  }

  /** How much larger type is drawn than elsewhere. */
  get large() {
    return this.on ? LARGE : 1;
  }

  toggle() {
    if (this.on) this.leave();
    else this.enter();
  }

  enter() {
    const { view } = this;
    const { element, camera, moved, width, height, selected } = view;
    const middle = [camera.x + width / camera.scale / 2, camera.y + height / camera.scale / 2];
    this.on = true;
    this.before = { camera: { ...camera }, moved, hidden: element.classList.contains("gx-hidden") };
    element.classList.add("gx-presenting", "gx-hidden"); // the room goes to the picture; the outline comes by its button
    if (element.showPopover) {
      element.setAttribute("popover", "manual");
      element.showPopover();
    }
    this._changed(() => {
      if (!moved) return view.fit();
      camera.scale = Math.min(Math.max(camera.scale * LARGE, camera.scale > 0.4 ? READABLE : 0), 4);
      return selected ? view._middle(selected) : view.centre(...middle);
    });
  }

  leave() {
    if (!this.on) return;
    const { element } = this.view;
    this.on = false;
    if (element.matches(":popover-open")) element.hidePopover();
    element.removeAttribute("popover");
    element.classList.remove("gx-presenting");
    element.classList.toggle("gx-hidden", this.before.hidden);
    this._changed(() => {
      Object.assign(this.view, { camera: this.before.camera, moved: this.before.moved });
      this.view._draw();
    });
  }

  _changed(then) {
    const { view } = this;
    const button = view.toolbar.presenting;
    button.setAttribute("aria-pressed", String(this.on));
    button.classList.toggle("gx-on", this.on);
    if (view.dead) return;
    view._resize();
    then();
    (this.on ? view.canvas : button).focus({ preventScroll: true });
  }

  _key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "p" && !/INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return this._take(event, () => this.toggle());
    if (!this.on) return;
    const menu = this.view.toolbar.find.isOpen || event.target.closest('[role="menu"]');
    if (event.key === "Escape" && !menu) this._take(event, () => this.leave());
    if (event.key === "Tab") this._stay(event);
  }

  _take(event, act) {
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** The focus stays in what is seen. */
  _stay(event) {
    const all = [...this.view.element.querySelectorAll('button, input, select, [tabindex="0"]')].filter((one) => one.tabIndex >= 0 && one.offsetParent !== null && !one.disabled);
    const [first, last] = [all[0], all.at(-1)];
    if (event.shiftKey ? event.target !== first : event.target !== last) return;
    this._take(event, () => (event.shiftKey ? last : first).focus());
  }
}
