// Heat strips: one row a layer or family, steps to the right, a value as the strength of one hue; the present value stands beside.
import { spansOf } from "./log.js";
import { fitCanvas, fitText, number, percent } from "./theme.js";

export const ROW = 13, HEAD = 24;
const TABLES = [
  { column: 3, key: "bits", title: "weight bits", hue: "blue", low: 2, high: 16, format: (v) => `${number(Math.round(v * 10) / 10)}` },
  { column: 4, key: "activation_bits", title: "activation bits", hue: "orange", low: 2, high: 16, format: (v) => `${number(Math.round(v * 10) / 10)}` },
  { column: 5, key: "kept", title: "kept share of each family", hue: "green", low: 0, high: 1, format: percent },
];

/** The strips that have rows, with the height each takes. */
export function stripsOf(rows) {
  let top = 0;
  return TABLES.filter((table) => (rows[table.key] || []).length).map((table) => {
    const strip = { ...table, names: rows[table.key], top };
    top += HEAD + ROW * strip.names.length + 8;
    return { ...strip, bottom: top };
  });
}

export function drawStrips(canvas, theme, axis, log, strips) {
  const height = strips.length ? strips[strips.length - 1].bottom : 0;
  const context = fitCanvas(canvas, axis.width, Math.max(height, 1));
  for (const strip of strips) {
    drawHead(context, theme, axis, strip);
    strip.names.forEach((name, i) => drawRow(context, theme, axis, log, strip, name, i));
  }
}

function drawHead(context, theme, axis, strip) {
  const y = strip.top + HEAD / 2;
  context.textAlign = "left";
  context.fillStyle = theme.text;
  context.font = context.font.replace(/^(600 )?/, "600 ");
  context.fillText(fitText(context, strip.title, axis.left + axis.room - 190), 0, y);
  context.font = context.font.replace(/^600 /, "");
  const right = axis.left + axis.room, ramp = 70, words = strip.format(strip.high);
  const x = right - context.measureText(words).width - 6 - ramp;
  for (let i = 0; i < ramp; i += 2) paint(context, theme, strip, strip.low + ((strip.high - strip.low) * i) / ramp, x + i, y - 4, 2, 8);
  context.fillStyle = theme.dim;
  context.fillText(words, x + ramp + 6, y);
  context.textAlign = "right";
  context.fillText(strip.format(strip.low), x - 6, y);
}

function paint(context, theme, strip, value, x, y, width, height) {
  const share = Math.min(Math.max((value - strip.low) / (strip.high - strip.low), 0), 1);
  context.globalAlpha = 0.06 + 0.94 * share;
  context.fillStyle = theme[strip.hue];
  context.fillRect(x, y, width, height);
  context.globalAlpha = 1;
}

function drawRow(context, theme, axis, log, strip, name, i) {
  const y = strip.top + HEAD + ROW * i;
  context.fillStyle = theme.line;
  context.globalAlpha = 0.3;
  context.fillRect(axis.left, y, axis.room, ROW - 2);
  context.globalAlpha = 1;
  const spans = spansOf(log.records, (record) => record[strip.column][i] ?? null);
  if (spans.length) {
    context.fillStyle = theme.ground;
    context.fillRect(axis.left, y, axis.x(spans[spans.length - 1][1]) - axis.left, ROW - 2);
  }
  for (const [from, to, value] of spans) {
    if (value === null) continue;
    const x0 = Math.round(axis.x(from)), x1 = Math.round(axis.x(to));
    if (x1 > x0) paint(context, theme, strip, value, x0, y, x1 - x0, ROW - 2);
  }
  context.textAlign = "right";
  context.fillStyle = theme.text;
  context.fillText(fitText(context, name, axis.left - 10), axis.left - 8, y + (ROW - 2) / 2);
  const last = spans.length ? spans[spans.length - 1][2] : null;
  context.textAlign = "left";
  if (last !== null) context.fillText(strip.format(last), axis.left + axis.room + 8, y + (ROW - 2) / 2);
}

/** What lies under a point, in words; null where there is nothing. */
export function describeAt(axis, log, strips, x, y) {
  const strip = strips.find((s) => y >= s.top + HEAD && y < s.top + HEAD + ROW * s.names.length);
  if (!strip) return null;
  const i = Math.floor((y - strip.top - HEAD) / ROW), name = strip.names[i];
  const step = axis.step(x);
  const record = x >= axis.left ? log.records.find((r) => r[0] >= step) : log.last;
  const value = record ? record[strip.column][i] : null;
  return value === null || value === undefined ? name : `${name}\n${strip.title}: ${strip.format(value)} at step ${record[0]}`;
}

/** One sentence a strip, for those who do not see it. */
export function spokenStrips(log, strips) {
  return strips.map((strip) => {
    const values = (log.last ? log.last[strip.column] : []).filter((v) => v !== null);
    if (!values.length) return `${strip.title}: nothing yet`;
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return `${strip.title}: ${strip.names.length} rows, ${strip.format(Math.min(...values))} to ${strip.format(Math.max(...values))}, mean ${strip.format(mean)}`;
  }).join(". ");
}
