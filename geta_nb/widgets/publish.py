"""Executed notebooks for readers without a kernel: every widget becomes the static view that it brought along, and nothing is asked for.

In: an executed notebook. Out: the same notebook without widgets and their state (which papermill stores with the whole front end of each
of them), or an HTML page of it that works offline. A viewer prefers a widget to its static view, and without a kernel shows nothing.
"""

from __future__ import annotations

import copy
from os import PathLike
from pathlib import Path
from typing import Any

from geta_nb._extra import load

_WIDGET = "application/vnd.jupyter.widget-view+json"
_BARE = "(a widget: run the notebook to see it)"


def without_widgets(notebook: Any) -> Any:
    """Return a copy of a notebook (a dict, as ``nbformat`` reads it) whose widgets are their static views.

    Of a line that was written over and over (a progress bar in text) the last state is kept.
    """
    static = copy.deepcopy(notebook)
    static["metadata"].pop("widgets", None)
    for cell in static["cells"]:
        if "outputs" in cell:
            cell["outputs"] = _joined_streams(cell["outputs"])
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if data.pop(_WIDGET, None) is not None:
                data.setdefault("text/plain", _BARE)
                output.get("metadata", {}).pop(_WIDGET, None)
    return static


def _joined_streams(outputs: list[Any]) -> list[Any]:
    """Outputs with neighbouring pieces of one stream joined, each line as a terminal would show it in the end."""
    joined: list[Any] = []
    for output in outputs:
        if output.get("output_type") != "stream":
            joined.append(output)
        elif joined and joined[-1].get("output_type") == "stream" and joined[-1]["name"] == output["name"]:
            joined[-1]["text"] = "".join(joined[-1]["text"]) + "".join(output["text"])
        else:
            joined.append(output)
    for output in joined:
        if output.get("output_type") == "stream":
            output["text"] = "\n".join(_last_state(line) for line in "".join(output["text"]).split("\n"))
    return joined


def _last_state(line: str) -> str:
    r"""What a terminal shows of a line: what was written after its last carriage return.

    >>> _last_state("10 %\r100 %\r")
    '100 %'
    """
    return line.rstrip("\r").rpartition("\r")[2]


def publish(notebook: str | PathLike[str], target: str | PathLike[str]) -> Path:
    """Write an executed notebook for readers without a kernel; returns ``target``.

    Args:
        notebook: path of the executed notebook.
        target: path to write; a name that ends in ``.html`` makes a page that loads nothing from anywhere, else a notebook.

    Raises:
        MissingExtraError: nbformat or nbconvert is not installed.
    """
    nbformat = load("nbformat", "notebook")
    static, path = without_widgets(nbformat.read(str(notebook), as_version=4)), Path(target)
    if path.suffix != ".html":
        nbformat.write(static, str(path))
        return path
    exporter = load("nbconvert", "notebook").HTMLExporter()
    for name in ("require_js_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url", "jquery_url"):
        if exporter.has_trait(name):
            setattr(exporter, name, "")
    page, _ = exporter.from_notebook_node(static)
    path.write_text(page, encoding="utf-8")
    return path
