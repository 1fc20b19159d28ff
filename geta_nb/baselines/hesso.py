"""HESSO-style pruning during training, then 8-bit post-training quantization: what the GETA paper calls "OTO + PTQ".

The network trains once from scratch. After a warm-up, P periods of T steps each choose the least salient groups G_R by the mean of
normalised scores and let them fade while everything goes on training:

    x_{G_R} <- x_{G_R} (1 - 1 / (T - k)) at step k of the period, so that they are exactly zero at its end

Source: Chen et al. 2024 (HESSO), arXiv:2409.09085, the pruner of the OTO line; run here by this package's optimizer without quantizers,
which is the same rule. The paper's saliency is ``saliency="paper"``; which of ours and theirs is the default was chosen on validation
images. Then the formula of ``minmax`` with 8 bits. Given beyond the paper: ``ranges="error"`` there, and other bits.
"""

from __future__ import annotations

import numpy as np
import torch

from geta_nb.baselines.minmax import post_quantize
from geta_nb.baselines.space import FULL, Space, check_met
from geta_nb.baselines.task import Result, Task, fit
from geta_nb.budget import Budget
from geta_nb.geta import GETA
from geta_nb.groups import alive_groups
from geta_nb.qasso import Schedule


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, bits: int = 8,
    saliency: str = "taylor", ranges: str = "extremes",
) -> Result:
    """Prune in one training run of all epochs so that the network meets the budget once it has ``bits`` bits, then quantize.

    Raises:
        BudgetError: out of reach even with one group left per family.
    """
    space = space or Space(task)
    weight_bits, activation_bits = space.bits(bits, bits if activations else FULL)
    share = min(1.0, relative_bops / space.relative_bops(space.everyone, weight_bits, activation_bits))
    torch.manual_seed(seed)
    model = task.build()
    geta = GETA(model, task.example, quantize=None)
    optimizer = geta.qasso(
        torch.optim.Adam, budget=Budget(relative_bops=share), schedule=Schedule.for_steps(task.epochs * task.steps_per_epoch),
        saliency=saliency, lr=task.learning_rate, weight_decay=task.weight_decay,
    )
    fit(task, model, task.epochs, seed=seed, optimizer=optimizer)
    alive = alive_groups(space.table, {**dict(model.named_parameters()), **dict(model.named_buffers())})
    subnet = geta.construct_subnet()
    post_quantize(subnet, task.calibration, weight_bits, activation_bits, ranges=ranges)
    notes = {"bits": bits, "saliency": saliency, "groups": int(np.sum(alive))}
    return check_met(space.measure(subnet, alive, weight_bits, activation_bits, notes=notes), relative_bops, "HESSO + PTQ")
