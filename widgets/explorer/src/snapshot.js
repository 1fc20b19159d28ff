// Pictures of what is seen, to take along: pixels or vectors, with the legend under them; made in the page and saved by the browser.
import { edgeLabels } from "./edgelabels.js";
import { FONT } from "./paint.js";
import { viridis } from "./colours.js";
import { SvgContext } from "./svgcontext.js";

export const PICTURES = [
  ["png", "this view as PNG"],
  ["svg", "this view as SVG"],
  ["svg-all", "all that is open as SVG"],
];
const [MARGIN, ROW] = [12, 20];
const LARGEST = 16384; // pixels of a canvas' side that every browser can do

/** Draw the view, or with `all` everything that is open, on a context of its own; returns nothing. */
function drawSheet(view, context, { camera, width, height, ratio }) {
  const { painter, theme, scheme, marked, found, selected } = view;
  const twin = Object.assign(Object.create(Object.getPrototypeOf(painter)), painter, { context });
  context.save();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.beginPath();
  context.rect(0, 0, width, height);
  context.clip(); // what is drawn beyond the sight, such as the ends of edges, would lie under the legend
  twin.draw({ root: view.root, camera, width, height, ratio, theme, scheme, marked, found, selected, hover: null });
  edgeLabels(twin, view);
  context.restore();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  legend(view, context, width, height, true);
}

/** Draw the legend under the picture, or only measure it; returns its height. */
function legend(view, context, width, top, draws) {
  const { scheme, theme, layer, graph } = view;
  context.font = `12px ${FONT}`;
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  const wide = (text) => context.measureText(text).width;
  let [x, y] = [MARGIN, MARGIN];
  const marks = [];
  const put = (room, act) => {
    if (x > MARGIN && x + room > width - MARGIN) [x, y] = [MARGIN, y + ROW];
    const at = x;
    marks.push([at, y, act]);
    x += room + 16;
  };
  const title = `${graph.data.title} · ${layer} · ${scheme.name}`;
  put(wide(title), (at, row) => (paint(theme.fg), context.fillText(title, at, row + 12)));
  const paint = (colour) => (context.fillStyle = colour);
  if (scheme.scale) put(wide(scheme.scale.from) + wide(scheme.scale.to) + 122, (at, row) => ramp(context, scheme.scale, theme, at, row, wide));
  for (const [colour, words] of scheme.legend.slice(0, 40)) {
    const text = words.length > 60 ? `${words.slice(0, 59)}…` : words;
    put(wide(text) + 17, (at, row) => (paint(colour), context.fillRect(at, row + 2, 11, 11), paint(theme.fg), context.fillText(text, at + 17, row + 12)));
  }
  const tall = y + ROW + MARGIN - 4;
  if (!draws) return tall;
  paint(theme.bg);
  context.fillRect(0, top, width, tall);
  paint(theme.line);
  context.fillRect(0, top, width, 1);
  for (const [at, row, act] of marks) act(at, top + row);
  return tall;
}

function ramp(context, { from, to }, theme, x, y, wide) {
  context.fillStyle = theme.fg;
  context.fillText(from, x, y + 12);
  const left = x + wide(from) + 6;
  for (let i = 0; i < 55; i++) {
    context.fillStyle = viridis(i / 54);
    context.fillRect(left + 2 * i, y + 2, i < 54 ? 3 : 2, 11); // they overlap, or seams are seen
  }
  context.fillStyle = theme.fg;
  context.fillText(to, left + 116, y + 12);
}

/** What is drawn: what is in sight, or all that is open at its natural size. */
function sheetOf(view, all) {
  const { camera, width, height } = view;
  if (!all) return { camera, width, height };
  return { camera: { x: -MARGIN, y: -MARGIN, scale: 1 }, width: Math.ceil(view.root.w + 2 * MARGIN), height: Math.ceil(view.root.h + 2 * MARGIN) };
}

/** The present view as the text of an SVG. */
export function svgOf(view, all = false) {
  const sheet = { ...sheetOf(view, all), ratio: 1 };
  const real = document.createElement("canvas").getContext("2d");
  const tall = legend(view, new SvgContext(1, 1, real), sheet.width, 0, false);
  const context = new SvgContext(sheet.width, sheet.height + tall, real);
  drawSheet(view, context, sheet);
  return context.toString(`${view.graph.data.title}: ${view.layer}`);
}

/** The present view as a canvas, with at least two pixels for each that is seen. */
export function canvasOf(view) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const sheet = sheetOf(view, false);
  const tall = legend(view, context, sheet.width, 0, false);
  const ratio = Math.min(Math.max(2, view.ratio), LARGEST / Math.max(sheet.width, sheet.height + tall));
  Object.assign(canvas, { width: Math.ceil(sheet.width * ratio), height: Math.ceil((sheet.height + tall) * ratio) });
  drawSheet(view, context, { ...sheet, ratio });
  return canvas;
}

/** @param picture one of PICTURES; the browser saves it, and nobody is asked for anything */
export async function savePicture(view, picture) {
  const kind = picture === "png" ? "png" : "svg";
  const blob = kind === "png" ? await new Promise((done) => canvasOf(view).toBlob(done, "image/png")) : new Blob([svgOf(view, picture === "svg-all")], { type: "image/svg+xml" });
  if (!blob) return view.details.say("the browser could not make the picture");
  const name = `${view.graph.data.title}-${view.layer}${picture === "svg-all" ? "-all" : ""}`.replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80);
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${name}.${kind}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return view.details.say(`saved ${link.download}`);
}
