"""Min-max post-training quantization: train in fp32, then round weights (and activations) to b bits, without any further training.

    s = (max - min) / (2**b - 1)      z = round(-min / s)      x^Q = s (clip(round(x / s) + z, 0, 2**b - 1) - z)

with min <= 0 <= max, so that zero is a code; per tensor. Weights: their own extremes. Activations: extremes over calibration data; where
nothing is negative, all 2**b codes are positive. Source: affine quantization as in Jacob et al. 2018, arXiv:1712.05877, and Krishnamoorthi
2018, arXiv:1806.08342. Given beyond them: ``ranges="error"``, where both ends shrink by the one factor that rounds with the least squared
error.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import layer_inputs, least_error, quantize_layers
from geta_nb.baselines.space import Space, check_met
from geta_nb.baselines.task import Result, Task, pretrained
from geta_nb.errors import InputError

RANGES = ("extremes", "error")


def min_max_quantize(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Return x^Q of the formula above, for values in [low, high].

    >>> min_max_quantize(torch.tensor([-1.0, 0.2, 2.0, 9.0]), -1.0, 2.0, 2).tolist()
    [-1.0, 0.0, 2.0, 2.0]
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1) or 1.0
    zero = round(-low / step)
    return step * (torch.clamp(torch.round(x / step) + zero, 0, 2**bits - 1) - zero)


class MinMax(nn.Module):
    """Rounds what passes to ``bits`` bits between ``low`` and ``high``."""

    def __init__(self, low: float, high: float, bits: int) -> None:
        super().__init__()
        self.low, self.high, self.bits = low, high, bits

    def forward(self, x: Tensor) -> Tensor:
        """Return x^Q, shape of ``x``."""
        return min_max_quantize(x, self.low, self.high, self.bits)


def rounding(like: Tensor, bits: int, ranges: str) -> MinMax:
    """Return the module for values like these.

    Raises:
        InputError: no such way to set ranges.
    """
    if ranges not in RANGES:
        raise InputError("post_quantize: no such ranges.", expected=" or ".join(map(repr, RANGES)), got=repr(ranges), hint='ranges="error"')
    low, high = float(like.min()), float(like.max())
    share = least_error(like, lambda v, f: min_max_quantize(v, f * low, f * high, bits)) if ranges == "error" else 1.0
    return MinMax(share * low, share * high, bits)


def post_quantize(
    model: nn.Module, calibration: Tensor, weight_bits: Mapping[str, float], activation_bits: Mapping[str, float], *,
    ranges: str = "extremes",
) -> None:
    """Quantize a trained network in place: layer -> bits; ranges of inputs are those in ``calibration``, [N, ...].

    Args:
        ranges: ``"extremes"``, or ``"error"``: those of least squared error.
    """
    seen = layer_inputs(model, activation_bits, calibration)
    quantize_layers(
        model,
        dict.fromkeys([*weight_bits, *activation_bits]),
        weight=lambda layer, w: rounding(w, int(weight_bits[layer]), ranges) if layer in weight_bits else None,
        inputs=lambda layer: rounding(seen[layer], int(activation_bits[layer]), ranges) if layer in activation_bits else None,
    )


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, ranges: str = "extremes"
) -> Result:
    """Train for all epochs in fp32, then quantize everything at one precision, the dearest that the budget allows.

    Raises:
        BudgetError: 2 bits are not cheap enough.
    """
    space = space or Space(task)
    bits = space.uniform_bits(relative_bops, activations=activations)
    weight_bits, activation_bits = space.bits(*bits)
    model = pretrained(task, seed, task.epochs)
    post_quantize(model, task.calibration, weight_bits, activation_bits, ranges=ranges)
    result = space.measure(model, space.everyone, weight_bits, activation_bits, notes={"weights": bits[0], "inputs": bits[1]})
    return check_met(result, relative_bops, "min-max PTQ")
