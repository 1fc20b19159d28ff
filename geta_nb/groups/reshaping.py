"""Views on labels: axes merged and split, and the canonical form of a tensor's label arrays. Beside ``labels``; operators call this."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geta_nb.groups.labels import Ints, LabelArray, Labels, LabelSpace


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


def reshape(space: LabelSpace, labels: Labels, shape: tuple[int, ...], reason: int) -> Labels:
    """Return the labels of a tensor viewed as ``shape``: axes that are merged or split take their labels along."""
    arrays = list(labels.arrays)
    for old, _ in _blocks(labels.shape, shape):
        touching = [array for array in arrays if any(array.labels.shape[axis] > 1 for axis in old)]
        if len(touching) > 1:  # two independent axes become one: keep the one that belongs to parameters, outermost first
            keep = min(touching, key=lambda array: (array.origin, array.cover))
            for array in touching:
                if array is not keep:
                    space.fix(array.labels, reason)
            arrays = [array for array in arrays if array is keep or not any(array is other for other in touching)]
    viewed = [array.map(lambda values: _view(values, labels.shape, shape)) for array in arrays]
    return settle(space, Labels(shape, tuple(viewed), labels.source), reason)


def _view(values: Ints, old_shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Ints:
    """Reshape an array that broadcasts to ``old_shape`` so that it broadcasts to ``new_shape``, copying only the blocks it covers."""
    full, target = [1] * len(old_shape), [1] * len(new_shape)
    for old, new in _blocks(old_shape, new_shape):
        if any(values.shape[axis] > 1 for axis in old):
            for axis in old:
                full[axis] = old_shape[axis]
            for axis in new:
                target[axis] = new_shape[axis]
    return np.broadcast_to(values, full).reshape(target)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Split two shapes of equal size into the finest runs of axes with equal products.

    >>> _blocks((2, 3, 4), (6, 2, 2))
    [([0, 1], [0]), ([2], [1, 2])]
    """
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old):
            a, i, left = old[i], i + 1, [i]
        if j < len(new):
            b, j, right = new[j], j + 1, [j]
        while a != b:
            if (a < b and i < len(old)) or j >= len(new):
                a, i, left = a * old[i], i + 1, [*left, i]
            else:
                b, j, right = b * new[j], j + 1, [*right, j]
        blocks.append((left, right))
    return blocks
