"""Operators that only move or repeat values: what they do to a tensor they do to its labels."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from geta_nb.groups.labels import CONSTANT, FREE, UNSTEADY, LabelArray, Labels, single_axis
from geta_nb.groups.operators.axes import drop_axes, insert_axis, pad_left, permute
from geta_nb.groups.operators.registry import Call, rule
from geta_nb.groups.reshaping import reshape


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "_reshape_alias", "view_copy", "squeeze")
def view(call: Call) -> Labels:
    """Merge and split axes, drop those of size one."""
    return reshape(call.space, call.args[0], call.shape, call.reason("two axes merged into one"), at=call.sizes_around)


@rule("unsqueeze")
def unsqueeze(call: Call) -> Labels:
    """Add an axis of size one."""
    return insert_axis(call.args[0], call.argument(1, "dim"))


@rule("permute", "numpy_T")
def permute_rule(call: Call) -> Labels:
    """Reorder axes."""
    labels = call.args[0]
    return permute(labels, call.argument(1, "dims", list(range(len(labels.shape)))[::-1]))


@rule("transpose", "t", "swapaxes", "swapdims")
def transpose(call: Call) -> Labels:
    """Swap two axes."""
    labels = call.args[0]
    order = list(range(len(labels.shape)))
    if len(call.args) > 2:
        first, second = call.args[1], call.args[2]
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    return permute(labels, order)


@rule("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(call: Call) -> Labels:
    """Repeat axes of size one: the new indices belong to nobody, so they follow whatever they meet."""
    shape = call.shape
    labels = pad_left(call.args[0], len(shape))
    return Labels(shape, (*labels.arrays, *_copies(call, labels)), labels.source)


def _copies(call: Call, labels: Labels) -> list[LabelArray]:
    """Labels of nobody along the axes that had one index and have more now."""
    arrays = []
    for axis, size in enumerate(call.shape):
        if labels.shape[axis] == 1 and size > 1 and not call.is_batch(axis):
            marks = np.full(size, UNSTEADY + call.reason("expanded value"), dtype=np.int64)
            arrays.append(single_axis(call.shape, axis, call.space.new(size), marks, origin=FREE))
    return arrays


@rule("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty", "new_empty", "scalar_tensor")
def filled(call: Call) -> Labels:
    """A constant: every index is like every other and follows what it meets."""
    shape = call.shape
    value = 0 if "zeros" in call.name or "empty" in call.name else call.args[-1] if "full" in call.name else 1
    mark = 0 if value == 0 else call.reason("a constant that is not zero")
    arrays = [
        single_axis(shape, axis, call.space.new(size), np.full(size, mark, dtype=np.int64), origin=FREE)
        for axis, size in enumerate(shape)
        if size > 1 and not call.is_batch(axis)
    ]
    return Labels(shape, tuple(arrays), "const")


@rule("arange")
def counted(call: Call) -> Labels:
    """Numbers in a row: each index has a number of its own, which is left out when the index is (one slope for each head)."""
    if call.is_dynamic(0) or call.shape[0] < 2:
        return Labels(call.shape, (), "const")
    marks = np.full(call.shape[0], call.reason("a constant that is not zero"), dtype=np.int64)
    return Labels(call.shape, (single_axis(call.shape, 0, call.space.new(call.shape[0]), marks, origin=CONSTANT),), "const")


@rule("repeat", "tile")
def repeat(call: Call) -> Labels:
    """Tile axes: a copy has the labels of its original; copies of one index belong to nobody, as those of ``expand``."""
    shape, times = call.shape, list(call.args[1])
    times = [1] * (len(shape) - len(times)) + times
    labels = pad_left(call.args[0], len(shape))
    arrays = (*labels.arrays, *_copies(call, labels))
    for axis, time in enumerate(times):
        if time != 1 and labels.shape[axis] > 1:
            arrays = tuple(a.map(lambda v: np.concatenate([v] * time, axis) if v.shape[axis] > 1 else v) for a in arrays)  # noqa: B023
    return call.settle(Labels(shape, arrays, labels.source))


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Labels:
    """Repeat each index in place."""
    labels, times, axis = call.args[0], call.argument(1, "repeats"), call.argument(2, "dim")
    if not isinstance(times, int) or (axis is None and len(labels.shape) != 1):
        return cast(Labels, call.unlabelled())
    axis = int(axis or 0) % len(labels.shape)
    arrays = tuple(array.map(lambda v: np.repeat(v, times, axis) if v.shape[axis] > 1 else v) for array in labels.arrays)
    return Labels(call.shape, arrays, labels.source)


@rule("flip", "roll")
def reordered(call: Call) -> Labels:
    """Indices move along the given axes, which must stay whole; all others pass."""
    labels = call.args[0]
    axes = call.argument(1, "dims") if call.name == "flip" else call.argument(2, "dims", [])
    axes = [axes] if isinstance(axes, int) else list(axes)
    return call.fixed(axes or range(len(labels.shape)), labels, "indices reordered by position")


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Labels:
    """Channels become pixels: the r*r channels of one output channel go together."""
    factor = call.args[1]
    labels = call.fixed([-1, -2], call.args[0], "image position")
    *lead, channels, height, width = labels.shape
    n, reason = len(lead), call.reason("channels become image positions")
    split = reshape(call.space, labels, (*lead, channels // factor**2, factor, factor, height, width), reason)
    split = call.space.fix_axes(split, [n + 1, n + 2], reason)
    return reshape(call.space, permute(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2]), call.shape, reason)


@rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Labels:
    """Pixels become channels: all that one channel gives go with it."""
    factor = call.args[1]
    labels = call.fixed([-1, -2], call.args[0], "image position")
    *lead, channels, height, width = labels.shape
    n, reason = len(lead), call.reason("image positions become channels")
    split = reshape(call.space, labels, (*lead, channels, height // factor, factor, width // factor, factor), reason)
    return reshape(call.space, permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3]), call.shape, reason)


@rule("view_as_real")
def view_as_real(call: Call) -> Labels:
    """Real and imaginary part become a last axis, which is fixed."""
    return replace(insert_axis(call.args[0], -1), shape=call.shape)


@rule("view_as_complex")
def view_as_complex(call: Call) -> Labels:
    """The last axis becomes real and imaginary part: whole numbers go."""
    return drop_axes(call.fixed([-1], call.args[0], "real and imaginary part"), [-1])
