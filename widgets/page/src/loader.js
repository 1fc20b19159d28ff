// What every widget of geta-nb sends to a page instead of its script: it fetches the script from where the page has it once.
// The script stands in a model of its own (`model.get("script")`); one that is gone is asked of the widget itself.
const loaded = (globalThis.__getaNbScripts ??= new Map());

function asked(model) {
  return new Promise((resolve) => {
    const take = (message) => {
      if (!message || message.kind !== "script") return;
      model.off("msg:custom", take);
      resolve(message);
    };
    model.on("msg:custom", take);
    model.send({ kind: "script" });
  });
}

async function sources(model) {
  try {
    const found = await model.widget_manager.get_model(model.get("script").slice("IPY_MODEL_".length));
    const code = found.get("code");
    if (code) return { code, style: found.get("style") };
  } catch {
    // closed, or a page without a widget manager
  }
  return asked(model);
}

async function bring(model, key) {
  const { code, style } = await sources(model);
  if (!document.getElementById(key)) {
    const sheet = document.createElement("style");
    sheet.id = key;
    sheet.textContent = style;
    document.head.append(sheet);
  }
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  try {
    return (await import(/* webpackIgnore: true */ address)).default;
  } finally {
    URL.revokeObjectURL(address);
  }
}

function load(model) {
  const key = model.get("script_key");
  if (!loaded.has(key)) {
    loaded.set(key, bring(model, key));
    loaded.get(key).catch(() => loaded.delete(key));
  }
  return loaded.get(key);
}

export default {
  async initialize(given) {
    return (await load(given.model)).initialize?.(given);
  },
  async render(given) {
    return (await load(given.model)).render(given);
  },
};
