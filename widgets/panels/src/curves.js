// Draws the stages as a time line, and loss and metrics over steps. Everything shares one axis of steps.
import { METRIC_HUES, fitCanvas, fitText, metric, number } from "./theme.js";

const STAGE_HUES = { "warm-up": "purple", projection: "blue", joint: "orange", "cool-down": "green" };
const LANE = 16, CURVES = 130;
const DASHES = [[2, 2], [7, 2, 2, 2], [1, 4], [10, 4]];

/** Where steps lie on a picture of this width: `x(step)`, with room for labels on both sides; `step(x)` goes back. */
export function stepAxis(width, total, range = null) {
  const left = Math.round(Math.min(170, Math.max(84, 0.24 * width)));
  const right = Math.round(Math.min(84, Math.max(58, 0.12 * width)));
  const room = Math.max(40, width - left - right), { from, to } = range ?? { from: 0, to: total };
  const at = (step) => left + (room * (step - from)) / (to - from || 1);
  return {
    left, right, room, total, width, from, to, at,
    x: (step) => Math.min(Math.max(at(step), left), left + room),
    step: (x) => from + ((to - from) * Math.min(Math.max(x - left, 0), room)) / room,
  };
}

export function drawStages(canvas, theme, axis, spans, step, started) {
  const context = fitCanvas(canvas, axis.width, LANE * spans.length + 20);
  spans.forEach(([stage, first, end], lane) => {
    const last = end === null ? axis.total : end, y = LANE * lane + 4, x0 = axis.x(first), x1 = axis.x(last);
    const now = started && step >= first && step < (end === null ? Infinity : end);
    if (first <= axis.to && last >= axis.from) {
      context.fillStyle = theme[STAGE_HUES[stage]] || theme.grey;
      context.globalAlpha = 0.35;
      context.fillRect(x0, y, Math.max(x1 - x0, 1), LANE - 5);
      context.globalAlpha = 1;
      if (started && step > first) context.fillRect(x0, y, Math.max(Math.min(axis.x(step), x1) - x0, 1), LANE - 5);
    }
    context.fillStyle = now ? theme.text : theme.dim;
    context.textAlign = "right";
    context.fillText((now ? "▸ " : "") + stage, axis.left - 8, y + (LANE - 5) / 2);
  });
  const bottom = LANE * spans.length + 12;
  context.fillStyle = theme.dim;
  context.textAlign = "left";
  context.fillText(String(Math.round(axis.from)), axis.left, bottom);
  context.textAlign = "right";
  context.fillText(axis.to === axis.total ? `${axis.total} steps` : `step ${Math.round(axis.to)}`, axis.left + axis.room, bottom);
  if (started) mark(context, theme, axis, step, bottom - 6);
}

function mark(context, theme, axis, step, height) {
  if (step < axis.from || step > axis.to) return;
  context.fillStyle = theme.text;
  context.fillRect(axis.x(step) - 0.5, 0, 1.5, height);
}

/** What is drawn: the loss and each metric of this run, and beneath them the same of earlier runs, on the same scales. */
export function linesOf(log, earlier = []) {
  const names = log.metricNames();
  for (const run of earlier) for (const name of Object.keys(run.metrics)) if (!names.includes(name)) names.push(name);
  const lines = [{ words: "loss", hue: "vermilion", points: log.points((r) => r[1]), under: earlier.map((run) => run.loss), format: number, left: true, dash: [] }];
  names.slice(0, METRIC_HUES.length).forEach((name, i) => lines.push({
    words: name, hue: METRIC_HUES[i], points: log.points((r) => (r[2] ? r[2][name] ?? null : null)), under: earlier.map((run) => run.metrics[name] ?? []),
    format: metric, dash: [6, 3], dots: true,
  }));
  return lines;
}

export function drawCurves(canvas, theme, axis, log, step, started, earlier = [], chosen = null) {
  const lines = linesOf(log, earlier);
  const context = fitCanvas(canvas, axis.width, CURVES + 18 * (lines.length + earlier.length) + 12);
  context.fillStyle = theme.line;
  context.fillRect(axis.left, 6, axis.room, 1);
  context.fillRect(axis.left, 6 + CURVES, axis.room, 1);
  scales(lines.map((line) => Object.assign(line, { seen: inSight(line.points, axis), seenUnder: line.under.map((points) => inSight(points, axis)) })));
  context.save();
  context.beginPath();
  context.rect(axis.left, 0, axis.room, CURVES + 12);
  context.clip();
  for (const line of lines) line.under.forEach((points, i) => drawPath(context, theme, axis, line, points, { dash: DASHES[i % DASHES.length], alpha: 0.6, width: 1.1 }));
  for (const line of lines) drawPath(context, theme, axis, line, line.points, { dash: line.dash, alpha: 1, width: 1.8, dots: line.dots });
  if (chosen) {
    context.globalAlpha = 0.2;
    context.fillStyle = theme.text;
    context.fillRect(Math.min(chosen.start, chosen.now), 6, Math.abs(chosen.now - chosen.start), CURVES);
    context.globalAlpha = 1;
  }
  context.restore();
  lines.forEach((line, i) => drawKey(context, theme, axis, line, i));
  earlier.forEach((run, i) => drawEarlier(context, theme, axis, run, lines, i));
  if (started) { context.save(); context.translate(0, 6); mark(context, theme, axis, step, CURVES); context.restore(); }
}

/** The points between the ends of the axis; if there are none, those at its sides, so that a line that crosses has a scale. */
function inSight(points, axis) {
  const inside = points.filter(([step]) => step >= axis.from && step <= axis.to);
  if (inside.length || !points.length) return inside;
  const after = points.findIndex(([step]) => step > axis.to);
  return points.slice(Math.max(0, after - 1), after < 0 ? undefined : after + 1).slice(-2);
}

/** Gives each line its scale: metrics that are shares all have one, others each their own; the right axis shows that of the first. */
export function scales(lines) {
  const valuesOf = (line) => [line.seen ?? line.points, ...(line.seenUnder ?? [])].flat().map((p) => p[1]);
  const shares = lines.filter((line) => !line.left && valuesOf(line).length && valuesOf(line).every((v) => v >= 0 && v <= 1));
  const all = shares.flatMap(valuesOf);
  let shown = null;
  for (const line of lines) {
    const shared = shares.includes(line), values = shared ? all : valuesOf(line);
    if (!values.length) continue;
    let low = line.left ? Math.min(0, ...values) : Math.min(...values), high = Math.max(...values);
    if (!(high > low)) { high = Math.max(high, low) || 1; low = line.left ? 0 : high - Math.max(Math.abs(high), 1) * 0.1; }
    Object.assign(line, { low, high });
    if (line.left || !shown) line.axis = true; // the loss stands on the left, the first metric on the right
    if (!line.left) shown = shown ?? line;
    line.own = !line.axis && !(shared && shares.includes(shown)); // its numbers stand in the legend
  }
}

function drawPath(context, theme, axis, { hue, low, high }, points, { dash, alpha, width, dots }) {
  const y = (value) => 6 + CURVES * (1 - (value - low) / (high - low || 1));
  context.strokeStyle = context.fillStyle = theme[hue];
  context.globalAlpha = alpha;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  points.forEach(([step, value], k) => (k ? context.lineTo(axis.at(step), y(value)) : context.moveTo(axis.at(step), y(value))));
  context.stroke();
  context.setLineDash([]);
  if (dots && points.length < 60) for (const [step, value] of points) context.fillRect(axis.at(step) - 2, y(value) - 2, 4, 4);
  context.globalAlpha = 1;
}

function drawSample(context, axis, row, colour, dash, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(axis.left, row);
  context.lineTo(axis.left + 22, row);
  context.stroke();
  context.setLineDash([]);
}

function drawKey(context, theme, axis, line, i) {
  const { points, hue, format, words, low, high } = line, row = CURVES + 22 + 18 * i;
  drawSample(context, axis, row, theme[hue], line.dash, 1.8);
  context.textAlign = "left";
  context.fillStyle = theme.text;
  const own = line.own ? ` (drawn from ${format(low)} to ${format(high)})` : "";
  const last = points.length ? format(points[points.length - 1][1]) + own : "not measured yet";
  context.fillText(fitText(context, `${words} ${last}`, axis.room - 30), axis.left + 28, row);
  if (!line.axis) return;
  context.textAlign = line.left ? "right" : "left";
  const x = line.left ? axis.left - 8 : axis.left + axis.room + 8;
  context.fillStyle = theme[hue];
  context.fillText(format(high), x, 12);
  context.fillText(format(low), x, CURVES);
}

/** One line of the legend for a run that is laid under: its name, and what it ended with. */
function drawEarlier(context, theme, axis, run, lines, i) {
  const row = CURVES + 22 + 18 * (lines.length + i);
  drawSample(context, axis, row, theme.dim, DASHES[i % DASHES.length], 1.1);
  context.textAlign = "left";
  context.fillStyle = theme.dim;
  context.fillText(fitText(context, earlierWords(run, lines, i), axis.room - 30), axis.left + 28, row);
}

/** An earlier run in words: its name and the last value of each line. */
export function earlierWords(run, lines, i) {
  const ends = lines.filter((line) => line.under[i].length).map((line) => `${line.words} ${line.format(line.under[i][line.under[i].length - 1][1])}`);
  return `${run.name}: ${ends.join(", ") || "nothing was recorded"}`;
}
