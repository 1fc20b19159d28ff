// Where a view has its data from and whom it tells: a widget's model, a page of its own, or the subnet's side of another host.

async function unpack(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** The host of a widget's model; `undo` gets what takes its listeners off. */
export async function modelHost(model, undo) {
  const packed = model.get("graph");
  return {
    live: true,
    graph: await unpack(packed instanceof DataView ? packed : new DataView(packed.buffer ?? packed)),
    get: (key) => model.get(key),
    set: (key, value) => {
      if (model.get(key) === value) return;
      model.set(key, value);
      model.save_changes();
    },
    on: (key, act) => {
      model.on(`change:${key}`, act);
      undo.push(() => model.off(`change:${key}`, act));
    },
    send: (message) => model.send(message),
  };
}

/** The host of a page without a kernel: it remembers, and asks nobody. */
export function pageHost({ graph, ...values }) {
  const listeners = new Map();
  return {
    live: false,
    graph,
    get: (key) => values[key],
    set: (key, value) => {
      if (values[key] === value) return;
      values[key] = value;
      for (const act of listeners.get(key) ?? []) act();
    },
    on: (key, act) => listeners.set(key, [...(listeners.get(key) ?? []), act]),
    send: () => {},
  };
}

/** The same network as its subnet is: other bits and shares, all else the same; the first side tells what is shared. */
export function subnetHost(host) {
  const key = (name) => (name === "live_state" ? "subnet_state" : name);
  const own = new Set(["layer", "colour", "selection", "selected_family"]);
  return { ...host, get: (name) => host.get(key(name)), on: (name, act) => (own.has(name) ? null : host.on(key(name), act)), set: () => {} };
}

export const hasSubnet = (host) => Boolean(host.get("subnet_state")?.weight);
