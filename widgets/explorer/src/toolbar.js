// Search, layers, colours and the legend.
import { LAYERS } from "./graph.js";
import { SCHEMES, viridis } from "./colours.js";
import { make, swatch } from "./dom.js";
import { PICTURES } from "./snapshot.js";
import { Search } from "./search.js";

export class Toolbar {
  /** @param actions {search(text), next(step), go(index), leave(), remember(text), earlier(), save(picture), present(), layer(name), scheme(name), fit(), zoom(factor), deeper(step), outline(), selectFamily(i)} */
  constructor(actions) {
    this.actions = actions;
    this.find = new Search(actions);
    this.search = this.find.input;
    this.layers = make("span", { class: "gx-segments", role: "radiogroup", "aria-label": "layer", "data-testid": "geta-explorer-layer" },
      ...LAYERS.map((name) => make("button", { type: "button", role: "radio", text: name, value: name, "data-layer": name, title: TITLES[name], onclick: () => actions.layer(name) })));
    this.layers.addEventListener("keydown", (event) => this._arrows(event));
    this.scheme = make("select", { "data-testid": "geta-explorer-colour", "aria-label": "colour by", onchange: () => actions.scheme(this.scheme.value) },
      ...SCHEMES.map(([value, text]) => make("option", { value, text })));
    const button = (text, title, onclick) => make("button", { type: "button", text, title, "aria-label": title, onclick });
    this.bar = make("div", { class: "gx-bar", role: "toolbar", "aria-label": "explorer" },
      button("☰", "show or hide the outline", () => actions.outline()), this.find.element,
      make("span", { class: "gx-field" }, make("span", { text: "layer", "aria-hidden": "true" }), this.layers), make("label", {}, "colour", this.scheme), make("span", { class: "gx-space" }),
      button("⊟", "close one level", () => actions.deeper(-1)), button("⊞", "open one level", () => actions.deeper(1)),
      button("−", "zoom out", () => actions.zoom(1 / 1.3)), button("+", "zoom in", () => actions.zoom(1.3)), button("Fit", "fit the whole picture (0)", () => actions.fit()),
      this._pictures(), this._present());
    this.legend = make("div", { class: "gx-legend", "data-testid": "geta-explorer-legend", "aria-label": "legend" });
  }

  /** A button with a menu: what the present view is saved as. */
  _pictures() {
    const rows = PICTURES.map(([value, text]) => make("button", { type: "button", role: "menuitem", tabindex: "-1", text, "data-picture": value, onclick: () => (open(false), this.actions.save(value)) }));
    const menu = make("div", { class: "gx-menu", role: "menu", "aria-label": "save a picture", hidden: true }, ...rows);
    const button = make("button", { type: "button", text: "Save", title: "save a picture", "aria-haspopup": "menu", "aria-expanded": "false", "data-testid": "geta-explorer-save", onclick: () => open(menu.hidden) });
    const open = (on) => {
      menu.hidden = !on;
      button.setAttribute("aria-expanded", String(on));
      if (on) rows[0].focus();
    };
    const box = make("span", { class: "gx-save" }, button, menu);
    box.addEventListener("focusout", (event) => !box.contains(event.relatedTarget) && !menu.hidden && open(false));
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (menu.hidden || (!step && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      if (step) rows[(rows.indexOf(event.target) + step + rows.length) % rows.length].focus();
      else (open(false), button.focus());
    });
    return box;
  }

  _present() {
    this.presenting = make("button", { type: "button", text: "Present", title: "large, in the full window (p); Escape leaves", "aria-pressed": "false", "data-testid": "geta-explorer-present", onclick: () => this.actions.present() });
    return this.presenting;
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
