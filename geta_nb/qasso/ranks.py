"""Runs of several processes: what all ranks agree on, and models that lie on several. In: a model or figures. Out: the same, checked.

Data-parallel training (``DistributedDataParallel``) needs no more: gradients are the mean of all ranks', so weights stay the same on each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geta_nb.errors import ConfigError
from geta_nb.quantizers import parameter_tensors

_WHY = "whole parameters on every rank: groups and quantizers are sums and maxima over all rows of a weight"
_INSTEAD = "torch.nn.parallel.DistributedDataParallel(geta.model) instead of fully_shard"


def several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this is the only process, or rank 0: the one that speaks for all."""
    return not several() or dist.get_rank() == 0


def mean(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all ranks, the same bits on each; all ranks must call it."""
    if several():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def largest(values: Tensor) -> Tensor:
    """Return the largest of each of ``values`` over all ranks; all ranks must call it."""
    if several():
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def agreed(values: Sequence[int], device: torch.device) -> list[int]:
    """Return rank 0's ``values`` on all ranks, of which all must call it: a rounding is not left to each rank's last digit."""
    if not several() or not values:
        return list(values)
    shared = torch.tensor(list(values), dtype=torch.int64, device=device)
    dist.broadcast(shared, 0)
    return [int(value) for value in shared.tolist()]


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor holds only this rank's share (``torch.distributed.tensor.DTensor``)."""
    return getattr(tensor, "placements", None) is not None


def check_unwrapped(model: nn.Module) -> None:
    """Check that a model is itself, whole, and not what distributes it.

    Raises:
        ConfigError: a wrapper that copies or shards the model, or parameters of which this rank has only a share.
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    if isinstance(model, wrappers):
        raise ConfigError(
            "GETA: the model is wrapped already.", expected="the model itself, wrapped afterwards", got=type(model).__name__,
            hint=f"geta = gt.GETA(model, ...); model = {type(model).__name__}(geta.model)",
        )  # fmt: skip
    check_whole(model, "GETA")


def check_whole(model: nn.Module, who: str) -> None:
    """Check that no parameter is sharded over ranks.

    Raises:
        ConfigError: one is (``fully_shard``, tensor parallelism); names it.
    """
    for name, tensor in parameter_tensors(model).items():
        if is_sharded(tensor):
            raise ConfigError(
                f"{who}: parameters sharded over ranks are not supported yet.", at=name, expected=_WHY,
                got=f"a DTensor, {tuple(getattr(tensor, 'placements', ()))}", hint=_INSTEAD,
            )  # fmt: skip


def check_once_that_tensors_are_those_of(model: nn.Module, parameters: Mapping[str, Tensor]) -> Callable[..., None]:
    """Return a hook for the first step: the optimizer's tensors must still be the model's, else it would train nothing and say nothing.

    Raises (the hook):
        ConfigError: a parameter of the model is another tensor by then (``fully_shard``, ``load_state_dict(assign=True)``).
    """
    expected: dict[str, Tensor] = dict(parameters)

    def hook(*_: Any) -> None:
        if not expected:
            return
        check_whole(model, "QASSO.step")
        now = parameter_tensors(model)
        for name, tensor in expected.items():
            if now.get(name) is not tensor:
                raise ConfigError(
                    "QASSO.step: the model has other parameters than when the optimizer was built.", at=name,
                    expected="the same tensors", got="another one" if name in now else "none of this name",
                    hint="call geta.qasso(...) after the last change of the model's parameters",
                )  # fmt: skip
        expected.clear()

    return hook
