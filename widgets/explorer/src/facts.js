// What follows from a graph's data: who feeds and who reads a vertex or a module, and the whole cost. No DOM.
import { leavesOf } from "./graph.js";

export function allBops(graph) {
  graph.bops ??= Object.values(graph.data.vertices).reduce((sum, { k }) => sum + (k?.[1] ?? 0), 0);
  return graph.bops;
}

/** Sources and readers of every node of a layer, in the order of execution; made once. */
function ends(graph, layer) {
  graph.ends ??= new Map();
  if (!graph.ends.has(layer)) {
    const [sources, readers] = [new Map(), new Map()];
    const { edges } = graph.data.layers[layer];
    const add = (map, key, value) => (map.has(key) ? map.get(key).add(value) : map.set(key, new Set([value])));
    for (let i = 0; i < edges.length; i += 2) {
      add(sources, edges[i + 1], edges[i]);
      add(readers, edges[i], edges[i + 1]);
    }
    graph.ends.set(layer, { sources, readers });
  }
  return graph.ends.get(layer);
}

/** Of a leaf, or of a box as a whole: {sources, readers}, nodes outside of it; each with the shape that its edge carries. */
export function neighbours(graph, layer, item) {
  const { sources, readers } = ends(graph, layer);
  const inside = new Set([...leavesOf(item)].map(({ id }) => id));
  const found = { sources: new Map(), readers: new Map() };
  for (const id of inside) {
    for (const source of sources.get(id) ?? []) if (!inside.has(source)) found.sources.set(source, graph.shape(source));
    for (const reader of readers.get(id) ?? []) if (!inside.has(reader)) found.readers.set(reader, graph.shape(id));
  }
  const rows = (map) => [...map].sort(([a], [b]) => a - b).map(([node, shape]) => ({ node, shape }));
  return { sources: rows(found.sources), readers: rows(found.readers) };
}
