// The live view of a run. The model's traits hold the present state, so a page that was reloaded shows it at once.
import { drawCurves, drawStages, earlierWords, linesOf, stepAxis } from "./curves.js";
import { RunLog } from "./log.js";
import { drawSaliency } from "./saliency.js";
import { describeAt, drawStrips, spokenStrips, stripsOf } from "./strips.js";
import { keepKeys, duration, make, metric, number, percent, readTheme, watchTheme } from "./theme.js";
import { StepZoom } from "./zoom.js";

const BUTTONS = [["start", "Start"], ["pause", "Pause"], ["resume", "Resume"], ["stop", "Stop"]];
const ALLOWED = { idle: ["start"], running: ["pause", "stop"], paused: ["resume", "stop"], stopped: ["start"], failed: ["start"], finished: [] };
const GREET_AGAIN = 600;
const BUSY_AFTER = 1500; // ms without an answer
const logs = new WeakMap();

/** One log a model, however many views it has; it follows the ticks from the moment the model exists. */
function logOf(model) {
  if (logs.has(model)) return logs.get(model);
  const log = new RunLog();
  logs.set(model, log);
  const current = (news) => log.begin((news.status || {}).beginnings);
  const whole = () => {
    const all = model.get("log") || {};
    if (current(all)) log.replace(all.records || []);
  };
  whole();
  model.on("change:log", whole);
  model.on("change:tick", () => {
    const tick = model.get("tick");
    if (tick && tick.records && current(tick) && !log.extend(tick.after, tick.records)) model.send({ action: "resend" });
  });
  return log;
}

export function initialize({ model }) {
  logOf(model);
}

function build() {
  const parts = { buttons: {}, facts: {} };
  parts.state = make("span", { class: "gp-state", "data-testid": "geta-live-state" });
  parts.stage = make("span", { class: "gp-stage", "data-testid": "geta-live-stage" });
  const bar = make("div", { class: "gp-buttons", role: "group", "aria-label": "steer the run" });
  for (const [action, words] of BUTTONS) {
    parts.buttons[action] = make("button", { type: "button", "data-testid": `geta-live-${action}`, class: `gp-button gp-${action}` }, words);
    bar.append(parts.buttons[action]);
  }
  parts.status = make("div", { class: "gp-status", role: "status", "aria-live": "polite" }, null, [parts.state, parts.stage]);
  parts.numbers = make("div", { class: "gp-facts", "data-testid": "geta-live-facts" });
  parts.note = make("div", { class: "gp-note", role: "alert", "data-testid": "geta-live-note", hidden: "" });
  for (const name of ["stages", "curves", "saliency", "strips"]) parts[name] = make("canvas", { role: "img", class: "gp-canvas" });
  parts.zoom = make("div", { class: "gp-slot" });
  parts.stripBox = make("div", { class: "gp-scroll", tabindex: "0", role: "region", "aria-label": "bits and kept shares over time" }, null, [parts.strips]);
  parts.plan = make("details", { class: "gp-plan", "data-testid": "geta-live-plan", hidden: "" }, null, [
    make("summary", {}, "Why each layer has its width"),
    make("div", { class: "gp-scroll", tabindex: "0", role: "region", "aria-label": "plan of bits and groups" }, null, [make("table", { class: "gp-table gp-why" })]),
  ]);
  parts.root = make("div", { class: "geta-view gp-panel gp-live", "data-testid": "geta-live", role: "region", "aria-label": "training run" }, null, [
    make("div", { class: "gp-head" }, null, [parts.status, bar]), parts.numbers, parts.note, parts.stages, parts.zoom, parts.curves, parts.saliency, parts.stripBox, parts.plan,
  ]);
  return parts;
}

export function render({ model, el }) {
  const log = logOf(model), parts = build();
  let wanted = false, asked = null, width = 0, drawn = { version: -1, width: 0, theme: null };
  const status = () => ((model.get("tick") || {}).status) || (model.get("log") || {}).status || { state: "idle", step: 0 };

  const schedule = () => {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(() => { wanted = false; draw(); });
  };

  let zoom = null;
  const axisNow = () => stepAxis(width, model.get("setup").total, zoom && zoom.range);
  zoom = new StepZoom(parts.curves, axisNow, schedule);
  parts.zoom.append(zoom.bar);

  function draw() {
    const now = status(), setup = model.get("setup"), theme = readTheme(parts.root), started = now.step > 0 || now.state !== "idle";
    showWords(parts, now, setup, asked);
    width = Math.max(260, Math.floor(parts.root.clientWidth - 24));
    if (!parts.root.isConnected || parts.root.clientWidth < 20) return;
    const axis = axisNow(), earlier = setup.earlier || [];
    drawStages(parts.stages, theme, axis, setup.spans, now.step, started);
    parts.stages.setAttribute("aria-label", `stages: ${setup.spans.map(([s, a, b]) => `${s} from step ${a}${b === null ? "" : ` to ${b}`}`).join(", ")}`);
    drawCurves(parts.curves, theme, axis, log, now.step, started, earlier, zoom.chosen);
    const lines = linesOf(log, earlier), beneath = earlier.map((run, i) => earlierWords(run, lines, i));
    parts.curves.setAttribute("aria-label", [`loss ${number(now.loss)}`, ...beneath].join("; "));
    const saliency = model.get("saliency");
    parts.saliency.hidden = !(saliency && saliency.groups);
    if (!parts.saliency.hidden) parts.saliency.setAttribute("aria-label", `saliency of groups: ${drawSaliency(parts.saliency, theme, axis, saliency)}`);
    showPlan(parts.plan, setup.plan || []);
    const key = JSON.stringify(theme);
    if (drawn.version !== log.version || drawn.width !== width || drawn.theme !== key || drawn.range !== zoom.range) {
      const strips = stripsOf(setup.rows);
      drawStrips(parts.strips, theme, axis, log, strips);
      parts.strips.setAttribute("aria-label", spokenStrips(log, strips));
      parts.stripBox.hidden = !strips.length;
      drawn = { version: log.version, width, theme: key, range: zoom.range };
    }
  }

  for (const [action] of BUTTONS) parts.buttons[action].addEventListener("click", () => {
    asked = { action, at: performance.now() };
    model.send({ action });
    schedule();
    setTimeout(schedule, BUSY_AFTER + 50);
  });
  const answered = () => { asked = null; schedule(); };
  parts.strips.addEventListener("mousemove", (event) => {
    const words = describeAt(axisNow(), log, stripsOf(model.get("setup").rows), event.offsetX, event.offsetY);
    if (parts.strips.title !== (words || "")) parts.strips.title = words || "";
  });
  const told = ({ state, asked: stopping, error }) => JSON.stringify([state, stopping, error]);
  let seen = told(status());
  let greeted = 0;
  const greet = () => { greeted = performance.now(); model.send({ action: "hello" }); };
  const onTick = () => {
    const now = status();
    if (!now.watched && performance.now() - greeted > GREET_AGAIN) greet(); // the first one may wait behind a busy cell
    if (told(now) !== seen) { seen = told(now); answered(); } else schedule();
  };
  model.on("change:tick", onTick);
  for (const name of ["log", "setup", "saliency"]) model.on(`change:${name}`, schedule);
  const resized = new ResizeObserver(schedule);
  resized.observe(parts.root);
  const unwatch = watchTheme(schedule);
  keepKeys(parts.root);
  el.append(parts.root);
  greet();
  draw();
  schedule();
  return () => {
    model.off("change:tick", onTick);
    for (const name of ["log", "setup", "saliency"]) model.off(`change:${name}`, schedule);
    resized.disconnect();
    unwatch();
  };
}

/** One row for each layer and family: whose, what it comes to, why. */
function showPlan(box, rows) {
  const key = JSON.stringify(rows);
  if (box.dataset.shown === key) return;
  box.dataset.shown = key;
  box.hidden = !rows.length;
  const head = make("tr", {}, null, ["what", "comes to", "why"].map((word) => make("th", { scope: "col" }, word)));
  const lines = rows.map((row) => make("tr", {}, null, row.map((word) => make("td", {}, word))));
  box.querySelector("table").replaceChildren(make("thead", {}, null, [head]), make("tbody", {}, null, lines));
}

function showWords(parts, now, setup, asked) {
  parts.root.dataset.state = now.state;
  parts.root.dataset.step = now.step;
  const doing = { pause: "pausing", stop: "stopping" }[now.asked] || { pause: "pausing", stop: "stopping", start: "starting", resume: "resuming" }[asked && asked.action];
  setText(parts.state, doing && now.state !== "finished" ? `${now.state}, ${doing} …` : now.state);
  setText(parts.stage, now.state === "idle" ? "not started" : now.stage || "");
  for (const [action] of BUTTONS) parts.buttons[action].disabled = !ALLOWED[now.state].includes(action);
  setText(parts.buttons.start, now.state === "stopped" || now.state === "failed" ? "Go on" : "Start");
  const facts = [["step", `${now.step} of ${setup.total}`], ["loss", number(now.loss)]];
  for (const [name, value] of Object.entries(now.metrics || {}).slice(0, 4)) facts.push([name, metric(value)]);
  facts.push(["mean bits", number(now.bits === null || now.bits === undefined ? null : Math.round(now.bits * 10) / 10)], ["groups zero", percent(now.zero)]);
  if (now.state === "running" || now.state === "paused") facts.push(["time left", duration(now.left)]);
  if (parts.numbers.childElementCount !== facts.length) {
    parts.numbers.replaceChildren(...facts.map(() => make("div", { class: "gp-fact" }, null, [make("span"), make("b")])));
  }
  facts.forEach(([name, value], i) => {
    const [label, figure] = parts.numbers.children[i].children;
    setText(label, name);
    setText(figure, value);
    label.title = name;
  });
  const busy = asked && performance.now() - asked.at > BUSY_AFTER;
  const words = now.error || (busy ? "Python is busy and has not answered. Interrupt the kernel (■): a waiting run then stops and keeps everything." : "");
  setText(parts.note, words);
  parts.note.hidden = !words;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export default { initialize, render };
