// Saliency of all groups, weakest first, and the cut: what is gone, what fades, what is still to go.
import { fitCanvas, fitText, count } from "./theme.js";

const HEIGHT = 96;

/** `data`: {curve: scores of living groups in ascending order (a sample), dead, fading, groups, target or null}. */
export function drawSaliency(canvas, theme, axis, data) {
  const context = fitCanvas(canvas, axis.width, HEIGHT + 44);
  const x = (group) => axis.left + (axis.room * group) / Math.max(data.groups, 1), top = 8;
  const logs = data.curve.map((v) => Math.log10(Math.max(v, 1e-30))), high = Math.max(...logs, -29), low = Math.max(Math.min(...logs, high), high - 6);
  const y = (v) => top + (HEIGHT - 14) * (1 - (Math.max(v, low) - low) / (high - low || 1)) + 4;
  context.fillStyle = theme.line;
  context.fillRect(axis.left, top + HEIGHT, axis.room, 1);
  region(context, theme.grey, 0.45, x(0), x(data.dead), top, HEIGHT);
  region(context, theme.orange, 0.35, x(data.dead), x(data.dead + data.fading), top, HEIGHT);
  context.strokeStyle = theme.blue;
  context.lineWidth = 1.8;
  context.beginPath();
  const living = data.groups - data.dead;
  logs.forEach((v, i) => {
    const at = x(data.dead + (living * (i + 0.5)) / logs.length);
    if (i) context.lineTo(at, y(v)); else context.moveTo(at, y(v));
  });
  context.stroke();
  context.textAlign = "right";
  context.fillStyle = theme.dim;
  context.fillText("saliency", axis.left - 8, top + 6);
  context.fillText("(log)", axis.left - 8, top + 20);
  if (data.target !== null) drawCut(context, theme, axis, x(data.target), data.target, top);
  const words = `${count(data.dead)} gone, ${count(data.fading)} fading, ${count(living - data.fading)} of ${count(data.groups)} groups stay`;
  context.textAlign = "left";
  context.fillStyle = theme.text;
  context.fillText(fitText(context, words, axis.room), axis.left, top + HEIGHT + 28);
  return words;
}

function region(context, colour, alpha, x0, x1, top, height) {
  context.globalAlpha = alpha;
  context.fillStyle = colour;
  context.fillRect(x0, top, x1 - x0, height);
  context.globalAlpha = 1;
}

function drawCut(context, theme, axis, x, target, top) {
  context.strokeStyle = theme.vermilion;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, top + HEIGHT + 4);
  context.stroke();
  context.setLineDash([]);
  context.fillStyle = theme.vermilion;
  const words = `cut at ${count(target)}`, half = context.measureText(words).width / 2;
  context.textAlign = "center";
  context.fillText(words, Math.min(Math.max(x, axis.left + half), axis.left + axis.room - half), top + HEIGHT + 12);
}
