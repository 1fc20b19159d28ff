"""CLIP-Q: in each training step every weight tensor is clipped, partitioned and quantized at once, and full-precision weights are updated.

    clipping      c+ = p-quantile of the positive weights, c- = the same of the negative ones (in magnitude); between them: zero
    partitioning  what lies outside is cut into 2**b - 1 equal intervals, on both sides in proportion to their lengths
    quantizing    a weight becomes the mean of the full-precision weights of its interval

Forward and backward use the quantized weights, the step goes to the full-precision ones (straight through), so what was clipped may
return. Source: Tung and Mori, CVPR 2018, doi:10.1109/CVPR.2018.00821. There (p, b) of each layer are sought by Bayesian optimisation;
here one pair serves all layers: b is given (chosen on validation images), and p is what the budget then asks for. Pruning is
unstructured and no activation is quantized: a zero weight is counted as costing no bit operation, which flatters the method on devices
that cannot skip it. Nothing else is given beyond the paper: its levels are means already, and none is spent on a sign.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import quantize_layers
from geta_nb.baselines.space import Space, check_met
from geta_nb.baselines.task import Result, Task, eval_mode, fit, pretrained
from geta_nb.errors import BudgetError


def _side(magnitude: Tensor, clipped: float, intervals: int) -> Tensor:
    """Return one side's quantized magnitudes: the lower ``clipped`` share zero, the rest the means of ``intervals`` equal intervals."""
    n_zero = math.ceil(clipped * len(magnitude))
    result = torch.zeros_like(magnitude)
    order = magnitude.argsort()
    kept = order[n_zero:]
    if len(kept) == 0 or intervals == 0:
        return result
    values = magnitude[kept]
    low, high = values[0], values[-1]
    place = ((values - low) / (high - low).clamp(min=1e-12) * intervals).long().clamp(max=intervals - 1)
    sums = values.new_zeros(intervals).index_add(0, place, values)
    counts = values.new_zeros(intervals).index_add(0, place, torch.ones_like(values))
    result[kept] = (sums / counts.clamp(min=1))[place]
    return result


@torch.no_grad()
def clip_quantize(weight: Tensor, clipped: float, bits: int) -> Tensor:
    """Return the tensor that CLIP-Q computes with: at most 2**bits values, at least the share ``clipped`` of them zero.

    >>> clip_quantize(torch.tensor([0.1, 1.0, 3.0, 3.4, -0.2, -2.0]), 0.25, 2).tolist()
    [0.0, 1.0, 3.200000047683716, 3.200000047683716, -0.0, -2.0]
    """
    flat = weight.flatten()
    positive, negative = flat > 0, flat < 0
    lengths = []
    for side in (positive, negative):
        values = flat[side].abs().sort().values
        n_zero = math.ceil(clipped * len(values))
        lengths.append(float(values[-1] - values[n_zero]) if n_zero < len(values) else -1.0)
    intervals = 2**bits - 1
    upper = _share(intervals, lengths[0], lengths[1])
    result = torch.zeros_like(flat)
    result[positive] = _side(flat[positive], clipped, upper)
    result[negative] = -_side(-flat[negative], clipped, intervals - upper)
    return result.view_as(weight)


def _share(intervals: int, upper: float, lower: float) -> int:
    """Return how many intervals the positive side gets: by length, at least one where a side has weights (length >= 0)."""
    if upper < 0 or lower < 0:
        return intervals if lower < 0 else 0
    total = upper + lower
    return min(max(round(intervals * upper / total) if total > 0 else intervals // 2, 1), intervals - 1)


class ClipQ(nn.Module):
    """Passes a weight through :func:`clip_quantize`, its gradient straight through."""

    def __init__(self, clipped: float, bits: int) -> None:
        super().__init__()
        self.clipped, self.bits = clipped, bits

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantized weight."""
        return weight + (clip_quantize(weight, self.clipped, self.bits) - weight).detach()


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, bits: int = 4,
    dense_share: float = 0.5,
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, then with CLIP-Q; ``activations`` makes no difference.

    Raises:
        BudgetError: all weights would have to go.
    """
    space = space or Space(task)
    weight_bits, activation_bits = space.bits(bits, 32)
    density = min(1.0, relative_bops / space.relative_bops(space.everyone, weight_bits, activation_bits))
    smallest = min(parameter.numel() for parameter in task.build().parameters() if parameter.dim() > 1)
    if density * smallest < 2:
        got = f"relative_bops={relative_bops:.4g} at {bits} bits"
        raise BudgetError("CLIP-Q: no weight would be left in a layer.", got=got, hint="bits=2")
    dense_epochs = round(dense_share * task.epochs)
    model = pretrained(task, seed, dense_epochs)
    quantize_layers(model, weight_bits, weight=lambda *_: ClipQ(1 - density, bits))
    fit(task, model, task.epochs - dense_epochs, seed=seed)
    with eval_mode(model):
        left = {layer: float((cast(Tensor, model.get_submodule(layer).weight) != 0).float().mean()) for layer in weight_bits}
    notes = {"bits": bits, "density": density}
    result = space.measure(model, space.everyone, weight_bits, activation_bits, notes=notes, density=left)
    return check_met(result, relative_bops, "CLIP-Q")
