"""Small steps on the axes of labels that several rules share. No rule is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geta_nb.groups.labels import Labels


def pad_left(labels: Labels, ndim: int) -> Labels:
    """Return labels with leading axes of size one, as broadcasting adds them."""
    extra = ndim - len(labels.shape)
    if extra < 0:
        raise ValueError(f"{labels.shape} has more than {ndim} axes")
    arrays = tuple(array.map(lambda values: values.reshape((1,) * extra + values.shape)) for array in labels.arrays)
    return Labels((1,) * extra + labels.shape, arrays, labels.source)


def insert_axis(labels: Labels, axis: int) -> Labels:
    """Return labels with an axis of size one put in at ``axis``."""
    axis = axis if axis >= 0 else len(labels.shape) + 1 + axis
    arrays = tuple(array.map(lambda values: np.expand_dims(values, axis)) for array in labels.arrays)
    return Labels((*labels.shape[:axis], 1, *labels.shape[axis:]), arrays, labels.source)


def drop_axes(labels: Labels, axes: Sequence[int]) -> Labels:
    """Return labels without ``axes``, along which no array may vary."""
    kept = [axis for axis in range(len(labels.shape)) if axis not in {axis % len(labels.shape) for axis in axes}]
    arrays = tuple(array.map(lambda values: values.reshape([values.shape[axis] for axis in kept])) for array in labels.arrays)
    return Labels(tuple(labels.shape[axis] for axis in kept), arrays, labels.source)


def permute(labels: Labels, order: Sequence[int]) -> Labels:
    """Return labels with axes in a new order."""
    order = [axis % len(labels.shape) for axis in order]
    arrays = tuple(array.map(lambda values: values.transpose(order)) for array in labels.arrays)
    return Labels(tuple(labels.shape[axis] for axis in order), arrays, labels.source)


def along(labels: Labels, ndim: int, axis: int) -> Labels:
    """Return a vector's labels as those of a tensor of ``ndim`` axes that varies along ``axis`` only."""
    form = [1] * ndim
    form[axis] = labels.shape[0]
    return Labels(tuple(form), tuple(array.map(lambda values: values.reshape(form)) for array in labels.arrays), labels.source)


def spoiled(labels: Labels, reason: int) -> Labels:
    """Return labels whose values are no longer zero when removed."""
    return replace(labels, arrays=tuple(array.spoiled(reason) for array in labels.arrays))
