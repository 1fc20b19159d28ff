"""Pareto pictures: cost against error on logarithmic axes, one small chart per rival with one method in all of them.

In: curves of (cost, error, dashed) points. Out: an SVG picture; every point's numbers stand in its tooltip, shape tells the two apart
where colour does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geta_nb.display.drawing import group, legend, line, path, picture, rect, text
from geta_nb.display.theme import BLUE, VERMILION

_WIDE, _HIGH, _LEFT, _TOP, _GAP, _COLUMNS = 190.0, 120.0, 46.0, 40.0, 30.0, 4
Point = tuple[float, float, bool]


@dataclass(frozen=True)
class Curve:
    """One method: its name and points (cost > 0, error >= 0, whether the point is of the second kind: drawn hollow)."""

    name: str
    points: Sequence[Point]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats: cheapest first, each with less error than all cheaper ones.

    >>> front([(0.1, 0.02, False), (0.2, 0.03, False), (0.3, 0.01, False)])
    [(0.1, 0.02, False), (0.3, 0.01, False)]
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p[0], p[1])):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis from ``low`` to ``high`` onto ``length`` pixels."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return self.length * min(share, 1.0)

    def ticks(self) -> list[float]:
        """1, 2, 5 times powers of ten inside; thinned to at most five."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [m * 10.0**p for p in powers for m in (1, 2, 5) if self.low <= m * 10.0**p <= self.high]
        return found if len(found) <= 5 else [value for value in found if f"{value:e}"[0] == "1"]


def pareto_picture(
    ours: Curve,
    others: Sequence[Curve],
    *,
    cost: str = "relative BOPs",
    error: str = "test error",
    hollow: str = "activations quantized too",
) -> str:
    """Return the picture.

    Args:
        ours: drawn in every chart.
        others: one chart each; none: one chart with ``ours`` alone.
        cost, error: what the axes say; values are shares and shown as per cent.
        hollow: what points of the second kind are.
    """
    points = [point for curve in (ours, *others) for point in curve.points]
    x = _axis([c for c, _, _ in points], _WIDE)
    y = _axis([max(e, 5e-4) for _, e, _ in points], _HIGH)
    charts = others or (Curve("", ()),)
    parts = [legend(0, 12, [(BLUE, ours.name), (VERMILION, "the method of the title")])[0]]
    axes = f"{cost} to the right, {error} upwards, both logarithmic; hollow: {hollow}"
    parts.append(text(0, 28, axes, kind="gv-dim"))
    for number, curve in enumerate(charts):
        left = _LEFT + (number % _COLUMNS) * (_WIDE + _GAP + _LEFT)
        top = _TOP + 20 + (number // _COLUMNS) * (_HIGH + 60)
        parts.append(_chart(left, top, x, y, [(curve, VERMILION), (ours, BLUE)], curve.name))
    columns, rows = min(len(charts), _COLUMNS), -(-len(charts) // _COLUMNS)
    width = max(columns * (_WIDE + _GAP + _LEFT), 620)
    return picture(width, _TOP + rows * (_HIGH + 60), parts, label=f"{error} against {cost}: {ours.name} beside {len(others)} methods")


def _axis(values: Sequence[float], length: float) -> _Scale:
    low, high = min(values, default=0.01), max(values, default=0.1)
    return _Scale(low / 1.3, max(high, low * 2) * 1.3, length)


def _chart(left: float, top: float, x: _Scale, y: _Scale, curves: Sequence[tuple[Curve, str]], title: str) -> str:
    parts = [text(left, top - 6, title, kind="gv-strong", room=_WIDE + _GAP), rect(left, top, _WIDE, _HIGH, kind="gv-box")]
    for tick in x.ticks():
        parts.append(line([(left + x.at(tick), top), (left + x.at(tick), top + _HIGH)], kind="gv-rule"))
        parts.append(text(left + x.at(tick), top + _HIGH + 12, _percent(tick), kind="gv-small", anchor="middle"))
    for tick in y.ticks():
        at = top + _HIGH - y.at(tick)
        parts.append(line([(left, at), (left + _WIDE, at)], kind="gv-rule"))
        parts.append(text(left - 4, at + 3, _percent(tick), kind="gv-small", anchor="end"))
    for curve, kind in curves:
        for hollow in (False, True):
            chosen = sorted((c, e) for c, e, second in curve.points if second == hollow)
            places = [(left + x.at(c), top + _HIGH - y.at(max(e, 5e-4))) for c, e in chosen]
            parts.append(line(places, kind=kind.replace("-c", "-l")))
            for (c, e), (px, py) in zip(chosen, places, strict=True):
                tip = f"{curve.name}: {_percent(e)} error at {_percent(c)}"
                parts.append(group([_mark(px, py, kind, hollow=hollow, round_=kind == BLUE)], title=tip))
    return "".join(parts)


def _mark(x: float, y: float, kind: str, *, hollow: bool, round_: bool) -> str:
    if round_:
        shape = f"M{x - 3.5:.1f},{y:.1f}a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0Z"
    else:
        shape = f"M{x:.1f},{y - 4.5:.1f}L{x + 4.5:.1f},{y:.1f}L{x:.1f},{y + 4.5:.1f}L{x - 4.5:.1f},{y:.1f}Z"
    if not hollow:
        return path(shape, kind=kind)
    return path(shape, kind="gv-ground") + path(shape, kind=kind.replace("-c", "-l"))


def _percent(share: float) -> str:
    words = f"{100 * share:.2f}" if share < 0.01 else f"{100 * share:.1f}"
    return words.rstrip("0").rstrip(".") + "%"
