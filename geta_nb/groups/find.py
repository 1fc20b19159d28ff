"""Groups: what may be removed, and only together.

In: a trace and its labels, from ``propagation``. Out: the ``table`` of groups, families and what is protected: the pruning space of the
optimizer and the subnet. Last step of stage 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geta_nb.groups.labels import Ints, Reason
from geta_nb.groups.propagation import Propagation, removable_classes
from geta_nb.groups.table import AxisMap, Family, Group, GroupList, GroupTable, Protected, ProtectedList, Slice, shared

__all__ = ["AxisMap", "Family", "Group", "GroupList", "GroupTable", "Protected", "ProtectedList", "Slice", "find_groups"]

Marks = NDArray[np.bool_]


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
        if (not entry.buffer or entry.name in state.zeros.buffers) and protect(entry.name):
            touched = classes[entry.labels[produced[entry.labels] | entry.buffer]]
            removable[touched], blame[touched] = False, asked
    group_of_class, family_of, first_axis = _families(state, axes, classes, removable, produced)
    label_groups = group_of_class[classes] if len(classes) else np.zeros(0, dtype=np.int64)
    names, paths = _family_names(axes, first_axis)
    known: dict[bytes, Ints] = {}
    maps = [
        AxisMap(
            entry.name, entry.axis, shared(groups, known), bool(not entry.buffer and produced[entry.labels[groups >= 0]].any()),
            zeroed=entry.name in state.zeros.buffers,
        )
        for entry in axes
        if (groups := label_groups[entry.labels]).max(initial=-1) >= 0
    ]
    sizes = _group_sizes(state, maps, len(family_of))
    exact = np.ones(len(family_of) + 1, dtype=bool)
    for labels in state.space.approximations:
        exact[label_groups[labels]] = False  # the last entry is that of no group
    table = GroupTable(len(family_of), family_of, names, paths, maps, sizes, label_groups, exact[:-1], known)
    return table, _protected(state, axes, removable, blame, state.produced(lengths=False))


def _parameter_axes(state: Propagation) -> list[_AxisLabels]:
    return [
        _AxisLabels(name, array.cover[0], array.labels.ravel(), name in state.buffers, int(np.prod(labels.shape)))
        for name, labels in state.tensors.items()
        for array in labels.arrays
    ]


def _families(
    state: Propagation, axes: list[_AxisLabels], classes: Ints, removable: Marks, produced: Marks
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
    left, counts = np.ones(count), np.zeros(count, dtype=np.int64)
    for name, entries in by_name.items():  # touches no group but its own: there are many parameters and many groups
        owners = [entry.group_of_index[entry.group_of_index >= 0] for entry in entries]
        for entry, owner in zip(entries, owners, strict=True):
            np.add.at(counts, owner, 1)
            left[owner] = left[owner] * (1 - counts[owner] / len(entry.group_of_index))
            counts[owner] = 0
        for owner in owners:
            totals[owner] = totals[owner] + np.prod(state.tensors[name].shape) * (1 - left[owner])
            left[owner] = 1
    return np.rint(totals).astype(np.int64)


def _protected(
    state: Propagation, axes: list[_AxisLabels], removable: Marks, blame: Ints, produced: Marks
) -> ProtectedList:
    entries: dict[Protected, None] = {}
    for entry in axes:
        if entry.buffer:
            continue
        owners = state.classes[entry.labels[produced[entry.labels]]]
        for reason_id in np.unique(blame[owners[~removable[owners]]]):
            reason = state.space.reasons[int(reason_id)]
            entries[Protected(f"{entry.name}[axis {entry.axis}]", reason.text + _place(reason), reason.operator)] = None
    for entry in _unmentioned(axes, entries, removable, state.classes):
        reason = state.space.reasons[int(blame[state.classes[entry.labels]].max(initial=0))]
        if reason.text:
            entries[Protected(f"{entry.name}[axis {entry.axis}]", reason.text + _place(reason), reason.operator)] = None
    for name in dict.fromkeys(state.findings.foreign):
        entries[Protected(name, "a parameter that a foreign parametrization computes with", "parametrization")] = None
    for name, path in dict.fromkeys(state.findings.unknown):
        teach = f"an operator without a rule: all it touches is protected; gt.register_rule({name!r}, ...) can teach it"
        entries[Protected(path or "(root)", teach, name)] = None
    return ProtectedList(entries)


def _place(reason: Reason) -> str:
    path = reason.module_path.split(".")
    hint = ": torch.nn.utils.parametrize.remove_parametrizations would leave a plain weight" if "parametrizations" in path[:-1] else ""
    return f" in {reason.module_path}{hint}" if reason.module_path else ""


def _unmentioned(axes: list[_AxisLabels], entries: Iterable[Protected], removable: Marks, classes: Ints) -> list[_AxisLabels]:
    """First axis of each parameter that nothing was said of: it brings no channel, and none of its own can go."""
    said = {entry.path.partition("[")[0] for entry in entries}
    said |= {entry.name for entry in axes if removable[classes[entry.labels]].any()}
    first: dict[str, _AxisLabels] = {}
    for entry in axes:
        if not entry.buffer and entry.name not in said:
            first.setdefault(entry.name, entry)
    return list(first.values())
