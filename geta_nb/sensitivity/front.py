"""Loss against cost: from the whole network down, always the step that saves most for the loss it costs, until nothing is left to save.

In: rises by layer and family, the cost model and the groups. Out: a :class:`Front`, its knee, and a budget for each of its points. A
step may jump: from 8 bits to 4 at once where 6 saves little, so that each layer is walked down the lower convex hull of its own curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geta_nb.budget import Budget, LayerBudget
from geta_nb.cost import CostModel
from geta_nb.errors import ConfigError
from geta_nb.groups import BoolArray, GroupTable
from geta_nb.sensitivity.curves import NOTHING, linked, steady
from geta_nb.sensitivity.probes import FAMILY, INPUT, WEIGHT, groups_kept
from geta_nb.views import Shown

COSTS = ("relative_bops", "relative_bops_full", "size_bytes")
HIGHEST = 16
Floats = NDArray[np.float64]
Item = tuple[str, str]


class Step(NamedTuple):
    """One step down: who, from which size to which, what it costs in loss, and what it saves."""

    kind: str
    name: str
    before: float
    after: float
    rise: float
    saved: float


@dataclass(frozen=True, repr=False)
class FrontPoint(Shown):
    """One plan.

    Attributes:
        cost: of the network, in the unit of the front.
        rise: predicted, in units of the loss.
        bits, input_bits: layer -> bits.
        kept: family -> share of its groups that stay.
        step: the one that led here; None: the whole network.
        measure: what ``cost`` counts.
    """

    cost: float
    rise: float
    bits: Mapping[str, int]
    input_bits: Mapping[str, int]
    kept: Mapping[str, float]
    step: Step | None
    measure: str

    @property
    def budget(self) -> Budget:
        """A budget of this cost in which no layer may fall below the bits of the plan; groups go as training scores them.

        Raises:
            ConfigError: a cost that a budget has no target for.
        """
        if self.measure not in ("relative_bops", "size_bytes"):
            raise ConfigError("budget: no target of this cost.", expected="relative_bops or size_bytes", got=self.measure)
        lowest = {name: min(table.values(), default=4) for name, table in (("bit", self.bits), ("activation_bit", self.input_bits))}
        exceptions = {}
        for layer in sorted({*self.bits, *self.input_bits}, key=lambda path: path.count(".")):  # later ones win
            own = {"bit_range": self.bits.get(layer), "activation_bit_range": self.input_bits.get(layer)}
            above = {key: b for key, b in own.items() if b is not None and b != lowest[key.removesuffix("_range")]}
            ranges: dict[str, Any] = {key: (b, HIGHEST) for key, b in above.items()}
            if ranges:
                exceptions[layer] = LayerBudget(**ranges)
        cost = self.cost * (1 + 1e-9)  # the same sum in another order may end a digit higher
        digit = 10.0 ** (math.floor(math.log10(cost)) - 5) if cost > 0 else 1.0
        cost = float(f"{math.ceil(cost / digit) * digit:.6g}")
        target: dict[str, Any] = {self.measure: min(cost, 1.0) if self.measure == "relative_bops" else cost}
        return Budget(
            **target, bit_range=(lowest["bit"], HIGHEST), activation_bit_range=(lowest["activation_bit"], HIGHEST), exceptions=exceptions,
            allocation="uniform",
        )


@dataclass(frozen=True, repr=False)
class Front(Shown):
    """Plans from the whole network down, each cheaper than the one before and with a higher predicted rise.

    Attributes:
        points: the plans.
        measure: what their cost counts.
    """

    points: tuple[FrontPoint, ...]
    measure: str

    @property
    def knee(self) -> FrontPoint:
        """The plan after which loss begins to cost more than it saves: farthest below the line from the first plan to the last.

        Both axes are logarithmic; a rise counts from a thousandth of the largest one.
        """
        if len(self.points) < 3:
            return self.points[-1]
        x = np.log([max(point.cost, 1e-300) for point in self.points])
        top = max(point.rise for point in self.points if math.isfinite(point.rise)) or 1.0
        y = np.log([min(point.rise, top) + 1e-3 * top for point in self.points])
        x, y = (x[0] - x) / ((x[0] - x[-1]) or 1.0), (y - y[0]) / ((y[-1] - y[0]) or 1.0)
        return self.points[int(np.argmax(x - y))]

    @property
    def worth_showing(self) -> float:
        """Rise at which a picture ends, for the last steps ruin any network: ten times that of the middle plan, the knee at least."""
        rises = [point.rise for point in self.points]
        return max(min(10 * rises[len(rises) // 2], max(rises)), self.knee.rise) or max(rises) or 1.0

    def within(self, max_rise: float) -> FrontPoint:
        """Return the cheapest plan whose predicted rise is at most ``max_rise``; the whole network where none else is.

        Raises:
            ConfigError: no rise at all, or less.
        """
        if isinstance(max_rise, bool) or not isinstance(max_rise, (int, float)) or not max_rise >= 0:
            raise ConfigError("suggest: max_rise is a rise of the loss.", expected="a number >= 0", got=repr(max_rise), hint="0.05")
        return [point for point in self.points if point.rise <= max_rise][-1]

    def at(self, cost: float) -> FrontPoint:
        """Return the plan of least predicted rise that costs at most ``cost``.

        Raises:
            ConfigError: none is so cheap.
        """
        found = next((point for point in self.points if point.cost <= cost), None)
        if found is None:
            expected = f">= {self.points[-1].cost:.6g}"
            raise ConfigError(f"front: no plan is so cheap in {self.measure}.", expected=expected, got=f"{cost:.6g}")
        return found


@dataclass(eq=False)
class _Walk:
    """Where the walk is: sizes of all items, rates and amounts of the units of the cost."""

    cost: CostModel
    table: GroupTable
    measure: str
    rises: Mapping[Item, Mapping[float, float]]
    order: Mapping[str, Sequence[int]]
    at: dict[Item, float] = field(init=False)

    def __post_init__(self) -> None:
        self.at = {item: NOTHING[item[0]] for item in self.rises}
        self._units = self.cost.units_of(self.measure)
        self._alive: BoolArray = np.ones(self.table.n_groups, dtype=bool)
        self._rates = self.cost.rates(self.measure, *self.bits())
        self._amounts = self.cost.amounts(self.measure, self._alive)
        self._smaller: dict[tuple[Item, float], Floats] = {}

    def bits(self) -> tuple[dict[str, float], dict[str, float]]:
        """Bits of weights and of inputs, by layer."""
        first, second = ({name: at for (kind, name), at in self.at.items() if kind == wanted} for wanted in (WEIGHT, INPUT))
        return first, second

    @property
    def total(self) -> float:
        """Cost now."""
        return float(self._rates @ self._amounts)

    def saved(self, item: Item, to: float) -> float:
        """What it would save to make an item smaller."""
        if item[0] == FAMILY:
            if (item, to) not in self._smaller:
                self._smaller[item, to] = self.cost.amounts(self.measure, self._without(item[1], to))
            return float(self._rates @ (self._amounts - self._smaller[item, to]))
        ratio = to / self.at[item]
        return sum(float(self._rates[u] * self._amounts[u]) * (1 - ratio**power) for u, power in self._units.get(item, {}).items())

    def _without(self, family: str, share: float) -> BoolArray:
        alive, groups = self._alive.copy(), list(self.order[family])
        alive[groups[: len(groups) - groups_kept(share, len(groups))]] = False
        return alive

    def go(self, item: Item, to: float) -> None:
        """Make an item smaller."""
        if item[0] == FAMILY:
            self._alive = self._without(item[1], to)
            self._amounts = self.cost.amounts(self.measure, self._alive)
            self._smaller.clear()
        self.at[item] = to
        self._rates = self.cost.rates(self.measure, *self.bits())


def find_front(
    rises: Mapping[Item, Mapping[float, float]], order: Mapping[str, Sequence[int]], cost: CostModel, table: GroupTable, measure: str,
    *, link: Sequence[tuple[float, float]] = (),
) -> Front:
    """Return the front.

    Args:
        rises: (kind, name) -> size -> rise.
        order: family -> its groups, the least salient first.
        cost, table: of the network.
        measure: one of :data:`COSTS`.
        link: see ``Sensitivity``.
    """
    if measure not in COSTS:
        raise ConfigError("front: no such cost.", expected=", ".join(COSTS), got=repr(measure))
    curves = {item: steady(known) for item, known in rises.items()}
    walk = _Walk(cost, table, measure, curves, order)
    risen = dict.fromkeys(curves, 0.0)
    points = [_point(walk, risen, None)]
    while (step := _best(walk, curves, risen)) is not None:
        walk.go((step.kind, step.name), step.after)
        risen[step.kind, step.name] += step.rise
        points.append(_point(walk, risen, step, link, points[-1].rise))
    return Front(tuple(points), measure)


def _best(walk: _Walk, curves: Mapping[Item, Mapping[float, float]], risen: Mapping[Item, float]) -> Step | None:
    """Return the step that saves most for each unit of loss; those that cost none come first, the largest saving before others."""
    best: tuple[tuple[float, float], Step] | None = None
    for item, known in curves.items():
        for size, rise in known.items():
            if size >= walk.at[item] or not math.isfinite(rise):
                continue
            saved, more = walk.saved(item, size), rise - risen[item]
            if saved <= 0:
                continue
            worth = (math.inf, saved) if more <= 0 else (saved / more, saved)
            if best is None or worth > best[0]:
                best = worth, Step(*item, walk.at[item], size, max(more, 0.0), saved)
    return best[1] if best is not None else None


def _point(
    walk: _Walk, risen: Mapping[Item, float], step: Step | None, link: Sequence[tuple[float, float]] = (), before: float = 0.0
) -> FrontPoint:
    weights, inputs = walk.bits()
    kept = {name: at for (kind, name), at in walk.at.items() if kind == FAMILY}
    whole = {layer: int(bits) for layer, bits in weights.items()}, {layer: int(bits) for layer, bits in inputs.items()}
    rise = linked(link, math.fsum(risen.values()))
    return FrontPoint(walk.total, rise, *whole, kept, step and step._replace(rise=rise - before), walk.measure)
