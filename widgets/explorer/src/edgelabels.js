// The shapes that the edges of the selected vertex carry, written onto them.
import { neighbours } from "./facts.js";
import { ancestors, leavesOf } from "./graph.js";
import { FONT } from "./paint.js";

const FROM = 0.6; // scale from which they are read
const MOST = 12;

/** Draw them over the picture of a view, where its selected vertex is in sight. */
export function edgeLabels(painter, view) {
  const { graph, layer, selected: item } = view;
  if (!item?.leaf || painter.camera.scale < FROM || !ancestors(item).every((box) => box.open && box.layout)) return;
  const corner = view.place(item);
  const [x, y] = [corner[0] - item.parent.layout.places[item.place][0], corner[1] - item.parent.layout.places[item.place][1]];
  const g = painter.context;
  const { theme } = painter;
  g.font = `600 10px ${FONT}`;
  g.textAlign = "center";
  const { layout } = item.parent;
  if (item.labels?.layout !== layout) item.labels = { layout, found: labelsOf(graph, layer, item) };
  for (const { words, at } of item.labels.found) {
    const [left, top] = [x + at[0], y + at[1]];
    const wide = g.measureText(words).width + 8;
    g.globalAlpha = 0.92;
    g.fillStyle = theme.bg;
    g.beginPath();
    g.roundRect(left - wide / 2, top - 7, wide, 14, 4);
    g.fill();
    g.globalAlpha = 1;
    g.fillStyle = theme.accent;
    g.fillText(words, left, top + 3.5);
  }
  g.textAlign = "left";
}

/** What is written where, in the box that holds the item: near the item's end of each edge that meets it. */
export function labelsOf(graph, layer, item) {
  const { sources, readers } = neighbours(graph, layer, item);
  const found = [];
  for (const { from, to, points } of item.parent.layout.routes) {
    if (found.length >= MOST) break;
    if (points.length < 2) continue;
    if (to === item.place) {
      const words = one(from < 0 ? outside(sources, item.parent) : inside(sources, item.parent.children[from]));
      if (words) found.push({ words, at: near(points.at(-1), points.at(-2)) });
    } else if (from === item.place && readers.length && graph.shape(item.id)) found.push({ words: short(graph.shape(item.id)), at: near(points[0], points[1]) });
  }
  return apart(found);
}

const idsOf = (item) => new Set([...leavesOf(item)].map(({ id }) => id));

function inside(ends, item, wanted = true) {
  const ids = idsOf(item);
  return ends.filter(({ node }) => ids.has(node) === wanted);
}

const outside = (ends, box) => inside(ends, box, false);

/** The shape that all ends share, if they do. */
function one(ends) {
  const shapes = [...new Set(ends.map(({ shape }) => shape))];
  return shapes.length === 1 ? short(shapes[0]) : "";
}

const short = (shape) => shape.replaceAll(" × ", "×");

/** A little way along the edge from the vertex. */
function near([x, y], [tx, ty]) {
  const far = Math.hypot(tx - x, ty - y) || 1;
  const step = Math.min(14, far / 2) / far;
  return [x + (tx - x) * step, y + (ty - y) * step];
}

/** The same words at nearly the same place stand once. */
function apart(labels) {
  return labels.filter(({ words, at }, i) => !labels.slice(0, i).some((other) => other.words === words && Math.abs(other.at[0] - at[0]) < 60 && Math.abs(other.at[1] - at[1]) < 14));
}
