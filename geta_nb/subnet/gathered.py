"""A sharded model made whole on one rank, tensor by tensor: what a subnet is cut from. In: a model of ``fully_shard``. Out: a plain copy.

No rank but the first ever holds more of it than one tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import RunStateError
from geta_nb.sharding import is_sharded, reshard

_MARKS = ("_is_fsdp_managed_module", "_fsdp_use_orig_params")


class Elsewhere(nn.Module):
    """Stands on the other ranks for what rank 0 has."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raise: there is nothing here.

        Raises:
            RunStateError: always.
        """
        raise RunStateError(
            "construct_subnet: of a sharded model rank 0 has the subnet.", got=f"rank {dist.get_rank()}",
            hint="if torch.distributed.get_rank() == 0: gt.save(subnet, path)",
        )  # fmt: skip


@torch.no_grad()
def gathered(model: nn.Module) -> nn.Module | None:
    """Return a whole copy of a sharded model, on the CPU, on rank 0; None on the others. All ranks must call it."""
    reshard(model)
    first, memo = dist.get_rank() == 0, dict[int, Any]()
    for tensor in model.parameters():
        whole = cast(Any, tensor.detach()).full_tensor() if is_sharded(tensor) else tensor.detach()
        if first:
            memo[id(tensor)] = nn.Parameter(whole.to("cpu", copy=True), tensor.requires_grad)
        del whole
    if not first:
        return None
    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(_plain(module))
        twin = copy.deepcopy(model, memo)
    return twin.cpu()


@contextmanager
def _plain(module: nn.Module) -> Iterator[None]:
    """Let a module be what it was before it was sharded, but for its parameters, while inside."""
    state, cls = dict(module.__dict__), type(module)
    try:
        for key, value in state.items():
            if key.startswith("__composable_api") or key in _MARKS or _is_torchs_method(value):
                del module.__dict__[key]
            elif key.endswith("_hooks") and isinstance(value, dict):
                module.__dict__[key] = type(value)((k, hook) for k, hook in value.items() if not _is_torchs(hook))
        if hasattr(module, "unshard"):
            module.__class__ = cls.__mro__[getattr(cls, "_orig_cls_mro_index", 2)]
        yield
    finally:
        module.__class__ = cls
        module.__dict__.clear()
        module.__dict__.update(state)


def _is_torchs(hook: Any) -> bool:
    """Whether a hook is one of those that shard a module."""
    hook = getattr(hook, "hook", hook)
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.")


def _is_torchs_method(value: Any) -> bool:
    """Whether an attribute stands in for a method of the class, so that it gathers first (``register_fsdp_forward_method``)."""
    function = getattr(value, "__func__", None)
    return str(getattr(function, "__globals__", {}).get("__name__", "")).startswith("torch.distributed.")


def real_inputs(value: Any) -> Any:
    """Return inputs on the CPU, in any nest; those on the meta device, which have no values, as random numbers and ones."""

    def real(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if not leaf.is_meta:
            return leaf.cpu()
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).to(leaf.dtype)
        return torch.ones(leaf.shape, dtype=leaf.dtype)

    return pytree.tree_map(real, value)
