"""How many samples a step's batch has: what turns squares of gradients of a mean loss into units of that loss.

In: the model, until its first step is done. Out: a number. Several passes before one step (accumulation) count together, ranks too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geta_nb.qasso import ranks


class Samples:
    """Counts the first axis of the first tensor that a model is given while it trains.

    Args:
        model: gets a hook, which :meth:`take` removes; None: an inert one, as a copy of a model has.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._seen = 0
        self._handle = None if model is None else model.register_forward_pre_hook(self, with_kwargs=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> Samples:
        return Samples()

    def __reduce__(self) -> tuple[type[Samples], tuple[()]]:
        return Samples, ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Look at what the model is given; changes nothing."""
        if self._handle is None or torch.compiler.is_compiling() or not torch.is_grad_enabled() or not module.training:
            return
        first = next(_tensors((args, keywords)), None)
        self._seen += len(first) if first is not None and first.ndim else 0

    def take(self) -> int | None:
        """Return the samples seen on all ranks, and look no more; None where there were none (a compiled model)."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        return self._seen * (dist.get_world_size() if ranks.several() else 1) or None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
