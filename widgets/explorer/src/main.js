// Entry: an anywidget view, and a page of its own. Both give the explorer a host: the data, a few values that change, and a way to ask.
import { followAddress } from "./address.js";
import { withKernel, withPage } from "./host.js";
import { hasSubnet, modelHost, pageHost, subnetHost } from "./hosts.js";
import { Pair } from "./pair.js";
import { Explorer } from "./view.js";

/** One explorer, or where there is a subnet two of them: the network and what is left of it. */
function show(parent, host, options = {}) {
  if (!hasSubnet(host)) return new Explorer(parent, host, options);
  const words = [host.graph.title, "subnet"];
  return new Pair(parent, [host, subnetHost(host)], { ...options, words, height: host.get("height") });
}

async function render({ model, el }) {
  const undo = [];
  let shown;
  const ids = model.get("pair");
  const hostOf = async (one) => withKernel(await modelHost(one, undo), one, undo);
  if (ids) {
    const models = await Promise.all(ids.map((id) => model.widget_manager.get_model(id.replace("IPY_MODEL_", ""))));
    const hosts = await Promise.all(models.map(hostOf));
    shown = new Pair(el, hosts, { words: model.get("words"), sides: ["other", "other"], height: model.get("height") });
  } else shown = show(el, await hostOf(model));
  return () => {
    undo.forEach((act) => act());
    shown.destroy();
  };
}

export function openPage(data, parent) {
  const hostOf = ({ details, ...values }) => withPage(pageHost(values), details);
  if (data.pair) {
    const hosts = data.pair.map(hostOf);
    const pair = new Pair(parent, hosts, { words: data.words, sides: ["other", "other"], page: true });
    followAddress(hosts[0], pair.views[0]);
    return pair;
  }
  const host = hostOf(data);
  const shown = show(parent, host, { page: true });
  followAddress(host, shown.views?.[0] ?? shown);
  return shown;
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
