// Search, layers, colours and the legend.
import { LAYERS } from "./graph.js";
import { SCHEMES, viridis } from "./colours.js";
import { make, swatch } from "./dom.js";

export class Toolbar {
  /** @param actions {search(text), next(step), layer(name), scheme(name), fit(), zoom(factor), deeper(step), outline(), selectFamily(i)} */
  constructor(actions) {
    this.actions = actions;
    this.search = make("input", { type: "search", class: "gx-search", placeholder: "Search  ( / )", "aria-label": "search vertices", "data-testid": "geta-explorer-search" });
    this.search.addEventListener("input", () => actions.search(this.search.value));
    this.search.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") actions.next(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") actions.search((this.search.value = ""));
    });
    this.count = make("span", { class: "gx-count", role: "status" });
    this.layers = make("span", { class: "gx-segments", role: "radiogroup", "aria-label": "layer", "data-testid": "geta-explorer-layer" },
      ...LAYERS.map((name) => make("button", { type: "button", role: "radio", text: name, value: name, "data-layer": name, title: TITLES[name], onclick: () => actions.layer(name) })));
    this.layers.addEventListener("keydown", (event) => this._arrows(event));
    this.scheme = make("select", { "data-testid": "geta-explorer-colour", "aria-label": "colour by", onchange: () => actions.scheme(this.scheme.value) },
      ...SCHEMES.map(([value, text]) => make("option", { value, text })));
    const button = (text, title, onclick) => make("button", { type: "button", text, title, "aria-label": title, onclick });
    this.bar = make("div", { class: "gx-bar", role: "toolbar", "aria-label": "explorer" },
      button("☰", "show or hide the outline", () => actions.outline()), this.search, this.count,
      make("span", { class: "gx-field" }, make("span", { text: "layer", "aria-hidden": "true" }), this.layers), make("label", {}, "colour", this.scheme), make("span", { class: "gx-space" }),
      button("⊟", "close one level", () => actions.deeper(-1)), button("⊞", "open one level", () => actions.deeper(1)),
      button("−", "zoom out", () => actions.zoom(1 / 1.3)), button("+", "zoom in", () => actions.zoom(1.3)), button("Fit", "fit the whole picture (0)", () => actions.fit()));
    this.legend = make("div", { class: "gx-legend", "data-testid": "geta-explorer-legend", "aria-label": "legend" });
  }

  _arrows(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const now = LAYERS.findIndex((name) => this.layers.querySelector(`[data-layer="${name}"]`).getAttribute("aria-checked") === "true");
    const next = LAYERS[(now + step + LAYERS.length) % LAYERS.length];
    this.actions.layer(next);
    this.layers.querySelector(`[data-layer="${next}"]`).focus();
  }

  show(layer, scheme) {
    for (const button of this.layers.children) {
      const on = button.dataset.layer === layer;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    this.scheme.value = scheme.name;
    const keys = scheme.legend.slice(0, 40).map(([colour, words, family]) =>
      family === undefined
        ? make("span", { class: "gx-key", title: words }, swatch(colour), make("span", { text: words }))
        : make("button", { type: "button", class: "gx-key", title: words, onclick: () => this.actions.selectFamily(family) }, swatch(colour), make("span", { text: words })));
    if (scheme.legend.length > 40) keys.push(make("span", { class: "gx-dim", text: `and ${scheme.legend.length - 40} more` }));
    if (scheme.scale) keys.unshift(ramp(scheme.scale));
    this.legend.replaceChildren(...keys);
  }

  found(text) {
    this.count.textContent = text;
  }
}

const TITLES = {
  raw: "the trace as it is, parameters and quantizers included",
  branches: "quantizer branches found, before they are folded",
  QADG: "branches folded into the operators that they serve",
};

function ramp({ from, to, colours = [0, 0.2, 0.4, 0.6, 0.8, 1].map(viridis) }) {
  const bar = make("span", { class: "gx-ramp", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
  return make("span", { class: "gx-key gx-scale" }, make("span", { text: from }), bar, make("span", { text: to }));
}
