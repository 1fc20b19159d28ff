// Code, tables and outputs that are wider than the page scroll inside themselves: then the keyboard can reach them, and they say what they are.
const KINDS = [
  ["pre, code, .highlight-ipynb", "code"],
  [".md-typeset__scrollwrap, .md-typeset__table", "table"],
  [".jp-OutputArea-output", "output"],
];

function reach() {
  for (const [selector, kind] of KINDS) {
    for (const box of document.querySelectorAll(selector)) {
      const { overflowX, overflowY } = getComputedStyle(box);
      const wide = box.scrollWidth > box.clientWidth && /auto|scroll/.test(overflowX);
      const high = box.scrollHeight > box.clientHeight && /auto|scroll/.test(overflowY);
      if ("reached" in box.dataset) {
        box.tabIndex = wide || high ? 0 : -1;
      } else if ((wide || high) && !box.hasAttribute("tabindex") && !box.hasAttribute("role")) {
        box.dataset.reached = "";
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", kind);
      }
    }
  }
}

addEventListener("load", reach);
addEventListener("resize", reach);
addEventListener("toggle", reach, true); // what was folded had no size
