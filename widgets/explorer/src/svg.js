// Small drawings in the details: SVG elements by their own attributes, never by markup; and how packed numbers are read.

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (value != null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Numbers in [0, 1] from what geta_nb/widgets/weight_histogram.py packs: a byte each, which holds the root. */
export function unpack(text) {
  return Array.from(atob(text ?? ""), (letter) => (letter.charCodeAt(0) / 255) ** 2);
}

/** A number with three digits that count, without an exponent where that is short. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return (size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(1)).replace("-", "−");
}
