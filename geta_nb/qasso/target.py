"""A budget given as a cost: how far each period goes, and which bits the price is taken at. Runs at period starts, on the CPU.

Comes in: the cost model, the quantizers, the order in which groups may go. Goes out: the groups of one period.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from geta_nb.budget import Budget
from geta_nb.errors import BudgetError, ConfigError
from geta_nb.qasso.plan import Bools, Ints, Limits, RemovalOrder, choose_for_cost, give_back, removal_order
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.qasso.schedule import Schedule

if TYPE_CHECKING:
    from geta_nb.cost import CostModel


class CostTarget:
    """Prunes just as much as brings the finished network to a cost.

    Law: the finished network costs at most the target, and with the group that was chosen last it would cost more.

    Args:
        cost: prices a choice of groups and bits.
        limits: what each family may lose.
        bank: all quantizers; its lower bounds are raised to the bits that a choice relied on, and frozen in the last period.
        budget: holds the target.
        schedule: tells what the upper bit bound will come to.

    Raises:
        ConfigError: no cost model.
        BudgetError: out of reach with the fewest groups and bits that the budget allows.
    """

    def __init__(self, cost: CostModel | None, limits: Limits, bank: QuantizerBank, budget: Budget, schedule: Schedule) -> None:
        assert budget.target is not None
        self.name, self.goal = budget.target
        if cost is None:
            raise ConfigError(f"QASSO: {self.name} needs a cost model.", expected="cost=CostModel(...)", got="None")
        self._model, self._limits, self._bank = cost, limits, bank
        self._lowest = list(bank.allowed)
        self._reduction = schedule.projection_periods * schedule.bit_reduction
        least = self._cost(self._lowest)(limits.fewest_alive())
        if least > self.goal:
            raise BudgetError(
                f"Budget: {self.name} is out of reach, even with the fewest groups and bits that the budget allows.",
                expected=f"{self.name} >= {least:.6g}", got=f"{self.name}={self.goal:.6g}",
                hint=f"Budget({self.name}={1.05 * least:.3g}), or a lower bit_range",
            )  # fmt: skip

    def choose(self, order: RemovalOrder, alive: Bools, periods_left: int) -> Ints:
        """Return the groups of this period: an equal share of the cost that is left, all of it in the last one, at bits then final.

        Args:
            order: of all that may go.
            alive: bool, [G].
            periods_left: this one included.
        """
        if periods_left == 1:
            cost = self._cost(self._fix_bits(alive))
            chosen = choose_for_cost(order, alive, cost, self.goal)
            in_units = len(order.ends) < len(order.groups)
            return chosen if in_units else give_back(chosen, alive, cost, self.goal)
        cost = self._cost(self._expect_bits())
        now = cost(alive)
        return choose_for_cost(order, alive, cost, now + min(self.goal - now, 0.0) / periods_left)

    def _expect_bits(self) -> list[int]:
        """Return the bits that can be foreseen, and keep them from falling lower: else this choice would turn out too large."""
        self._bank.lower = self._bank.rounded_bits(self._bank.reduced_bound(self._reduction))
        return list(self._bank.lower)

    def _fix_bits(self, alive: Bools) -> list[int]:
        """Freeze all bits, at fewer than the present ones only where pruning alone could no longer reach the target."""
        bits = self._bank.rounded_bits(self._bank.reduced_bound(self._reduction))
        fewest = alive.copy()
        fewest[removal_order(np.zeros(len(alive)), alive, self._limits).groups] = False
        while self._cost(bits)(fewest) > self.goal and bits != self._lowest:
            bits = [max(b - 1, low) for b, low in zip(bits, self._lowest, strict=True)]
        self._bank.freeze(bits)
        return bits

    def _cost(self, bits: list[int]) -> Callable[[Bools], float]:
        return self._model.measure(self.name, self._bank.by_layer("weight", bits), self._bank.by_layer("activation", bits))
