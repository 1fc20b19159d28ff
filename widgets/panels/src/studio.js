// Places explorer, budget panel and live run beside each other, and the button that cuts the subnet.
import { keepKeys, make } from "./theme.js";

const PREFIX = "IPY_MODEL_";

export function render({ model, el }) {
  const views = [], slots = (model.get("children") || []).map(() => make("div", { class: "gp-slot" }));
  const cut = make("button", { type: "button", class: "gp-button", "data-testid": "geta-studio-cut" }, "Cut the subnet");
  const hint = make("span", { class: "gp-dim" });
  const note = make("div", { class: "gp-note", role: "alert", hidden: "" });
  const report = make("div", { class: "gp-slot gp-table-static", "data-testid": "geta-studio-report" });
  const columns = make("div", { class: "gp-studio-columns" }, null, slots);
  const root = make("div", { class: "geta-view gp-panel gp-studio", role: "region", "aria-label": "studio", "data-testid": "geta-studio" }, null, [
    make("div", { class: "gp-head" }, null, [make("span", { class: "gp-title" }, "Studio"), make("span", {}, null, [hint, cut])]), note, columns, report,
  ]);
  keepKeys(root);
  el.append(root);
  let gone = false, shown = "";
  (model.get("children") || []).forEach(async (id, i) => {
    const child = await model.widget_manager.get_model(id.slice(PREFIX.length));
    const view = await model.widget_manager.create_view(child);
    if (gone) { view.remove(); return; }
    views.push(view);
    slots[i].append(view.el);
  });
  cut.addEventListener("click", () => { cut.textContent = "Cutting …"; cut.disabled = true; model.send({ action: "cut" }); });
  const show = () => {
    const outcome = model.get("outcome");
    cut.textContent = "Cut the subnet";
    cut.disabled = !outcome.can_cut;
    hint.textContent = outcome.hint ? `to train here: ${outcome.hint} ` : "";
    note.hidden = !outcome.error;
    note.textContent = outcome.error;
    // the report is made by Python's display code, which escapes every name
    if (shown !== outcome.html) { report.innerHTML = outcome.html; shown = outcome.html; }
  };
  model.on("change:outcome", show);
  show();
  return () => { gone = true; model.off("change:outcome", show); for (const view of views) view.remove(); };
}

export default { render };
