// Undo and redo of the budget: which changes are one step, the two buttons, and the keys.
import { make } from "./theme.js";

const PAUSE = 1000; // ms after which the same control begins a new step

/** Names the act that a change belongs to: all of one drag, or of one number being typed, is one act and so one undo. */
export class Acts {
  constructor(now = () => performance.now(), tag = Math.random().toString(36).slice(2)) {
    this.now = now;
    this.tag = tag;
    this.count = 0;
    this.control = null;
    this.last = 0;
  }

  /** The act of a change of `control`; null: a click, which is one of its own. */
  of(control) {
    const now = this.now();
    if (control === null || control !== this.control || now - this.last > PAUSE) this.count += 1;
    this.control = control;
    this.last = now;
    return `${this.tag}.${this.count}`;
  }
}

/** "undo", "redo" or null, as a key says; in a field of words the keys are the field's own. */
export function stepOfKey(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return null;
  const kind = event.target.tagName === "INPUT" ? event.target.type : "";
  if (kind === "search" || kind === "text") return null;
  const key = event.key.toLowerCase();
  if (key === "z") return event.shiftKey ? "redo" : "undo";
  return key === "y" && !event.shiftKey ? "redo" : null;
}

/** The buttons; `act("undo" | "redo")` is called by click and by Ctrl+Z and Ctrl+Shift+Z inside `root`. */
export function stepButtons(root, act) {
  const button = (name, sign, keys) => make("button", { type: "button", class: "gp-button gp-step", "data-testid": `geta-budget-${name}`, "aria-keyshortcuts": keys }, `${sign} ${name[0].toUpperCase()}${name.slice(1)}`);
  const buttons = { undo: button("undo", "↶", "Control+Z"), redo: button("redo", "↷", "Control+Shift+Z") };
  const can = (name) => buttons[name].getAttribute("aria-disabled") !== "true";
  for (const name of Object.keys(buttons)) buttons[name].addEventListener("click", () => can(name) && act(name));
  root.addEventListener("keydown", (event) => {
    const name = stepOfKey(event);
    if (!name) return;
    event.preventDefault();
    event.stopPropagation();
    if (can(name)) act(name);
  });
  return {
    element: make("span", { class: "gp-steps", role: "group", "aria-label": "history of the budget" }, null, [buttons.undo, buttons.redo]),
    /** `steps`: the line of the budget that each leads to, "" where there is none. A button that has the focus keeps it. */
    show(steps, locked) {
      for (const [name, button] of Object.entries(buttons)) {
        const line = (steps || {})[name] || "";
        button.setAttribute("aria-disabled", String(!line || Boolean(locked)));
        button.title = line ? `${name}: ${line}` : `nothing to ${name}`;
      }
    },
  };
}
