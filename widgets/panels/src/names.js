// Layer names that fit a column: cut in the middle, where they say least, so that what tells them apart stays.

const DOTS = "…";
export const NAME_SIGNS = 28;

/** The names, each of at most `most` signs where that leaves them apart: "encoder.layer.0.attention.query" -> "enc…0.attention.query". */
export function shortNames(names, most = NAME_SIGNS) {
  const below = new Map();
  for (const name of names) {
    let above = "";
    for (const part of [...name.split("."), ""]) { // "" ends a name, which may go on in another
      if (!below.has(above)) below.set(above, new Set());
      below.get(above).add(part);
      above += `.${part}`;
    }
  }
  const length = (text) => [...text].length;
  if (names.every((name) => length(name) <= most)) return [...names];
  const long = new Set(names.filter((name) => length(name) > most && name.includes(".")).map((name) => name.split(".")[0]));
  const short = names.map((name) => {
    const parts = name.split("."), tells = telling(parts, below);
    const fits = () => length(join(parts)) <= most;
    if (long.has(parts[0]) && parts.length > 1) { // all names that begin alike are cut alike there
      parts[0] = abbreviated(parts[0]);
      for (let i = 1; !tells[i]; i += 1) parts[i] = null;
    }
    for (let i = 1; i < parts.length && !fits(); i += 1) if (!tells[i]) parts[i] = null;
    for (let i = 1; i < parts.length - 1 && !fits(); i += 1) parts[i] &&= abbreviated(parts[i]);
    return cutMiddle(join(parts), most);
  });
  const uses = new Map();
  short.forEach((text, i) => uses.set(text, (uses.get(text) || new Set()).add(names[i])));
  return short.map((text, i) => (uses.get(text).size > 1 ? names[i] : text));
}

/** Which parts tell a name from the others that come this far; first and last always do. */
function telling(parts, below) {
  let above = "";
  return parts.map((part, i) => {
    const tells = below.get(above).size > 1 || i === 0 || i === parts.length - 1;
    above += `.${part}`;
    return tells;
  });
}

function join(parts) {
  return parts.reduce((text, part, i) => {
    if (part === null) return text.endsWith(DOTS) ? text : text + DOTS;
    return text + (i === 0 || text.endsWith(DOTS) ? "" : ".") + part;
  }, "");
}

function abbreviated(part) {
  const signs = [...part];
  return signs.length > 4 ? signs.slice(0, 3).join("") + DOTS : part;
}

/** A text of at most `most` signs, a third of them from its beginning. */
export function cutMiddle(text, most) {
  const signs = [...text];
  if (signs.length <= most) return text;
  const head = Math.max(1, Math.floor((most - 1) / 3));
  return signs.slice(0, head).join("") + DOTS + signs.slice(signs.length - (most - 1 - head)).join("");
}
