"""A small graph given by its edges, as a picture: what a lesson draws by hand, or one of the layers of a trace.

In: pairs of names. Out: an SVG picture, laid out from top to bottom; the name stands in each box, colour is never the only carrier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geta_nb.display.drawing import picture, rect, text, text_width
from geta_nb.display.layout import layered
from geta_nb.display.qadg import draw_edge
from geta_nb.display.theme import GREY, HUES

_HEIGHT, _PAD = 22.0, 8.0


def graph_svg(edges: Sequence[tuple[str, str]], *, colours: Mapping[str, int] | None = None, label: str = "a graph") -> str:
    """Return a directed graph as SVG.

    Args:
        edges: pairs (from, to) of names; boxes are those that occur, in order of first mention.
        colours: name -> number of a hue, taken modulo their count; names that are not in it are grey.
        label: what a screen reader says.
    """
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    place = {name: i for i, name in enumerate(names)}
    sizes = [(text_width(name) + 24, _HEIGHT) for name in names]
    layout = layered(sizes, [(place[a], place[b]) for a, b in dict.fromkeys(edges)])
    parts = [draw_edge([(x + _PAD, y + _PAD) for x, y in route]) for route in layout.routes]
    for name, (w, h), (x, y) in zip(names, sizes, layout.centres, strict=True):
        kind = HUES[colours[name] % len(HUES)] if colours and name in colours else GREY
        left, top = x - w / 2 + _PAD, y - h / 2 + _PAD
        parts += [rect(left, top, w, h, kind="gv-box", radius=4), rect(left, top, w, h, kind=kind, opacity=0.3, radius=4)]
        parts.append(text(x + _PAD, top + 15, name, kind="gv-strong", anchor="middle"))
    return picture(layout.width + 2 * _PAD, layout.height + 2 * _PAD, parts, label=label)
