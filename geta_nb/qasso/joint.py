"""A cost target split between bits and groups by one price: rise of the loss for what is saved. Runs at period starts and falls of bits.

In: what gradients have said so far of every group and of every quantizer (``rises``), and the cost model. Out: the bits that each quantizer
falls to, the groups of a period, and an :class:`~geta_nb.qasso.allocation.Allocation` that says why.

The plan is made anew each time, from where the run stands: bits that have fallen do not rise again, groups that went stay away. From there
``Descent`` walks down to the target, always by the step that saves most for its rise, so that in the end nothing that went was dearer
than what stayed. Once the last fall is done, bits rest and groups alone close what is left.

Two weights stand for what a rise before training does not know (docs/fashion.md has what was measured). A group counts (all / living) times
its own rise for the groups of its family that live by then: those that stay have to do the work of those that went. And a rise by rounding
counts several times (``Rules``): a network makes up for groups that fade, less for weights that are coarse, least for inputs that are.

Source of the second-order rise: Theis et al. 2018, arXiv:1801.05787 (groups); of one metric for both: Zandonati et al. 2023,
arXiv:2302.07612. The rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geta_nb.budget import Budget
from geta_nb.cost import ENOUGH
from geta_nb.qasso.allocation import Allocation, AllocationRow, Move
from geta_nb.qasso.descent import FAMILY, INPUT, WEIGHT, Descent, Item, Step
from geta_nb.qasso.plan import Bools, Floats, Ints, Limits, choose_for_cost, give_back, removal_order
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from geta_nb.qasso.target import CostTarget

if TYPE_CHECKING:
    from geta_nb.cost import CostModel

STOPS = 16
"""Sizes of a family that the walk looks at; groups between them go in their order."""
WIDTHS = (2, 3, 4, 5, 6, 7, ENOUGH)
"""Bit widths that it looks at, besides the ends of a range."""


class Measured(NamedTuple):
    """What gradients have said: the same on all ranks.

    Attributes:
        groups: mean of <x, g>^2, [G].
        bits: of each quantizer, bits -> rise in the same unit.
    """

    groups: Floats
    bits: Sequence[Mapping[int, float]]


def is_joint(budget: Budget, rules: Rules, bank: QuantizerBank, cost: CostModel | None) -> bool:
    """Whether bits and groups share one price: a cost target, quantizers, and rules that measure both."""
    wanted = budget.target is not None and budget.allocation == "joint"
    return wanted and cost is not None and len(bank) > 0 and rules.saliency == "fisher" and rules.refit


class JointTarget(CostTarget):
    """Splits the target between all quantizers and all families.

    Law: as of :class:`CostTarget`; and every width is a whole number in its range.

    Args:
        cost, limits, bank, budget, schedule: as for :class:`CostTarget`.
        families: their names.
        rules: how often rises count.

    Attributes:
        plan: the last one; None: none yet.
        samples: of a step's batch; None: not known.
    """

    def __init__(
        self, cost: CostModel | None, limits: Limits, bank: QuantizerBank, budget: Budget, schedule: Schedule, families: Sequence[str],
        rules: Rules,
    ) -> None:
        super().__init__(cost, limits, bank, budget, schedule)
        self._families = list(families)
        self._counts = {WEIGHT: rules.weight_counts, INPUT: rules.input_counts, FAMILY: 1.0}
        self.plan: Allocation | None = None
        self.samples: int | None = None
        self._gone = dict.fromkeys(self._families, 0.0)  # rise of the groups that went, as it was when they were chosen
        bank.full_reduction = self._reduction

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the plan and what the groups that went had cost. Plain values."""
        return {"plan": None if self.plan is None else self.plan.to_dict(), "gone": dict(self._gone), "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`; the bank's lower bits are in place already."""
        self.plan = None if state["plan"] is None else Allocation.from_dict(state["plan"])
        self._gone = {name: float(rise) for name, rise in state["gone"].items()}
        self.samples = state["samples"]
        if self.plan is not None:
            self._bank.aim_at(self._bank.lower)

    def widths(self) -> list[list[int]]:
        """Return the bit widths of which each quantizer's rise is asked, the most first: from the top of its range to the low end."""
        ends = zip(self._bank.allowed, self._bank.bound, self._bank.upper, strict=True)
        return [sorted({low, now, high, *(b for b in WIDTHS if low < b < high)}, reverse=True) for low, now, high in ends]

    def choose_jointly(self, measured: Measured, alive: Bools, periods_left: int, step: int, *, rest: bool) -> Ints:
        """Return the groups of this period, and let bits aim at their place in the plan.

        Args:
            measured: so far.
            alive: bool, [G].
            periods_left: this one included.
            step: steps done.
            rest: bits have fallen for the last time.
        """
        prices = self.make_plan(measured, alive, step, rest=rest)
        assert self._bank.aim is not None
        order, cost = removal_order(prices, alive, self._limits), self._cost(self._bank.aim)
        if periods_left == 1:
            self._bank.freeze(self._bank.aim)
            chosen = choose_for_cost(order, alive, cost, self.goal)
            if len(order.ends) == len(order.groups):
                chosen = give_back(chosen, alive, cost, self.goal)
        else:
            now = cost(alive)
            chosen = choose_for_cost(order, alive, cost, now + min(self.goal - now, 0.0) / periods_left)
        self._note_gone(measured, alive, chosen)
        if periods_left == 1:
            self._close(alive, chosen, cost)
        return chosen

    def make_plan(self, measured: Measured, alive: Bools, step: int, *, rest: bool) -> Floats:
        """Make :attr:`plan` anew, and return the price of each living group, [G]: the cheapest go first."""
        bits = self._bit_curves(measured, rest=rest)
        walk, taken, prices = self._descend(bits, self._starts(rest=rest), measured, alive)
        if rest and walk.total > self.goal:  # groups alone cannot close it
            walk, taken, prices = self._descend(self._bit_curves(measured, rest=False), self._starts(rest=False), measured, alive)
        widths = [int(walk.at[item]) for item in self._items()]
        self._bank.aim_at(widths)
        self.plan = self._described(walk, taken, measured, alive, step)
        return prices

    def _items(self) -> list[Item]:
        return [(WEIGHT if kind == "weight" else INPUT, layer) for kind, layer in self._bank.keys]

    def _starts(self, *, rest: bool) -> list[int]:
        """Return the bits that the walk starts from: the present bound, but no more than :data:`ENOUGH` unless bits rest."""
        bound, allowed = self._bank.bound, self._bank.allowed
        return list(bound) if rest else [min(now, max(ENOUGH, low)) for now, low in zip(bound, allowed, strict=True)]

    def _bit_curves(self, measured: Measured, *, rest: bool) -> dict[Item, dict[float, float]]:
        """Return item -> bits -> rise from where the walk starts."""
        found: dict[Item, dict[float, float]] = {}
        for item, top, rises in zip(self._items(), self._starts(rest=rest), measured.bits, strict=True):
            found[item] = {} if rest else {float(b): self._counts[item[0]] * (rise - rises[top]) for b, rise in rises.items() if b < top}
        return found

    def _descend(
        self, bits: dict[Item, dict[float, float]], starts: Sequence[int], measured: Measured, alive: Bools
    ) -> tuple[Descent, dict[Item, Move], Floats]:
        """Walk down to the target; return the walk, the last step of each item, and the price of each group, [G]."""
        curves, start = dict(bits), {item: float(top) for item, top in zip(self._items(), starts, strict=True)}
        gone: dict[str, dict[float, Ints]] = {}
        increments = np.full(len(alive), np.inf)
        for family, name in enumerate(self._families):
            order, own = self._family(family, measured.groups, alive)
            increments[order] = own
            sums = np.cumsum(own)
            stops = self._stops(family, len(order), alive)
            item = (FAMILY, name)
            start[item] = float(len(order))
            curves[item] = {float(len(order) - n): float(sums[n - 1]) for n in stops}
            gone[name] = {float(len(order) - n): order[:n] for n in stops}
        walk = Descent(self._model, self.name, curves, gone, start, alive)
        taken: dict[Item, Move] = {}
        prices, steps, highest = np.full(len(alive), np.inf), walk.steps(), 0.0
        while walk.total > self.goal and (step := next(steps, None)) is not None:
            item = (step.kind, step.name)
            taken[item] = self._move(step)
            highest = max(highest, step.rise / step.saved)
            if step.kind == FAMILY:
                groups = gone[step.name][step.after]
                fresh = groups[np.isinf(prices[groups])]
                prices[fresh] = highest
        self._price_the_rest(walk, prices, increments, highest)
        return walk, taken, prices

    def _family(self, family: int, squares: Floats, alive: Bools) -> tuple[Ints, Floats]:
        """Return the living groups of a family, the least salient first, and what each adds to the rise when it goes in that order."""
        everyone = np.flatnonzero(self._limits.family_of == family)
        living = everyone[alive[everyone]]
        order = living[np.argsort(squares[living], kind="stable")]
        left = len(order) - np.arange(len(order))
        return order, squares[order] * (len(everyone) / left)

    def _stops(self, family: int, living: int, alive: Bools) -> list[int]:
        """Return how many groups of a family may go at once: whole units, and not more than may go."""
        total = int((self._limits.family_of == family).sum())
        room, unit = int(self._limits.capacity[family]) - (total - living), int(self._limits.unit[family])
        first = living % unit or unit
        stride = -(-max(room, 1) // (STOPS * unit)) * unit
        return [n for n in range(first, room + 1, stride) if n > 0]

    def _price_the_rest(self, walk: Descent, prices: Floats, increments: Floats, highest: float) -> None:
        """Price the groups that the walk left, in place: at what they would save where it ended, and above all that went."""
        for family in range(len(self._families)):
            left = np.flatnonzero((self._limits.family_of == family) & walk.alive)
            if len(left):
                saved = walk.saved_without(left[:1])
                prices[left] = np.maximum(increments[left] / saved if saved > 0 else np.inf, highest * (1 + 1e-9))

    def _note_gone(self, measured: Measured, alive: Bools, chosen: Ints) -> None:
        for family, name in enumerate(self._families):
            order, own = self._family(family, measured.groups, alive)
            self._gone[name] += float(own[np.isin(order, chosen)].sum())

    def _close(self, alive: Bools, chosen: Ints, cost: Callable[[Bools], float]) -> None:
        """Let the plan say what came of it: the groups that live in the end, to the last one."""
        assert self.plan is not None
        living = alive.copy()
        living[chosen] = False
        left = dict(zip(self._families, np.bincount(self._limits.family_of, living, len(self._families)).astype(int).tolist(), strict=True))
        rows = (replace(row, size=left[row.name]) if row.kind == FAMILY else row for row in self.plan.rows)
        self.plan = replace(self.plan, cost=float(cost(living)), rows=tuple(rows))

    def _described(self, walk: Descent, taken: Mapping[Item, Move], measured: Measured, alive: Bools, step: int) -> Allocation:
        """Return the plan as data, in units of the loss and shares of its cost."""
        before = {(row.kind, row.name): row for row in self.plan.rows} if self.plan is not None else {}
        unit, whole = (self.samples or 1) / 2, walk.total or 1.0

        def move(found: Move | None) -> Move | None:
            return found and replace(found, rise=float(unit * found.rise), saved=float(found.saved / whole))

        rows = []
        for item, top, rises in zip(self._items(), self._bank.upper, measured.bits, strict=True):
            size = int(walk.at[item])
            wider, narrower = min((b for b in rises if b > size), default=None), max((b for b in rises if b < size), default=None)
            last = None if wider is None else Move(wider, size, rises[size] - rises[wider], -walk.saved(item, wider))
            further = None if narrower is None else Move(size, narrower, rises[narrower] - rises[size], walk.saved(item, narrower))
            rows.append(AllocationRow(*item, size, top, float(unit * rises[size]), move(last), move(further)))
        totals = np.bincount(self._limits.family_of, minlength=len(self._families))
        for family, name in enumerate(self._families):
            item, size = (FAMILY, name), int(walk.at[FAMILY, name])
            old = before.get(item)
            last = move(taken.get(item)) or (old.last if old is not None else None)
            rise = float(unit * (self._gone[name] + walk.risen[item]))
            step_down = walk.next_step(item)
            further = None if step_down is None else self._move(step_down)
            rows.append(AllocationRow(*item, size, int(totals[family]), rise, last, move(further)))
        return Allocation(step, self.name, self.goal, float(walk.total), self.samples, tuple(rows))

    def _move(self, step: Step) -> Move:
        return Move(int(step.before), int(step.after), step.rise / self._counts[step.kind], step.saved)
