// What the panels share: colours read from the page, canvases as sharp as the screen, numbers as words.

const HUES = { purple: "--gv-c5", blue: "--gv-c0", orange: "--gv-c1", green: "--gv-c2", sky: "--gv-c3", vermilion: "--gv-c4", grey: "--gv-c7" };
export const METRIC_HUES = ["blue", "green", "purple", "orange"];

const NAMES = { text: "--gv-fg", dim: "--gv-dim", ground: "--gv-bg", line: "--gv-line", ...HUES };
const MARKS = ["data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind", "data-md-color-scheme", "theme", "class"];
const probes = new WeakMap();

/** Colours as they are now around `element`: text, dim text, ground, lines and hues. A variable says `light-dark(...)`, and only the colour
 * of an element says which of the two it is: the elements that are asked stay, unseen, in `element`. */
export function readTheme(element) {
  if (!probes.has(element)) probes.set(element, make("span", { hidden: "" }, null, Object.values(NAMES).map(probeOf)));
  const asked = probes.get(element);
  if (asked.parentNode !== element) element.append(asked);
  return Object.fromEntries(Object.keys(NAMES).map((name, i) => [name, plainColour(getComputedStyle(asked.children[i]).color)]));
}

/** What browsers call a mixture, "color(srgb 0.5 0.5 0.5)", as every canvas knows it. */
export function plainColour(colour) {
  const parts = /^color\(srgb ([\d.]+) ([\d.]+) ([\d.]+)/.exec(colour);
  return parts ? `rgb(${parts.slice(1).map((part) => Math.round(part * 255)).join(", ")})` : colour;
}

function probeOf(variable) {
  const element = make("i");
  element.style.color = `var(${variable})`;
  return element;
}

/** Call `redraw` whenever the page or the desktop changes between light and dark; returns what ends it. */
export function watchTheme(redraw) {
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(redraw);
  for (const marked of [document.documentElement, document.body]) observer.observe(marked, { attributes: true, attributeFilter: MARKS });
  media.addEventListener("change", redraw);
  return () => { observer.disconnect(); media.removeEventListener("change", redraw); };
}

/** Size a canvas in CSS pixels, sharp on any screen, and return its cleared context. */
export function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace";
  context.textBaseline = "middle";
  return context;
}

/** An element with attributes, a text and children. Names come in as text only: nothing here parses HTML. */
export function make(tag, attributes = {}, text = null, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

/** Keep plain keys inside `root`: JupyterLab would take arrows, space and enter for its own commands wherever no text field has the focus. */
export function keepKeys(root) {
  root.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
}

/** Text that fits `room` pixels; a dotted path loses its beginning, since its end tells most. */
export function fitText(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  const signs = [...text.slice(-200)];
  let low = 0, high = signs.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText("…" + signs.slice(-middle).join("")).width <= room) low = middle; else high = middle - 1;
  }
  return "…" + (low ? signs.slice(-low).join("") : "");
}

export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [unit, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6]]) if (size >= factor) return `${(value / factor).toPrecision(3)} ${unit}`;
  return size >= 1e4 ? `${(value / 1e3).toPrecision(3)} k` : String(Math.round(value));
}

export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (value >= factor) return `${(value / factor).toPrecision(3)} ${unit}`;
  return `${Math.round(value)} B`;
}

export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : String(Number(value.toPrecision(4)));
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  const value = 100 * share;
  return `${value === 0 ? 0 : Math.abs(value) >= 99.95 ? Math.round(value) : Number(value.toPrecision(3))} %`;
}

/** A metric: a share as percent, anything else as it is. */
export function metric(value) {
  return value !== null && value >= 0 && value <= 1 ? percent(value) : number(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
