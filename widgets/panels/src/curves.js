// Draws the stages as a time line, and loss and metrics over steps. Everything shares one axis of steps.
import { METRIC_HUES, fitCanvas, fitText, metric, number } from "./theme.js";

const STAGE_HUES = { "warm-up": "purple", projection: "blue", joint: "orange", "cool-down": "green" };
const LANE = 16, CURVES = 130;

/** Where steps lie on a picture of this width: `x(step)`, with room for labels on both sides. */
export function stepAxis(width, total) {
  const left = Math.round(Math.min(170, Math.max(84, 0.24 * width)));
  const right = Math.round(Math.min(84, Math.max(58, 0.12 * width)));
  const room = Math.max(40, width - left - right);
  return { left, right, room, total, width, x: (step) => left + room * Math.min(Math.max(step / total, 0), 1) };
}

export function drawStages(canvas, theme, axis, spans, step, started) {
  const context = fitCanvas(canvas, axis.width, LANE * spans.length + 20);
  spans.forEach(([stage, first, end], lane) => {
    const y = LANE * lane + 4, x0 = axis.x(first), x1 = axis.x(end === null ? axis.total : end);
    const now = started && step >= first && step < (end === null ? Infinity : end);
    context.fillStyle = theme[STAGE_HUES[stage]] || theme.grey;
    context.globalAlpha = 0.35;
    context.fillRect(x0, y, Math.max(x1 - x0, 1), LANE - 5);
    context.globalAlpha = 1;
    if (started && step > first) context.fillRect(x0, y, Math.max(Math.min(axis.x(step), x1) - x0, 1), LANE - 5);
    context.fillStyle = now ? theme.text : theme.dim;
    context.textAlign = "right";
    context.fillText((now ? "▸ " : "") + stage, axis.left - 8, y + (LANE - 5) / 2);
  });
  const bottom = LANE * spans.length + 12;
  context.fillStyle = theme.dim;
  context.textAlign = "left";
  context.fillText("0", axis.left, bottom);
  context.textAlign = "right";
  context.fillText(`${axis.total} steps`, axis.left + axis.room, bottom);
  if (started) mark(context, theme, axis, step, bottom - 6);
}

function mark(context, theme, axis, step, height) {
  context.fillStyle = theme.text;
  context.fillRect(axis.x(step) - 0.5, 0, 1.5, height);
}

export function drawCurves(canvas, theme, axis, log, step, started) {
  const names = log.metricNames().slice(0, METRIC_HUES.length);
  const lines = [{ words: "loss", hue: "vermilion", points: log.points((r) => r[1]), format: number, left: true, dash: [] }];
  names.forEach((name, i) => lines.push({
    words: name, hue: METRIC_HUES[i], points: log.points((r) => (r[2] ? r[2][name] ?? null : null)), format: metric, dash: [6, 3], dots: true,
  }));
  const legend = 18 * lines.length;
  const context = fitCanvas(canvas, axis.width, CURVES + legend + 12);
  context.fillStyle = theme.line;
  context.fillRect(axis.left, 6, axis.room, 1);
  context.fillRect(axis.left, 6 + CURVES, axis.room, 1);
  scales(lines);
  lines.forEach((line, i) => drawLine(context, theme, axis, line, i));
  if (started) { context.save(); context.translate(0, 6); mark(context, theme, axis, step, CURVES); context.restore(); }
}

/** Gives each line its scale: metrics that are shares all have one, others each their own; the right axis shows that of the first. */
export function scales(lines) {
  const shares = lines.filter((line) => !line.left && line.points.length && line.points.every((p) => p[1] >= 0 && p[1] <= 1));
  const all = shares.flatMap((line) => line.points.map((p) => p[1]));
  let shown = null;
  for (const line of lines) {
    const shared = shares.includes(line), values = shared ? all : line.points.map((p) => p[1]);
    if (!values.length) continue;
    let low = line.left ? Math.min(0, ...values) : Math.min(...values), high = Math.max(...values);
    if (!(high > low)) { high = Math.max(high, low) || 1; low = line.left ? 0 : high - Math.max(Math.abs(high), 1) * 0.1; }
    Object.assign(line, { low, high });
    if (line.left || !shown) line.axis = true; // the loss stands on the left, the first metric on the right
    if (!line.left) shown = shown ?? line;
    line.own = !line.axis && !(shared && shares.includes(shown)); // its numbers stand in the legend
  }
}

function drawLine(context, theme, axis, line, i) {
  const { points, hue, format, words, low, high } = line;
  const values = points.map((p) => p[1]);
  const y = (value) => 6 + CURVES * (1 - (value - low) / (high - low || 1));
  context.strokeStyle = context.fillStyle = theme[hue];
  context.lineWidth = 1.8;
  context.setLineDash(line.dash);
  context.beginPath();
  points.forEach(([step, value], k) => (k ? context.lineTo(axis.x(step), y(value)) : context.moveTo(axis.x(step), y(value))));
  context.stroke();
  context.setLineDash([]);
  if (line.dots && points.length < 60) for (const [step, value] of points) context.fillRect(axis.x(step) - 2, y(value) - 2, 4, 4);
  const row = CURVES + 22 + 18 * i;
  context.setLineDash(line.dash);
  context.beginPath();
  context.moveTo(axis.left, row);
  context.lineTo(axis.left + 22, row);
  context.stroke();
  context.setLineDash([]);
  context.textAlign = "left";
  context.fillStyle = theme.text;
  const own = line.own ? ` (drawn from ${format(low)} to ${format(high)})` : "";
  const last = points.length ? format(values[values.length - 1]) + own : "not measured yet";
  context.fillText(fitText(context, `${words} ${last}`, axis.room - 30), axis.left + 28, row);
  if (!line.axis) return;
  context.textAlign = line.left ? "right" : "left";
  const x = line.left ? axis.left - 8 : axis.left + axis.room + 8;
  context.fillStyle = theme[hue];
  context.fillText(format(high), x, 12);
  context.fillText(format(low), x, CURVES);
}
