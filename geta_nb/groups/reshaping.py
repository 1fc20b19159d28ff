"""Views on labels: axes merged and split, and the canonical form of a tensor's label arrays. Beside ``labels``; operators call this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geta_nb.groups.labels import Ints, LabelArray, Labels, LabelSpace

Sizes = Sequence[int | tuple[int, ...]]
"""Size of each axis; where the network takes other ones too, a tuple of it in the example and in some others."""
Blocks = list[tuple[list[int], list[int]]]


def settle(space: LabelSpace, labels: Labels, reason: int) -> Labels:
    """Return ``labels`` in canonical form: arrays that cover nothing are fixed, constant axes of joint arrays dropped."""
    arrays = []
    for array in labels.arrays:
        for axis in array.cover:
            first = array.labels.take([0], axis)
            if len(array.cover) > 1 and np.array_equal(np.broadcast_to(first, array.labels.shape), array.labels):
                array = LabelArray(first, array.spoilers.max(axis, keepdims=True), array.origin).unsteady()
        if array.cover:
            arrays.append(array)
        else:
            space.fix(array.labels, reason)
    return replace(labels, arrays=tuple(arrays))


def reshape(
    space: LabelSpace, labels: Labels, shape: tuple[int, ...], reason: int, *, at: tuple[Sizes, Sizes] | None = None
) -> Labels:
    """Return the labels of a tensor viewed as ``shape``: axes that are merged or split take their labels along.

    Args:
        at: sizes of the axes before and after, each in the example and in others that the network takes; None: they have no others.
            Labels that would stand elsewhere where sizes are others are fixed.
    """
    arrays = list(labels.arrays)
    blocks = _blocks(*(at or (labels.shape, shape)))
    for old, new in blocks:
        touching = [array for array in arrays if any(array.labels.shape[axis] > 1 for axis in old)]
        if touching and at is not None and _is_tangled(at, old, new, {axis for array in touching for axis in array.cover}):
            for array in touching:
                space.fix(array.labels, reason)
            arrays = [array for array in arrays if not any(array is other for other in touching)]
            continue
        if len(touching) > 1:  # two independent axes become one: keep the one that belongs to parameters, outermost first
            keep = min(touching, key=lambda array: (array.origin, array.cover))
            for array in touching:
                if array is not keep:
                    space.fix(array.labels, reason)
            arrays = [array for array in arrays if array is keep or not any(array is other for other in touching)]
    viewed = [array.map(lambda values: _view(values, labels.shape, shape, blocks)) for array in arrays]
    return settle(space, Labels(shape, tuple(viewed), labels.source), reason)


def _is_tangled(at: tuple[Sizes, Sizes], old: list[int], new: list[int], covered: set[int]) -> bool:
    """Whether labelled axes become others in a way that depends on sizes: several on both sides, and a free one behind another.

    Axes in front that have no label (images, places) only count: what is behind them stays in its place.
    """
    old, new = ([axis for axis in axes if sizes[axis] != 1] for sizes, axes in zip(at, (old, new), strict=True))
    if min(len(old), len(new)) < 2:
        return False  # merged or split: each index keeps its place, however long the others are
    first = next(place for place, axis in enumerate(old) if axis in covered)
    behind = [at[0][axis] for axis in old[max(first, 1) :]] + [at[1][axis] for axis in new[1:]]
    return any(isinstance(size, tuple) for size in behind)


def _view(values: Ints, old_shape: tuple[int, ...], new_shape: tuple[int, ...], blocks: Blocks) -> Ints:
    """Reshape an array that broadcasts to ``old_shape`` so that it broadcasts to ``new_shape``, copying only the blocks it covers."""
    full, target = [1] * len(old_shape), [1] * len(new_shape)
    for old, new in blocks:
        if any(values.shape[axis] > 1 for axis in old):
            for axis in old:
                full[axis] = old_shape[axis]
            for axis in new:
                target[axis] = new_shape[axis]
    return np.broadcast_to(values, full).reshape(target)


def _blocks(old: Sizes, new: Sizes) -> Blocks:
    """Split two shapes of equal size into the finest runs of axes with equal products, for every number that a size has.

    >>> _blocks((2, 3, 4), (6, 2, 2))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a, b = np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64)
        if i < len(old):
            a, i, left = a * old[i], i + 1, [i]
        if j < len(new):
            b, j, right = b * new[j], j + 1, [j]
        while (a != b).any() and (i < len(old) or j < len(new)):
            if (a[0] <= b[0] and i < len(old)) or j >= len(new):
                a, i, left = a * old[i], i + 1, [*left, i]
            else:
                b, j, right = b * new[j], j + 1, [*right, j]
        blocks.append((left, right))
    return blocks
