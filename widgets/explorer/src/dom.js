// Elements without markup: every text is set as text, so a name can only ever be read, never run.

export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value == null || value === false) continue;
    if (key === "text") element.textContent = value;
    else if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  // JupyterLab asks the focused element itself whether its keys are the notebook's
  if (element.tabIndex >= 0 || options.tabindex != null) element.setAttribute("data-lm-suppress-shortcuts", "true");
  element.append(...children.filter((child) => child != null));
  return element;
}

export const swatch = (colour) => {
  const element = make("span", { class: "gx-swatch", "aria-hidden": "true" });
  element.style.background = colour;
  return element;
};

/** Where pages say that they are light or dark: JupyterLab, VS Code, mkdocs-material, Colab. */
export const THEME_MARKS = ["data-jp-theme-name", "data-jp-theme-light", "data-vscode-theme-kind", "data-md-color-scheme", "theme", "class"];

/** Colours of the page we are in; its background decides which hues are drawn. */
export function readTheme(element) {
  const style = getComputedStyle(element);
  const probe = element.appendChild(document.createElement("i")); // a variable says light-dark(...): an element's own colour, which of the two
  const value = (name) => ((probe.style.color = `var(${name})`), plain(getComputedStyle(probe).color));
  const dark = isDark(style.backgroundColor);
  const theme = {
    dark,
    bg: style.backgroundColor,
    fg: style.color,
    dim: value("--gx-dim"),
    soft: value("--gx-soft"),
    line: value("--gx-line"),
    box: value("--gx-box"),
    edge: dark ? "rgba(200,205,215,.62)" : "rgba(70,78,92,.62)",
    accent: dark ? "#7cc7f0" : "#005b9a",
    found: dark ? "#e3d64f" : "#b45309",
    weight: dark ? "#f07f2e" : "#f39a5b",
    input: dark ? "#e3d64f" : "#e8d95a",
    tint: dark ? 0.26 : 0.18,
  };
  probe.remove();
  return theme;
}

/** What browsers call a mixture, "color(srgb 0.5 0.5 0.5)", as every canvas knows it. */
export function plain(colour) {
  const parts = /^color\(srgb ([\d.]+) ([\d.]+) ([\d.]+)/.exec(colour);
  return parts ? `rgb(${parts.slice(1).map((part) => Math.round(part * 255)).join(", ")})` : colour;
}

function isDark(colour) {
  const [r, g, b] = (colour.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
}
