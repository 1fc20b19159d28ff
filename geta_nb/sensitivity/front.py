"""Loss against cost: from the whole network down, step by step as ``qasso.Descent`` walks, until nothing is left to save.

In: rises by layer and family, and the cost model. Out: a :class:`Front`, its knee, and a budget for each of its points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geta_nb.budget import Budget, LayerBudget
from geta_nb.cost import CostModel
from geta_nb.errors import ConfigError
from geta_nb.qasso import FAMILY, Descent, Item, Step
from geta_nb.sensitivity.curves import NOTHING, linked, steady
from geta_nb.sensitivity.probes import groups_kept
from geta_nb.views import Shown

COSTS = ("relative_bops", "relative_bops_full", "size_bytes")
HIGHEST = 16


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


def find_front(
    rises: Mapping[Item, Mapping[float, float]], order: Mapping[str, Sequence[int]], cost: CostModel, measure: str,
    *, link: Sequence[tuple[float, float]] = (),
) -> Front:
    """Return the front.

    Args:
        rises: (kind, name) -> size -> rise.
        order: family -> its groups, the least salient first.
        cost: of the network.
        measure: one of :data:`COSTS`.
        link: see ``Sensitivity``.
    """
    if measure not in COSTS:
        raise ConfigError("front: no such cost.", expected=", ".join(COSTS), got=repr(measure))
    curves = {item: steady(known) for item, known in rises.items()}
    gone = {name: {share: _gone(order[name], share) for share in known} for (kind, name), known in curves.items() if kind == FAMILY}
    walk = Descent(cost, measure, curves, gone, {item: NOTHING[item[0]] for item in curves})
    points = [_point(walk, None, measure)]
    for step in walk.steps():
        points.append(_point(walk, step, measure, link, points[-1].rise))
    return Front(tuple(points), measure)


def _gone(groups: Sequence[int], share: float) -> Sequence[int]:
    return groups[: len(groups) - groups_kept(share, len(groups))]


def _point(
    walk: Descent, step: Step | None, measure: str, link: Sequence[tuple[float, float]] = (), before: float = 0.0
) -> FrontPoint:
    weights, inputs = walk.bits()
    kept = {name: at for (kind, name), at in walk.at.items() if kind == FAMILY}
    whole = {layer: int(bits) for layer, bits in weights.items()}, {layer: int(bits) for layer, bits in inputs.items()}
    rise = linked(link, math.fsum(walk.risen.values()))
    return FrontPoint(walk.total, rise, *whole, kept, step and step._replace(rise=rise - before), measure)
