"""Operators that only move values: what they do to a tensor they do to its labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geta_nb.labels import FREE, LabelArray, Labels, reshape, single_axis
from geta_nb.operators.registry import Call, drop_axes, insert_axis, permute, rule, source_of, spoiled


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "_reshape_alias", "view_copy")
def view(call: Call) -> Labels:
    """Merge and split axes."""
    return reshape(call.space, call.args[0], call.shape, call.reason("two axes merged into one"))


@rule("unsqueeze")
def unsqueeze(call: Call) -> Labels:
    """Add an axis of size one."""
    return insert_axis(call.args[0], call.argument(1, "dim"))


@rule("squeeze")
def squeeze(call: Call) -> Labels:
    """Drop axes of size one."""
    return reshape(call.space, call.args[0], call.shape, call.reason("squeezed"))


@rule("permute", "numpy_T")
def permute_rule(call: Call) -> Labels:
    """Reorder axes."""
    labels = call.args[0]
    return permute(labels, call.argument(1, "dims", list(range(len(labels.shape)))[::-1]))


@rule("transpose", "t", "swapaxes", "swapdims", "movedim")
def transpose(call: Call) -> Labels:
    """Swap two axes."""
    labels = call.args[0]
    order = list(range(len(labels.shape)))
    if len(call.args) > 2 and isinstance(call.args[1], int):
        first, second = call.args[1], call.args[2]
        order[first], order[second] = order[second], order[first]
    elif len(call.args) > 1:
        return _unlabelled(call)
    else:
        order.reverse()
    return permute(labels, order)


@rule("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(call: Call) -> Labels:
    """Repeat axes of size one: the new indices belong to nobody, so they follow whatever they meet."""
    labels, shape = call.args[0], call.shape
    extra = len(shape) - len(labels.shape)
    arrays = [array.map(lambda values: values.reshape((1,) * extra + values.shape)) for array in labels.arrays]
    old = (1,) * extra + labels.shape
    for axis, size in enumerate(shape):
        if old[axis] == 1 and size > 1 and not call.is_dynamic(axis):
            marks = np.full(size, call.reason("expanded value"), dtype=np.int64)
            arrays.append(single_axis(shape, axis, call.space.new(size), marks, origin=FREE))
    return Labels(shape, tuple(arrays), labels.source)


@rule("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty", "new_empty", "scalar_tensor")
def filled(call: Call) -> Labels:
    """A constant: every index is like every other and follows what it meets."""
    shape = call.shape
    name = str(call.node.target)
    value = 0 if "zeros" in name else call.args[-1] if "full" in name else 1
    mark = 0 if value == 0 and not isinstance(value, bool) else call.reason("a constant that is not zero")
    arrays = [
        single_axis(shape, axis, call.space.new(size), np.full(size, mark, dtype=np.int64), origin=FREE)
        for axis, size in enumerate(shape)
        if size > 1 and not call.is_dynamic(axis)
    ]
    return Labels(shape, tuple(arrays), "const")


@rule("repeat", "tile")
def repeat(call: Call) -> Labels:
    """Tile axes: a copy has the labels of its original."""
    labels, times = call.args[0], list(call.args[1])
    extra = len(times) - len(labels.shape)
    if any(not isinstance(time, int) for time in times):
        return _unlabelled(call)
    padded = (1,) * extra + labels.shape
    arrays = [array.map(lambda values: values.reshape((1,) * extra + values.shape)) for array in labels.arrays]
    for axis, time in enumerate(times):
        if time != 1 and padded[axis] > 1:
            arrays = [array.map(lambda v: np.concatenate([v] * time, axis) if v.shape[axis] > 1 else v) for array in arrays]
    return call.settle(Labels(call.shape, tuple(arrays), labels.source))


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Labels:
    """Repeat each index in place."""
    labels, times, axis = call.args[0], call.argument(1, "repeats"), call.argument(2, "dim")
    if not isinstance(times, int) or axis is None:
        return _unlabelled(call)
    axis = axis % len(labels.shape)
    arrays = tuple(array.map(lambda v: np.repeat(v, times, axis) if v.shape[axis] > 1 else v) for array in labels.arrays)
    return Labels(call.shape, arrays, labels.source)


def _take(call: Call, labels: Labels, axis: int, index: Any, size: int) -> Labels:
    """Return the labels of the indices ``index`` along ``axis``."""
    key = tuple(index if i == axis else slice(None) for i in range(len(labels.shape)))
    arrays = tuple(array.map(lambda v: v[key] if v.shape[axis] > 1 else v) for array in labels.arrays)
    call.findings.parts += [array.labels.ravel() for array in arrays if len(array.labels.ravel()) > 1]
    shape = (*labels.shape[:axis], size, *labels.shape[axis + 1 :])
    return call.settle(Labels(shape, arrays, labels.source))


@rule("slice", "slice_copy", "narrow")
def slice_rule(call: Call) -> Labels:
    """A run of indices."""
    labels, axis = call.args[0], call.argument(1, "dim", 0) % len(call.args[0].shape)
    size = call.shape[axis]
    if size == labels.shape[axis]:
        return replace(labels, shape=call.shape)
    start, end, step = call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1)
    if "narrow" in str(call.node.target):
        end = start + end
    return _take(call, labels, axis, slice(start, end, step), size)


@rule("select", "select_copy")
def select(call: Call) -> Labels:
    """One index of an axis, by number: that axis keeps its numbering."""
    labels = call.args[0]
    axis = call.argument(1, "dim") % len(labels.shape)
    return drop_axes(call.fixed([axis], labels, "selected by number"), [axis])


@rule("unbind", "unbind_copy")
def unbind(call: Call) -> tuple[Labels, ...]:
    """All indices of an axis, each by number."""
    labels = call.args[0]
    axis = call.argument(1, "dim", 0) % len(labels.shape)
    return (drop_axes(call.fixed([axis], labels, "selected by number"), [axis]),) * labels.shape[axis]


@rule("split", "split_with_sizes", "chunk", "tensor_split", "split_copy", "split_with_sizes_copy")
def split(call: Call) -> tuple[Labels, ...]:
    """Consecutive runs of indices."""
    labels, axis = call.args[0], call.argument(2, "dim", 0) % len(call.args[0].shape)
    parts, start = [], 0
    for shape in call.shapes:
        assert shape is not None
        parts.append(_take(call, labels, axis, slice(start, start + shape[axis]), shape[axis]))
        start += shape[axis]
    return tuple(parts)


@rule("glu")
def glu(call: Call) -> Labels:
    """First half times the sigmoid of the second: both halves are cut alike, zero where the first is."""
    labels = call.args[0]
    axis = call.argument(1, "dim", -1) % len(labels.shape)
    half = labels.shape[axis] // 2
    value, gate = (_take(call, labels, axis, slice(i * half, (i + 1) * half), half) for i in (0, 1))
    return replace(call.space.align([value, gate], call.reason("aligned with a fixed axis"))[0], shape=call.shape)


@rule("cat", "concat")
def cat(call: Call) -> Labels:
    """Join along an axis: its labels stand side by side, all other axes are aligned."""
    tensors = [labels for labels in call.args[0] if not (labels.shape == (0,))]
    axis = call.argument(1, "dim", 0) % len(call.shape)
    reason = call.reason("concatenated with a fixed axis")
    tensors = _agree(call, tensors, axis, reason)
    along = [labels.covering(axis) for labels in tensors]
    across = [Labels(_one(labels.shape, axis), tuple(a for a in labels.arrays if axis not in a.cover), labels.source) for labels in tensors]
    aligned = call.space.align(across, reason)
    source = source_of(tensors)
    call.produce(tensors, source)
    arrays = []
    for cover in dict.fromkeys(array.cover for labels in aligned for array in labels.arrays):
        found = [next((a for a in labels.arrays if a.cover == cover), None) for labels in aligned]
        marks = [a.spoilers if a is not None else np.array(call.reason("constant part")) for a in found]
        first = next(a for a in found if a is not None)
        arrays.append(LabelArray(first.labels, np.broadcast_to(np.maximum.reduce(np.broadcast_arrays(*marks)), first.labels.shape), first.origin))
    if any(array is not None for array in along):
        arrays.append(_joined(call, tensors, along, axis))
    return call.settle(Labels(call.shape, tuple(arrays), source))


def _agree(call: Call, tensors: list[Labels], axis: int, reason: int) -> list[Labels]:
    """Unless all parts have the same joint array along ``axis``, joint arrays become fixed there, so that their other axes stay free."""
    covers = {array.cover if (array := labels.covering(axis)) is not None else () for labels in tensors}
    joint = [cover for cover in covers if len(cover) > 1]
    if not joint or len(covers) == 1:
        return tensors
    return [call.space.fix_axes(labels, [axis], reason) if _is_joint(labels, axis) else labels for labels in tensors]


def _is_joint(labels: Labels, axis: int) -> bool:
    array = labels.covering(axis)
    return array is not None and len(array.cover) > 1


def _one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _only(call: Call, labels: Labels, axis: int, reason: int) -> LabelArray | None:
    """The array along ``axis``, united along every other axis it covers."""
    array = labels.covering(axis)
    for other in array.cover if array is not None else ():
        if other != axis:
            assert array is not None
            array = call.space.reduce(array, other, reason)
    return array


def _joined(call: Call, tensors: list[Labels], along: list[LabelArray | None], axis: int) -> LabelArray:
    labels, marks = [], []
    for tensor, array in zip(tensors, along, strict=True):
        if array is None:  # this part is fixed: fresh labels that may never go
            fresh = call.space.new(tensor.shape[axis])
            call.space.fix(fresh, call.reason("part of a concatenation that is fixed"))
            array = single_axis(tensor.shape, axis, fresh, origin=FREE)
        labels.append(array.labels)
        marks.append(array.spoilers)
    origin = min(array.origin for array in along if array is not None)
    return LabelArray(np.concatenate(labels, axis), np.concatenate(marks, axis), origin)


@rule("stack")
def stack(call: Call) -> Labels:
    """Join along a new axis, which is fixed."""
    axis = call.argument(1, "dim", 0) % len(call.shape)
    reason = call.reason("stacked with a fixed axis")
    aligned = call.space.align(list(call.args[0]), reason)
    call.produce(aligned, source_of(aligned))
    arrays = []
    for cover in dict.fromkeys(array.cover for labels in aligned for array in labels.arrays):
        found = [next(a for a in labels.arrays if a.cover == cover) for labels in aligned]
        arrays.append(LabelArray(found[0].labels, np.maximum.reduce([a.spoilers for a in found]), min(a.origin for a in found)))
    return insert_axis_sized(Labels(aligned[0].shape, tuple(arrays), source_of(aligned)), axis, call.shape)


def insert_axis_sized(labels: Labels, axis: int, shape: tuple[int, ...]) -> Labels:
    """Insert an axis that nothing covers, of the size ``shape`` has there."""
    return replace(insert_axis(labels, axis), shape=shape)


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> Labels:
    """Padding with a constant: new indices of nobody."""
    labels, widths = call.args[0], list(call.args[1])
    value = call.argument(2, "value", 0) or 0
    mark = 0 if value == 0 else call.reason("padded with a constant that is not zero")
    ndim = len(labels.shape)
    for i in range(0, len(widths), 2):
        axis = ndim - 1 - i // 2
        if (widths[i], widths[i + 1]) == (0, 0) or labels.shape[axis] == 1:
            continue
        array = _only(call, labels, axis, call.reason("padded"))
        if array is None:
            continue
        pieces = [_padding(call, labels.shape, axis, widths[i], mark), array, _padding(call, labels.shape, axis, widths[i + 1], mark)]
        pieces = [piece for piece in pieces if piece is not None]
        joined = LabelArray(np.concatenate([p.labels for p in pieces], axis), np.concatenate([p.spoilers for p in pieces], axis), array.origin)  # type: ignore[union-attr]
        labels = replace(labels, arrays=(*[a for a in labels.arrays if axis not in a.cover], joined))
    shape = call.shape
    if mark:
        labels = spoiled(labels, mark)
    return replace(labels, shape=shape)


def _padding(call: Call, shape: tuple[int, ...], axis: int, width: int, mark: int) -> LabelArray | None:
    if width <= 0:
        return None
    return single_axis(shape, axis, call.space.new(width), np.full(width, mark, dtype=np.int64), origin=FREE)


@rule("flip", "roll")
def along_fixed(call: Call) -> Labels:
    """Indices move along the given axes, which must stay whole; all others pass."""
    labels = call.args[0]
    axes = call.args[-1] if len(call.args) > 1 else list(range(len(labels.shape)))
    return call.fixed([axes] if isinstance(axes, int) else list(axes), labels, "indices reordered by position")


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Labels:
    """Channels become pixels: the r*r channels of one output channel go together."""
    labels, factor = call.args[0], call.args[1]
    lead, (channels, height, width) = labels.shape[:-3], labels.shape[-3:]
    reason = call.reason("channels become image positions")
    labels = call.fixed([-1, -2], labels, "image position")
    if "unshuffle" in str(call.node.target):
        spread = (*lead, channels, height // factor, factor, width // factor, factor)
        order = [*range(len(lead)), len(lead), len(lead) + 2, len(lead) + 4, len(lead) + 1, len(lead) + 3]
    else:
        spread = (*lead, channels // factor**2, factor, factor, height, width)
        order = [*range(len(lead)), len(lead), len(lead) + 3, len(lead) + 1, len(lead) + 4, len(lead) + 2]
        split_labels = reshape(call.space, labels, spread, reason)
        fixed = call.space.fix_axes(split_labels, [len(lead) + 1, len(lead) + 2], reason)
        return reshape(call.space, permute(fixed, order), call.shape, reason)
    return reshape(call.space, permute(reshape(call.space, labels, spread, reason), order), call.shape, reason)


@rule("index_select", "index", "embedding", "gather", "take_along_dim")
def indexed(call: Call) -> Labels:
    """Indexing by data: the indexed axes are fixed, trailing axes of a table pass through."""
    name = str(call.node.target)
    table = call.args[0]
    reason = call.reason("indexed by data")
    if "embedding" in name:
        index = call.args[1]
        call.space.fix_all(index, reason)
        labels = call.space.fix_axes(table, [0], reason)
        call.produce([labels], "data")
        arrays = tuple(a.map(lambda v: v.reshape((1,) * len(index.shape) + v.shape[1:])) for a in labels.arrays)
        return Labels(call.shape, arrays, "data")
    if "index_select" in name:
        axis = call.args[1] % len(table.shape)
        return replace(call.space.fix_axes(table, [axis], reason), shape=call.shape)
    positions = [i for i, index in enumerate(call.args[1]) if index is not None] if isinstance(call.args[1], (list, tuple)) else []
    if len(positions) == 0 or positions != list(range(positions[0], positions[0] + len(positions))):
        return _unlabelled(call)
    for index in call.args[1]:
        if index is not None:
            call.space.fix_all(index, reason)
    labels = drop_axes(call.space.fix_axes(table, positions, reason), positions)
    added = len(call.shape) - len(labels.shape)
    arrays = tuple(a.map(lambda v: v.reshape(v.shape[: positions[0]] + (1,) * added + v.shape[positions[0] :])) for a in labels.arrays)
    sources = [item for item in call.all_tensors()]
    call.produce([labels], source_of(sources))
    return Labels(call.shape, arrays, source_of(sources))


def _unlabelled(call: Call) -> Labels:
    """Fix everything that comes in; nothing is removable in what goes out."""
    for labels in call.all_tensors():
        call.space.fix_all(labels, call.reason("a form of this operator without a rule"))
    return Labels(call.shape, (), source_of(call.all_tensors()))
