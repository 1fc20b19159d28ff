"""Models that moved after their optimizer was built: to another device, another type, another layout of memory. Torch keeps a parameter's
object then, and gives it other memory; what an optimizer had made for the old one would go on changing that, and nobody would notice.

In: parameters, between steps. Out: whether they moved; and the inner optimizer's state, where its parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

COUNTERS = ("step", "mu_product")
"""State that is one number for a whole parameter, whatever its size and type; on the CPU where nothing says otherwise."""


class Places:
    """Where the memory of some tensors lies, looked up without waiting for a device.

    Args:
        tensors: ordinary ones; others (shares of a sharded parameter) are left out.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [tensor for tensor in tensors if type(tensor) in (Tensor, nn.Parameter)]
        self._seen = self._now()

    def moved(self) -> bool:
        """Whether one lies elsewhere than when this was asked last."""
        before, self._seen = self._seen, self._now()
        return before != self._seen

    def _now(self) -> list[int]:
        return list(map(Tensor.data_ptr, self._tensors))


def state_follows(inner: torch.optim.Optimizer) -> None:
    """Bring an optimizer's state to the device and the type of its parameters, as loading it would; what is there already stays."""
    for group in inner.param_groups:
        on_device = bool(group.get("capturable") or group.get("fused"))
        for parameter in group["params"]:
            state = inner.state.get(parameter, {})
            for key, value in state.items():
                if key not in COUNTERS:
                    state[key] = pytree.tree_map_only(Tensor, partial(_like, parameter), value)
                elif on_device and isinstance(value, Tensor):
                    state[key] = value.to(parameter.device)


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)
