"""The explorer without a kernel, and the graph for other tools: a page of its own, SVG, Graphviz, pyvis. Nothing here asks the network.

In: a ``GETA``, or the data that an explorer was given. Out: HTML, SVG or an object of the other library, the same for the same network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geta_nb._extra import load
from geta_nb.display.layout import layered
from geta_nb.display.markup import escape
from geta_nb.display.qadg import Box, collapse, qadg_text
from geta_nb.display.theme import HUE_OF_KIND
from geta_nb.geta import GETA
from geta_nb.widgets.first_dot import first_dot
from geta_nb.widgets.first_picture import first_svg
from geta_nb.widgets.first_view import MOST, first_view
from geta_nb.widgets.run_checks import facade

if TYPE_CHECKING:
    import graphviz
    from pyvis.network import Network

STATIC = Path(__file__).with_name("static")
MAX_STATIC = 1000
"""Boxes of a static picture; a network of more is drawn by module."""


@cache
def asset(name: str) -> str:
    """Return a file of the front end."""
    return (STATIC / name).read_text(encoding="utf-8")


def page(title: str, data: Mapping[str, Any]) -> str:
    """Return one HTML document that shows the explorer offline.

    Its policy allows the two texts inside it, by their hashes, and nothing else: no request can leave it.
    """
    script, style = asset("explorer.js"), asset("explorer.css") + "html,body{margin:0;height:100%}"
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    own = f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>'
        f'<body><main><h1 class="gx-heard">{escape(title)}</h1><div id="geta-explorer-page"></div></main>'
        f'<script type="application/json" id="geta-explorer-data">{text}</script>'
        f'<script type="module">{script}</script></body></html>\n'
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_page(path: str | PathLike[str], title: str, data: Mapping[str, Any]) -> Path:
    """Write :func:`page` to a file and return its path."""
    target = Path(path)
    target.write_text(page(title, data), encoding="utf-8")
    return target


def static_svg(geta: GETA, *, max_boxes: int = MOST, dot: str | None = "dot") -> str:
    """Return the first view as a picture: laid out by Graphviz where there is one, else by ourselves.

    Args:
        geta: the network.
        max_boxes: modules are opened while no more boxes than these are in sight; with as many as there are vertices all are open.
        dot: the Graphviz program; None: our own drawing.
    """
    view = first_view(geta, max_boxes)
    if dot is not None:
        head = [f"{kind} [{_attributes(values)}]\n" for kind, values in _LOOKS]
        picture = _by_dot(first_dot(view, _attributes, head), dot)
        if picture is not None:
            return picture
    return first_svg(view, qadg_text(geta.qadg))


def _by_dot(source: str, dot: str) -> str | None:
    """SVG by the Graphviz program, or None where there is none, or it fails, or takes longer than a reader waits."""
    try:
        done = subprocess.run([dot, "-Tsvg"], input=source.encode(), capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    text = done.stdout.decode()
    return re.sub(r"^.*?(?=<svg)", "", text, count=1, flags=re.DOTALL)


def _boxes(geta: GETA, max_boxes: int) -> tuple[list[Box], list[tuple[int, int]]]:
    known = {"weight_quantizer": geta.bit_widths(), "input_quantizer": geta.activation_bit_widths()}
    return collapse(geta.qadg, max_boxes, known)


_GRAPH = {"rankdir": "TB", "nodesep": "0.25", "ranksep": "0.35", "bgcolor": "white"}
_NODE = {
    "shape": "box", "style": "rounded,filled", "fontname": "Helvetica", "fontsize": "11", "fontcolor": "#1b1b1b", "margin": "0.12,0.06",
    "penwidth": "1.2",
}  # fmt: skip
_EDGE = {"color": "#7a7f87", "arrowsize": "0.6"}
_LOOKS = (("graph", _GRAPH), ("node", _NODE), ("edge", _EDGE))


def to_graphviz_source(geta: GETA, *, max_boxes: int = MAX_STATIC) -> str:
    """Return the folded graph in the DOT language."""
    head = [f"{kind} [{_attributes(values)}]\n" for kind, values in _LOOKS]
    return "".join(["digraph {\n", *head, *_statements(geta, max_boxes), "}\n"])


def _attributes(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={_dot(value)}" for key, value in values.items())


def _statements(geta: GETA, max_boxes: int) -> list[str]:
    boxes, edges = _boxes(facade(geta, "to_graphviz"), max_boxes)
    lines = []
    for i, box in enumerate(boxes):
        badges = f"   {' '.join(words for _, words in box.badges)}" if box.badges else ""
        colour = HUE_OF_KIND[box.kind]
        look = {"label": f"{box.head}{badges}\n{box.below}", "tooltip": box.title, "color": colour, "fillcolor": f"{colour}26"}
        lines.append(f"n{i} [{_attributes(look)}]\n")
    return lines + [f"n{a} -> n{b}\n" for a, b in edges]


def _dot(text: str) -> str:
    r"""Return a quoted DOT string; a backslash stays one, for ``\N`` and ``\G`` would be replaced."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    # graphviz reads entities in labels: a name that holds one is to be shown as it stands
    return f'"{escaped.replace("&", "&amp;")}"'


def to_graphviz(geta: GETA, *, max_boxes: int = MAX_STATIC) -> graphviz.Digraph:
    """Return the folded graph as an object of the ``graphviz`` package; it shows itself where a ``dot`` is installed.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = load("graphviz", "notebook")
    graph: graphviz.Digraph = package.Digraph(graph_attr=_GRAPH, node_attr=_NODE, edge_attr=_EDGE, body=_statements(geta, max_boxes))
    return graph


def to_pyvis(geta: GETA, *, max_boxes: int = 300) -> Network:
    """Return the folded graph as a pyvis network: places fixed, so that it is the same each time, and its pages ask nobody.

    Raises:
        MissingExtraError: pyvis is not installed.
    """
    network = load("geta_nb.widgets.pyvis_network", "notebook").OfflineNetwork()
    boxes, edges = _boxes(facade(geta, "to_pyvis"), max_boxes)
    layout = layered([box.size for box in boxes], edges)
    for i, (box, (x, y)) in enumerate(zip(boxes, layout.centres, strict=True)):
        colour = HUE_OF_KIND[box.kind]
        network.add_box(i, f"{box.head}\n{box.below}", box.title, (x, y), colour)
    for a, b in edges:
        network.add_edge(a, b)
    network.caption = qadg_text(geta.qadg)
    return network
