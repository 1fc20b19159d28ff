"""Magnitude pruning of dependency groups, then fine-tuning, then 8-bit post-training quantization.

    I(g) = sqrt(sum of |w|**2 over all slices of group g, producers and consumers) / (mean of the same over g's family)

The groups with the lowest I in the whole network go at once. Source: group importance of Fang et al. 2023 (DepGraph), arXiv:2301.12900,
with the mean as normaliser; the groups are this package's own. Fine-tuning is in fp32; 8-bit min-max rounding at the end, which the source
does not have, lets four times as many multiply-accumulates live at equal cost; ``ranges="error"`` there is given too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from geta_nb.baselines.minmax import post_quantize
from geta_nb.baselines.space import FULL, Floats, Space, check_met, family_means, group_sums
from geta_nb.baselines.task import Result, Task, fit, pretrained


def importance(table: Any, parameters: Mapping[str, Tensor]) -> Floats:
    """Return I of every group, [G]."""
    norms = np.sqrt(group_sums(table, parameters, 2))
    means = family_means(norms, np.asarray(table.family_of))
    return np.asarray(norms / np.maximum(means, np.finfo(float).tiny))


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, bits: int = 8,
    dense_share: float = 0.5, ranges: str = "extremes",
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, prune, fine-tune for the rest, quantize to ``bits`` (32: not at all).

    Raises:
        BudgetError: out of reach even with one group left per family.
    """
    space = space or Space(task)
    weight_bits, activation_bits = space.bits(bits, bits if activations else FULL)
    dense_epochs = round(dense_share * task.epochs)
    model = pretrained(task, seed, dense_epochs)
    alive = space.prune_to(importance(space.table, dict(model.named_parameters())), relative_bops, weight_bits, activation_bits)
    subnet: nn.Module = space.cut(model, alive)
    fit(task, subnet, task.epochs - dense_epochs, seed=seed)
    post_quantize(subnet, task.calibration, weight_bits, activation_bits, ranges=ranges)
    result = space.measure(subnet, alive, weight_bits, activation_bits, notes={"bits": bits, "groups": int(alive.sum())})
    return check_met(result, relative_bops, "magnitude pruning")
