// The data of one network, and its three pictures as trees of boxes with the edges of each box.
// In: the JSON of geta_nb/widgets/graph_data.py. Out: Graph, Picture. No DOM.
import { pair, shownOf } from "./stacks.js";

export const LAYERS = ["raw", "branches", "QADG"];

export class Graph {
  constructor(data) {
    this.data = data;
    this.size = data.nodes.name.length;
    this.pictures = new Map();
  }

  picture(layer) {
    if (!this.pictures.has(layer)) this.pictures.set(layer, new Picture(this, layer));
    return this.pictures.get(layer);
  }

  operator(node) {
    return this.data.texts[this.data.nodes.op[node]];
  }

  shape(node) {
    return this.data.texts[this.data.nodes.shape[node]];
  }

  name(node) {
    return this.data.nodes.name[node];
  }

  modulePath(node) {
    return this.data.modules.path[this.data.nodes.module[node]];
  }

  /** Facts of the folded vertex that a node is, or serves. */
  facts(node) {
    const vertex = this.data.nodes.vertex[node];
    return (vertex >= 0 && this.data.vertices[vertex]) || {};
  }

  /** Families of a node, the one it makes first, then those that pass through, then those it reads. */
  families(node) {
    const { p = [], c = [], u = [] } = this.facts(node);
    return [...new Set([...p, ...c, ...u])];
  }

  /** The family whose colour a node bears. */
  family(node) {
    const { p = [], c = [] } = this.facts(node);
    return p[0] ?? c[0] ?? -1;
  }
}

/** One layer: boxes (modules, branches) with children, and leaves (nodes). Edges stand in the box where both ends meet. */
export class Picture {
  constructor(graph, layer) {
    this.graph = graph;
    this.layer = layer;
    this.leaves = new Map();
    this.boxes = [];
    this.root = makeBox(graph.data.title, "", graph.data.modules.type[0] ?? "");
    this._build(graph.data, layer);
    this.root = fold(this.root, true);
    this._number(this.root, null, 0);
    this._lift(graph.data.layers[layer].edges);
  }

  _build(data, layer) {
    const modules = new Map([[0, this.root]]);
    const index = new Map(data.modules.path.map((path, i) => [path, i]));
    const branches = new Map();
    const groups = groupsOf(data.layers[layer].groups ?? []);
    const { path: paths, type, called } = data.modules;
    const around = (module) => {
      let path = paths[module];
      do path = path.slice(0, Math.max(path.lastIndexOf("."), 0));
      while (path && !(index.has(path) && called?.[index.get(path)] !== 0)); // what never runs as a module is left out
      return index.get(path) ?? 0;
    };
    const put = (parent, child, group) => {
      if (!group) return parent.children.push(child);
      if (!group.children.length) parent.children.push(Object.assign(group, { path: `${parent.path}:${group.label}` }));
      return group.children.push(child);
    };
    const box = (module) => {
      if (!modules.has(module)) {
        const above = around(module);
        const made = makeBox(paths[module].slice(above ? paths[above].length + 1 : 0), paths[module], type[module]);
        modules.set(module, made);
        put(box(above), made, groups.modules.get(module));
      }
      return modules.get(module);
    };
    const home = (module) => box(called?.[module] === 0 ? around(module) : module);
    for (const node of data.layers[layer].nodes) {
      const branch = layer === "branches" ? data.nodes.branch[node] : -1;
      let parent;
      if (branch < 0) parent = home(data.nodes.module[node]);
      else if (branches.has(branch)) parent = branches.get(branch);
      else {
        const [name, kind] = data.branches[branch];
        const vertex = data.nodes.vertex[node];
        parent = makeBox(kind === "attached" ? "weight quantizer" : "input quantizer", name, "branch");
        parent.branch = kind;
        branches.set(branch, parent);
        home(data.nodes.module[vertex >= 0 ? vertex : node]).children.push(parent);
      }
      const leaf = { leaf: true, id: node, label: this.graph.operator(node), name: this.graph.name(node), local: "", parent: null, depth: 0, quiet: data.nodes.quiet?.[node] === 1 };
      put(parent, leaf, groups.nodes.get(node));
      this.leaves.set(node, leaf);
    }
  }

  _number(item, parent, depth) {
    item.parent = parent;
    item.depth = depth;
    if (item.leaf) {
      item.leaves = 1;
      item.costs = this.graph.facts(item.id).k ? 1 : 0;
      return;
    }
    this.boxes.push(item);
    item.leaves = item.costs = 0;
    item.children.forEach((child, i) => {
      child.place = i;
      this._number(child, item, depth + 1);
      item.leaves += child.leaves;
      item.costs += child.costs;
    });
    item.quiet = item.children.every(({ quiet }) => quiet);
    if (!item.stack) return;
    item.type = item.children[0].type;
    item.path = `${item.children[0].path} … ${item.children.at(-1).path}`;
    pair(item);
  }

  /** Put every edge where its ends meet; on the way up it leaves through, and enters by, each box's ports. */
  _lift(pairs) {
    for (const box of this.boxes) Object.assign(box, { links: new Map(), ins: new Set(), outs: new Set(), feeds: new Map(), ports: null });
    for (let i = 0; i < pairs.length; i += 2) {
      let a = this.leaves.get(pairs[i]);
      let b = this.leaves.get(pairs[i + 1]);
      if (!a || !b || a === b) continue;
      const entered = [];
      while (a.parent !== b.parent) {
        if (a.depth >= b.depth) {
          a.parent.outs.add(a.place);
          a = a.parent;
        } else {
          b.parent.ins.add(b.place);
          entered.push(b);
          b = b.parent;
        }
      }
      if (a === b) continue;
      for (const { parent, place } of entered) {
        if (!parent.feeds.has(place)) parent.feeds.set(place, new Set());
        parent.feeds.get(place).add(a);
      }
      const key = a.place * 1048576 + b.place;
      a.parent.links.set(key, (a.parent.links.get(key) ?? 0) + 1);
    }
    for (const box of this.boxes) {
      box.edges = [...box.links].map(([key, many]) => [Math.floor(key / 1048576), key % 1048576, many]);
      box.ins = [...box.ins];
      box.outs = [...box.outs];
      delete box.links;
    }
  }
}

function makeBox(label, path, type) {
  return { leaf: false, label, path, type, children: [], open: false, branch: null, group: "", stack: false, peek: -1 };
}

/** Boxes of the groups that Python found, by the nodes and the modules that they hold. */
function groupsOf(groups) {
  const found = { nodes: new Map(), modules: new Map() };
  for (const { kind, label, nodes, modules } of groups) {
    const box = Object.assign(makeBox(label, "", ""), { group: kind, stack: kind === "stack" });
    if (box.stack) box.peek = 0;
    for (const node of nodes) found.nodes.set(node, box);
    for (const module of modules) found.modules.set(module, box);
  }
  return found;
}

/** A module that holds one thing is not worth a box of its own: its name goes to what it holds. */
function fold(box, isRoot) {
  box.children = box.children.map((child) => (child.leaf ? child : fold(child, false)));
  if (isRoot || box.children.length !== 1 || box.branch || box.group) return box;
  const [child] = box.children;
  if (child.leaf) child.local = child.local ? `${box.label}.${child.local}` : box.label;
  else if (child.branch) return box;
  else child.label = `${box.label}.${child.label}`;
  return child;
}

/** Open what fits: as far as the stacks, then level by level, boxes of one kind together, while at most `limit` boxes are in sight. */
export function openToFit(root, limit) {
  root.open = true;
  openStacks(root);
  const costs = root.costs > 0;
  let level = frontier(root, costs);
  let visible = countShown(root);
  while (level.length) {
    const kinds = new Map();
    for (const box of level) {
      kinds.set(box.type, [...(kinds.get(box.type) ?? []), box]);
    }
    const next = [];
    for (const boxes of kinds.values()) {
      const more = boxes.reduce((sum, box) => sum + shownOf(box).length, 0);
      if (visible + more > limit) continue;
      visible += more;
      for (const box of boxes) {
        box.open = true;
        next.push(...frontier(box, costs));
      }
    }
    level = next;
  }
  return visible;
}

/** The outermost stacks show their first block; what is around them is open. */
function openStacks(box) {
  if (box.stack) Object.assign(box, { open: true, peek: 0 });
  const inside = box.stack ? false : box.children.map((child) => !child.leaf && openStacks(child)).some(Boolean);
  if (inside) box.open = true;
  return box.stack || inside;
}

/** Closed boxes in sight that are worth opening: blocks of stacks first, what costs nothing never (a norm in six steps, a mask). */
function frontier(box, costs) {
  const found = shownOf(box).filter((child) => !child.leaf && !child.quiet && (child.costs || !costs));
  const below = found.flatMap((child) => (child.open ? frontier(child, costs) : [child]));
  return [...below.filter(({ parent }) => parent.stack), ...below.filter(({ parent }) => !parent.stack)];
}

function countShown(box) {
  return shownOf(box).reduce((sum, child) => sum + 1 + (!child.leaf && child.open ? countShown(child) : 0), 0);
}

/** After a change of layer: open modules that had no box before (one vertex then, several now), while few boxes are in sight. */
export function openNew(root, before, limit) {
  const fresh = [];
  let visible = 0;
  const walk = (box) => {
    for (const child of shownOf(box)) {
      if (!child.leaf && child.open) walk(child);
      else visible += 1;
      if (!child.leaf && !child.open && !child.branch && !child.quiet && !before.has(child.path)) fresh.push(child);
    }
  };
  walk(root);
  const more = fresh.reduce((sum, box) => sum + box.children.length - 1, 0);
  if (visible + more <= limit) for (const box of fresh) box.open = true;
}

export function ancestors(item) {
  const found = [];
  for (let box = item.parent; box; box = box.parent) found.push(box);
  return found;
}

export function* leavesOf(item) {
  if (item.leaf) yield item;
  else for (const child of item.children) yield* leavesOf(child);
}
