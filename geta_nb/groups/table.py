"""What a group is, and all groups of a network as arrays. ``find`` fills it; every later stage reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from geta_nb.groups.labels import Extent, Ints
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
        producers: slices that are zeroed when the group is masked: of parameters, and of the shifts of frozen norms, which are buffers.
        consumers: slices that only read what the producers wrote, and all other buffers.
        size: parameter elements removed with it.
        exact: whether the cut network computes what the masked one does; False where a norm runs over the group.
    """

    index: int
    family: str
    producers: tuple[Slice, ...]
    consumers: tuple[Slice, ...]
    size: int
    exact: bool = True

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

    @property
    def exact(self) -> bool:
        """Whether its groups go without a trace: see :class:`Group`."""
        return self.groups[0].exact


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
        producing: True where masking the group zeroes these indices of a parameter.
        zeroed: the same of a buffer, which has no gradient and takes no part in anything else: nothing judges a group by it.
    """

    parameter: str
    axis: int
    group_of_index: Ints
    producing: bool
    zeroed: bool = False


def shared(groups: Ints, known: dict[bytes, Ints]) -> Ints:
    """Return the array of ``known`` that equals this one, else this one, known from now on: what one layer gives out many others read."""
    return known.setdefault(blake2b(np.ascontiguousarray(groups).data).digest(), groups)


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
        exact: whether a group goes without a trace, [G]; not where a norm runs over it (``approximate_norms``).

    Equal index arrays of it and of its extents are one array: see :func:`shared`.
    """

    n_groups: int
    family_of: Ints
    family_names: list[str]
    family_paths: list[str]
    axis_maps: list[AxisMap]
    group_size: Ints
    label_groups: Ints
    exact: NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, dtype=bool))
    _known: dict[bytes, Ints] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.exact) != self.n_groups:
            self.exact = np.ones(self.n_groups, dtype=bool)

    def extent(self, const: int, arrays: Sequence[Ints]) -> Extent:
        """Return the extent of axes given by their labels."""
        return Extent(const, tuple(shared(self.label_groups[labels].ravel(), self._known) for labels in arrays))

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
        producers: list[Slice] = []
        consumers: list[Slice] = []
        bounds, begins, members = self._members
        places = members[bounds[index] : bounds[index + 1]]
        positions = np.searchsorted(begins, places, side="right") - 1
        parts: dict[int, list[int]] = {}
        for position, at in zip(positions.tolist(), (places - begins[positions]).tolist(), strict=True):
            parts.setdefault(position, []).append(at)
        for position, indices in parts.items():
            entry = self.table.axis_maps[position]
            (producers if entry.producing or entry.zeroed else consumers).append(Slice(entry.parameter, entry.axis, tuple(indices)))
        family = self.table.family_names[self.table.family_of[index]]
        return Group(index, family, tuple(producers), tuple(consumers), int(self.table.group_size[index]), bool(self.table.exact[index]))

    @cached_property
    def _members(self) -> tuple[Ints, Ints, Ints]:
        """Where the members of each group begin, [G + 1]; where the indices of each axis map do, [maps], if all stand in a row; and all
        members, group by group, by their place in that row.
        """
        maps = self.table.axis_maps
        narrow = np.int32 if len(self) < 2**31 else np.int64
        owners = np.concatenate([np.zeros(0, narrow), *(entry.group_of_index.astype(narrow) for entry in maps)])
        begins = np.cumsum([0, *(len(entry.group_of_index) for entry in maps)])[:-1]
        order = np.argsort(owners, kind="stable")
        free = int((owners < 0).sum())  # what belongs to no group comes first
        counts = np.bincount(owners[owners >= 0], minlength=len(self))
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), begins, order[free:]

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

    @property
    def elements(self) -> int:
        """Parameter elements of all of them together."""
        return int(self._groups.table.group_size[self._indices].sum())

    def __repr__(self) -> str:
        return f"{len(self)} groups"


class ProtectedList(tuple[Protected, ...], Shown):
    """``geta.protected``: every axis of a parameter that may not be pruned, with its reason."""

    __slots__ = ()
    __repr__ = Shown.__repr__
