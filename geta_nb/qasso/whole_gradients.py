"""Parameters that every rank holds whole beside sharded ones: their gradients are averaged when a backward pass ends.

In: parameters that ``fully_shard`` leaves alone, the quantizers' above all. Out: the same ``.grad`` on every rank, before anybody clips or
steps. A mean of means is that mean, so passes that accumulate, and gradients that somebody averaged already, come out right.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from geta_nb.qasso import ranks
from geta_nb.sharding import is_managed


class WholeGradients:
    """Averages gradients over ranks, in one message a backward pass; only where the model turns out to be sharded.

    Args:
        model: sharded already, or before the first backward pass; in a single process nothing is watched.
        parameters: whole on every rank, in one order on all.
    """

    def __init__(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._model: nn.Module | None = model
        self._parameters: list[nn.Parameter] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._due = False
        self.watch(parameters)

    def watch(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of these too, from the next backward pass on."""
        known = {id(p) for p in self._parameters}
        for parameter in parameters if ranks.several() else ():
            if parameter.requires_grad and id(parameter) not in known:
                self._parameters.append(parameter)
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._arrived))

    def _arrived(self, _: Tensor) -> None:
        if self._model is not None:
            model, self._model = self._model, None
            if not is_managed(model):  # copies (DistributedDataParallel) average all gradients themselves
                self._remove()
        if self._parameters and not self._due:
            self._due = True
            torch.autograd.Variable._execution_engine.queue_callback(self.average)

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._parameters = [], []

    def settle(self) -> None:
        """Average what a backward pass that broke off left behind; nothing where none did."""
        if self._due:
            self.average()

    @torch.no_grad()
    def average(self) -> None:
        """Average all gradients now; a parameter gets one where it has one on any rank. All ranks must call it."""
        self._due = False
        if not self._parameters:
            return
        sizes, there = [p.numel() for p in self._parameters], [p.grad is not None for p in self._parameters]
        like = self._parameters[0]
        wide = torch.promote_types(torch.float32, like.dtype)
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in self._parameters]
        flags = torch.tensor([float(flag) for flag in there], dtype=wide, device="cpu").to(like.device)
        found = ranks.mean(torch.cat([*(part.to(like.device, wide) for part in parts), flags]))
        # who has all of them need not ask: only what is missing here may be missing everywhere
        anywhere = there if all(there) else [flag > 0 for flag in found[sum(sizes) :].tolist()]
        for parameter, flag, value in zip(self._parameters, anywhere, found[: sum(sizes)].split(sizes), strict=True):
            if flag:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad.copy_(value.view_as(parameter))
