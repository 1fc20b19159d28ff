"""Norms and softmax: what is normalised over is fixed; channels end at zero when scale and shift do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geta_nb.groups.labels import NOT_FINITE, UNSTEADY, Ints, LabelArray, Labels
from geta_nb.groups.operators.axes import along, spoiled
from geta_nb.groups.operators.buffers import note_affine
from geta_nb.groups.operators.registry import Call, SizeArgument, rule
from geta_nb.groups.reshaping import reshape


def affine(call: Call, data: Labels, vectors: list[Labels | None], *, keeps_zero: bool, axis: int = 1) -> Labels:
    """Return a normalised value times scale plus shift; zero when both are, or when a zero input passes unshifted.

    Args:
        vectors: scale, shift, and further statistics along ``axis``; None where there is none.
        keeps_zero: whether a zero input is normalised to zero.
    """
    shaped = [along(vector, len(data.shape), axis) if vector is not None else None for vector in vectors]
    aligned = iter(call.space.align([data, *(item for item in shaped if item is not None)], call.reason("aligned with a fixed axis")))
    data = next(aligned)
    weight, bias, *others = [None if item is None else next(aligned) for item in shaped]
    call.produce([item for item in (weight, bias, *others) if item is not None], "data")
    arrays = []
    for array in data.arrays:
        zero = (_marks(weight, array) == 0) if weight is not None else np.zeros(array.labels.shape, dtype=bool)
        if keeps_zero:
            zero = zero | (array.spoilers == 0)
        if bias is not None:
            zero = zero & (_marks(bias, array) == 0)
        note_affine(call, [bias] if keeps_zero else [weight, bias], array, ~zero)
        text = "normalised without a scale that can be zeroed" if weight is None else "normalised"
        numbers = [item for item in (weight, bias, *others) if item is not None]
        constant = np.logical_and.reduce([array.spoilers < UNSTEADY, *(_marks(item, array) < UNSTEADY for item in numbers)])
        marks = np.where(zero, 0, call.reason(text) + UNSTEADY * ~constant)
        marks = np.where(array.spoilers >= NOT_FINITE, array.spoilers, marks)
        arrays.append(LabelArray(array.labels, marks, array.origin))
    return replace(data, arrays=tuple(arrays))


def _marks(labels: Labels, like: LabelArray) -> Ints:
    found = next((array for array in labels.arrays if array.cover == like.cover), None)
    return found.spoilers if found is not None else np.full(like.labels.shape, UNSTEADY, dtype=np.int64)


def _outputs(call: Call, out: Labels) -> Any:
    """The normalised value, and nothing for the statistics that some forms return as well."""
    return (out, *[None] * (len(call.shapes) - 1)) if call.several else out


@rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit",
      "_batch_norm_no_update", "_batch_norm_with_update")  # fmt: skip
def batch_norm(call: Call) -> Any:
    """Per-channel statistics: channels pass; they end at zero when scale and shift do."""
    data = call.args[0]
    vectors = [item if isinstance(item, Labels) else None for item in call.args[1:5]]
    if vectors[2] is None:  # statistics of this batch: taken over every other axis
        data = call.fixed([axis for axis in range(len(data.shape)) if axis != 1], data, "normalised over")
    return _outputs(call, affine(call, data, vectors, keeps_zero=False))


@rule("instance_norm")
def instance_norm(call: Call) -> Labels:
    """Statistics per image and channel: a zero channel stays at its shift."""
    data = call.args[0]
    vectors = [item if isinstance(item, Labels) else None for item in call.args[1:5]]
    data = call.fixed(range(2, len(data.shape)), data, "normalised over")
    return affine(call, data, vectors, keeps_zero=vectors[2] is None)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Any:
    """Statistics over the channels of a norm group: only whole norm groups may go."""
    native = call.name == "native_group_norm"
    position = 6 if native else 1
    groups = int(call.args[position])
    vectors = [call.argument(1 if native else 2, "weight"), call.argument(2 if native else 3, "bias")]
    data = call.fixed(range(2, len(call.args[0].shape)), call.args[0], "normalised over")
    if native:
        call.findings.sizes.append(SizeArgument(call.node, 4, data, 1))
    whole = _by_group(call, data, groups, position)
    out = affine(call, whole, vectors, keeps_zero=True)
    return _outputs(call, call.settle(_by_group(call, out, groups)))  # once more for what scale and shift brought in


def _by_group(call: Call, labels: Labels, groups: int, position: int | None = None) -> Labels:
    """Return channels that live and die by norm group; ``position``: of the argument that counts the groups."""
    shape, reason = labels.shape, call.reason("normalised over")
    split = reshape(call.space, labels, (shape[0], groups, shape[1] // groups, *shape[2:]), reason)
    split = call.space.fix_axes(split, [2], reason)
    if position is not None:
        call.findings.sizes.append(SizeArgument(call.node, position, split, 1))
    return reshape(call.space, split, shape, reason)


@rule("rms_norm", "_fused_rms_norm")
def rms_norm(call: Call) -> Any:
    """Divided by the root of a mean of squares over the last axes: a zero channel adds nothing to it and stays zero, so it may go.

    Of a joint axis (head, dimension) whole heads go.
    """
    data, dims = call.args[0], len(call.args[1])
    axis, weight = len(data.shape) - 1, call.argument(2, "weight")
    if dims == 1 and call.average(data, [axis]):
        return _outputs(call, affine(call, data, [weight, None], keeps_zero=True, axis=axis))
    return _normalised(call, data, dims, weight, None)


@rule("layer_norm", "native_layer_norm")
def layer_norm(call: Call) -> Any:
    """Normalised over the last axes: fixed, unless approximate; scale and shift with them. A zero elsewhere becomes the shift."""
    data, dims = call.args[0], len(call.args[1])
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    if dims == 1 and weight is not None and call.approximate(data, len(data.shape) - 1):
        return _outputs(call, affine(call, data, [weight, bias], keeps_zero=False, axis=len(data.shape) - 1))
    return _normalised(call, data, dims, weight, bias)


def _normalised(call: Call, data: Labels, dims: int, weight: Labels | None, bias: Labels | None) -> Any:
    """Return the outputs of a norm whose last ``dims`` axes stay as they are."""
    out = call.fixed(range(len(data.shape) - dims, len(data.shape)), data, "normalised over")
    for item in (weight, bias):
        if isinstance(item, Labels):
            call.space.fix_all(item, call.reason("normalised over"))
    if isinstance(bias, Labels):
        out = spoiled(out, call.reason("adds a bias"))
    return _outputs(call, out)


@rule("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax")
def softmax(call: Call) -> Labels:
    """Sums to one along its axis: fixed there, zero nowhere."""
    return spoiled(call.fixed([call.argument(1, "dim", -1)], call.args[0], "softmax"), call.reason("softmax"))
