// What the parts ask of their surroundings, in a notebook with a kernel and in a page that stands alone.

/** A host that asks Python: `host.ask(question)` becomes the answer. */
export const withKernel = (host, model, undo) => Object.assign(host, { ask: asking(model, undo) });

/** A host that answers from what its page brought along, and remembers the search as long as the window is open. */
export function withPage(host, details) {
  const kept = { query: remembering("query", ""), queries: remembering("queries", []) };
  const { get, set } = host;
  return Object.assign(host, {
    ask: answering(details),
    get: (key) => (kept[key] ? kept[key].get() : get(key)),
    set: (key, value) => (kept[key] ? kept[key].set(value) : set(key, value)),
  });
}

/** Ask Python, and wait for the answer that bears the same key. */
export function asking(model, undo) {
  const waiting = new Map();
  let asked = 0;
  const own = Math.random().toString(36).slice(2); // two views of one explorer hear each other's answers
  const heard = (message) => {
    if (message?.kind !== "details" || !waiting.has(message.key)) return;
    waiting.get(message.key)(message);
    waiting.delete(message.key);
  };
  model.on("msg:custom", heard);
  undo.push(() => model.off("msg:custom", heard));
  return (question) =>
    new Promise((resolve) => {
      const key = `${own}-${(asked += 1)}`;
      waiting.set(key, resolve);
      model.send({ kind: "details", key, ...question });
    });
}

/** The answers that a page brought along. */
export function answering(details) {
  return async ({ vertex, family }) => {
    if (!details) return {};
    const { attributes, vertices, strips } = details;
    const told = vertex === null ? undefined : attributes.texts[attributes.of[vertex]];
    return { attributes: told, ...(vertices[vertex] ?? {}), strip: family === null ? undefined : strips[family] };
  };
}

/** What a page remembers as long as its window is open; a browser that forbids it forgets at once. */
export function remembering(name, begin) {
  const key = `geta-explorer ${globalThis.location?.pathname ?? ""} ${name}`;
  let value = begin;
  try {
    value = JSON.parse(sessionStorage.getItem(key)) ?? begin;
  } catch {
    // forbidden, or not ours
  }
  return {
    get: () => value,
    set: (next) => {
      value = next;
      try {
        sessionStorage.setItem(key, JSON.stringify(next));
      } catch {
        // forgotten with the page
      }
    },
  };
}
