// Keeps what one acts with in sight: after a selection the buttons of the family are seen, whatever stands above them.

/** Scroll `panel` alone, never the page, as little as shows `part` between its top and what is stuck to its bottom. */
export function bringIntoSight(panel, part, stuck) {
  if (!part || !panel.clientHeight) return;
  const at = part.getBoundingClientRect(), box = panel.getBoundingClientRect();
  panel.scrollTop += scrollBy(at.top - box.top, at.bottom - box.top, panel.clientHeight - (stuck?.offsetHeight ?? 0));
}

/** How far to scroll so that [top, bottom] lies within 0 .. room; where both ends do not fit, the top does. */
export function scrollBy(top, bottom, room) {
  if (top < 0) return top;
  return bottom <= room ? 0 : Math.min(bottom - room, top);
}
