// The whole picture in the corner, with the part that is in sight; click or drag to go there.
import { make } from "./dom.js";

const [WIDTH, HEIGHT] = [168, 112];

export class Minimap {
  /** @param go (x, y) => move the centre of sight to this place */
  constructor(go) {
    this.canvas = make("canvas", { class: "gx-minimap", "aria-hidden": "true" });
    this.store = document.createElement("canvas");
    const move = (event) => {
      if (!event.buttons || !this.root) return;
      const box = this.canvas.getBoundingClientRect();
      go((event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale);
      event.preventDefault();
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      move(event);
    });
    this.canvas.addEventListener("pointermove", move);
  }

  /** Draw the picture itself; only when it has changed. */
  render(root, painter, theme, ratio) {
    Object.assign(this, { root, ratio, theme });
    this.scale = Math.min((WIDTH - 8) / root.w, (HEIGHT - 8) / root.h);
    this.left = (WIDTH - root.w * this.scale) / 2;
    this.top = (HEIGHT - root.h * this.scale) / 2;
    for (const canvas of [this.canvas, this.store]) Object.assign(canvas, { width: WIDTH * ratio, height: HEIGHT * ratio });
    const g = this.store.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.fillStyle = theme.bg;
    g.fillRect(0, 0, WIDTH, HEIGHT);
    g.translate(this.left, this.top);
    g.scale(this.scale, this.scale);
    this._boxes(g, root, 0, 0, painter, theme);
  }

  _boxes(g, box, ox, oy, painter, theme) {
    box.layout.places.forEach(([px, py], i) => {
      if ((box.layout.only ?? i) !== i) return; // a stack shows one of its blocks
      const child = box.children[i];
      const [x, y] = [ox + px, oy + py];
      if (child.leaf || !child.open || child.w * this.scale < 3) {
        g.fillStyle = painter.mixture(child)[0][0];
        g.fillRect(x, y, Math.max(child.w, 1.2 / this.scale), Math.max(child.h, 1.2 / this.scale));
        return;
      }
      g.fillStyle = theme.soft;
      g.fillRect(x, y, child.w, child.h);
      this._boxes(g, child, x, y, painter, theme);
    });
  }

  /** Show what is in sight. */
  update({ x, y, scale }, width, height, root) {
    const all = x <= 0 && y <= 0 && x + width / scale >= root.w && y + height / scale >= root.h;
    this.canvas.hidden = all; // it would only hide what is in sight anyway
    if (!this.root || all) return;
    const { ratio } = this;
    const g = this.canvas.getContext("2d");
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.drawImage(this.store, 0, 0);
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.strokeStyle = this.theme.accent;
    g.lineWidth = 1.5;
    const w = Math.min((width / scale) * this.scale, WIDTH * 2);
    const h = Math.min((height / scale) * this.scale, HEIGHT * 2);
    g.strokeRect(this.left + x * this.scale, this.top + y * this.scale, w, h);
  }
}
