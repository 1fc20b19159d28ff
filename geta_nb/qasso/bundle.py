"""Many small parameters stepped as one vector: what a network with hundreds of quantizers would else cost in single small operations.

In: an inner torch optimizer and some parameters of one of its groups. Out: the same updates, computed on one tensor. Outside a step
nothing of it shows: groups and state hold the parameters themselves, so schedulers, scalers, clipping and checkpoints see the usual thing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.qasso.moving import COUNTERS

ELEMENTWISE = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adamax,
)  # fmt: skip
"""Optimizers that treat each element by itself and make their state when they first meet a parameter: for them, and for no subclass that
may do otherwise, it makes no difference in which tensor an element lies."""


class Bundle:
    """Small parameters of one group of an inner optimizer, seen by that optimizer as a single vector while it steps.

    Args:
        inner: the optimizer.
        group: index of one of its groups.
        params: some of what it holds, contiguous, one dtype and device.

    Attributes:
        flat: the vector, [n], their elements one after the other; current between :meth:`gather` and :meth:`scatter`.
        ids: of ``params``.
    """

    def __init__(self, inner: torch.optim.Optimizer, group: int, params: Sequence[nn.Parameter]) -> None:
        self._inner, self._group, self._params = inner, group, list(params)
        self.ids = frozenset(id(p) for p in params)
        self._state: dict[str, Any] | None = None  # of the vector, while the inner optimizer holds none of the parameters' own
        self._bind()

    def _bind(self) -> None:
        self._targets = [p.detach().view(-1) for p in self._params]
        self.flat = nn.Parameter(torch.cat(self._targets))
        self._sources = list(self.flat.detach().split([len(t) for t in self._targets]))

    @classmethod
    def of(cls, inner: torch.optim.Optimizer, group: int, small: Sequence[nn.Parameter]) -> Bundle | None:
        """Return the bundle of those ``small`` that ``group`` holds; None where a vector would not do the same as its parameters."""
        settings = inner.param_groups[group]
        held = {id(p) for p in settings["params"]}
        params = [p for p in small if id(p) in held]
        alike = {(type(p), p.dtype, p.device, p.is_contiguous(), p.requires_grad) for p in params}
        special = any(settings.get(name) for name in ("capturable", "differentiable"))
        if type(inner) not in ELEMENTWISE or special or len(params) < 2 or len(alike) != 1:
            return None
        kind, _, device, contiguous, trains = next(iter(alike))
        return cls(inner, group, params) if kind is nn.Parameter and device.type != "meta" and contiguous and trains else None

    @classmethod
    def largest(cls, inner: torch.optim.Optimizer, small: Sequence[nn.Parameter]) -> Bundle | None:
        """Return the bundle of that group which holds most of ``small``; None where no group has one."""
        found = [cls.of(inner, group, small) for group in range(len(inner.param_groups))]
        return max((bundle for bundle in found if bundle is not None), key=len, default=None)

    def __len__(self) -> int:
        return len(self._params)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bundle:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.ids = frozenset(id(p) for p in twin._params)  # an id belongs to one object: those of a copy are others
        return twin

    def gather(self) -> bool:
        """Read values and gradients of all parameters into the vector; False where one has no gradient, or they differ in their past."""
        if any(p.grad is None for p in self._params) or not self._pack():
            return False
        if self._targets[0].data_ptr() != self._params[0].data_ptr():
            self._bind()  # the model moved to another device or dtype
        torch.cat(self._targets, out=self.flat.data)
        self.read_gradients()
        return True

    def read_gradients(self) -> None:
        """Read the gradients of all parameters, which each have one, into that of the vector."""
        self.flat.grad = torch.cat([p.grad.reshape(-1) for p in self._params if p.grad is not None])

    def step(self, call: Callable[[], Any]) -> None:
        """Run ``call``, the inner optimizer's step, on the vector instead of the parameters."""
        state, group = self._inner.state, self._inner.param_groups[self._group]
        params = group["params"]
        group["params"] = [*(p for p in params if id(p) not in self.ids), self.flat]
        if self._state:
            state[self.flat] = self._state
        try:
            call()
        finally:
            group["params"], self.flat.grad = params, None
            self._state = dict(state.pop(self.flat, {}))

    def scatter(self) -> None:
        """Write the vector's values into the parameters."""
        torch._foreach_copy_(self._targets, self._sources)

    def _pack(self) -> bool:
        """Take the parameters' state over from the inner optimizer; False where they do not stand at the same step."""
        if self._state is not None:
            return True
        own = [self._inner.state.get(p) or {} for p in self._params]
        if any(s.keys() != own[0].keys() for s in own):
            return False
        packed: dict[str, Any] = {}
        for key, first in own[0].items():
            values = [s[key] for s in own]
            if isinstance(first, Tensor) and key not in COUNTERS:
                packed[key] = torch.cat([v.reshape(-1) for v in values])
            elif all((v is first) or bool(v == first) for v in values):
                packed[key] = first
            else:
                return False
        for p in self._params:
            self._inner.state.pop(p, None)
        self._state = packed
        return True

    def unpack(self) -> None:
        """Give the inner optimizer the state of each parameter, as if it had stepped them one by one."""
        packed, self._state = self._state, None
        begin = 0
        for p in self._params if packed else ():
            assert packed is not None
            end = begin + p.numel()
            own = {k: v[begin:end].view_as(p) if isinstance(v, Tensor) and k not in COUNTERS else v for k, v in packed.items()}
            self._inner.state[p] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in own.items()}
            begin = end
