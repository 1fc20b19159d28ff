"""The loss of a model on the user's batches, batch by batch, with the same random numbers every time. In: a loss. Out: numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import GetaError, InputError
from geta_nb.graph import own_draws
from geta_nb.quantizers import eval_mode
from geta_nb.sharding import reshard, shards_of

Loss = Callable[[nn.Module, Any], Tensor]


class Losses:
    """Evaluates a loss.

    Args:
        model: in its present state.
        loss: (model, batch) -> scalar tensor, the mean over the batch.
        batches: gone through once, and kept.
        seed: of the random numbers that a loss or a model may draw.

    Raises:
        InputError: no batches, or something that is none.
    """

    def __init__(self, model: nn.Module, loss: Loss, batches: Iterable[Any], seed: int) -> None:
        if isinstance(batches, Tensor | Mapping | str) or not hasattr(batches, "__iter__"):
            got = type(batches).__name__
            raise InputError("sensitivity: these are no batches.", expected="an iterable of batches", got=got, hint="[batch]")
        if not callable(loss):
            raise InputError("sensitivity: no loss.", expected="loss(model, batch) -> scalar tensor", got=type(loss).__name__)
        self.model, self._loss, self.batches, self._seed = model, loss, list(batches), seed
        self.shards = shards_of(model.parameters())
        if not self.batches:
            raise InputError("sensitivity: there are no batches.", expected="at least one", got="none", hint="[batch]")
        if self.shards is not None:
            counts = self.shards.largest_of_all(torch.tensor([len(self.batches), -len(self.batches)], device="cpu")).tolist()
            if counts[0] != -counts[1]:
                expected, got = "equally many", f"{-counts[1]} to {counts[0]}"
                raise InputError("sensitivity: ranks have different numbers of batches.", expected=expected, got=got)

    def __call__(self) -> NDArray[np.float64]:
        """Return the loss of each batch, [B]; infinity where it is not finite. In eval mode, without gradients.

        Of a sharded model each rank has its share of each batch, and the mean of theirs is the loss.
        """
        with torch.no_grad(), self.repeatable():
            values = torch.stack([self.of(number).detach().double().cpu() for number in range(len(self.batches))])
        found: NDArray[np.float64] = (values if self.shards is None else self.shards.mean(values)).numpy()
        return np.where(np.isfinite(found), found, math.inf)

    def of(self, number: int) -> Tensor:
        """Return the loss of one batch, 0-dim.

        Raises:
            InputError: the loss fails, or is not one number.
        """
        try:
            value = self._loss(self.model, self.batches[number])
        except GetaError:
            raise
        except Exception as error:
            raise InputError("sensitivity: the loss fails.", at=f"batch {number}", got=f"{type(error).__name__}: {error}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            got = f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            expected = "a floating tensor with one element"
            raise InputError("sensitivity: the loss is not one number.", at=f"batch {number}", expected=expected, got=got)
        return value.reshape(())

    def samples(self, number: int) -> int:
        """Return how many samples a batch has: the length of its first tensor, times ranks of a sharded model."""
        leaves = [leaf for leaf in pytree.tree_leaves(self.batches[number]) if isinstance(leaf, Tensor) and leaf.dim()]
        return (len(leaves[0]) if leaves else 1) * (1 if self.shards is None else self.shards.count)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Eval mode, and the same random numbers as ever; both as before afterwards."""
        reshard(self.model)  # what a pass before left whole may have changed since
        try:
            with eval_mode(self.model), own_draws(self._seed):
                yield
        finally:
            reshard(self.model)
