"""Operators that put tensors side by side: concatenation, stacking, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geta_nb.groups.labels import FREE, UNSTEADY, LabelArray, Labels, single_axis, sources_of
from geta_nb.groups.operators.axes import insert_axis, spoiled
from geta_nb.groups.operators.registry import Call, rule


@rule("cat", "concat")
def cat(call: Call) -> Labels:
    """Join along an axis: its labels stand side by side, all other axes are aligned."""
    axis = int(call.argument(1, "dim", 0)) % len(call.shape)
    tensors = [labels for labels in call.args[0] if labels.shape != (0,)]  # of which torch takes no notice
    filled = [labels for labels in tensors if labels.shape[axis] > 0]
    empty = [labels for labels in tensors if labels.shape[axis] == 0]
    return join(call, filled, axis, call.shape, empty) if filled else join(call, call.args[0][:1], axis, call.shape)


def join(call: Call, tensors: list[Labels], axis: int, shape: tuple[int, ...], empty: Sequence[Labels] = ()) -> Labels:
    """Return the labels, of ``shape``, of tensors put side by side along ``axis``; other axes agree, those of ``empty`` parts too."""
    reason = call.reason("concatenated with a fixed axis")
    tensors = _agree(call, tensors, axis, reason)
    along = [labels.covering(axis) for labels in tensors]
    across = [_without(labels, axis) for labels in (*tensors, *empty)]
    aligned = call.space.align(across, reason)[: len(tensors)]
    source = sources_of(tensors)
    call.produce(aligned, source)
    arrays = merged(aligned, call.reason("constant part"))
    if any(array is not None for array in along):
        arrays.append(_joined(call, tensors, along, axis))
        if source == "data":
            call.produce([Labels(t.shape, (a,), t.source) for t, a in zip(tensors, along, strict=True) if a is not None], source)
    return call.settle(Labels(shape, tuple(arrays), source))


def _without(labels: Labels, axis: int) -> Labels:
    """Labels of all axes but one."""
    arrays = tuple(array for array in labels.arrays if axis not in array.cover)
    return Labels((*labels.shape[:axis], 1, *labels.shape[axis + 1 :]), arrays, labels.source)


def merged(aligned: Sequence[Labels], constant: int) -> list[LabelArray]:
    """One array for each cover; zero where all operands are, and no constant: each operand may have its own."""
    arrays = []
    for cover in dict.fromkeys(array.cover for labels in aligned for array in labels.arrays):
        found = [next((array for array in labels.arrays if array.cover == cover), None) for labels in aligned]
        first = next(array for array in found if array is not None)
        marks = [array.spoilers if array is not None else np.full_like(first.spoilers, UNSTEADY + constant) for array in found]
        origin = min(array.origin for array in found if array is not None)
        arrays.append(LabelArray(first.labels, np.maximum.reduce(marks), origin).unsteady())
    return arrays


def _agree(call: Call, tensors: list[Labels], axis: int, reason: int) -> list[Labels]:
    """Unless all parts have the same joint array along ``axis``, joint arrays become fixed there, so that their other axes stay free."""
    found = [labels.covering(axis) for labels in tensors]
    covers = [array.cover if array is not None else () for array in found]
    if len(set(covers)) == 1 or max(map(len, covers)) < 2:
        return tensors
    return [call.space.fix_axes(t, [axis], reason) if len(cover) > 1 else t for t, cover in zip(tensors, covers, strict=True)]


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
    axis = int(call.argument(1, "dim", 0)) % len(call.shape)
    aligned = call.space.align(list(call.args[0]), call.reason("stacked with a fixed axis"))
    source = sources_of(aligned)
    call.produce(aligned, source)
    labels = Labels(aligned[0].shape, tuple(merged(aligned, call.reason("constant part"))), source)
    return replace(insert_axis(labels, axis), shape=call.shape)


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> Labels:
    """Padding with a constant adds indices of nobody; an axis padded by copies, or cropped, is fixed."""
    labels: Labels = call.args[0]
    widths = list(call.args[1])
    constant = call.name != "pad" or call.argument(2, "mode", "constant") == "constant"
    value = call.argument(2, "value", 0) if call.name != "pad" else call.argument(3, "value")
    mark = call.reason("padded with a constant that is not zero") if constant and value else 0
    for i in range(0, len(widths), 2):
        axis = len(labels.shape) - 1 - i // 2
        before, after = widths[i : i + 2]
        if (before, after) == (0, 0):
            continue
        if not constant or min(before, after) < 0:
            labels = call.fixed([axis], labels, "padded by position")
        elif labels.covering(axis) is not None:
            labels = _padded(call, labels, axis, (before, after), mark)
    if mark:
        labels = spoiled(labels, mark)
    return replace(labels, shape=call.shape)


def _padded(call: Call, labels: Labels, axis: int, widths: tuple[int, int], mark: int) -> Labels:
    """Add labels of nobody before and after the array along ``axis``, united along every other axis that it covers."""
    array = labels.covering(axis)
    assert array is not None
    for other in array.cover:
        if other != axis:
            reduced = call.space.reduce(array, other, call.reason("padded"))
            assert reduced is not None
            array = reduced
    parts = [array]
    for position, width in zip((0, len(parts) + 1), widths, strict=True):
        if width:
            marks = np.full(width, UNSTEADY * bool(mark) + mark, dtype=np.int64)
            parts.insert(position, single_axis(labels.shape, axis, call.space.new(width), marks, origin=FREE))
    joined = LabelArray(np.concatenate([p.labels for p in parts], axis), np.concatenate([p.spoilers for p in parts], axis), array.origin)
    return replace(labels, arrays=(*(a for a in labels.arrays if axis not in a.cover), joined))
