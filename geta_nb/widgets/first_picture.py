"""Draws a first view as SVG, by ourselves.

In: a :class:`~geta_nb.widgets.first_view.FirstView`. Out: text that refers to nothing outside itself, the same for the same network.
"""

from __future__ import annotations

from collections.abc import Iterator

from geta_nb.display.drawing import Point, fmt, group, legend, path, picture, rect, text, text_width
from geta_nb.display.qadg import KIND_WORDS, Box, box_words, draw_edge
from geta_nb.widgets.first_layout import HEADER, SHEET, Room, lay_out
from geta_nb.widgets.first_view import FirstView, in_sight
from geta_nb.widgets.structure import LEAF, STACK, Item

_MARGIN, _LEGEND = 8.0, 32.0
_STYLE = (
    "<style>.geta-view .gv-frame{fill:var(--gv-fg);fill-opacity:.04;stroke:var(--gv-line)}"
    ".geta-view .gv-quiet{fill:none;stroke:var(--gv-dim);stroke-dasharray:4 3}</style>"
)


def first_svg(view: FirstView, label: str) -> str:
    """Return a first view as SVG.

    Args:
        view: what to draw.
        label: what a screen reader says of the whole.
    """
    room = lay_out(view.root, view.opened, lambda item: _closed_size(item, view.boxes[item]), lambda item: _head_width(view, item))
    seen = list(in_sight(view, view.root))
    used = {view.boxes[item].kind for item in seen} | {kind for item in seen for kind, _ in view.boxes[item].badges}
    drawn, end = legend(_MARGIN, 16, [(kind, word) for kind, word in KIND_WORDS.items() if kind in used])
    parts = [_STYLE, drawn, *_draw(view, room, (_MARGIN, _LEGEND))]
    return picture(max(room.size[0] + 2 * _MARGIN, end), room.size[1] + _LEGEND + _MARGIN, parts, label=label)


def _closed_size(item: Item, box: Box) -> tuple[float, float]:
    w, h = box.size
    return (w, h) if item.kind == LEAF else (w + SHEET, h + SHEET)


def _head_width(view: FirstView, item: Item) -> float:
    if item not in view.boxes:
        return 0.0
    box = view.boxes[item]
    return text_width(box.head) + text_width(box.below, small=True) + 36


def _draw(view: FirstView, room: Room, at: Point) -> Iterator[str]:
    x, y = at
    for route in room.routes:
        yield _edge([(px + x, py + y) for px, py in route.points], route.arrow)
    for item, (px, py) in zip(room.shown, room.corners, strict=True):
        corner = (px + x, py + y)
        if item in room.rooms:
            yield from _frame(view, item, room.rooms[item], corner)
        else:
            yield _closed(item, view.boxes[item], corner)


def _edge(route: list[Point], arrow: bool) -> str:
    """Along a layout's route as in the graph; square in a U, whose arms run upwards and across."""
    (_, y0), (x1, y1) = route[-2:]
    if arrow and (y1 > y0 or len(route) not in (2, 4)):
        return draw_edge(route)
    if not arrow:
        x0, y0 = route[0]
        middle = (y0 + y1) / 2
        return path(f"M{fmt(x0)} {fmt(y0)}C{fmt(x0)} {fmt(middle)} {fmt(x1)} {fmt(middle)} {fmt(x1)} {fmt(y1)}", kind="gv-edge")
    back, side = ((-6.0, 0.0), (0.0, 3.5)) if y0 == y1 else ((0.0, 6.0), (3.5, 0.0))
    head = [(x1, y1)] + [(x1 + back[0] + sign * side[0], y1 + back[1] + sign * side[1]) for sign in (-1, 1)]
    return path(_along(route), kind="gv-edge") + path(f"{_along(head)}z", kind="gv-head")


def _along(points: list[Point]) -> str:
    return "M" + "L".join(f"{fmt(x)} {fmt(y)}" for x, y in points)


def _frame(view: FirstView, item: Item, room: Room, at: Point) -> Iterator[str]:
    (x, y), (w, h), box = at, room.size, view.boxes[item]
    yield rect(x, y, w, h, kind="gv-frame", radius=6, title=box.title)
    yield text(x + 10, y + 15, box.head, kind="gv-strong")
    yield text(x + 20 + text_width(box.head), y + 15, box.below, kind="gv-dim gv-small")
    if item.kind == STACK:
        block, (px, py) = item.items[0], room.corners[0]
        bw, bh = room.rooms[block].size if block in room.rooms else view.boxes[block].size
        for k in (2, 1):
            yield rect(x + px + k * SHEET, y + py + k * SHEET, bw, bh, kind="gv-box", radius=6)
        yield rect(x + px, y + py, bw, bh, kind="gv-ground", radius=6)
    for port, height in ((room.entry, HEADER), (room.exit, h)):
        if port is not None:
            yield rect(x + port - 2, y + height - 2, 4, 4, kind="gv-head", radius=2)
    yield from _draw(view, room, at)


def _closed(item: Item, box: Box, at: Point) -> str:
    (x, y), (w, h) = at, box.size
    parts = []
    if item.quiet:
        parts.append(rect(x, y, w, h, kind="gv-quiet", radius=4))
    else:
        if item.kind != LEAF:
            parts.append(rect(x + SHEET - 1, y + SHEET - 1, w, h, kind="gv-box", radius=4))
        parts += [rect(x, y, w, h, kind="gv-box", radius=4), rect(x, y, w, h, kind=box.kind, opacity=0.13, radius=4)]
    parts.append(rect(x, y + 3, 4, h - 6, kind=box.kind))
    return group([*parts, *box_words(box, x, y, w)], title=box.title)
