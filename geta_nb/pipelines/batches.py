"""Batch number ``step`` of a run, as a function of the seed and of that number alone: a run that goes on needs no state of its data.

In: how many examples there are and how to draw some of them. Out: batches, in order, from any step on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from geta_nb.errors import InputError

Draw = Callable[[Tensor, torch.Generator], Any]
_STRIDE = 1_000_003
"""A prime, so that the streams of small seeds and small step numbers do not meet."""


def stream(seed: int, step: int) -> int:
    """Return the seed of all that is random in one step of a run."""
    return (seed * _STRIDE + step) % 2**63


class Batches(Dataset[Any]):
    """All batches of an endless run; ``batches[step]`` is the one of that step.

    Args:
        size: number of examples, >= 1.
        batch_size: examples in a batch, >= 1; the last one of an epoch may be smaller.
        draw: (rows [B] int64, generator) -> a batch: tensors, or a tuple or dict of them. The generator is for augmentation.
        seed: of the order and of the augmentation.
        drop_last: leave the smaller last batch of each epoch out (for batch norms), if there is a whole one.

    Raises:
        InputError: no examples, or a batch of none.
    """

    def __init__(self, size: int, batch_size: int, draw: Draw, *, seed: int = 0, drop_last: bool = False) -> None:
        for name, value in (("size", size), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"Batches: {name} has to be positive.", expected=f"{name} >= 1", got=value)
        self.size, self.batch_size, self.draw, self.seed = size, min(batch_size, size), draw, seed
        self.steps_per_epoch = size // self.batch_size if drop_last else -(-size // self.batch_size)
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, step: int) -> Any:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(stream(self.seed, epoch)))
            self._order = epoch, order
        rows = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        return self.draw(rows, torch.Generator().manual_seed(stream(self.seed, step)))


def load_from(batches: Batches, first: int, last: int, *, workers: int = 0) -> Iterator[Any]:
    """Yield batches ``first`` to ``last`` - 1 in order; ``workers`` processes prepare them ahead, with the same batches as without."""
    yield from DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers)


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a batch with all its tensors on a device; what is there already is not copied."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
