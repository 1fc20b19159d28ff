// Puts the notes of one view together: channels before and after where they are asked for, and the values of the overlay that is shown.
import { anchorAt } from "./link.js";
import { Notes, Steps } from "./notes.js";
import { Values } from "./overlay.js";

/** The overlay that is the colour now, or undefined. */
export const shownOverlay = (host, name) => (host.get("overlays") ?? []).find((overlay) => overlay.name === name);

export const showsChannels = (view) => view.side !== "alone" || Boolean(view.host.get("before_after"));

/** Make the notes anew; boxes that need another width get it, and what is in the middle stays there. */
export function annotate(view) {
  const { host, graph, painter } = view;
  const counted = host.get("compare_state") ?? {};
  const overlay = shownOverlay(host, view.schemeName);
  const steps = showsChannels(view) && counted.nodes ? new Steps(counted, view.side, view.firstOf) : null;
  const key = JSON.stringify([steps && [view.side, counted.budget ? 1 : 0, view.firstOf ? 1 : 0], overlay && [overlay.nodes, overlay.values, overlay.unit]]);
  painter.notes = steps || overlay ? new Notes({ graph, steps, values: overlay ? new Values(overlay) : null, missing: view.missing }) : null;
  if (!view.root?.layout) {
    view.noted = key;
    return;
  }
  if (key !== (view.noted ?? "[null,null]")) remeasure(view);
  view.noted = key;
  view.mapStale = true;
  view._draw();
}

function remeasure(view) {
  const { root, camera, width, height } = view;
  const [cx, cy] = [camera.x + (width ?? 0) / camera.scale / 2, camera.y + (height ?? 0) / camera.scale / 2];
  const held = anchorAt(root, cx, cy);
  for (const item of [...view.picture.leaves.values(), ...view.picture.boxes]) {
    item.width = undefined;
    if (item.twins) item.twins.width = null; // blocks of a stack are as wide as each other
  }
  view.engine.run(root);
  if (!width) return;
  if (!view.moved || !held) return void view.fit();
  const [x, y] = view.place(held.item);
  Object.assign(camera, { x: camera.x + x - held.x, y: camera.y + y - held.y });
}
