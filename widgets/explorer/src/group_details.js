// What the details say of a stack and of folded plain steps: rows of facts, and the blocks to go to.
import { amount } from "./colours.js";
import { make } from "./dom.js";
import { spread } from "./stacks.js";

export function groupRows(box, graph, state) {
  if (!box.stack) return [["what", "steps that carry no family and no cost"], ["nodes", amount(box.leaves)], ["in", box.parent.path || "(root)"]];
  const { widths, bits } = spread(box, graph, state);
  const rows = [["blocks", `${box.children.length}, of one structure`], ["modules", box.path], ["class", box.type || "–"], ["nodes", amount(box.leaves)]];
  if (widths) rows.push(["widths", widths]);
  if (bits) rows.push(["weight bits", bits]);
  return rows;
}

/** A button to each block of a stack, and one that shows all or one. */
export function blockList(box, actions) {
  if (!box.stack) return [];
  const all = make("button", {
    type: "button", "data-testid": "geta-explorer-spread", text: box.peek >= 0 ? "Show all in the picture" : "Show one in the picture", onclick: () => actions.spread(box),
  });
  const chip = (block) => make("button", { type: "button", class: "gx-chip", title: block.path, onclick: () => actions.show(block) }, make("span", { text: block.label }));
  return [make("h4", { text: "Blocks" }), all, make("div", { class: "gx-chips" }, ...box.children.slice(0, 64).map(chip))];
}
