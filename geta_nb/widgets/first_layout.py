"""Places of boxes inside boxes, for the static first view: each open box is laid out by itself, from the innermost outwards.

In: a tree of :mod:`geta_nb.widgets.structure`, what is open in it, and a size for everything closed. Out: places and routes. Pure. A chain
with nested shortcuts (a UNet) stands as a U: down on the left, up on the right, shortcuts straight across.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from geta_nb.display.layout import Point, layered
from geta_nb.widgets.structure import ROOT, STACK, Item, Pair

HEADER, PAD, SHEET = 24.0, 12.0, 4.0
GAP, SIDE, LEAST_SHORTCUTS = 26.0, 48.0, 3
Size = tuple[float, float]


@dataclass
class Route:
    """An edge: its points, and whether an arrow stands at its end; one that leaves the box has none."""

    points: list[Point]
    arrow: bool = True


@dataclass
class Room:
    """Where things are in an open box, from its upper left corner: corners of ``shown`` items, routes of edges, the size of all."""

    shown: list[Item]
    corners: list[Point]
    routes: list[Route]
    size: Size
    rooms: dict[Item, Room] = field(default_factory=dict)
    entry: float | None = None
    exit: float | None = None


@dataclass
class _Flat:
    """Items beside and below each other: corners, routes, size, and x of the ports above and below."""

    corners: list[Point]
    routes: list[Route]
    size: Size
    entry: float | None = None
    exit: float | None = None


def shown_items(box: Item) -> list[Item]:
    """What is in sight of an open box: of a stack its first block."""
    return box.items[:1] if box.kind == STACK else box.items


def lay_out(box: Item, opened: Collection[Item], size: Callable[[Item], Size], head: Callable[[Item], float]) -> Room:
    """Return the places in an open box and in all that is open in it.

    Args:
        box: the box.
        opened: boxes that show what they hold.
        size: width and height of an item that is closed.
        head: width of what is written over an open box.
    """
    shown = shown_items(box)
    rooms = {item: lay_out(item, opened, size, head) for item in shown if item in opened}
    sizes = [rooms[item].size if item in rooms else size(item) for item in shown]
    flat = _stack(box, sizes) if box.kind == STACK else _inside(box, sizes, shown, rooms)
    top = 0.0 if box.kind == ROOT else HEADER
    pad = 0.0 if box.kind == ROOT else PAD
    w = max(flat.size[0] + 2 * pad, head(box))
    dx = (w - flat.size[0]) / 2
    h = flat.size[1] + top + pad
    routes = [Route([(x + dx, y + top) for x, y in route.points], route.arrow) for route in flat.routes]
    for route in routes:
        if not route.arrow:
            route.points[-1] = (route.points[-1][0], h)
    corners = [(x + dx, y + top) for x, y in flat.corners]
    entry, leave = (None if x is None else x + dx for x in (flat.entry, flat.exit))
    return Room(shown, corners, routes, (w, h), rooms, entry, leave)


def _stack(box: Item, sizes: Sequence[Size]) -> _Flat:
    w, h = sizes[0]
    port = w / 2
    leaving = [Route([(port, h + 2 * SHEET), (port, h + 2 * SHEET)], arrow=False)] if box.outside else []
    return _Flat([(0.0, 0.0)], leaving, (w + 2 * SHEET, h + 2 * SHEET), port if box.inside else None, port if box.outside else None)


def _inside(box: Item, sizes: Sequence[Size], shown: Sequence[Item], rooms: dict[Item, Room]) -> _Flat:
    edges = sorted(box.edges)
    ports = box.kind != ROOT
    u = _as_u(sizes, edges, {*box.inside, *box.outside} if ports else set())
    if u is not None:
        return u
    n = len(sizes)
    entry, leave = n, n + bool(ports and box.inside)
    extra = [(entry, i) for i in sorted(box.inside)] if ports else []
    extra += [(i, leave) for i in sorted(box.outside)] if ports else []
    many = len({end for pair in extra for end in pair if end >= n})
    found = layered([*sizes, *[(8.0, 1.0)] * many], [*edges, *extra])
    corners = [(x - w / 2, y - h / 2) for (x, y), (w, h) in zip(found.centres, sizes, strict=False)]
    routes: list[Route] = []
    for (a, b), route in zip([*edges, *extra], found.routes, strict=True):
        points = list(route)
        if a < n and shown[a] in rooms:  # an edge leaves where those inside do
            points[0] = (corners[a][0] + (rooms[shown[a]].exit or sizes[a][0] / 2), points[0][1])
        if b < n and shown[b] in rooms:
            points[-1] = (corners[b][0] + (rooms[shown[b]].entry or sizes[b][0] / 2), points[-1][1])
        routes.append(Route(points, arrow=b < n))
    into = found.centres[entry][0] if ports and box.inside else None
    out = found.centres[leave][0] if ports and box.outside else None
    return _Flat(corners, routes, (found.width, found.height), into, out)


def _as_u(sizes: Sequence[Size], edges: Sequence[Pair], ports: Collection[int]) -> _Flat | None:
    """Places of a chain with nested shortcuts; None where it is none."""
    n = len(sizes)
    skips = [(a, b) for a, b in edges if b != a + 1]
    chained = sum(b == a + 1 for a, b in edges) == n - 1
    nested = all(a < c and d < b for (a, b), (c, d) in pairwise(skips)) and all(a < b for a, b in skips)
    if not (chained and nested and len(skips) >= LEAST_SHORTCUTS) or ports:
        return None
    a, b = skips[-1]
    turn = a + (b - a) // 2
    tops = _arms(sizes, skips, turn)
    left, right = max(w for w, _ in sizes[: turn + 1]), max(w for w, _ in sizes[turn + 1 :])
    middle = [left / 2 if i <= turn else left + SIDE + right / 2 for i in range(n)]
    corners = [(middle[i] - sizes[i][0] / 2, tops[i]) for i in range(n)]
    floor = max(tops[i] + sizes[i][1] for i in range(n)) + 14
    routes = [Route(_u_route(pair, turn, corners, sizes, middle, floor)) for pair in edges]
    return _Flat(corners, routes, (left + SIDE + right, floor))


def _arms(sizes: Sequence[Size], skips: Sequence[Pair], turn: int) -> list[float]:
    """Upper edges, both arms from the bottom upwards; the ends of a shortcut stand on one height, the highest box at 0."""
    tops = [0.0] * len(sizes)
    left, right, y = turn, turn + 1, [0.0, 0.0]

    def lift(i: int, arm: int) -> None:
        tops[i] = y[arm] = y[arm] - GAP - sizes[i][1]

    for a, b in [*reversed(skips), (-1, len(sizes))]:
        while left > a:
            lift(left, 0)
            left -= 1
        while right < b:
            lift(right, 1)
            right += 1
        if a >= 0:
            middle = min(y[0] - GAP - sizes[a][1] / 2, y[1] - GAP - sizes[b][1] / 2)
            tops[a] = y[0] = middle - sizes[a][1] / 2
            tops[b] = y[1] = middle - sizes[b][1] / 2
            left, right = a - 1, b + 1
    return [top - min(tops) for top in tops]


def _u_route(pair: Pair, turn: int, corners: Sequence[Point], sizes: Sequence[Size], middle: Sequence[float], floor: float) -> list[Point]:
    a, b = pair
    low, high = corners[a][1] + sizes[a][1], corners[a][1]
    if b <= turn:
        return [(middle[a], low), (middle[b], corners[b][1])]
    if a > turn:
        return [(middle[a], high), (middle[b], corners[b][1] + sizes[b][1])]
    if b == a + 1:
        return [(middle[a], low), (middle[a], floor), (middle[b], floor), (middle[b], corners[b][1] + sizes[b][1])]
    y = high + sizes[a][1] / 2
    return [(corners[a][0] + sizes[a][0], y), (corners[b][0], y)]
