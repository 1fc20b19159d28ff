// A family's groups in the order in which they would go. In: the answer of geta_nb/widgets/group_strip.py. Out: elements.
import { amount, percent } from "./colours.js";
import { make } from "./dom.js";
import { short, svg, unpack } from "./svg.js";

const [WIDTH, HEIGHT, FOOT] = [276, 44, 10];

/** Cells as numbers: {n, cells: [{level, kept, fading, from, to, group}]}; `group` where a cell is one group and its position is told. */
export function cellsOf({ n, levels, kept, fading, order, high }) {
  const [scores, alive, going] = [unpack(levels), unpack(kept), fading ? unpack(fading) : []];
  return scores.map((level, i) => ({
    level, score: level * high, kept: alive[i], fading: going[i] ?? 0, from: Math.floor((i * n) / scores.length), to: Math.floor(((i + 1) * n) / scores.length), group: order?.[i],
  }));
}

export function groupStrip(strip) {
  const cells = cellsOf(strip);
  const words = `${amount(strip.n)} groups: ${amount(strip.n - strip.zero)} kept, ${amount(strip.zero)} zero${strip.fade ? `, ${amount(strip.fade)} fading` : ""}`;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, class: "gx-strip", role: "img", "aria-label": `${words}; ${strip.words}`, "data-testid": "geta-explorer-strip", tabindex: "0" });
  const wide = WIDTH / Math.max(cells.length, 1);
  const parts = { "gx-kept": "", "gx-zero": "", "gx-fading": "" };
  cells.forEach(({ level, kept, fading: going }, i) => {
    const [x, tall] = [i * wide, Math.max(level * HEIGHT, 1.5)];
    const box = (y, high) => `M${x.toFixed(2)} ${y.toFixed(2)}h${Math.max(wide - (wide > 3 ? 0.6 : 0), 0.3).toFixed(2)}v${high.toFixed(2)}H${x.toFixed(2)}Z`;
    parts[going > 0.5 ? "gx-fading" : "gx-kept"] += box(HEIGHT - tall, tall);
    if (kept < 1) parts["gx-zero"] += box(HEIGHT + 2, Math.max((1 - kept) * (FOOT - 2), 1)); // below: zero now, whatever its score
  });
  picture.append(...Object.entries(parts).map(([name, d]) => svg("path", { d, class: name })), svg("path", { d: `M0 ${HEIGHT + 0.5}H${WIDTH}`, class: "gx-axis" }));
  const cursor = svg("rect", { class: "gx-cursor", y: 0, height: HEIGHT + FOOT, width: Math.max(wide, 1.5).toFixed(2), x: 0, visibility: "hidden" });
  picture.append(cursor);
  const note = make("div", { class: "gx-dim gx-cell", "aria-live": "polite", text: `weakest first; ${short(strip.low)} to ${short(strip.high)}` });
  const rest = note.textContent;
  let at = -1;
  const show = (i) => {
    at = Math.min(Math.max(i, -1), cells.length - 1);
    cursor.setAttribute("visibility", at < 0 ? "hidden" : "visible");
    cursor.setAttribute("x", (Math.max(at, 0) * wide).toFixed(2));
    note.textContent = at < 0 ? rest : aboutCell(cells[at]);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * cells.length));
  });
  picture.addEventListener("pointerleave", () => show(-1));
  picture.addEventListener("blur", () => show(-1));
  picture.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: Math.max(at - 1, 0), Home: 0, End: cells.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    show(to);
  });
  return make("div", { class: "gx-figure" }, picture, note, make("div", { text: words }), make("div", { class: "gx-dim", text: strip.words }));
}

function aboutCell({ score, kept, fading, from, to, group }) {
  const one = to - from === 1;
  const who = group !== undefined ? `group ${amount(group)}, place ${amount(from + 1)}` : one ? `place ${amount(from + 1)}` : `places ${amount(from + 1)} to ${amount(to)}`;
  const state = one ? (kept < 0.5 ? "zero" : fading > 0.5 ? "fading" : "kept") : `${percent(kept)} kept`;
  return `${who}: ${short(score)}, ${state}`;
}
