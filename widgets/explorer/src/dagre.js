// Layered places by @dagrejs/dagre, with one port above and one below for edges that come from or go to the outside.
import { Graph, layout } from "@dagrejs/dagre";
import { bounds } from "./bounds.js";

const GAPS = { rankdir: "TB", nodesep: 18, ranksep: 26, edgesep: 8, marginx: 0, marginy: 0 };

/** Route ends: -1 is the port. Places are upper left corners. */
export function dagrePlaces(sizes, edges, ports) {
  const graph = new Graph({ multigraph: false });
  graph.setGraph({ ...GAPS, ranker: sizes.length > 40 ? "longest-path" : "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  sizes.forEach(({ w, h }, i) => graph.setNode(String(i), { width: w, height: h }));
  for (const [a, b] of edges) if (a !== b) graph.setEdge(String(a), String(b), {});
  addPort(graph, "in", ports.ins, (i) => ["in", i]);
  addPort(graph, "out", ports.outs, (i) => [i, "out"]);
  layout(graph);
  const places = sizes.map(({ w, h }, i) => {
    const { x, y } = graph.node(String(i));
    return [x - w / 2, y - h / 2];
  });
  const routes = graph.edges().map((edge) => {
    const points = graph.edge(edge).points.map(({ x, y }) => [x, y]);
    return finish({ from: number(edge.v), to: number(edge.w), points }, places, sizes);
  });
  return { ...bounds(places, sizes, routes), places, routes, inPort: portOf(graph, "in"), outPort: portOf(graph, "out") };
}

function addPort(graph, name, ends, edge) {
  if (!ends.length) return;
  graph.setNode(name, { width: 8, height: 1 });
  for (const i of ends) graph.setEdge(...edge(String(i)), {});
}

const number = (name) => (name === "in" || name === "out" ? -1 : Number(name));

function portOf(graph, name) {
  const node = graph.node(name);
  return node ? [node.x, node.y] : null;
}

/** Begin at the port below, end at the port above. */
function finish(route, places, sizes) {
  const { from, to, points } = route;
  if (from >= 0 && to >= 0 && places[from][1] > places[to][1]) return { ...route, up: true };
  if (from >= 0) points[0] = [places[from][0] + sizes[from].outX, places[from][1] + sizes[from].h];
  if (to >= 0) points[points.length - 1] = [places[to][0] + sizes[to].inX, places[to][1]];
  return route;
}
