// A drawing context that writes SVG: what paint.js draws on a canvas becomes vectors at the same places. Texts are escaped.
// It knows paths, rectangles, texts, clips, dashes and transforms; text is measured by a real context, so that it fits its box alike.

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu; // what no XML may hold

export const escapeXml = (text) => String(text).replace(XML, "\ufffd").replace(/[&<>"']/g, (letter) => ESCAPES[letter]);

const short = (value) => String(Math.round(value * 100) / 100);

export class SvgContext {
  /** @param real a canvas' context, asked for widths of texts */
  constructor(width, height, real) {
    Object.assign(this, { width, height, real });
    Object.assign(this, { fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, globalAlpha: 1, font: "10px sans-serif", textAlign: "left", textBaseline: "alphabetic", lineCap: "butt", lineJoin: "miter" });
    this.parts = [];
    this.path = [];
    this.matrix = [1, 0, 0, 1, 0, 0];
    this.dash = [];
    this.stack = [];
    this.clips = [];
    this.groups = 0;
  }

  // -- state ------------------------------------------------------------------------------------------------------------------------

  save() {
    const { fillStyle, strokeStyle, lineWidth, globalAlpha, font, textAlign, textBaseline, lineCap, lineJoin, matrix, dash, groups } = this;
    this.stack.push({ fillStyle, strokeStyle, lineWidth, globalAlpha, font, textAlign, textBaseline, lineCap, lineJoin, matrix: [...matrix], dash: [...dash], groups });
  }

  restore() {
    const before = this.stack.pop();
    if (!before) return;
    while (this.groups > before.groups) this._close();
    Object.assign(this, before);
  }

  _close() {
    this.parts.push("</g>");
    this.groups -= 1;
  }

  setTransform(a, b, c, d, e, f) {
    this.matrix = [a, b, c, d, e, f];
  }

  resetTransform() {
    this.matrix = [1, 0, 0, 1, 0, 0];
  }

  transform(a, b, c, d, e, f) {
    const [m, n, o, p, q, r] = this.matrix;
    this.matrix = [m * a + o * b, n * a + p * b, m * c + o * d, n * c + p * d, m * e + o * f + q, n * e + p * f + r];
  }

  translate(x, y) {
    this.transform(1, 0, 0, 1, x, y);
  }

  scale(x, y) {
    this.transform(x, 0, 0, y, 0, 0);
  }

  rotate(angle) {
    this.transform(Math.cos(angle), Math.sin(angle), -Math.sin(angle), Math.cos(angle), 0, 0);
  }

  setLineDash(dash) {
    this.dash = [...dash];
  }

  getLineDash() {
    return [...this.dash];
  }

  // -- paths, kept in the units of the picture --------------------------------------------------------------------------------------

  _at(x, y) {
    const [a, b, c, d, e, f] = this.matrix;
    return [a * x + c * y + e, b * x + d * y + f];
  }

  _to(letter, ...pairs) {
    const places = [];
    for (let i = 0; i < pairs.length; i += 2) places.push(this._at(pairs[i], pairs[i + 1]).map(short).join(" "));
    this.path.push(letter + places.join(" "));
    this.here = pairs.slice(-2);
  }

  beginPath() {
    this.path = [];
    this.here = null;
  }

  closePath() {
    this.path.push("Z");
  }

  moveTo(x, y) {
    this._to("M", x, y);
  }

  lineTo(x, y) {
    this._to(this.here ? "L" : "M", x, y);
  }

  bezierCurveTo(...numbers) {
    this._to("C", ...numbers);
  }

  quadraticCurveTo(...numbers) {
    this._to("Q", ...numbers);
  }

  rect(x, y, w, h) {
    this._to("M", x, y);
    this._to("L", x + w, y);
    this._to("L", x + w, y + h);
    this._to("L", x, y + h);
    this.closePath();
  }

  roundRect(x, y, w, h, radii = 0) {
    const radius = Math.min(Array.isArray(radii) ? (radii[0] ?? 0) : radii, Math.abs(w) / 2, Math.abs(h) / 2);
    this._to("M", x + radius, y);
    for (const [cx, cy, ex, ey] of [[x + w, y, x + w, y + h], [x + w, y + h, x, y + h], [x, y + h, x, y], [x, y, x + w, y]]) this.arcTo(cx, cy, ex, ey, radius);
    this.closePath();
  }

  /** A line towards the corner, and round it: the arc that touches both sides. */
  arcTo(x1, y1, x2, y2, radius) {
    const [x0, y0] = this.here ?? [x1, y1];
    const [ux, uy, vx, vy] = [x0 - x1, y0 - y1, x2 - x1, y2 - y1];
    const [u, v] = [Math.hypot(ux, uy), Math.hypot(vx, vy)];
    const cross = ux * vy - uy * vx;
    if (!u || !v || !radius || Math.abs(cross) < 1e-9 * u * v) return this.lineTo(x1, y1);
    const far = radius / Math.tan(Math.acos(Math.min(Math.max((ux * vx + uy * vy) / (u * v), -1), 1)) / 2);
    this._to(this.here ? "L" : "M", x1 + (ux / u) * far, y1 + (uy / u) * far);
    return this._arc(radius, 0, cross < 0 ? 1 : 0, x1 + (vx / v) * far, y1 + (vy / v) * far);
  }

  arc(x, y, radius, from, to) {
    const turn = Math.min(Math.abs(to - from), 2 * Math.PI - 1e-4);
    const end = from + (to < from ? -turn : turn);
    this._to(this.here ? "L" : "M", x + radius * Math.cos(from), y + radius * Math.sin(from));
    const middle = (from + end) / 2;
    for (const angle of [middle, end]) this._arc(radius, 0, to < from ? 0 : 1, x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }

  _arc(radius, large, sweep, x, y) {
    this.path.push(`A${short(radius * this._scale)} ${short(radius * this._scale)} 0 ${large} ${sweep} ${this._at(x, y).map(short).join(" ")}`);
    this.here = [x, y];
  }

  get _scale() {
    const [a, b, c, d] = this.matrix;
    return Math.sqrt(Math.abs(a * d - b * c));
  }

  // -- marks ------------------------------------------------------------------------------------------------------------------------

  _draw(paint) {
    if (this.path.length) this.parts.push(`<path d="${this.path.join("")}" ${paint}/>`);
  }

  _look(name, colour) {
    const found = /^rgba\(([^,]+),([^,]+),([^,]+),([^,]+)\)$/.exec(colour); // not every program reads rgba()
    const shown = `${name}="${escapeXml(found ? `rgb(${found.slice(1, 4).map((one) => one.trim()).join(",")})` : colour)}"`;
    const alpha = this.globalAlpha * (found ? Number(found[4]) : 1);
    return alpha < 1 ? `${shown} ${name}-opacity="${short(alpha)}"` : shown;
  }

  fill() {
    this._draw(this._look("fill", this.fillStyle));
  }

  stroke() {
    const dash = this.dash.length ? ` stroke-dasharray="${this.dash.map((one) => short(one * this._scale)).join(" ")}"` : "";
    const ends = `${this.lineCap === "butt" ? "" : ` stroke-linecap="${escapeXml(this.lineCap)}"`}${this.lineJoin === "miter" ? "" : ` stroke-linejoin="${escapeXml(this.lineJoin)}"`}`;
    this._draw(`fill="none" ${this._look("stroke", this.strokeStyle)} stroke-width="${short(this.lineWidth * this._scale)}"${dash}${ends}`);
  }

  fillRect(x, y, w, h) {
    this._rectangle(x, y, w, h, () => this.fill());
  }

  strokeRect(x, y, w, h) {
    this._rectangle(x, y, w, h, () => this.stroke());
  }

  clearRect() {}

  _rectangle(x, y, w, h, act) {
    const before = [this.path, this.here];
    this.beginPath();
    this.rect(x, y, w, h);
    act();
    [this.path, this.here] = before;
  }

  clip() {
    const id = `clip${this.clips.length}`;
    this.clips.push(`<clipPath id="${id}"><path d="${this.path.join("")}"/></clipPath>`);
    this.parts.push(`<g clip-path="url(#${id})">`);
    this.groups += 1;
  }

  measureText(text) {
    this.real.font = this.font;
    return this.real.measureText(text);
  }

  fillText(text, x, y) {
    const found = /^(?:(italic)\s+)?(?:(\d+|bold)\s+)?([\d.]+)px\s+(.*)$/.exec(this.font);
    const [, slant, weight, size = 10, family = "sans-serif"] = found ?? [];
    const anchor = { center: "middle", right: "end", end: "end" }[this.textAlign];
    const base = { middle: "central", top: "text-before-edge", hanging: "hanging" }[this.textBaseline];
    const [a, b] = this.matrix;
    const [px, py] = this._at(x, y);
    const turn = Math.abs(b) > 1e-6 ? ` transform="rotate(${short((Math.atan2(b, a) * 180) / Math.PI)} ${short(px)} ${short(py)})"` : "";
    const more = `${weight ? ` font-weight="${weight}"` : ""}${slant ? ` font-style="italic"` : ""}${anchor ? ` text-anchor="${anchor}"` : ""}${base ? ` dominant-baseline="${base}"` : ""}${turn}`;
    this.parts.push(`<text x="${short(px)}" y="${short(py)}" font-family="${escapeXml(family)}" font-size="${short(size * this._scale)}" ${this._look("fill", this.fillStyle)}${more} xml:space="preserve">${escapeXml(text)}</text>`);
  }

  /** The document. */
  toString(title) {
    while (this.groups) this._close();
    const size = `width="${short(this.width)}" height="${short(this.height)}" viewBox="0 0 ${short(this.width)} ${short(this.height)}"`;
    const clips = this.clips.length ? `<defs>${this.clips.join("")}</defs>` : "";
    return `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img"><title>${escapeXml(title)}</title>${clips}${this.parts.join("\n")}</svg>\n`;
  }
}
