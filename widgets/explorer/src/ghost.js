// What has gone is drawn as a ghost of itself: emptied and dashed; what would go under the budget, half emptied.

/** Ghost of an item over its box: `shares` of it that are left after each step, the last of two being the budget's; `ink` of its lines. */
export function drawGhost(g, { x, y, w, h }, shares, theme, { readable, thin, ink = 1 }) {
  let before = 1;
  shares.forEach((share, k) => {
    const left = Math.max(0, Math.min(share, before));
    if (left < before) part(g, { x: x + w * left, y, w: w * (before - left), h }, k === 0, theme, { readable, thin, ink });
    before = left;
  });
}

function part(g, { x, y, w, h }, gone, theme, { readable, thin, ink }) {
  g.save();
  g.globalAlpha = gone ? 0.88 : 0.5;
  g.fillStyle = theme.box;
  g.fillRect(x, y + thin, w - thin, h - 2 * thin);
  if (readable) {
    g.globalAlpha = ink;
    g.beginPath();
    g.rect(x, y + thin / 2, w - thin / 2, h - thin);
    g.strokeStyle = theme.edge;
    g.lineWidth = thin;
    g.setLineDash([3, 2]);
    g.stroke();
    if (gone) {
      g.globalAlpha = 0.3 * ink;
      g.setLineDash([]);
      g.beginPath();
      for (let at = 6; at < w; at += 6) {
        const reach = Math.min(h - 2, at);
        g.moveTo(x + at, y + 1);
        g.lineTo(x + at - reach, y + 1 + reach);
      }
      g.stroke();
    }
  }
  g.restore();
}

/** A vertex that the other side has not. */
export function drawMissing(g, { x, y, w, h }, theme, thin) {
  g.save();
  g.beginPath();
  g.roundRect(x - 2, y - 2, w + 4, h + 4, 7);
  g.strokeStyle = theme.fg;
  g.lineWidth = 1.5 * thin;
  g.setLineDash([5, 3]);
  g.stroke();
  g.restore();
}
