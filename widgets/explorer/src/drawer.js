// The outline where there is no room for a column: a drawer over the graph, opened and closed by the button, closed by Escape.

const NARROW = 900; // px of the explorer's width, as in the style sheet
const TINY = 620; // px at which a chosen vertex would lie under the drawer

export class Drawer {
  /** @param element of the explorer, @param outline the column, @param button that shows and hides it, @param resized called when the stage may have changed */
  constructor(element, outline, button, resized) {
    Object.assign(this, { element, outline, button, resized });
    outline.id ||= `gx-outline-${Math.random().toString(36).slice(2)}`;
    button.setAttribute("aria-controls", outline.id);
    outline.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.open) return;
      event.stopPropagation();
      this.close();
      button.focus();
    });
    outline.addEventListener("click", (event) => {
      if (this.open && element.clientWidth <= TINY && event.target.closest(".gx-row") && !event.target.closest(".gx-twist")) this.close();
    });
    this.say();
  }

  get narrow() {
    return this.element.clientWidth <= NARROW;
  }

  get open() {
    return this.narrow && this.element.classList.contains("gx-drawer");
  }

  /** In a wide explorer the column is there or not; in a narrow one the drawer is. */
  toggle() {
    if (!this.narrow) this.element.classList.toggle("gx-hidden");
    else if (this.element.classList.toggle("gx-drawer")) this.outline.querySelector('[role="treeitem"][tabindex="0"]')?.focus({ preventScroll: true });
    this.say();
    this.resized();
  }

  close() {
    this.element.classList.remove("gx-drawer");
    this.say();
  }

  /** Tell the button what it does now; call when the width has changed. */
  say() {
    const shown = this.narrow ? this.open : !this.element.classList.contains("gx-hidden");
    this.button.setAttribute("aria-expanded", String(shown));
  }
}
