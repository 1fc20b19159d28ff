"""Groups: what may be removed, and only together. Read off the labels; the pruning space of the optimizer and the subnet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from geta_nb.labels import Extent, Ints
from geta_nb.propagate import Propagation, removable_classes
from geta_nb.views import Shown


class Slice(NamedTuple):
    """Some indices along one axis of one parameter."""

    parameter: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Group(Shown):
    """A set of parameter slices that may be removed, and only together.

    Attributes:
        index: position in ``geta.groups``.
        family: name of its family.
        producers: slices that are zeroed when the group is masked.
        consumers: slices that only read what the producers wrote, and buffers.
        size: parameter elements removed with it.
    """

    index: int
    family: str
    producers: tuple[Slice, ...]
    consumers: tuple[Slice, ...]
    size: int

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All slices, producers first."""
        return self.producers + self.consumers


@dataclass(frozen=True, repr=False)
class Family(Shown):
    """Groups of one pattern: the filters of a layer, the heads of an attention."""

    name: str
    module_path: str
    groups: Sequence[Group]


class Protected(NamedTuple):
    """An axis that may not be pruned, and why."""

    path: str
    reason: str
    operator: str


@dataclass(frozen=True)
class AxisMap:
    """Which group each index of one parameter axis belongs to.

    Attributes:
        parameter: own name.
        axis: axis.
        group_of_index: [axis size], -1 where no prunable group.
        producing: True where masking the group zeroes these indices.
    """

    parameter: str
    axis: int
    group_of_index: Ints
    producing: bool


@dataclass
class GroupTable:
    """All groups as arrays.

    Attributes:
        n_groups: G.
        family_of: family index of each group, [G].
        family_names: family names.
        family_paths: module path of each family's first producer.
        axis_maps: index maps of every parameter and buffer axis that a group touches.
        group_size: parameter elements of each group, [G].
        label_groups: group of each label, [labels], -1 for none.
    """

    n_groups: int
    family_of: Ints
    family_names: list[str]
    family_paths: list[str]
    axis_maps: list[AxisMap]
    group_size: Ints
    label_groups: Ints

    def extent(self, const: int, arrays: Sequence[Ints]) -> Extent:
        """Return the extent of axes given by their labels."""
        return Extent(const, tuple(self.label_groups[labels].ravel() for labels in arrays))

    def kept(self, labels: Ints, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of ``labels`` live when the groups marked in ``alive`` [G] do."""
        result: NDArray[np.bool_] = np.append(alive, True)[self.label_groups[labels]]
        return result


class GroupList(Sequence[Group], Shown):
    """``geta.groups``: built group by group when asked for."""

    def __init__(self, table: GroupTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.n_groups

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._build(int(index) % len(self))

    def __iter__(self) -> Iterator[Group]:
        return (self._build(i) for i in range(len(self)))

    def _build(self, index: int) -> Group:
        producers, consumers = [], []
        for position, indices in self._members[index]:
            entry = self.table.axis_maps[position]
            part = Slice(entry.parameter, entry.axis, indices)
            (producers if entry.producing else consumers).append(part)
        family = self.table.family_names[self.table.family_of[index]]
        return Group(index, family, tuple(producers), tuple(consumers), int(self.table.group_size[index]))

    @cached_property
    def _members(self) -> list[list[tuple[int, tuple[int, ...]]]]:
        members: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(len(self))]
        for position, entry in enumerate(self.table.axis_maps):
            order = np.argsort(entry.group_of_index, kind="stable")
            owners = entry.group_of_index[order]
            start = int(np.searchsorted(owners, 0))
            cuts = np.flatnonzero(np.diff(owners[start:])) + 1
            for run in np.split(order[start:], cuts) if start < len(owners) else ():
                members[int(entry.group_of_index[run[0]])].append((position, tuple(int(i) for i in run)))
        return members

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """Groups of one pattern together."""
        order = np.argsort(self.table.family_of, kind="stable")
        bounds = np.searchsorted(self.table.family_of[order], np.arange(len(self.table.family_names) + 1))
        return tuple(
            Family(name, path, _Selection(self, order[bounds[i] : bounds[i + 1]]))
            for i, (name, path) in enumerate(zip(self.table.family_names, self.table.family_paths, strict=True))
        )


class _Selection(Sequence[Group]):
    """Some groups of a list."""

    def __init__(self, groups: GroupList, indices: Ints) -> None:
        self._groups, self._indices = groups, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        if isinstance(index, slice):
            return [self._groups[int(i)] for i in self._indices[index]]
        return self._groups[int(self._indices[index])]

    def __repr__(self) -> str:
        return f"{len(self)} groups"


class ProtectedList(tuple[Protected, ...], Shown):
    """``geta.protected``: every axis of a parameter that may not be pruned, with its reason."""

    __slots__ = ()
    __repr__ = Shown.__repr__


@dataclass(frozen=True)
class _AxisLabels:
    name: str
    axis: int
    labels: Ints
    buffer: bool
    size: int


def find_groups(state: Propagation, *, protect: Callable[[str], bool] = lambda name: False) -> tuple[GroupTable, ProtectedList]:
    """Return all groups of a labelled network and what is protected.

    Args:
        state: labels of every tensor.
        protect: says of a parameter name whether the user protects it; groups that are produced by it stay.
    """
    classes = state.classes
    axes = _parameter_axes(state)
    removable, blame = removable_classes(state, classes)
    produced = state.produced()
    asked = state.space.reason("protected on request", "protect", "")
    for entry in axes:
        if not entry.buffer and protect(entry.name):
            touched = classes[entry.labels[produced[entry.labels]]]
            removable[touched], blame[touched] = False, asked
    group_of_class, family_of, first_axis = _families(state, axes, classes, removable, produced)
    label_groups = group_of_class[classes] if len(classes) else np.zeros(0, dtype=np.int64)
    names, paths = _family_names(axes, first_axis)
    maps = [
        AxisMap(entry.name, entry.axis, groups, bool(not entry.buffer and produced[entry.labels[groups >= 0]].any()))
        for entry in axes
        if (groups := label_groups[entry.labels]).max(initial=-1) >= 0
    ]
    sizes = _group_sizes(state, maps, len(family_of))
    table = GroupTable(len(family_of), family_of, names, paths, maps, sizes, label_groups)
    return table, _protected(state, axes, removable, blame, produced)


def _parameter_axes(state: Propagation) -> list[_AxisLabels]:
    return [
        _AxisLabels(name, array.cover[0], array.labels.ravel(), name in state.buffers, int(np.prod(labels.shape)))
        for name, labels in state.tensors.items()
        for array in labels.arrays
    ]


def _families(
    state: Propagation, axes: list[_AxisLabels], classes: Ints, removable: NDArray[np.bool_], produced: NDArray[np.bool_]
) -> tuple[Ints, Ints, list[int]]:
    """Number the removable classes so that families are runs; a family has one pattern of (parameter, axis, count) and of named parts."""
    count = len(removable)
    generator = np.random.default_rng(0)  # random weights make sums that only equal patterns share
    signature = np.zeros(count, dtype=np.uint64)
    first = np.full((count, 2), np.iinfo(np.int64).max)
    patterns = [entry.labels for entry in axes] + _unique(state.findings.parts)
    for position, labels in enumerate(patterns):
        weight = generator.integers(1, 2**63, dtype=np.uint64)
        np.add.at(signature, classes[labels], weight)
        if position < len(axes) and not axes[position].buffer:
            makes = labels[produced[labels]]
            owner = classes[makes]
            new = first[owner, 0] == np.iinfo(np.int64).max
            offsets = np.flatnonzero(produced[labels])
            np.minimum.at(first[:, 1], owner[new], offsets[new])
            first[owner[new], 0] = position
    chosen = np.flatnonzero(removable)
    order = chosen[np.lexsort((first[chosen, 1], signature[chosen], first[chosen, 0]))]
    group_of_class = np.full(count + 1, -1, dtype=np.int64)
    group_of_class[order] = np.arange(len(order))
    change = np.ones(len(order), dtype=bool)
    change[1:] = (signature[order][1:] != signature[order][:-1]) | (first[order, 0][1:] != first[order, 0][:-1])
    family_of = np.cumsum(change) - 1
    return group_of_class, family_of.astype(np.int64), [int(first[c, 0]) for c in order[change]]


def _unique(parts: list[Ints]) -> list[Ints]:
    return list({labels.tobytes(): labels for labels in parts}.values())


def _family_names(axes: list[_AxisLabels], first_axis: list[int]) -> tuple[list[str], list[str]]:
    paths = [axes[position].name.rpartition(".")[0] for position in first_axis]
    bases = [path or axes[position].name for path, position in zip(paths, first_axis, strict=True)]
    totals = {base: bases.count(base) for base in bases}
    seen: dict[str, int] = {}
    names = []
    for base in bases:
        seen[base] = seen.get(base, 0) + 1
        names.append(f"{base}[{seen[base] - 1}]" if totals[base] > 1 else base)
    return names, paths


def _group_sizes(state: Propagation, maps: list[AxisMap], count: int) -> Ints:
    """Elements that go with each group; where a group cuts two axes of one parameter, the corner is counted once."""
    totals = np.zeros(count)
    by_name: dict[str, list[AxisMap]] = {}
    for entry in maps:
        if entry.parameter not in state.buffers:
            by_name.setdefault(entry.parameter, []).append(entry)
    for name, entries in by_name.items():
        left = np.ones(count)
        for entry in entries:
            owners = entry.group_of_index[entry.group_of_index >= 0]
            left *= 1 - np.bincount(owners, minlength=count) / len(entry.group_of_index)
        totals += np.prod(state.tensors[name].shape) * (1 - left)
    return np.rint(totals).astype(np.int64)


def _protected(
    state: Propagation, axes: list[_AxisLabels], removable: NDArray[np.bool_], blame: Ints, produced: NDArray[np.bool_]
) -> ProtectedList:
    entries: dict[Protected, None] = {}
    for entry in axes:
        if entry.buffer:
            continue
        owners = state.classes[entry.labels[produced[entry.labels]]]
        for reason_id in np.unique(blame[owners[~removable[owners]]]):
            reason = state.space.reasons[int(reason_id)]
            place = f" in {reason.module_path}" if reason.module_path else ""
            entries[Protected(f"{entry.name}[axis {entry.axis}]", reason.text + place, reason.operator)] = None
    for name in dict.fromkeys(state.findings.foreign):
        entries[Protected(name, "a parameter that a foreign parametrization computes with", "parametrization")] = None
    for name, path in dict.fromkeys(state.findings.unknown):
        entries[Protected(path or "(root)", "an operator without a rule: all it touches is protected", name)] = None
    return ProtectedList(entries)
