"""Which groups go next: how many each family may lose, in what order they go, and where to stop. Runs at period starts, on the CPU.

Comes in: the group table, the budget, scores. Goes out: group indices. A *unit* is what goes at once so that the kept channels of a family
stay a multiple of ``round_to``; with ``round_to=1`` it is one group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geta_nb.budget import Budget
from geta_nb.errors import BudgetError
from geta_nb.groups import unit_of_families

if TYPE_CHECKING:
    from geta_nb.groups import GroupTable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """What the budget allows each family.

    Attributes:
        family_of: family of each group, [G].
        capacity: most groups of each family that may be zero, [F]; always fewer than it has.
        unit: groups that go at once, [F].
    """

    family_of: Ints
    capacity: Ints
    unit: Ints

    @property
    def reachable(self) -> int:
        """Most groups that may be zero in the whole network."""
        return int(self.capacity.sum())

    def kept_shares(self, alive: Bools) -> Floats:
        """Return the share of each family's groups that live, [F]."""
        total = np.bincount(self.family_of, minlength=len(self.capacity))
        kept = np.bincount(self.family_of, weights=alive, minlength=len(self.capacity))
        shares: Floats = kept / np.maximum(total, 1)
        return shares

    def fewest_alive(self) -> Bools:
        """Return one choice of living groups, [G], with every family at its capacity."""
        order = np.argsort(self.family_of, kind="stable")
        rank = _rank_in_runs(self.family_of[order])
        alive = np.ones(len(order), dtype=bool)
        alive[order] = rank >= self.capacity[self.family_of[order]]
        return alive


def find_limits(table: GroupTable, budget: Budget) -> Limits:
    """Return how many groups of each family may go: all but one, fewer where an exception names a layer that produces them.

    Args:
        table: the groups.
        budget: its exceptions and ``round_to`` count here.
    """
    count = len(table.family_names)
    sizes = np.bincount(table.family_of, minlength=count).astype(np.int64)
    capacity = np.maximum(sizes - 1, 0)
    for entry in table.axis_maps:
        owners = entry.group_of_index[entry.group_of_index >= 0]
        if not entry.producing or not len(owners):
            continue
        families = np.unique(table.family_of[owners])
        layer = budget.layer(entry.parameter)
        share = 0.0 if layer.protect else layer.max_sparsity
        if share is not None:
            # the tiny term lets 0.3 * 10 be 3
            capacity[families] = np.minimum(capacity[families], np.floor(share * sizes[families] + 1e-9).astype(np.int64))
    unit = unit_of_families(table, budget.round_to)
    unit[sizes < unit] = 1  # no multiple fits: leave the family free
    return Limits(np.asarray(table.family_of, dtype=np.int64), capacity, unit)


def count_redundant(limits: Limits, budget: Budget, joint_steps: int) -> int:
    """Return K, checked.

    Raises:
        BudgetError: more groups than the families can lose, or pruning without a joint stage.
    """
    total = len(limits.family_of)
    wanted = budget.n_redundant(total)
    if wanted > limits.reachable:
        share = math.floor(1000 * limits.reachable / total) / 1000
        raise BudgetError(
            "Budget: so many groups cannot go, for every family keeps at least one and exceptions hold.",
            expected=f"K <= {limits.reachable} of {total} groups", got=f"K = {wanted} (group_sparsity={budget.group_sparsity})",
            hint=f"group_sparsity={share}",
        )
    if joint_steps == 0 and (wanted or budget.target):
        raise BudgetError("Budget: pruning needs a joint stage.", expected="joint_steps >= 1", got="joint_steps=0")
    return wanted


@dataclass(frozen=True)
class RemovalOrder:
    """Living groups in the order they may go.

    Attributes:
        groups: group indices; aligned units first, then what would break a multiple of ``round_to``.
        ends: lengths of the prefixes at which one may stop, ascending.
        aligned: how many of ``groups`` belong to aligned units.
    """

    groups: Ints
    ends: Ints
    aligned: int


def removal_order(scores: Floats, alive: Bools, limits: Limits) -> RemovalOrder:
    """Order the groups that may still go by the mean score of their unit.

    Args:
        scores: [G]; the lowest goes first, ties by index.
        alive: bool, [G].
        limits: of the budget.
    """
    family_of = limits.family_of
    living = np.flatnonzero(alive)
    order = living[np.lexsort((living, scores[living], family_of[living]))]
    family = family_of[order]
    rank = _rank_in_runs(family)
    kept = np.bincount(family_of[alive], minlength=len(limits.capacity))
    total = np.bincount(family_of, minlength=len(limits.capacity))
    room = limits.capacity - (total - kept)
    inside = rank < room[family]
    order, family, rank = order[inside], family[inside], rank[inside]
    unit = limits.unit
    first = np.where(kept % unit == 0, unit, kept % unit)  # brings the family to a multiple
    whole = np.where(room >= first, first + (room - first) // unit * unit, 0)
    single = rank >= whole[family]
    number = np.where(single, rank, np.maximum(0, -((first[family] - rank - 1) // unit[family])))
    key = np.stack([single.astype(np.int64), family, number])
    _, unit_of = np.unique(key, axis=1, return_inverse=True)
    unit_of = unit_of.ravel()
    mean = np.bincount(unit_of, weights=scores[order]) / np.maximum(np.bincount(unit_of), 1)
    final = np.lexsort((rank, number, family, mean[unit_of], single))
    of_unit = unit_of[final]
    ends = np.append(np.flatnonzero(np.diff(of_unit)) + 1, len(final)) if len(final) else np.zeros(0, dtype=np.int64)
    return RemovalOrder(order[final], ends.astype(np.int64), int((~single).sum()))


def choose_count(order: RemovalOrder, count: int, limits: Limits, *, exactly: bool) -> Ints:
    """Return the groups to remove next.

    Args:
        order: of all that may go.
        count: how many.
        limits: of the budget.
        exactly: take single groups where whole units do not add up to ``count``; else stop below it.
    """
    if len(order.ends) == len(order.groups):
        return order.groups[: max(count, 0)]
    taken: list[Ints] = []
    left, start = count, 0
    for end in order.ends[order.ends <= order.aligned]:
        if end - start <= left:
            taken.append(order.groups[start:end])
            left -= int(end - start)
        start = int(end)
    chosen = np.concatenate([*taken, np.zeros(0, dtype=np.int64)])
    if exactly and left > 0:
        rest = order.groups[~np.isin(order.groups, chosen)]
        families = limits.family_of[rest]
        roomy = [f for f in np.unique(families) if (families == f).sum() >= left]
        # one family out of step rather than several; groups of a family stand in rising order of score
        rest = rest[families == min(roomy, key=lambda f: int(np.flatnonzero(families == f)[left - 1]))] if roomy else rest
        chosen = np.concatenate([chosen, rest[:left]])
    return chosen


def choose_for_cost(order: RemovalOrder, alive: Bools, cost: Callable[[Bools], float], goal: float) -> Ints:
    """Return the fewest groups, in order, whose removal brings ``cost`` to ``goal`` or under it; all when that is not enough.

    Args:
        order: of all that may go.
        alive: bool, [G].
        cost: of a choice of living groups; never rises when a group goes.
        goal: in the unit of ``cost``.
    """

    def without(units: int) -> Bools:
        living = alive.copy()
        living[order.groups[: order.ends[units - 1]] if units else []] = False
        return living

    low, high = 0, len(order.ends)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(without(middle)) <= goal else (middle + 1, high)
    return order.groups[: order.ends[low - 1]] if low else order.groups[:0]


def give_back(chosen: Ints, alive: Bools, cost: Callable[[Bools], float], goal: float, *, tries: int = 256) -> Ints:
    """Return ``chosen`` without the groups that need not go: the most salient first, as long as ``goal`` holds.

    The last group of a prefix may cost much more than was missing; then a cheaper one chosen earlier can stay.
    """
    living = alive.copy()
    living[chosen] = False
    kept = np.ones(len(chosen), dtype=bool)
    for i in range(len(chosen) - 1, max(len(chosen) - tries, 0) - 1, -1):
        living[chosen[i]] = True
        if cost(living) <= goal:
            kept[i] = False
        else:
            living[chosen[i]] = False
    return chosen[kept]


def _rank_in_runs(values: Ints) -> Ints:
    """Position of each entry inside its run of equal values."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    starts = np.append(True, values[1:] != values[:-1])
    index = np.arange(len(values))
    return index - np.maximum.accumulate(np.where(starts, index, 0))
