"""Tensors of which this process holds some rows: what is here, where it lies in the whole, and sums over the ranks that have the rest.

In: tensors, sharded (``torch.distributed.fsdp.fully_shard``) or whole. Out: local tensors that share their memory, and figures that are the
same on all ranks. Shared by all rooms; nothing here knows of groups or quantizers, and of whole tensors nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from geta_nb.errors import ConfigError

Rows = TypeVar("Rows", Tensor, NDArray[np.int64])
_PARALLEL = "a model that is sharded by fully_shard over all ranks and nothing else"


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``torch.distributed.tensor.DTensor``, which holds this rank's share."""
    return getattr(tensor, "placements", None) is not None


def local(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor, detached, in the same memory; a whole tensor comes back as it is."""
    if not is_sharded(tensor):
        return tensor
    # without gradients there is nothing to detach, and torch hands over what it has: fifteen times as fast
    here: Tensor = cast(Any, tensor.detach() if torch.is_grad_enabled() else tensor).to_local()
    return here


class Share(NamedTuple):
    """Which part of a tensor this rank has: ``start`` to ``stop`` of ``axis``; of a short axis a rank may have nothing."""

    axis: int
    start: int
    stop: int

    def rows(self, axis: int, values: Rows) -> Rows:
        """Return those of ``values``, one for each index of ``axis``, that belong to what is here."""
        return values[self.start : self.stop] if axis == self.axis else values


def share_of(tensor: Tensor) -> Share | None:
    """Return which part of a tensor is here; None where all of it is."""
    place = _sharded_dimension(tensor)
    if place is None:
        return None
    mesh, placement = cast(Any, tensor).device_mesh, cast(Any, tensor).placements[place]
    axis, ranks, rank = placement.dim % tensor.ndim, mesh.size(place), mesh.get_local_rank(place)
    size = -(-tensor.shape[axis] // ranks)  # rows go in blocks of one size, the last of them shorter, or empty
    start = min(rank * size, tensor.shape[axis])
    return Share(axis, start, min(start + size, tensor.shape[axis]))


def _sharded_dimension(tensor: Tensor) -> int | None:
    """Return along which dimension of its mesh a tensor is sharded."""
    kinds = [type(placement).__name__ for placement in getattr(tensor, "placements", ())]
    return kinds.index("Shard") if "Shard" in kinds else None


@dataclass(frozen=True)
class Shards:
    """The ranks over which a model is sharded.

    Attributes:
        group: those that together hold each tensor once.
        copies: those that hold the same rows (HSDP); None: this rank alone.
        device: where a collective takes tensors from.
        first: of what every rank has whole, this one counts it.
    """

    group: dist.ProcessGroup
    copies: dist.ProcessGroup | None
    device: torch.device
    first: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> Shards:
        return self

    def sum(self, values: Tensor) -> Tensor:
        """Return ``values`` added up over the ranks that hold a tensor together, the same bits on each; all of them must call it."""
        return self._reduced(values, dist.ReduceOp.SUM, self.group)

    def sums(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return each of ``values`` added up as :meth:`sum` does, in one message, in the widest of their types."""
        together = self.sum(torch.cat([value.detach().reshape(-1) for value in values]))
        parts = together.split([value.numel() for value in values])
        return [part.view(value.shape).to(value.dtype) for part, value in zip(parts, values, strict=True)]

    def largest(self, values: Tensor) -> Tensor:
        """Return the largest of each of ``values``, as :meth:`sum`."""
        return self._reduced(values, dist.ReduceOp.MAX, self.group)

    @property
    def count(self) -> int:
        """How many ranks there are, copies too."""
        return dist.get_world_size(self.group) * (1 if self.copies is None else dist.get_world_size(self.copies))

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks, copies too: what gradients of data-parallel shares of a batch come to."""
        return self.sum_of_all(values) / self.count

    def sum_of_all(self, values: Tensor) -> Tensor:
        """Return ``values`` added up over all ranks, copies too."""
        found = self.sum(values)
        return found if self.copies is None else self._reduced(found, dist.ReduceOp.SUM, self.copies)

    def largest_of_all(self, values: Tensor) -> Tensor:
        """Return the largest of each of ``values`` over all ranks, copies too."""
        found = self.largest(values)
        return found if self.copies is None else self._reduced(found, dist.ReduceOp.MAX, self.copies)

    def _reduced(self, values: Tensor, operation: Any, group: dist.ProcessGroup) -> Tensor:
        found = values.detach().to(self.device, copy=True)
        dist.all_reduce(found, operation, group=group)
        return found.to(values.device)


def shards_of(tensors: Iterable[Tensor]) -> Shards | None:
    """Return the ranks over which these tensors are sharded; None where all are whole."""
    for tensor in tensors:
        place = _sharded_dimension(tensor)
        if place is not None:
            mesh = cast(Any, tensor).device_mesh
            others = [mesh.get_group(i) for i in range(mesh.ndim) if i != place]
            on_cpu = mesh.device_type == "cpu"
            device = torch.device("cpu") if on_cpu else torch.device(mesh.device_type, torch.accelerator.current_device_index())
            return Shards(mesh.get_group(place), others[0] if others else None, device, mesh.get_local_rank(place) == 0)
    return None


def _managed(model: nn.Module) -> list[Any]:
    """Return the modules that ``fully_shard`` was applied to."""
    return [module for module in model.modules() if hasattr(module, "unshard") and callable(getattr(module, "reshard", None))]


def is_managed(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to a model, or to parts of it."""
    return bool(_managed(model))


def reshard(model: nn.Module) -> None:
    """Let the parameters of a model be its shards again: after a pass without gradients whole copies stand in the place of some."""
    for module in _managed(model):
        module.reshard()


def check_shards(model: nn.Module, parameters: Mapping[str, Tensor], who: str) -> Shards | None:
    """Return the ranks over which a model is sharded; None where it is whole.

    Raises:
        ConfigError: shards of a kind that is not supported; names parameter, placement and what is missing. Nothing was changed.
    """
    found = {name: tensor for name, tensor in parameters.items() if is_sharded(tensor)}
    if not found:
        return None
    managed = is_managed(model)
    meshes = {cast(Any, tensor).device_mesh for tensor in found.values()}
    for name, tensor in found.items():
        why, hint = _unsupported(tensor, managed=managed, meshes=len(meshes))
        if why is not None:
            raise ConfigError(
                f"{who}: {why}", at=name, expected=_PARALLEL, got=f"placements {tuple(cast(Any, tensor).placements)}", hint=hint
            )
    return shards_of(found.values())


def _unsupported(tensor: Tensor, *, managed: bool, meshes: int) -> tuple[str | None, str | None]:
    placements, mesh = cast(Any, tensor).placements, cast(Any, tensor).device_mesh
    kinds = [type(placement).__name__ for placement in placements]
    if not managed:
        what = "tensor parallelism (parallelize_module) is not supported: of the channels that its layers pass on no rank has all."
        return what, "fully_shard(geta.model), or DistributedDataParallel(geta.model)"
    if sorted(kinds) not in (["Shard"], ["Replicate", "Shard"]) or kinds[-1] != "Shard":
        what = "fully_shard on top of tensor or expert parallelism is not supported: rows of a weight lie across two meshes."
        return what, "fully_shard alone, on a mesh of one or two (HSDP) dimensions"
    if meshes > 1 or mesh.size() != dist.get_world_size():
        return "parameters are sharded over several meshes, or over some of the ranks.", "one mesh of all ranks for every fully_shard"
    return None, None
