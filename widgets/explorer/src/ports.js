// Edges from one place to many blocks that hang together anyway (a mask to every layer) are no lines but ports: a name at both ends.
// In: a box of graph.js with `links` lifted. Out: the edges that stay lines, and the names. No DOM.

const [MANY, MANY_QUIET] = [4, 3]; // targets from which a source has ports; one of plain steps has them sooner

/** @returns {edges, ins: what is drawn; tags: [place, words, whether it is the source, item]} */
export function portsOf(box) {
  if (box.quiet) return { edges: box.edges, ins: box.ins, tags: [] };
  const sources = new Map(); // item that data come from -> places it feeds
  const links = box.children.map(() => new Map()); // place -> items that feed it, with their place in this box, -1 outside
  const add = (place, item, from) => {
    links[place].set(item, from);
    if (!sources.has(item)) sources.set(item, []);
    sources.get(item).push(place);
  };
  for (const [a, b] of box.edges) if (a !== b) add(b, box.children[a], a);
  for (const [place, items] of box.feeds) for (const item of items) add(place, item, -1);
  const many = new Set([...sources].filter(([item, places]) => places.length >= (item.quiet ? MANY_QUIET : MANY)).map(([item]) => item));
  if (!many.size) return { edges: box.edges, ins: box.ins, tags: [] };
  const spare = new Map([...many].map((item) => [item, sources.get(item).filter((place) => isSpare(links[place], item, many))]));
  const gone = new Map([...spare].filter(([item, places]) => places.length >= (item.quiet ? MANY_QUIET : MANY)));
  if (!gone.size) return { edges: box.edges, ins: box.ins, tags: [] };
  const cut = new Set();
  const tags = [];
  for (const [item, places] of gone) {
    const from = item.parent === box ? item.place : -1;
    if (from >= 0) tags.push([from, `${nameOf(item)} → ${places.length}`, true, item]);
    for (const place of places) {
      cut.add(`${from >= 0 ? from : ""}:${place}:${from >= 0 ? "" : idOf(item)}`);
      tags.push([place, nameOf(item), false, item]);
    }
  }
  const stays = (place) => !box.feeds.has(place) || [...box.feeds.get(place)].some((item) => !cut.has(`:${place}:${idOf(item)}`));
  return { edges: box.edges.filter(([a, b]) => !cut.has(`${a}:${b}:`)), ins: box.ins.filter(stays), tags: merged(tags) };
}

/** Whether a place keeps a line without this source: another that feeds it, the latest in this box where all have many. */
function isSpare(link, item, many) {
  const others = [...link].filter(([other]) => other !== item);
  if (others.some(([other]) => !many.has(other))) return true;
  const last = Math.max(...[...link.values()]);
  return last >= 0 && link.get(item) !== last;
}

let known = 0;
const ids = new WeakMap();
function idOf(item) {
  if (!ids.has(item)) ids.set(item, known++);
  return ids.get(item);
}

/** Names at one place become one text. */
function merged(tags) {
  const at = new Map();
  for (const [place, words, source, item] of tags) {
    const key = `${place}:${source}`;
    if (!at.has(key)) at.set(key, [place, [], source, []]);
    const [, all, , items] = at.get(key);
    if (!all.includes(words)) all.push(words);
    items.push(item);
  }
  return [...at.values()].map(([place, all, source, items]) => [place, all.join(", "), source, items]);
}

export const nameOf = (item) => (item.leaf ? item.local || item.name || item.label : item.label);
