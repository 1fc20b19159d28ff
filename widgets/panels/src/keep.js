// "Keep" ticks a family: groups of channels that several layers make together stay or go together.

/** Whether an exception asks for nothing. */
export function isEmpty(values) {
  return !values.protect && !values.bit_range && !values.activation_bit_range && (values.max_sparsity ?? null) === null;
}

/** Keep all families that a layer makes, or let them go, in `exceptions`; which is changed. `makers`: family -> patterns that protect it alone. */
export function keepFamilies(exceptions, layer, makers, on) {
  if (on) {
    exceptions[layer.pattern] = { ...exceptions[layer.pattern], protect: true };
    return;
  }
  for (const pattern of new Set([layer.pattern, ...layer.families.flatMap((family) => makers[family])])) {
    const own = exceptions[pattern];
    if (!own || !own.protect) continue;
    own.protect = false;
    if (isEmpty(own)) delete exceptions[pattern];
  }
}

/** true, false, or null where of several families only some are kept. */
export function isKept(layer, kept) {
  const many = layer.families.filter((family) => kept.has(family)).length;
  return many === 0 ? false : many === layer.families.length ? true : null;
}
