// What a stack and a port look like: sheets behind a block, the pill that turns one block into all, names where an edge would run far.
// In: the painter, a box with its layout, its corner. Out: strokes on the painter's canvas.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", "Liberation Sans", sans-serif';
const [SMALL, TAG] = [`600 10.5px ${FONT}`, `9.5px ${FONT}`];
const pillWords = (stack) => `× ${stack.children.length} · show ${stack.peek >= 0 ? "all" : "one"}`;

const widths = new Map();
function wide(painter, text, font) {
  const key = `${font}${text}`;
  if (!widths.has(key)) {
    painter.context.font = font;
    widths.set(key, painter.context.measureText(text).width);
  }
  return widths.get(key);
}

export const pillWidth = (painter, stack) => wide(painter, pillWords(stack), SMALL) + 14;

/** Draw the pill at the right end of an open stack's head; returns the pixels it takes. */
export function drawPill(painter, stack, left, top) {
  const { context: g, theme } = painter;
  const w = pillWidth(painter, stack);
  const x = left + stack.w - w - 7;
  g.beginPath();
  g.roundRect(x, top + 5, w, 16, 8);
  g.fillStyle = theme.box;
  g.fill();
  g.lineWidth = painter.thin;
  g.strokeStyle = theme.accent;
  g.stroke();
  g.fillStyle = theme.accent;
  g.font = SMALL;
  g.fillText(pillWords(stack), x + 7, top + 16.5);
  return w + 10;
}

/** Whether a place, from the corner of an open stack, is on its pill. */
export const onPill = (painter, stack, x, y) => y < 24 && x > stack.w - pillWidth(painter, stack) - 10;

/** The other blocks of a stack, behind the one that is shown. */
export function drawSheets(painter, stack, left, top) {
  const { context: g, theme } = painter;
  const { places, only, sheets, sheet } = stack.layout;
  const block = stack.children[only];
  const [x, y] = [left + places[only][0], top + places[only][1]];
  const holds = (set) => set?.size && painter._isIn(stack, set);
  for (let k = sheets; k >= 1; k--) {
    g.beginPath();
    g.roundRect(x + k * sheet, y + k * sheet, block.w, block.h, 7);
    g.fillStyle = theme.box;
    g.fill();
    g.lineWidth = painter.thin;
    g.strokeStyle = holds(painter.found) ? theme.found : holds(painter.marked) ? theme.accent : theme.line;
    g.stroke();
  }
}

/** Names above what a port feeds, and below what feeds many. */
export function drawTags(painter, box, ox, oy) {
  const { context: g, theme, sight } = painter;
  for (const [place, words, source, items] of box.ports.tags) {
    const child = box.children[place];
    const [x, y] = [ox + box.layout.places[place][0], oy + box.layout.places[place][1]];
    if (x > sight.right || x + child.w < sight.left || y - 20 > sight.bottom || y + child.h + 20 < sight.top) continue;
    const strong = items.includes(painter.selected) || items.includes(painter.hover);
    const text = cut(painter, source ? words : `${words} ▸`, Math.max(child.w * 0.45, 60));
    const w = wide(painter, text, TAG) + 10;
    const top = source ? y + child.h + 3 : y - 16;
    g.beginPath();
    g.roundRect(x + 2, top, w, 13, 6.5);
    g.fillStyle = theme.soft;
    g.fill();
    g.lineWidth = painter.thin;
    g.strokeStyle = strong ? theme.accent : theme.line;
    g.stroke();
    g.fillStyle = strong ? theme.accent : theme.dim;
    g.font = TAG;
    g.fillText(text, x + 7, top + 9.8);
  }
}

/** The beginning of a text that is longer than its room. */
function cut(painter, text, room) {
  if (wide(painter, text, TAG) <= room) return text;
  const letters = [...text].slice(0, 80);
  while (letters.length > 1 && wide(painter, `${letters.join("")}…`, TAG) > room) letters.pop();
  return `${letters.join("")}…`;
}
