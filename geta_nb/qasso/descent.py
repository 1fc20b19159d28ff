"""From a whole network down to a cost: always the step that saves most for the loss it costs, bits of layers and groups of families alike.

In: what each item loses at each size, the cost model. Out: the steps, one by one. A step may jump: from 8 bits to 4 at once where 6 saves
little, so that each item is walked down the lower convex hull of its own curve. What a step saves is priced exactly where the walk stands:
costs are products of channels and bits, so that it shrinks as others do, never grows, and only the best item has to be priced again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geta_nb.cost import CostModel
from geta_nb.groups import BoolArray

WEIGHT, INPUT, FAMILY = KINDS = ("weight", "input", "family")
Item = tuple[str, str]
"""(kind, layer or family)."""
Indices = Sequence[int] | NDArray[np.int64]
Curves = Mapping[Item, Mapping[float, float]]
"""item -> size (bits, or share of its groups) -> rise of the loss."""


class Step(NamedTuple):
    """One step down: who, from which size to which, what it costs in loss, and what it saves."""

    kind: str
    name: str
    before: float
    after: float
    rise: float
    saved: float


class Descent:
    """Where the walk is.

    Args:
        cost: prices.
        measure: one of ``cost.MEASURES``.
        curves: of each item; a rise that is no number is not walked to.
        gone: family -> size -> its groups that are gone there.
        start: item -> its size now, at which its rise is 0.
        alive: groups that live now, bool [G]; None: all.

    Attributes:
        at: item -> size.
        risen: item -> rise so far.
        alive: groups that live, bool [G].
    """

    def __init__(
        self, cost: CostModel, measure: str, curves: Curves, gone: Mapping[str, Mapping[float, Indices]], start: Mapping[Item, float],
        alive: BoolArray | None = None,
    ) -> None:
        self._cost, self._measure, self._curves = cost, measure, curves
        self._gone = {name: {size: np.asarray(groups, dtype=np.int64) for size, groups in known.items()} for name, known in gone.items()}
        self.at, self.risen = {item: start[item] for item in curves}, dict.fromkeys(curves, 0.0)
        self.alive: BoolArray = np.ones(cost.n_groups, dtype=bool) if alive is None else alive.copy()
        self._units = cost.units_of(measure)
        self._amounts = cost.amounts(measure, self.alive)
        self._rates = cost.rates(measure, *self.bits())

    def bits(self) -> tuple[dict[str, float], dict[str, float]]:
        """Bits of weights and of inputs, by layer."""
        first, second = ({name: at for (kind, name), at in self.at.items() if kind == wanted} for wanted in (WEIGHT, INPUT))
        return first, second

    @property
    def total(self) -> float:
        """Cost now."""
        return float(self._rates @ self._amounts)

    def next_step(self, item: Item) -> Step | None:
        """Return what an item's next step would be; None where none saves anything."""
        found = self._best(item)
        return None if found is None else found[1]

    def saved_without(self, groups: Indices) -> float:
        """What it would save if these groups, which live, went too."""
        alive = self.alive.copy()
        alive[np.asarray(groups, dtype=np.int64)] = False
        return self._saved_by(alive)

    def _saved_by(self, alive: BoolArray) -> float:
        return float(self._rates @ (self._amounts - self._cost.amounts(self._measure, alive)))

    def saved(self, item: Item, to: float) -> float:
        """What it would save to make an item smaller."""
        if item[0] == FAMILY:
            return self._saved_by(self._without(item[1], to))
        ratio = to / self.at[item]
        return sum(float(self._rates[u] * self._amounts[u]) * (1 - ratio**power) for u, power in self._units.get(item, {}).items())

    def _without(self, family: str, size: float) -> NDArray[np.bool_]:
        alive = self.alive.copy()
        alive[self._gone[family][size]] = False
        return alive

    def steps(self) -> Iterator[Step]:
        """Do the steps, one each time it is asked, until nothing is left to save."""
        heap: list[tuple[float, float, int, Item]] = []
        for index, item in enumerate(self._curves):
            self._push(heap, index, item)
        while heap:
            *_, index, item = heapq.heappop(heap)
            found = self._best(item)
            if found is None:
                continue
            worth, step = found
            if heap and (-worth[0], -worth[1], index) > heap[0][:3]:  # others have shrunk since, and so has what this one saves
                heapq.heappush(heap, (-worth[0], -worth[1], index, item))
                continue
            self._go(item, step)
            self._push(heap, index, item)
            yield step

    def _push(self, heap: list[tuple[float, float, int, Item]], index: int, item: Item) -> None:
        found = self._best(item)
        if found is not None:
            (most, second), _ = found
            heapq.heappush(heap, (-most, -second, index, item))

    def _best(self, item: Item) -> tuple[tuple[float, float], Step] | None:
        """Return the step of an item that saves most for each unit of loss; one that costs none comes first, the largest saving before."""
        best: tuple[tuple[float, float], Step] | None = None
        for size, rise in self._curves[item].items():
            if size >= self.at[item] or not math.isfinite(rise):
                continue
            saved, more = self.saved(item, size), rise - self.risen[item]
            if saved <= 0:
                continue
            worth = (math.inf, saved) if more <= 0 else (saved / more, saved)
            if best is None or worth > best[0]:
                best = worth, Step(*item, self.at[item], size, max(more, 0.0), saved)
        return best

    def _go(self, item: Item, step: Step) -> None:
        if item[0] == FAMILY:
            self.alive = self._without(item[1], step.after)
            self._amounts = self._cost.amounts(self._measure, self.alive)
        self.at[item] = step.after
        self.risen[item] += step.rise
        self._rates = self._cost.rates(self._measure, *self.bits())
