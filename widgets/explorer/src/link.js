// Two views that move together: what of one is the same in the other, and where the other's camera must stand for it. No DOM.

/** A name for an item that means the same in a picture of another network of this kind: the labels on the way to it. */
export function keyOf(item) {
  if (!item.parent) return "";
  if (item.key === undefined) {
    const same = item.parent.children.filter((child) => child.leaf === item.leaf && child.label === item.label && (child.local ?? "") === (item.local ?? ""));
    item.key = `${keyOf(item.parent)}/${item.leaf ? "" : "+"}${item.label}|${item.local ?? ""}#${same.indexOf(item)}`;
  }
  return item.key;
}

/** Items of a picture by their keys, made once. */
export function itemsByKey(picture) {
  if (!picture.byKey) {
    picture.byKey = new Map(picture.boxes.map((box) => [keyOf(box), box]));
    for (const leaf of picture.leaves.values()) picture.byKey.set(keyOf(leaf), leaf);
  }
  return picture.byKey;
}

/** The same item in the other picture: by its place, else a vertex by name, else by the module; null where there is none. */
export function counterpart(item, other, graphs) {
  const found = itemsByKey(other).get(keyOf(item));
  if (found) return found;
  if (!item.leaf) return other.boxes.find((box) => box.path === item.path && box.branch === item.branch && box.parent) ?? null;
  const [own, theirs] = graphs;
  const [name, path, operator] = [own.name(item.id), own.modulePath(item.id), own.operator(item.id)];
  const inside = [...other.leaves.values()].filter(({ id }) => theirs.modulePath(id) === path && theirs.operator(id) === operator);
  return inside.find(({ id }) => theirs.name(id) === name) ?? (inside.length === 1 && path ? inside[0] : null);
}

/** Vertices of a picture that the other has not. */
export function missingIn(picture, other, graphs) {
  return new Set([...picture.leaves.values()].filter((leaf) => !counterpart(leaf, other, graphs)));
}

/** What two views have in common, as one of them is now. Places are compared by the layout itself, which is made anew when boxes open. */
export function snapshot(view) {
  const { x, y, scale } = view.camera;
  return { x, y, scale, layer: view.layer, scheme: view.schemeName, selected: view.selected, family: view.family, term: view.term ?? "", layout: view.root?.layout };
}

/** Names of what differs between two snapshots. */
export function changes(before, now) {
  return ["layer", "scheme", "layout", "term", "selected", "family"].filter((key) => before[key] !== now[key])
    .concat(["x", "y", "scale"].some((key) => before[key] !== now[key]) ? ["camera"] : []);
}

/** Open in `to` what is open in `from`, close what is closed; true where something changed. What `to` alone has stays as it is. */
export function copyOpen(from, to) {
  const known = itemsByKey(to);
  const modules = new Map(to.boxes.filter((box) => !box.branch && !box.group).map((box) => [box.path, box]));
  let changed = false;
  for (const box of from.boxes) {
    const twin = known.get(keyOf(box)) ?? (box.branch || box.group ? null : modules.get(box.path)); // a module may stand elsewhere there
    if (!twin || twin.leaf || !box.parent) continue;
    const peek = box.stack && twin.stack ? blockOf(box, twin) : twin.peek; // another of its blocks may be shown
    changed ||= peek !== twin.peek || twin.open !== box.open;
    twin.peek = peek;
    twin.open = box.open;
  }
  return changed;
}

/** Which block of a stack to show so that it is the one that the other stack shows: -1 for all of them; as it is where it has not that one. */
function blockOf(stack, twin) {
  if (stack.peek < 0) return stack.peek;
  const shown = stack.children[stack.peek];
  const at = twin.children.findIndex((child) => child.leaf === shown.leaf && (child.path ?? child.local) === (shown.path ?? shown.local));
  return at < 0 ? twin.peek : at;
}

/** The innermost visible item at a point of a picture, or the one next to it: what the other camera is held fast by. */
export function anchorAt(root, x, y) {
  let [box, ox, oy, best] = [root, 0, 0, null];
  for (;;) {
    let nearest = Infinity;
    let at = -1;
    box.layout.places.forEach(([px, py], i) => {
      const child = box.children[i];
      if (!isShown(child)) return;
      const dx = Math.max(ox + px - x, 0, x - ox - px - child.w);
      const dy = Math.max(oy + py - y, 0, y - oy - py - child.h);
      const far = dx * dx + dy * dy;
      if (far < nearest) [nearest, at] = [far, i];
    });
    if (at < 0) return best;
    const [px, py] = box.layout.places[at];
    const child = box.children[at];
    [ox, oy] = [ox + px, oy + py];
    best = { item: child, x: ox, y: oy };
    if (child.leaf || !child.open || nearest > 0) return best;
    box = child;
  }
}

/**
 * Where the other camera must stand so that the same thing is in the middle.
 * @param from {camera, root, width, height}; @param to {root, width, height, place(item)}; @param twin (item) => item of the other, or null
 */
export function cameraFor(from, to, twin) {
  const { scale } = from.camera;
  const [cx, cy] = [from.camera.x + from.width / scale / 2, from.camera.y + from.height / scale / 2];
  let found = anchorAt(from.root, cx, cy);
  let [item, x, y] = found ? [found.item, found.x, found.y] : [null, 0, 0];
  while (item && item.parent && !visible(twin(item))) {
    const [px, py] = item.parent.layout.places[item.place];
    [item, x, y] = [item.parent, x - px, y - py];
  }
  const other = item?.parent ? twin(item) : to.root;
  const own = item?.parent ? item : from.root;
  const [tx, ty] = item?.parent ? to.place(other) : [0, 0];
  const mx = tx + at(cx - x, own.w, other.w);
  const my = ty + at(cy - y, own.h, other.h);
  return { scale, x: mx - to.width / scale / 2, y: my - to.height / scale / 2 };
}

/** The same place in a thing of another size: in proportion inside it, at the same distance outside. */
function at(inside, own, other) {
  if (inside < 0) return inside;
  if (inside > own) return other + inside - own;
  return own ? (inside * other) / own : 0;
}

function visible(item) {
  if (!item) return false;
  for (let child = item; child.parent; child = child.parent) if (!child.parent.open || !isShown(child)) return false;
  return true;
}

/** A stack that shows one of its blocks hides the others. */
const isShown = ({ parent, place }) => !parent.stack || parent.peek < 0 || parent.peek === place;
