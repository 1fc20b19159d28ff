"""How few bits each layer may come to: more of them where they cost next to nothing. Between a budget and whoever needs its bit ranges.

In: the cost model and a budget. Out: the fewest bits of each quantizer. With ``allocation="cost"`` and a cost target (and
with ``"joint"``, as long as nothing is measured) layer l, which costs c_l when nothing is pruned, may fall to

    b_l = b + round(log2(c_max / c_l) / 2),    at most :data:`ENOUGH` and the upper end of its range

for b the lower end. That is reverse water-filling: each bit quarters a layer's rounding error, so that the least sum of errors for a given
sum of c_l b_l has one bit more for each factor of four in cost (Cover and Thomas, Elements of Information Theory, ch. 10). A first layer
that does 2 % of the work has two bits more than the dearest one, and the network costs hardly more for it. It knows nothing of which layer
is sensitive; it only does not save where there is nothing to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geta_nb.cost.model import CostModel
from geta_nb.groups import BoolArray

if TYPE_CHECKING:
    from geta_nb.budget import Budget

ENOUGH = 8
"""Bits above which no layer is held: rounding to eight costs nothing that could be measured."""


def lowest_bits(cost: CostModel, budget: Budget, fewest: BoolArray) -> tuple[dict[str, float], dict[str, float]]:
    """Return the fewest bits of each weight quantizer and each input quantizer, layer -> bits: what is counted on before training.

    A layer whose range an exception of the budget gives has the lower end of that. A target that is out of reach with these bits takes
    them back, one by one everywhere, until it is not.

    Args:
        fewest: groups that live when all go that may, bool [G].
    """
    weights = [op.weight for op in cost.operators if not op.attention] + [p.layer for p in cost.parameters]
    inputs = [op.activation for op in cost.operators] + [op.weight for op in cost.operators if op.attention]
    w_bits = {layer: float(budget.weight_bits(layer)[0]) for layer in dict.fromkeys(weights) if layer is not None}
    a_bits = {layer: float(budget.activation_bits(layer)[0]) for layer in dict.fromkeys(inputs) if layer is not None}
    if budget.allocation != "uniform" and budget.target is not None:
        (measure, goal), least = budget.target, (dict(w_bits), dict(a_bits))
        of_weights, of_inputs = _costs(cost, by_bytes=budget.size_bytes is not None)
        for layer, more in _more_bits(of_weights).items():
            if budget.layer(layer).bit_range is None:
                w_bits[layer] = _raised(*budget.bit_range, more)
        for layer, more in _more_bits(of_inputs).items():
            if budget.layer(layer).activation_bit_range is None:
                a_bits[layer] = _raised(*budget.activation_bit_range, more)
        while cost.measure(measure, w_bits, a_bits)(fewest) > goal and (w_bits, a_bits) != least:
            w_bits, a_bits = (
                {layer: max(b - 1, low[layer]) for layer, b in bits.items()} for bits, low in zip((w_bits, a_bits), least, strict=True)
            )
    return w_bits, a_bits


def _raised(low: int, high: int, more: int) -> float:
    return float(max(low, min(low + more, ENOUGH, high)))


def _more_bits(costs: Mapping[str, float]) -> dict[str, int]:
    """Return layer -> half the logarithm of how many times cheaper it is than the dearest one; a layer that is free gets all."""
    dearest = max(costs.values(), default=0.0)
    return {layer: round(math.log2(dearest / c) / 2) if c > 0 else ENOUGH for layer, c in costs.items()} if dearest > 0 else {}


def _costs(cost: CostModel, *, by_bytes: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each quantized weight and input costs in the unit of the target, at any bits, with nothing pruned."""
    macs, numel = cost.whole()
    weights = {p.layer: 0.0 for p in cost.parameters if p.layer is not None}
    inputs: dict[str, float] = {}
    if by_bytes:  # in which inputs cost nothing: they stay where the budget lets them fall
        for parameter, n in zip(cost.parameters, numel, strict=True):
            if parameter.layer is not None:
                weights[parameter.layer] += float(n)
        return weights, inputs
    for op, n in zip(cost.operators, macs, strict=True):
        counted = 0.0 if op.attention else float(n)  # the paper counts no product of two inputs
        if op.weight is not None and not op.attention:
            weights[op.weight] = weights.get(op.weight, 0.0) + counted
        for layer in (op.activation, op.weight if op.attention else None):
            if layer is not None:
                inputs[layer] = inputs.get(layer, 0.0) + counted
    return weights, inputs
