"""The training loop of all pipelines: an ordinary one, whose every step depends on the seed and the step's number alone.

In: a model, an optimizer, a task. Out: one (steps done, loss) after each step. Order, augmentation, dropout and learning rate of a step are
functions of its number, so a run that was killed goes on, from the state of model and optimizer, as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.pipelines.batches import Batches, load_from, stream, to_device
from geta_nb.pipelines.decay import Decay, set_rates


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes:
        batches: the training data.
        loss: (model, batch) -> scalar.
        evaluate: model -> name -> number, measured on the data that is held back; the first one is drawn.
    """

    batches: Batches
    loss: Callable[[nn.Module, Any], Tensor]
    evaluate: Callable[[nn.Module], dict[str, float]]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode and no gradients. Afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def train_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    *,
    first: int,
    steps: int,
    decay: Decay,
    device: torch.device,
    workers: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """Train in place from step ``first`` to the end of a run of ``steps``; yields (steps done, loss) after each.

    Args:
        decay: (step, steps) -> share of each group's first learning rate.
        workers: processes that prepare batches.
    """
    model.train()
    for step, batch in enumerate(load_from(task.batches, first, steps, workers=workers), start=first):
        torch.manual_seed(stream(task.batches.seed, step))
        set_rates(optimizer, decay(step, steps))
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, to_device(batch, device))
        loss.backward()
        optimizer.step()
        yield step + 1, loss.detach()
