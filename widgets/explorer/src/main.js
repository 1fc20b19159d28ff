// Entry: an anywidget view, and a page of its own. Both give the explorer a host: the data, a few values that change, and a way to ask.
import { withKernel, withPage } from "./host.js";
import { Explorer } from "./view.js";

async function unpack(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function render({ model, el }) {
  const packed = model.get("graph");
  const undo = [];
  const host = {
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
  const explorer = new Explorer(el, withKernel(host, model, undo));
  return () => {
    undo.forEach((act) => act());
    explorer.destroy();
  };
}

export function openPage(data, parent) {
  const { graph, details, ...values } = data;
  const host = { live: false, graph, get: (key) => values[key], set: () => {}, on: () => {}, send: () => {} };
  return new Explorer(parent, withPage(host, details), { page: true });
}

export default { render };

const page = globalThis.document?.getElementById("geta-explorer-page");
if (page) {
  const text = document.getElementById("geta-explorer-data").textContent;
  const started = performance.now();
  const explorer = openPage(JSON.parse(text), page);
  page.explorer = explorer;
  page.dataset.started = String(started);
}
