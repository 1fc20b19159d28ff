"""The groups bound to tensors: sums per group, masks, and the elements of some groups as one flat vector.

Comes in: a ``GroupTable`` and the parameters by name. Goes out: whole-tensor operations for the optimizer. Only *producing* slices count:
a group is absent when they are zero. No loop over groups, no wait for the device except where :meth:`Members.elements` is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import PruningSpaceError

if TYPE_CHECKING:
    from .groups import GroupTable

HALF = (torch.float16, torch.bfloat16)


class Segments:
    """Adds up the entries of a vector by segment, in a fixed order: the same bits on every run, on an accelerator too.

    Args:
        ids: segment of each entry, [N]; entries with -1 are left out.
        count: number of segments.
    """

    def __init__(self, ids: Tensor, count: int) -> None:
        inside = ids >= 0
        order = torch.where(inside, ids, count).argsort(stable=True)[: int(inside.sum())]
        self._sorted = bool(inside.all()) and bool((order == torch.arange(len(ids), device=ids.device)).all())
        self._order, self._lengths = order, torch.bincount(ids[inside], minlength=count)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums, [count], of ``values`` [N]."""
        values = values if self._sorted else values[self._order]
        return torch.segment_reduce(values, "sum", lengths=self._lengths, unsafe=True)


class Masks(NamedTuple):
    """Tensors and the 0/1 factors, broadcastable, that keep their dead groups at zero."""

    tensors: list[Tensor]
    factors: list[Tensor]

    def apply(self) -> None:
        """Multiply in place."""
        if self.tensors:
            torch._foreach_mul_(self.tensors, self.factors)


class _Map(NamedTuple):
    position: int  # in Members.tensors
    axis: int
    groups: Tensor  # [axis size], -1: none


class Members:
    """The producing slices of every group, bound to the tensors they lie in.

    Args:
        table: the groups.
        parameters: original name -> tensor; tied names may share one.

    Raises:
        PruningSpaceError: the table names a tensor that is missing or of another size.
    """

    def __init__(self, table: GroupTable, parameters: Mapping[str, Tensor]) -> None:
        self.n_groups = table.n_groups
        self.n_families = len(table.family_names)
        self.tensors: list[Tensor] = []
        self.names: list[str] = []
        self._maps: list[_Map] = []
        seen: set[tuple[int, int, bytes]] = set()
        positions: dict[int, int] = {}
        for entry in table.axis_maps:
            if not entry.producing or not (entry.group_of_index >= 0).any():
                continue
            tensor = parameters.get(entry.parameter)
            if tensor is None or tensor.shape[entry.axis] != len(entry.group_of_index):
                raise PruningSpaceError("groups: a slice does not fit the model.", at=entry.parameter, got="no such axis or tensor")
            key = (id(tensor), entry.axis, entry.group_of_index.tobytes())
            if key in seen:
                continue
            seen.add(key)
            if id(tensor) not in positions:
                positions[id(tensor)] = len(self.tensors)
                self.tensors.append(tensor)
                self.names.append(entry.parameter)
            groups = torch.as_tensor(np.ascontiguousarray(entry.group_of_index), device=tensor.device)
            self._maps.append(_Map(positions[id(tensor)], entry.axis, groups))
        self.device = self.tensors[0].device if self.tensors else torch.device("cpu")
        self.family_of = torch.as_tensor(np.asarray(table.family_of, dtype=np.int64), device=self.device)
        ids = [m.groups.to(self.device) for m in self._maps]
        self._segments = Segments(torch.cat(ids) if ids else torch.zeros(0, dtype=torch.int64), self.n_groups)

    def sums(self, values: Sequence[Tensor | None]) -> Tensor:
        """Return per group the sum of its elements, [G].

        Args:
            values: one tensor for each of ``tensors``, same shape; None counts as zeros. Half types are added up in float32.
        """
        parts = []
        for position, axis, groups in self._maps:
            value = values[position]
            if value is None:
                part = torch.zeros(len(groups), device=self.device)
            else:
                others = [a for a in range(value.ndim) if a != axis]
                wide = torch.float32 if value.dtype in HALF else value.dtype
                part = value.sum(others, dtype=wide) if others else value.to(wide)
            parts.append(part.to(self.device))
        return self._segments.sum(torch.cat(parts)) if parts else torch.zeros(self.n_groups, device=self.device)

    def inner_products(self) -> Tensor:
        """Return <x, g> per group, [G]; a tensor without gradient counts as zero."""
        given = [i for i, t in enumerate(self.tensors) if t.grad is not None]
        gradients = [_dense(self.tensors[i].grad) for i in given]
        products: list[Tensor | None] = [None] * len(self.tensors)
        if given:
            for i, product in zip(given, torch._foreach_mul([self.tensors[i].detach() for i in given], gradients), strict=True):
                products[i] = product
        return self.sums(products)

    def square_sums(self) -> tuple[Tensor, Tensor]:
        """Return |x|^2 and |g|^2 per group, [G] each."""
        weights = [t.detach().square() for t in self.tensors]
        gradients = [None if t.grad is None else _dense(t.grad).square() for t in self.tensors]
        return self.sums(weights), self.sums(gradients)

    def masks(self, alive: Tensor) -> Masks:
        """Return the masks that keep exactly the groups in ``alive`` (bool, [G]); tensors without a dead group are left out."""
        factors: dict[int, Tensor] = {}
        kept = torch.cat([alive, alive.new_ones(1)])  # -1 reads the last entry
        for position, axis, groups in self._maps:
            tensor = self.tensors[position]
            mask = kept.to(tensor.device)[groups]
            if not bool(mask.all()):
                shape = [1] * tensor.ndim
                shape[axis] = -1
                factor = mask.view(shape).to(tensor.dtype)
                factors[position] = factors[position] * factor if position in factors else factor
        return Masks([self.tensors[p].detach() for p in factors], list(factors.values()))

    def elements(self, chosen: Tensor, layer_of: Mapping[str, int]) -> Elements:
        """Return the elements of the groups in ``chosen`` (bool, [G]).

        Args:
            chosen: the groups.
            layer_of: parameter name -> index of its weight quantizer; a name left out is not quantized.
        """
        picked = torch.cat([chosen, chosen.new_zeros(1)])
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for position, axis, groups in self._maps:
            tensor = self.tensors[position]
            inside = picked.to(tensor.device)[groups]
            if not bool(inside.any()):
                continue
            shape = [1] * tensor.ndim
            shape[axis] = -1
            hit = inside.view(shape).expand(tensor.shape)
            families = self.family_of.to(tensor.device)[groups.clamp(min=0)].view(shape).expand(tensor.shape)
            if position in found:
                families = torch.where(found[position][0], found[position][1], families)
                hit = found[position][0] | hit
            found[position] = (hit, families)
        parts = []
        for position, (hit, families) in found.items():
            tensor = self.tensors[position]
            order = _memory_order(tensor)
            index = hit.permute(order).reshape(-1).nonzero().view(-1)
            family = families.permute(order).reshape(-1)[index]
            parts.append(_Part(tensor, index, family, layer_of.get(self.names[position], -1)))
        return Elements(parts, self.n_families, 1 + max(layer_of.values(), default=-1), self.device)


class _Part(NamedTuple):
    tensor: Tensor
    places: Tensor  # [n], in memory order
    family: Tensor  # [n]
    layer: int  # -1: not quantized


class Elements:
    """Some elements of several tensors as one vector of N, those of quantized tensors first (the first ``n_quantized``).

    Attributes:
        family: family of each element, [N].
        layer: weight quantizer of each of the first ``n_quantized`` elements.
        of_family, of_pair, of_layer: sums of elements by family [F], by (layer, family) pair [Q], and of pairs by layer [L].
        pair_layer, pair_family: what each pair stands for, [Q].
    """

    def __init__(self, parts: Sequence[_Part], n_families: int, n_layers: int, device: torch.device) -> None:
        self._parts = sorted(parts, key=lambda part: part.layer < 0)
        self._sizes = [len(part.places) for part in self._parts]
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        self.device, self.n_families, self.n_layers = device, n_families, n_layers
        self.family = torch.cat([empty, *(part.family.to(device) for part in self._parts)])
        layers = [torch.full((len(part.places),), part.layer, device=device) for part in self._parts if part.layer >= 0]
        self.layer = torch.cat([empty, *layers])
        self.n_quantized = len(self.layer)
        code = self.layer * max(n_families, 1) + self.family[: self.n_quantized]
        pairs, pair_of = torch.unique(code, return_inverse=True)
        self.pair_layer, self.pair_family = pairs // max(n_families, 1), pairs % max(n_families, 1)
        self.of_family = Segments(self.family, n_families)
        self.of_pair = Segments(pair_of, len(pairs))
        self.of_layer = Segments(self.pair_layer, n_layers)

    def __len__(self) -> int:
        return len(self.family)

    def take(self) -> Tensor:
        """Return the values, [N], as a fresh vector; half types in float32."""
        values = [_flat(part.tensor)[part.places].to(self.device) for part in self._parts]
        vector = torch.cat(values) if values else torch.zeros(0, device=self.device)
        return vector.float() if vector.dtype in HALF else vector

    def put(self, values: Tensor) -> None:
        """Write ``values`` [N] back in place."""
        for part, value in zip(self._parts, values.split(self._sizes), strict=True):
            flat = _flat(part.tensor)
            flat.index_put_((part.places,), value.to(flat.device, flat.dtype))


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.to_dense() if gradient.is_sparse else gradient


def _memory_order(tensor: Tensor) -> list[int]:
    """Axes from the slowest to the fastest, so that channels_last weights are one run of memory too."""
    strides = list(tensor.stride())
    return sorted(range(tensor.ndim), key=lambda a: (-strides[a], a))


def _flat(tensor: Tensor) -> Tensor:
    """View of all elements in memory order."""
    tensor = tensor.detach()
    return tensor.view(-1) if tensor.is_contiguous() else tensor.permute(_memory_order(tensor)).view(-1)
