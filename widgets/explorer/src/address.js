// The page's address follows what is selected, and a link to a vertex opens with it.
import { addressOf, selectionAt } from "./select.js";

export function followAddress(host, view) {
  const read = () => {
    const wanted = selectionAt(location.hash, view.graph);
    if (wanted) view.selectGiven(wanted);
  };
  const write = () => {
    const selection = host.get("selection");
    const text = selection ? addressOf(selection, view.graph) : "";
    if (selectionAt(location.hash, view.graph) === selectionAt(`#${text}`, view.graph)) return; // the very link that was opened stays
    try {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    } catch {
      // an address that may not change, as in a frame without one of its own: the link in the details is there all the same
    }
  };
  read();
  if (!location.hash && view.selected) write();
  host.on("selection", write);
  addEventListener("hashchange", read);
}
