// The front: predicted rise of the loss against cost. A click on a plan, or the slider below, loads its budget.
import { fitCanvas, make, number, percent, readTheme, watchTheme } from "./theme.js";

const PLOT = { wide: 430, high: 130, left: 56, right: 16, top: 8, bottom: 20 };

/** A number of an axis: two digits. */
function tick(value) {
  const short = value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
  return short.replace(".0e", "e");
}

/** A picture of `front.points` ([cost, rise, ...], cheapest last); `pick(index)` is called when a plan is chosen. */
export function frontChart(front, pick) {
  const { wide, high, left, right, top, bottom } = PLOT;
  const costs = front.points.map((p) => Math.log(Math.max(p[0], 1e-12)));
  const low = Math.min(...costs), span = Math.max(...costs) - low, most = front.most || 1;
  const x = (cost) => left + ((Math.log(Math.max(cost, 1e-12)) - low) / (span || 1)) * (wide - left - right);
  const y = (rise) => top + high * (1 - Math.min(Math.max(rise / most, 0), 1));
  const tip = ([cost, rise]) => `${percent(cost)} of the BOPs, predicted rise ${number(rise)}`;
  const canvas = make("canvas", { "aria-hidden": "true" });
  const dots = front.points.map((point, index) => {
    const title = (index === front.knee ? "knee: " : "") + tip(point);
    const dot = make("button", { type: "button", tabindex: "-1", title, "aria-label": title, class: index === front.knee ? "gp-front-knee" : "gp-front-dot",
      "data-testid": "geta-budget-front-plan" });
    dot.style.left = `${x(point[0])}px`;
    dot.style.top = `${y(point[1])}px`;
    dot.addEventListener("click", () => pick(index));
    return dot;
  });
  const here = make("span", { class: "gp-front-here", title: "this budget" });
  const picture = make("div", { class: "gp-front-plot", role: "group", "aria-label": "plans: predicted rise of the loss against relative BOPs" }, null, [canvas, here, ...dots]);
  picture.style.height = `${top + high + bottom}px`;
  const slider = make("input", { type: "range", min: 0, max: front.points.length - 1, step: 1, value: 0, "data-testid": "geta-budget-front-slider",
    "aria-label": "plan of the front, the cheapest last" });
  const say = (index) => slider.setAttribute("aria-valuetext", tip(front.points[index]));
  slider.addEventListener("input", () => { say(Number(slider.value)); pick(Number(slider.value)); });
  say(0);

  function draw() {
    const theme = readTheme(canvas), context = fitCanvas(canvas, wide, top + high + bottom);
    for (let k = 0; k <= 2; k += 1) {
      const rise = (most * k) / 2, at = Math.exp(low + (span * k) / 2);
      context.fillStyle = theme.line;
      context.fillRect(left, y(rise), wide - left - right, 1);
      context.fillStyle = theme.dim;
      context.textAlign = "right";
      context.fillText(tick(rise), left - 8, y(rise));
      context.textAlign = k === 0 ? "left" : k === 2 ? "right" : "center";
      context.fillText(percent(at), x(at), top + high + 13);
    }
    context.strokeStyle = theme.blue;
    context.lineWidth = 1.6;
    context.beginPath();
    front.points.forEach((p, k) => (k ? context.lineTo(x(p[0]), y(p[1])) : context.moveTo(x(p[0]), y(p[1]))));
    context.stroke();
  }
  const element = make("div", { class: "gp-front", "data-testid": "geta-budget-front" }, null, [
    make("div", { class: "gp-dim" }, "predicted rise of the loss against relative BOPs, before training on: a click loads that plan's budget"), picture, slider]);
  const end = watchTheme(draw);
  return {
    element, draw, end,
    /** Where the present budget stands. */
    show(cost, rise) {
      here.style.left = `${x(cost)}px`;
      here.style.top = `${y(rise)}px`;
    },
    chosen(index) { slider.value = index; say(index); },
  };
}
