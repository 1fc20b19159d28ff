"""A narrower network, trained from scratch at the bits it will have: nothing is pruned and nothing is learned twice.

    width = the largest factor, in thousandths, for which MACs(width) * b_w * b_a <= relative_bops * MACs(1) * 32 * 32

but at most ``widest``, which is 1: few bits may be so cheap that a wider network than the dense one would be affordable. Every inner layer
has round(width * channels) channels, at least one. Weights, and inputs where asked for, pass through LSQ quantizers of b bits from the
first step on (``lsq``); at 32 bits it is the plain narrower network. This is the row that says whether pruning is worth its trouble: a
method that starts wide has to end better than a network that was narrow all along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import adapt_norms
from geta_nb.baselines.lsq import train_quantized
from geta_nb.baselines.space import FULL, Space, check_met
from geta_nb.baselines.task import Result, Task, eval_mode, pretrained
from geta_nb.errors import BudgetError

STEPS = 1000


def multiply_accumulates(model: nn.Module, example: Tensor) -> int:
    """Return those of convolutions and linear layers: output elements times weights per output element.

    Args:
        example: [1, ...], one input.
    """
    counts: list[int] = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        counts.append(output.numel() * module.get_parameter("weight")[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with eval_mode(model):
        model(example)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def affordable_width(build: Callable[[float], nn.Module], example: Tensor, share: float, *, widest: float = 1.0) -> float:
    """Return the largest width, in thousandths, 0.001 to ``widest``, whose multiply-accumulates are at most ``share`` of those of width 1.

    Raises:
        BudgetError: one channel a layer is too dear.
    """
    with torch.random.fork_rng([]):
        price = [multiply_accumulates(build(n / STEPS), example[:1]) for n in (STEPS, 1)]
        if price[1] > share * price[0]:
            least, got = price[1] / price[0], f"{share:.4g}"
            raise BudgetError("narrow: out of reach with one channel a layer.", expected=f"a share of MACs >= {least:.4g}", got=got)
        low, high = 1, round(widest * STEPS) + 1  # low is cheap enough, high is not or does not exist
        while high - low > 1:
            middle = (low + high) // 2
            cheap = multiply_accumulates(build(middle / STEPS), example[:1]) <= share * price[0]
            low, high = (middle, high) if cheap else (low, middle)
    return low / STEPS


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, bits: int = FULL,
    build: Callable[[float], nn.Module], widest: float = 1.0, lr_step: float = 1e-3, start: str = "paper",
) -> Result:
    """Train the widest network that the budget allows at ``bits`` from its first step to its last.

    Args:
        bits: of all weights, and of all inputs with ``activations``; 32 is no quantizer.
        build: width -> a fresh network; at 1 it is the task's own.
        widest: no width above it.
        lr_step, start: of the quantizers, see ``lsq``.

    Raises:
        BudgetError: one channel a layer is too dear.
    """
    space = space or Space(task)
    pair = (bits, bits if activations else FULL)
    width = affordable_width(build, task.example, relative_bops / (pair[0] * pair[1] / FULL**2), widest=widest)
    narrow = replace(task, build=partial(build, width))
    within = Space(narrow)
    model = pretrained(narrow, seed, 0)
    adapt_norms(model, narrow.calibration.split(64))  # ranges of inputs start from what an untrained network, normalised, gives
    train_quantized(narrow, within, model, pair, narrow.epochs, seed=seed, lr_step=lr_step, start=start)
    result = within.measure(model, within.everyone, *within.bits(*pair), notes={"width": width, "bits": bits})
    share = within.cost.dense.macs / space.cost.dense.macs
    counted = replace(result, relative_bops=result.relative_bops * share, macs=result.macs * share)
    return check_met(counted, relative_bops, "narrow")
