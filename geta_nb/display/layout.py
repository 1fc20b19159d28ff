"""Layered layout of a directed graph, from top to bottom: ranks by longest path, crossings by barycentres, places by isotonic regression.

In: sizes of boxes and edges between their indices. Out: a centre for each box and a route for each edge, in pixels. Pure, without a
package: enough for a few hundred boxes. Source of the scheme: Sugiyama, Tagawa and Toda 1981; the places are exact least squares
(pool adjacent violators), so no two boxes of a rank overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
Edge = tuple[int, int]
COLUMN_GAP, RANK_GAP, DUMMY_WIDTH = 18.0, 26.0, 4.0


@dataclass
class Layout:
    """Centres of the boxes, routes of the edges (top to bottom, in pairs of points at each rank's border), and the picture's size."""

    centres: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


@dataclass
class _Net:
    """Boxes and the invisible ones that long edges pass through, with neighbours above and below."""

    rank: list[int]
    width: list[float]
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    chains: list[list[int]] = field(default_factory=list)

    def connect(self, upper: int, lower: int) -> None:
        self.below[upper].append(lower)
        self.above[lower].append(upper)


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Return places for boxes of ``sizes`` (width, height) and routes for ``edges`` (from, to); a cycle's closing edge runs upwards."""
    position = _topological(len(sizes), edges)
    down = [(a, b) if position[a] < position[b] else (b, a) for a, b in edges]
    net = _with_dummies(_ranks(len(sizes), down, position), [w for w, _ in sizes], down)
    rows = _ordered(net)
    x = _places(net, rows)
    tops, heights = _bands(net, rows, [h for _, h in sizes])
    centres = [(x[i], tops[net.rank[i]] + heights[net.rank[i]] / 2) for i in range(len(sizes))]
    routes = []
    for (a, b), (first, last), chain in zip(edges, down, net.chains, strict=True):
        points = [(x[first], centres[first][1] + sizes[first][1] / 2)]
        for dummy in chain:
            top = tops[net.rank[dummy]]
            points += [(x[dummy], top), (x[dummy], top + heights[net.rank[dummy]])]
        points.append((x[last], centres[last][1] - sizes[last][1] / 2))
        routes.append(points if (a, b) == (first, last) else points[::-1])
    right = max((x[i] + net.width[i] / 2 for i in range(len(x))), default=0)
    return Layout(centres, routes, right, tops[-1] + heights[-1] if tops else 0)


def _topological(n: int, edges: Sequence[Edge]) -> list[int]:
    """Position of each vertex in a topological order; inside a cycle the smallest index goes first."""
    waiting = [0] * n
    successors: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        if a != b:
            waiting[b] += 1
            successors[a].append(b)
    position, placed = [-1] * n, 0
    ready = [i for i in range(n) if not waiting[i]]
    while placed < n:
        here = ready.pop() if ready else next(i for i in range(n) if position[i] < 0)
        if position[here] >= 0:
            continue
        position[here], placed = placed, placed + 1
        for b in successors[here]:
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    return position


def _ranks(n: int, down: Sequence[Edge], position: Sequence[int]) -> list[int]:
    rank = [0] * n
    for a, b in sorted(down, key=lambda edge: position[edge[0]]):
        rank[b] = max(rank[b], rank[a] + (a != b))
    has_input = {b for a, b in down if a != b}
    for i in range(n):
        lower = [rank[b] for a, b in down if a == i and b != i] if i not in has_input else []
        rank[i] = max(min(lower) - 1, 0) if lower else rank[i]
    return rank


def _with_dummies(rank: list[int], width: list[float], down: Sequence[Edge]) -> _Net:
    net = _Net(list(rank), list(width), [[] for _ in rank], [[] for _ in rank])
    for a, b in down:
        chain, last = [], a
        for level in range(rank[a] + 1, rank[b]):
            dummy = len(net.rank)
            net.rank.append(level)
            net.width.append(DUMMY_WIDTH)
            net.above.append([])
            net.below.append([])
            net.connect(last, dummy)
            chain.append(dummy)
            last = dummy
        if a != b:
            net.connect(last, b)
        net.chains.append(chain)
    return net


def _ordered(net: _Net, sweeps: int = 6) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(net.rank, default=-1) + 1)]
    for i, level in enumerate(net.rank):
        rows[level].append(i)
    place = [0.0] * len(net.rank)
    for row in rows:
        place_row(row, place)
    for sweep in range(sweeps):
        downwards = sweep % 2 == 0
        neighbours = net.above if downwards else net.below
        for row in rows if downwards else reversed(rows):
            row.sort(key=lambda i: (_mean(neighbours[i], place, place[i]), place[i]))
            place_row(row, place)
    return rows


def place_row(row: Sequence[int], place: list[float]) -> None:
    """Write each member's relative place in its row, 0 .. 1, so that rows of any length can be compared."""
    for k, i in enumerate(row):
        place[i] = (k + 0.5) / len(row)


def _mean(neighbours: Sequence[int], values: Sequence[float], otherwise: float) -> float:
    return sum(values[j] for j in neighbours) / len(neighbours) if neighbours else otherwise


def _places(net: _Net, rows: Sequence[Sequence[int]], rounds: int = 8) -> list[float]:
    n_real = len(net.rank) - sum(len(chain) for chain in net.chains)
    x = [0.0] * len(net.rank)
    for row in rows:
        _settle(row, x, net, n_real)
    for turn in range(rounds):
        downwards = turn % 2 == 0
        for row in rows if downwards else reversed(rows):
            for i in row:
                near = net.above[i] if downwards else net.below[i]
                x[i] = _mean(near or net.above[i] + net.below[i], x, x[i])
            _settle(row, x, net, n_real)
    left = min((x[i] - net.width[i] / 2 for i in range(len(x))), default=0.0)
    return [value - left for value in x]


def _settle(row: Sequence[int], x: list[float], net: _Net, n_real: int) -> None:
    """Move the boxes of a row as little as possible so that each keeps its distance from the one before it."""
    offset, offsets = 0.0, []
    for k, i in enumerate(row):
        if k:
            offset += (net.width[row[k - 1]] + net.width[i]) / 2 + COLUMN_GAP
        offsets.append(offset)
    blocks: list[list[float]] = []  # [weighted sum, weight, members]
    for i, start in zip(row, offsets, strict=True):
        weight = 1.0 if i < n_real else 3.0  # long edges should run straight
        blocks.append([weight * (x[i] - start), weight, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            tail = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], tail, strict=True)]
    base = [total / weight for total, weight, members in blocks for _ in range(int(members))]
    for i, start, value in zip(row, offsets, base, strict=True):
        x[i] = value + start


def _bands(net: _Net, rows: Sequence[Sequence[int]], heights: Sequence[float]) -> tuple[list[float], list[float]]:
    tops, band_heights, y = [], [], 0.0
    for row in rows:
        tall = max((heights[i] for i in row if i < len(heights)), default=0.0)
        tops.append(y)
        band_heights.append(tall)
        y += tall + RANK_GAP
    return tops, band_heights
