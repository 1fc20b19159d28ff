"""The groups bound to tensors: sums per group, masks, and the elements of some groups as one flat vector.

Comes in: a ``GroupTable`` and the parameters by name. Goes out: whole-tensor operations for the optimizer. Only *producing* slices count:
a group is absent when they are zero. No loop over groups, no wait for the device except where :meth:`Members.elements` is built.

Of a sharded tensor a rank works on the rows it has, and sums are added up over the ranks: a vector of all groups, never a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geta_nb.errors import PruningSpaceError
from geta_nb.qasso import ranks
from geta_nb.quantizers import Adopted, adopted_in
from geta_nb.sharding import Shards, is_sharded, local, shards_of, share_of

if TYPE_CHECKING:
    from geta_nb.groups import GroupTable

HALF = (torch.float16, torch.bfloat16)
SMALL = 1 << 16
"""Tensors of at most so many elements are multiplied in one call."""


class Segments:
    """Adds up the entries of a vector by segment, in a fixed order: the same bits on every run, on an accelerator too.

    Args:
        ids: segment of each entry, [N]; entries with -1 are left out.
        count: number of segments.
        shards: ranks that have further entries; None: there are none.
    """

    def __init__(self, ids: Tensor, count: int, shards: Shards | None = None) -> None:
        self._shards = shards
        inside = ids >= 0
        order = torch.where(inside, ids, count).argsort(stable=True)[: int(inside.sum())]
        self._sorted = bool(inside.all()) and bool((order == torch.arange(len(ids), device=ids.device)).all())
        self._order, self._lengths = order, torch.bincount(ids[inside], minlength=count)

    def alone(self) -> Segments:
        """Return the same for the entries of this rank."""
        twin = copy.copy(self)
        twin._shards = None
        return twin

    def to(self, device: torch.device) -> Segments:
        """Bring it to a device, in place; return self."""
        self._order, self._lengths = self._order.to(device), self._lengths.to(device)
        return self

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums, [count], of ``values`` [N]; all ranks must ask where they are sharded."""
        return self.sums([values])[0]

    def sums(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of each of ``values``, as :meth:`sum`; one message for all."""
        ordered = [value if self._sorted else value[self._order] for value in values]
        found = [torch.segment_reduce(value, "sum", lengths=self._lengths, unsafe=True) for value in ordered]
        return found if self._shards is None else self._shards.sums(found)


class Factors:
    """A factor for each group, multiplied into all elements of those groups: 0 keeps the dead ones at zero, less than 1 lets them fade.

    Args:
        tensors: what is multiplied, one entry for each slice (a tensor with two grouped axes comes twice).
        axes: the axis of each slice.
        groups: group of each index on that axis, -1: none.
    """

    def __init__(self, tensors: Sequence[Tensor], axes: Sequence[int], groups: Sequence[Tensor]) -> None:
        # of each: group ids, factors, tensors, and the view of the factors that each tensor is multiplied by
        self._batches: list[tuple[Tensor, Tensor, list[Tensor], list[Tensor]]] = []
        shares = [share_of(tensor) for tensor in tensors]
        groups = [group if share is None else share.rows(axis, group) for axis, group, share in zip(axes, groups, shares, strict=True)]
        left = [i for i, tensor in enumerate(tensors) if local(tensor).numel()]
        while left:
            kind = tensors[left[0]].device, tensors[left[0]].dtype
            sharded = is_sharded(tensors[left[0]])
            batch: list[int] = []
            for i in left:  # one foreach call must not meet a tensor twice
                alike = (tensors[i].device, tensors[i].dtype) == kind and is_sharded(tensors[i]) == sharded
                if alike and all(tensors[i] is not tensors[j] for j in batch):
                    batch.append(i)
            left = [i for i in left if i not in batch]
            ids = torch.cat([groups[i].to(kind[0]) for i in batch])
            flat = torch.ones(len(ids), device=kind[0], dtype=kind[1])
            parts = flat.split([len(groups[i]) for i in batch])
            views = [part.view([-1 if a == axes[i] else 1 for a in range(tensors[i].ndim)]) for i, part in zip(batch, parts, strict=True)]
            self._batches.append((ids, flat, [tensors[i] if sharded else tensors[i].detach() for i in batch], views))

    def set(self, factors: Tensor) -> None:
        """Take over one factor for each group, [G]."""
        for ids, flat, _, _ in self._batches:
            extended = torch.cat([factors, factors.new_ones(1)]).to(flat.device, flat.dtype)  # -1 reads the last entry
            torch.index_select(extended, 0, ids % len(extended), out=flat)

    def apply(self) -> None:
        """Multiply in place."""
        for _, _, tensors, views in self._batches:
            # what a rank has of a tensor is asked for each time: loading weights may put it elsewhere
            torch._foreach_mul_([local(tensor).detach() for tensor in tensors] if is_sharded(tensors[0]) else tensors, views)


class Products(NamedTuple):
    """<x, g> per group, [G]; their sum over everything, 0-dim; and the ids of the tensors whose gradients were read for it."""

    per_group: Tensor
    total: Tensor
    covered: frozenset[int]


class _Map(NamedTuple):
    position: int  # in Members.tensors
    axis: int
    groups: Tensor  # [axis size of what is here], -1: none
    whole: Tensor  # [axis size]
    table: NDArray[np.int64]  # the same, to be read without waiting for a device

    def to(self, device: torch.device) -> _Map:
        return self._replace(groups=self.groups.to(device), whole=self.whole.to(device))


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
            groups, share = torch.as_tensor(np.ascontiguousarray(entry.group_of_index), device=tensor.device), share_of(tensor)
            here = groups if share is None else share.rows(entry.axis, groups)
            self._maps.append(_Map(positions[id(tensor)], entry.axis, here, groups, entry.group_of_index))
        self.device = self.tensors[0].device if self.tensors else torch.device("cpu")
        self.shards = shards_of(parameters.values())
        kinds = {torch.float32 if tensor.dtype in HALF else tensor.dtype for tensor in self.tensors}
        self._dtype = torch.float64 if torch.float64 in kinds else torch.float32
        self.family_of = torch.as_tensor(np.asarray(table.family_of, dtype=np.int64), device=self.device)
        # of what all ranks have whole, one counts it
        ids = [(m.groups if self._counts(self.tensors[m.position]) else torch.full_like(m.groups, -1)).to(self.device) for m in self._maps]
        self._maps_of = [[i for i, m in enumerate(self._maps) if m.position == p] for p in range(len(self.tensors))]
        none = self.family_of[:0]
        self._segments = Segments(torch.cat(ids) if ids else none, self.n_groups, self.shards)
        self._buffers = [(m.parameter, m.axis, m.group_of_index) for m in table.axis_maps if m.zeroed]
        self._model: nn.Module | None = None
        self._adopted: list[Adopted | None] = [None] * len(self.tensors)

    def of_this_rank(self) -> Members:
        """Return the same without a word to other ranks: sums are those of what is here."""
        twin = copy.copy(self)
        twin._segments = self._segments.alone()
        return twin

    def _counts(self, tensor: Tensor) -> bool:
        return self.shards is None or self.shards.first or is_sharded(tensor)

    def follow(self) -> None:
        """Go where the tensors are, which may have moved; factors and elements that were made before stay where they were."""
        self._maps = [m.to(self.tensors[m.position].device) for m in self._maps]
        self.device = self.tensors[0].device if self.tensors else self.device
        self.family_of, self._segments = self.family_of.to(self.device), self._segments.to(self.device)

    def with_buffers_of(self, model: nn.Module) -> Members:
        """Let the buffers that go with groups (shifts of frozen norms) fade and stay at zero as the rest does; return self.

        They count nowhere: no gradient says anything of them. They are looked up by name when factors are made: ``.to()`` makes new ones.
        So do the low-rank terms of adapters; where there are some, what counts is the sum of weight and terms.
        """
        self._model = model if self._buffers else None
        terms = adopted_in(model)
        self._adopted = [terms.get(name) for name in self.names]
        self.watch(True)
        return self

    def watch(self, wanted: bool) -> None:
        """Let the products of adapted weights be added up from now on, or not; those that were are forgotten."""
        for terms in self._adopted:
            if terms is not None:
                terms.forget(watched=wanted)

    def sums(self, values: Sequence[Tensor | None]) -> Tensor:
        """Return per group the sum of its elements, [G].

        Args:
            values: one tensor for each of ``tensors``, in the shape of what is here of it; None counts as zeros. Half types are added up
                in float32.
        """
        parts = []
        for position, axis, groups, _, _ in self._maps:
            value = values[position]
            part = torch.zeros(len(groups), device=self.device) if value is None else _sum_along(value, axis)
            parts.append(part.to(self.device))
        return self._segments.sum(torch.cat(parts)) if parts else torch.zeros(self.n_groups, device=self.device)

    def inner_products(self) -> Tensor:
        """Return <x, g> per group, [G]; a tensor without gradient counts as zero."""
        return self.products().per_group

    def products(self) -> Products:
        """Return <x, g> per group and what else follows from reading all gradients; not finite where a gradient is not."""
        if not self._maps:
            zeros = torch.zeros(self.n_groups, device=self.device)
            return Products(zeros, zeros.sum(), frozenset())
        parts = [torch.zeros(0, device=self.device)] * len(self._maps)
        given = [i for i, t in enumerate(self.tensors) if t.grad is not None and self._adopted[i] is None]
        # small ones in one call; of large ones a single product exists at a time
        values = {i: local(self.tensors[i]).detach() for i in given}
        small = [i for i in given if values[i].numel() <= SMALL]
        x, g = [values[i] for i in small], [_dense(self.tensors[i].grad) for i in small]
        products = dict(zip(small, torch._foreach_mul(x, g), strict=True)) if small else {}
        for i in given:
            product = products[i] if i in products else values[i] * _dense(self.tensors[i].grad)
            for m in self._maps_of[i]:
                parts[m] = _sum_along(product, self._maps[m].axis).to(self.device)
        for i in set(range(len(self.tensors))) - set(given):
            for m in self._maps_of[i]:
                terms = self._adopted[i]
                found = None if terms is None else terms.take(self._maps[m].axis)
                parts[m] = torch.zeros(len(self._maps[m].groups), device=self.device) if found is None else found.to(self.device)
        together = torch.cat(parts)
        if any(self._adopted):  # added up while gradients were each rank's own
            together = ranks.mean(together)
        return Products(self._segments.sum(together), together.sum(), frozenset(id(self.tensors[i]) for i in given))

    def square_sums(self) -> tuple[Tensor, Tensor]:
        """Return |x|^2 and |g|^2 per group, [G] each."""
        tensors = [local(t).detach() if terms is None else terms() for t, terms in zip(self.tensors, self._adopted, strict=True)]
        weights = [tensor.square() for tensor in tensors]
        gradients = [None if t.grad is None else _dense(t.grad).square() for t in self.tensors]
        return self.sums(weights), self.sums(gradients)

    def factors(self, concerned: Tensor) -> Factors:
        """Return the factors of the tensors that hold a slice of a group in ``concerned`` (bool, [G]); waits for the device, once."""
        flags = torch.cat([concerned, concerned.new_zeros(1)]).cpu().numpy()  # -1 reads the last entry
        chosen = [(self.tensors[m.position], m.axis, m.whole) for m in self._maps if flags[m.table].any()]
        if self._model is not None:
            some = [item for item in self._buffers if flags[item[2]].any()]
            chosen += [(self._model.get_buffer(name), axis, torch.from_numpy(np.array(table))) for name, axis, table in some]
        for m in self._maps:
            if (terms := self._adopted[m.position]) is not None:
                chosen.append((terms.factors()[m.axis], 0, m.whole))
        return Factors([tensor for tensor, _, _ in chosen], [axis for _, axis, _ in chosen], [groups for _, _, groups in chosen])

    def elements(self, chosen: Tensor, layer_of: Mapping[str, int]) -> Elements:
        """Return the elements of the groups in ``chosen`` (bool, [G]).

        Args:
            chosen: the groups.
            layer_of: parameter name -> index of its weight quantizer; a name left out is not quantized.
        """
        picked = torch.cat([chosen, chosen.new_zeros(1)])
        found: dict[int, tuple[Tensor, Tensor]] = {}
        known = picked.cpu().numpy()
        for position, axis, groups, _, table in self._maps:
            if not known[table].any():
                continue
            tensor = local(self.tensors[position])
            inside = picked.to(tensor.device)[groups]
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
            tensor = local(self.tensors[position])
            order = _memory_order(tensor)
            index = hit.permute(order).reshape(-1).nonzero().view(-1)
            family = families.permute(order).reshape(-1)[index]
            counts = self._counts(self.tensors[position])
            parts.append(_Part(self.tensors[position], index, family, layer_of.get(self.names[position], -1), counts))
        return Elements(parts, self.n_families, 1 + max(layer_of.values(), default=-1), self.device, self.shards, self._dtype)


class _Part(NamedTuple):
    tensor: Tensor
    places: Tensor  # [n], in memory order
    family: Tensor  # [n]
    layer: int  # -1: not quantized
    counts: bool  # whether this rank counts it


class Elements:
    """Some elements of several tensors as one vector of N, those of quantized tensors first (the first ``n_quantized``).

    Attributes:
        family: family of each element, [N].
        layer: weight quantizer of each of the first ``n_quantized`` elements.
        of_family, of_pair, of_layer: sums of elements by family [F], by (layer, family) pair [Q], and of pairs by layer [L].
        pair_layer, pair_family: what each pair stands for, [Q].
    """

    def __init__(
        self, parts: Sequence[_Part], n_families: int, n_layers: int, device: torch.device, shards: Shards | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._parts = sorted(parts, key=lambda part: part.layer < 0)
        self._sizes = [len(part.places) for part in self._parts]
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        self.device, self.n_families, self.n_layers, self._dtype = device, n_families, n_layers, dtype
        self.family = torch.cat([empty, *(part.family.to(device) for part in self._parts)])
        layers = [torch.full((len(part.places),), part.layer, device=device) for part in self._parts if part.layer >= 0]
        self.layer = torch.cat([empty, *layers])
        self.n_quantized = len(self.layer)
        code = self.layer * max(n_families, 1) + self.family[: self.n_quantized]
        present = torch.zeros(n_layers * max(n_families, 1), device=device).index_fill_(0, code, 1)
        pairs = (present if shards is None else shards.largest(present)).nonzero().view(-1)
        pair_of = torch.searchsorted(pairs, code)
        self.pair_layer, self.pair_family = pairs // max(n_families, 1), pairs % max(n_families, 1)
        counted = [torch.full((size,), part.counts, device=device) for part, size in zip(self._parts, self._sizes, strict=True)]
        counts = torch.cat([empty.bool(), *counted])
        self.of_family = Segments(torch.where(counts, self.family, -1), n_families, shards)
        self.of_pair = Segments(torch.where(counts[: self.n_quantized], pair_of, -1), len(pairs), shards)
        self.of_layer = Segments(self.pair_layer, n_layers)

    def __len__(self) -> int:
        return len(self.family)

    def take(self) -> Tensor:
        """Return the values, [N], as a fresh vector; half types in float32."""
        values = [_flat(local(part.tensor))[part.places].to(self.device) for part in self._parts]
        # in the dtype of all ranks, also where there is nothing
        return torch.cat([torch.zeros(0, dtype=self._dtype, device=self.device), *values])

    def put(self, values: Tensor) -> None:
        """Write ``values`` [N] back in place."""
        for part, value in zip(self._parts, values.split(self._sizes), strict=True):
            flat = _flat(local(part.tensor))
            flat.index_put_((part.places,), value.to(flat.device, flat.dtype))


def _sum_along(values: Tensor, axis: int) -> Tensor:
    """Return the sums over all other axes, [size of ``axis``]; half types are added up in float32."""
    wide = torch.float32 if values.dtype in HALF else values.dtype
    if values.ndim == 1:
        return values.to(wide)
    if axis == 0 and values.is_contiguous():
        return values.flatten(1).sum(1, dtype=wide)
    return values.sum([a for a in range(values.ndim) if a != axis], dtype=wide)


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    gradient = local(gradient)
    return gradient.to_dense() if gradient.is_sparse else gradient


def _memory_order(tensor: Tensor) -> list[int]:
    """Axes from the slowest to the fastest, so that channels_last weights are one run of memory too."""
    strides = list(tensor.stride())
    return sorted(range(tensor.ndim), key=lambda a: (-strides[a], a))


def _flat(tensor: Tensor) -> Tensor:
    """View of all elements in memory order."""
    tensor = tensor.detach()
    return tensor.view(-1) if tensor.is_contiguous() else tensor.permute(_memory_order(tensor)).view(-1)
