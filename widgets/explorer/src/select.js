// What is selected as a text that the page, the kernel and an address share, and back: "vertex:NAME", "module:PATH", and for a stack of
// equal blocks "modules:" and their paths, one a line. No DOM.
import { leavesOf } from "./graph.js";

/** The text of a selected item; "" for nothing. */
export function selectionOf(item, graph) {
  if (!item) return "";
  if (item.leaf) return `vertex:${graph.name(item.id)}`;
  if (item.stack) return `modules:${item.children.map((child) => (child.leaf ? graph.modulePath(child.id) : child.path)).join("\n")}`;
  if (item.path && !item.branch && !item.group) return `module:${item.path}`;
  const [first] = leavesOf(item); // a branch, or what holds several modules: where its first vertex is
  const path = first ? graph.modulePath(first.id) : "";
  return path ? `module:${path}` : "";
}

/** The item of a picture that a text names, the nearest to it in this picture; null where there is none. */
export function itemOf(selection, picture, graph) {
  const cut = selection.indexOf(":");
  const [kind, name] = [selection.slice(0, cut), selection.slice(cut + 1)];
  if (cut < 0 || !name) return null;
  if (kind === "modules") return picture.boxes.find((box) => box.stack && selectionOf(box, graph) === selection) ?? moduleAt(name.split("\n")[0], picture, graph);
  return kind === "vertex" ? leafNamed(name, picture, graph) : moduleAt(name, picture, graph);
}

function leafNamed(name, picture, graph) {
  const node = graph.data.nodes.name.indexOf(name);
  if (node < 0) return null;
  return picture.leaves.get(node) ?? picture.leaves.get(graph.data.nodes.vertex[node]) ?? null;
}

/** Its box; where it has none of its own, its only vertex, or the box that holds all of it. */
function moduleAt(path, picture, graph) {
  const box = picture.boxes.find((one) => !one.branch && one.path === path);
  if (box) return box;
  const inside = [...picture.leaves.values()].filter(({ id }) => isIn(graph.modulePath(id), path));
  if (inside.length < 2) return inside[0] ?? null;
  const holds = new Set(inside);
  let around = inside[0].parent;
  while (around.parent && ![...holds].every((leaf) => within(leaf, around))) around = around.parent;
  return around.parent ? around : inside[0];
}

const isIn = (path, module) => path === module || path.startsWith(`${module}.`);

function within(leaf, box) {
  for (let item = leaf.parent; item; item = item.parent) if (item === box) return true;
  return false;
}

/** The text after "#" for a selection: a module's path, or a vertex's name where its module runs several. */
export function addressOf(selection, graph) {
  const [name] = selection.slice(selection.indexOf(":") + 1).split("\n");
  if (!selection.startsWith("vertex:")) return encode(name);
  const node = graph.data.nodes.name.indexOf(name);
  const path = node < 0 ? "" : graph.modulePath(node);
  const alone = path && graph.data.layers.QADG.nodes.includes(node) && !graph.data.layers.QADG.nodes.some((other) => other !== node && isIn(graph.modulePath(other), path));
  return encode(alone ? path : name);
}

const encode = (text) => encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%3A", ":");

/** The selection that the text after "#" means: of a module, a vertex or a parameter; "" where it names nothing. */
export function selectionAt(hash, graph) {
  let text = hash.replace(/^#/, "");
  try {
    text = decodeURIComponent(text);
  } catch {
    return "";
  }
  if (!text) return "";
  const { modules, nodes, layers } = graph.data;
  const runs = layers.QADG.nodes.some((node) => isIn(modules.path[nodes.module[node]], text));
  if (runs) return `module:${text}`;
  return nodes.name.includes(text) ? `vertex:${text}` : "";
}
