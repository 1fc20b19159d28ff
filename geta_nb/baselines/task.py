"""What every baseline shares: a network, its data, a number of epochs, and one training loop.

In: functions that make the network and the batches. Out: trained networks, and a :class:`Result` in the same units for all methods.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

Batches = Callable[[torch.Generator], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, eq=False)
class Task:
    """A network to compress and what it is trained on; compared by identity.

    Args:
        build: returns a fresh network, initialised from torch's global generator.
        batches: one shuffled epoch of (inputs [B, ...], labels [B]).
        steps_per_epoch: batches in it.
        calibration: training inputs, [N, ...]: ranges, batch-norm statistics.
        check: (inputs, labels), training data too: what a method may compare candidates on.
        evaluate: accuracy in [0, 1] on data that no method sees.
        epochs: of one whole run, whatever a method spends them on.
        learning_rate, weight_decay: of Adam; the rate decays to zero along a cosine in each phase.
    """

    build: Callable[[], nn.Module]
    batches: Batches
    steps_per_epoch: int
    calibration: Tensor
    check: tuple[Tensor, Tensor]
    evaluate: Callable[[nn.Module], float]
    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4

    @property
    def example(self) -> Tensor:
        """Two inputs, for tracing."""
        return self.calibration[:2]


@dataclass(frozen=True)
class Result:
    """One compressed network.

    Attributes:
        accuracy: in [0, 1], of ``model`` as it stands here.
        relative_bops: over the dense fp32 network's, paper's counting; see ``space.Space``.
        macs: share of the dense network's multiply-accumulates that are left.
        size_bytes: weights at their bits.
        weight_bits, activation_bits: layer -> bits; a layer left out is fp32.
        notes: what the method chose, JSON-able.
        model: the network; not part of :meth:`to_dict`.
    """

    accuracy: float
    relative_bops: float
    macs: float
    size_bytes: float
    weight_bits: Mapping[str, float]
    activation_bits: Mapping[str, float]
    notes: Mapping[str, Any]
    model: nn.Module = field(compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        names = ("accuracy", "relative_bops", "macs", "size_bytes", "weight_bits", "activation_bits", "notes")
        return {name: dict(value) if isinstance(value := getattr(self, name), Mapping) else value for name in names}


def fit(
    task: Task,
    model: nn.Module,
    epochs: int,
    *,
    seed: int,
    groups: Sequence[Mapping[str, Any]] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    penalty: Callable[[], Tensor] | None = None,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Train ``model`` in place with cross-entropy; Adam, cosine decay to zero.

    Args:
        epochs: of this phase.
        seed: of the order of the batches.
        groups: Adam's parameter groups; None: all parameters at the task's rate and decay.
        optimizer: instead of Adam.
        penalty: added to the loss, 0-dim.
        after_step: called after every optimizer step.
    """
    # copies: the optimizer and the schedule write into the dictionaries they are given
    parameters: Any = [dict(group) for group in groups] if groups else list(model.parameters())
    optimizer = optimizer or torch.optim.Adam(parameters, lr=task.learning_rate, weight_decay=task.weight_decay)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs * task.steps_per_epoch, 1))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for inputs, labels in task.batches(generator):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(inputs), labels)
            (loss if penalty is None else loss + penalty()).backward()
            optimizer.step()
            decay.step()
            if after_step is not None:
                after_step()


@lru_cache(maxsize=16)
def _pretrained(task: Task, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = task.build()
    fit(task, model, epochs, seed=seed)
    return model


def pretrained(task: Task, seed: int, epochs: int) -> nn.Module:
    """Return a dense fp32 network trained for ``epochs``; a copy of one that is trained once per process."""
    return copy.deepcopy(_pretrained(task, seed, epochs))


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run without gradients and with every module in eval mode; each module's own mode returns afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of ``inputs`` whose largest output is their label."""
    with eval_mode(model):
        guesses = torch.cat([model(part).argmax(1) for part in inputs.split(256)])
    return float((guesses == labels).float().mean())
