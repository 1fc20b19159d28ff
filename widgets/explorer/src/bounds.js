// How much room boxes and routes take.

/** The corner and the size of all boxes and routes. */
export function bounds(places, sizes, routes) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  const see = (x, y) => {
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  };
  places.forEach(([x, y], i) => {
    see(x, y);
    see(x + sizes[i].w, y + sizes[i].h);
  });
  for (const { points } of routes) for (const [x, y] of points) see(x, y);
  if (left === Infinity) return { w: 40, h: 20 };
  return { left, top, w: right - left, h: bottom - top, sizes };
}
