"""Groups and prices of a network before anyone compresses it: what all baselines prune by and are measured with.

In: a network. Out: relative BOPs of any choice of living groups and bits, by this package's cost model, so that all rows of a table are
counted alike; and the cut or masked network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geta_nb.baselines.task import Result, Task
from geta_nb.config import QuantConfig
from geta_nb.errors import BudgetError
from geta_nb.geta import GETA

FULL = 32
OVER_BUDGET = "over the budget."
Bits = Mapping[str, float]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Space:
    """Groups and cost model of a task's network.

    Attributes:
        table: the groups as arrays.
        cost: the cost model; denominators are the dense fp32 network's.
        layers: every layer that multiplies a weight with an input, by module path.
    """

    def __init__(self, task: Task) -> None:
        with torch.random.fork_rng([]):
            network = task.build()
        geta = GETA(network, task.example, quantize=QuantConfig(activations=True))
        self.task, self.table, self.cost = task, geta.groups.table, geta.cost
        self.layers = tuple(op.layer for op in geta.cost.operators if op.weight is not None)

    @property
    def everyone(self) -> Bools:
        """All groups alive, [G]."""
        return np.ones(self.table.n_groups, dtype=bool)

    def bits(self, weights: float, inputs: float) -> tuple[dict[str, float], dict[str, float]]:
        """Return the same bits for every layer; 32 is no quantizer."""
        first, second = ({layer: b for layer in self.layers if b < FULL} for b in (weights, inputs))
        return first, second

    def relative_bops(self, alive: Bools, weight_bits: Bits, activation_bits: Bits) -> float:
        """BOPs over those of the dense fp32 network, paper's counting."""
        return self.cost.relative_bops(alive, weight_bits, activation_bits)

    def prune_to(self, scores: Floats, relative_bops: float, weight_bits: Bits, activation_bits: Bits) -> Bools:
        """Return which groups live, [G], when those of the lowest ``scores``, [G], go until the cost is met; each family keeps its best.

        Raises:
            BudgetError: out of reach at these bits.
        """
        order = removal_order(scores, np.asarray(self.table.family_of))
        n = self.cost.prefix_for_target(order, relative_bops, "relative_bops", weight_bits=weight_bits, activation_bits=activation_bits)
        alive = self.everyone
        alive[order[:n]] = False
        return alive

    def soft_bops(self, keep: Tensor, weight_bits: Mapping[str, Tensor], activation_bits: Mapping[str, Tensor]) -> Tensor:
        """Return relative BOPs that gradients pass through, 0-dim; at 0/1 and whole bits it is :meth:`relative_bops`.

        Args:
            keep: share of each group that lives, [G], 0 .. 1.
            weight_bits, activation_bits: layer -> bits, 0-dim; a layer left out counts 32.
        """
        padded = torch.cat([keep, keep.new_ones(1)])  # index -1: what no group owns
        total = keep.new_zeros(())
        for op in self.cost.operators:
            macs = keep.new_tensor(float(op.macs.const))
            for array in op.macs.arrays:
                macs = macs * padded[torch.as_tensor(array)].sum()
            bits = weight_bits.get(op.layer, FULL) * activation_bits.get(op.layer, FULL)
            total = total + macs * bits
        return total / self.cost.dense.bops

    def cut(self, model: nn.Module, alive: Bools) -> nn.Module:
        """Return the smaller fp32 network; ``model`` is left masked."""
        geta = GETA(model, self.task.example, quantize=None)
        geta.mask([int(i) for i in np.flatnonzero(~alive)])
        return geta.construct_subnet()

    def uniform_bits(self, relative_bops: float, *, activations: bool) -> tuple[int, int]:
        """Return the (weight, input) bits, 2 to 16, of the dearest uniform precision within the budget; of equals the most balanced.

        3.2 % of 32 * 32 is 32.8: 4-bit weights times 8-bit inputs.

        Raises:
            BudgetError: not even 2 bits are cheap enough.
        """
        inputs = range(2, 17) if activations else (FULL,)
        pairs = [(w, a) for w in range(2, 17) for a in inputs if w <= a]
        prices = {pair: self.relative_bops(self.everyone, *self.bits(*pair)) for pair in pairs}
        affordable = [pair for pair in pairs if prices[pair] <= relative_bops]
        if not affordable:
            least = min(prices.values())
            raise BudgetError(
                "uniform_bits: out of reach without pruning.", expected=f"relative_bops >= {least:.4g}", got=f"{relative_bops:.4g}",
                hint="activations=True" if not activations else "a method that prunes",
            )
        return max(affordable, key=lambda pair: (round(prices[pair], 9), pair[0] - pair[1]))

    def measure(
        self, model: nn.Module, alive: Bools, weight_bits: Bits, activation_bits: Bits, *, notes: Mapping[str, Any],
        density: Mapping[str, float] | None = None,
    ) -> Result:
        """Return the figures of a finished network.

        Args:
            density: layer -> share of its weights that are not zero; zeros then cost no BOPs, which flatters what no ordinary device skips.

        Raises:
            BudgetError: never; a method has met its budget before it comes here.
        """
        counted = {layer: bits * (density or {}).get(layer, 1.0) for layer, bits in weight_bits.items()}
        costs = self.cost.evaluate(alive, weight_bits, activation_bits)
        return Result(
            accuracy=self.task.evaluate(model),
            relative_bops=self.relative_bops(alive, counted, activation_bits),
            macs=costs.macs / costs.dense.macs,
            size_bytes=costs.size_bytes,
            weight_bits=dict(weight_bits),
            activation_bits=dict(activation_bits),
            notes=dict(notes),
            model=model,
        )


def removal_order(scores: Floats, family_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all groups but the best of each family, lowest score first."""
    order = np.argsort(scores, kind="stable")
    best = {int(family_of[i]): int(i) for i in order}  # the last of a family stays in the dictionary
    return np.asarray([i for i in order if best[int(family_of[i])] != i], dtype=np.int64)


def group_sums(table: Any, parameters: Mapping[str, Tensor], power: float, *, producers: bool = False) -> Floats:
    """Return the sum of |x|**power over the slices of each group, [G]; ``producers``: over its producing slices alone."""
    sums = np.zeros(table.n_groups)
    for entry in table.axis_maps:
        if entry.parameter not in parameters or (producers and not entry.producing):
            continue
        values = parameters[entry.parameter].detach().abs().double() ** power
        others = [axis for axis in range(values.dim()) if axis != entry.axis]
        along = (values.sum(others) if others else values).numpy()
        owned = entry.group_of_index >= 0
        np.add.at(sums, entry.group_of_index[owned], along[owned])
    return sums


def dead_indices(alive: Bools) -> Sequence[int]:
    """Return the groups that are gone."""
    return [int(i) for i in np.flatnonzero(~alive)]


def check_met(result: Result, relative_bops: float, method: str) -> Result:
    """Return ``result`` if it is within the budget.

    Raises:
        BudgetError: it is not, which is a defect of the method's file.
    """
    if result.relative_bops > relative_bops:
        raise BudgetError(f"{method}: {OVER_BUDGET}", expected=f"<= {relative_bops:.6g}", got=f"{result.relative_bops:.6g}")
    return result


def family_means(values: Floats, family_of: NDArray[np.int64]) -> Floats:
    """Return for each group the mean of ``values`` over its family, [G]."""
    counts = np.bincount(family_of)
    return np.asarray((np.bincount(family_of, weights=values) / counts)[family_of])


