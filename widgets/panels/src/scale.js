// How long a bar is: by the value, or by its logarithm, on which a layer of a thousandth is still seen.

const BELOW = 32; // the least dense value still has room to shrink by this factor before its bar ends

/** A function from a value to 0 .. 1, for a column whose dense values are these. */
export function barScale(values, log) {
  const positive = values.filter((value) => value > 0);
  const most = Math.max(...positive, 0), least = Math.min(...positive, most) / BELOW;
  if (!most) return () => 0;
  if (!log) return (value) => Math.min(Math.max(value / most, 0), 1);
  const span = Math.log(most / least);
  return (value) => (value > 0 ? Math.min(Math.max(Math.log(value / least) / span, 0), 1) : 0);
}
