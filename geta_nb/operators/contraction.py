"""Operators that multiply and sum: linear, matmul, convolution, attention. All are one: align on an extended shape, then sum some axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from torch import fx

from geta_nb.labels import LabelArray, Labels, reshape
from geta_nb.operators.registry import Call, MacCount, SizeArgument, drop_axes, insert_axis, pad_left, permute, rule, source_of, spoiled, with_shape
from geta_nb.trace import operator_name


def contract(call: Call, left: Labels, right: Labels, axes: Sequence[int], *, macs: int = 0, data: int = 0, weight: int = 1) -> Labels:
    """Return the labels of sum over ``axes`` of ``left * right``; both have the same number of axes.

    Labels that are summed over may go only where a factor is zero; joint labels are united along a summed axis, so that whole heads go.
    ``macs``: a further factor of the multiply-accumulates (0: do not count); ``data``, ``weight``: positions of the operands.
    """
    axes = [axis % len(left.shape) for axis in axes]
    shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape, strict=True))
    pair = call.space.align([left, right], call.reason("aligned with a fixed axis"))
    if macs:
        _count(call, pair, shape, macs, data, weight)
    source = source_of(pair)
    covers = dict.fromkeys(array.cover for labels in pair for array in labels.arrays)
    kept: list[LabelArray] = []
    for cover in covers:
        found = [(labels, array) for labels in pair for array in labels.arrays if array.cover == cover]
        if set(cover) <= set(axes):
            _sum_over(call, found)
            continue
        merged = _product(found)
        for axis in set(cover) & set(axes):
            reduced = call.space.reduce(merged, axis, call.reason("summed over together with a removable axis"))
            assert reduced is not None
            merged = reduced
        kept.append(merged)
        if source == "data":
            call.findings.produced += [array.labels.ravel() for labels, array in found if labels.source == "param"]
    return drop_axes(Labels(shape, tuple(kept), source), axes)


def _sum_over(call: Call, found: list[tuple[Labels, LabelArray]]) -> None:
    """Check that what is summed over is zero once removed; a weight's own columns do not count, they are not masked."""
    values = [(labels, array) for labels, array in found if labels.source != "param"]
    if not values:  # a product of parameters: the rows of the first are the ones to zero
        values = found[:1]
        call.findings.produced.append(values[0][1].labels.ravel())
    call.space.require_zero(_product(values))


def _product(found: list[tuple[Labels, LabelArray]]) -> LabelArray:
    """A product is zero where one factor is."""
    first = found[0][1]
    spoilers = first.spoilers
    for _, array in found[1:]:
        spoilers = np.where((spoilers == 0) | (array.spoilers == 0), 0, spoilers)
    return LabelArray(first.labels, spoilers, min(array.origin for _, array in found))


def _count(call: Call, pair: list[Labels], shape: tuple[int, ...], macs: int, data: int, weight: int) -> None:
    arrays = list({array.cover: array for labels in pair for array in labels.arrays}.values())
    covered = {axis for array in arrays for axis in array.cover}
    const = macs * prod(size for axis, size in enumerate(shape) if axis not in covered)
    operands = call.node.args[1] if operator_name(call.node) == "einsum" else [call.node.args[data], call.node.args[weight]]
    nodes = [node if isinstance(node, fx.Node) else None for node in operands]  # type: ignore[union-attr]
    if pair[0].source == "param" and pair[1].source != "param":
        nodes.reverse()
    call.findings.macs.append(MacCount(call.node, const, tuple(array.labels for array in arrays), nodes[1], nodes[0]))


def add_bias(call: Call, out: Labels, bias: Labels | None, axis: int) -> Labels:
    """Add a vector along ``axis``: zero only where both are."""
    if bias is None:
        return out
    form = [1] * len(out.shape)
    form[axis] = bias.shape[0]
    shaped = Labels(tuple(form), tuple(array.map(lambda values: values.reshape(form)) for array in bias.arrays), bias.source)
    first, second = call.space.align([out, shaped], call.reason("aligned with a fixed axis"))
    call.produce([second], source_of([out, second]))
    arrays = []
    for array in first.arrays:
        other = next((item for item in second.arrays if item.cover == array.cover), None)
        if other is not None:
            array = LabelArray(array.labels, np.where(array.spoilers == 0, other.spoilers, array.spoilers), array.origin)
        elif axis not in array.cover:  # a bias that does not know this axis is added to removed indices as well
            array = LabelArray(array.labels, np.full_like(array.spoilers, call.reason("adds a bias")), array.origin)
        arrays.append(array)
    return with_shape(Labels(out.shape, tuple(arrays), source_of([out, bias])), out.shape)


@rule("linear")
def linear(call: Call) -> Labels:
    """y[..., o] = sum_i x[..., i] W[o, i] + b[o]."""
    data, weight, bias = call.args[0], call.args[1], call.argument(2, "bias")
    ext = pad_left(weight, len(data.shape) + 1)
    out = contract(call, insert_axis(data, -2), ext, [-1], macs=1)
    return add_bias(call, out, bias, len(out.shape) - 1)


@rule("matmul", "mm", "bmm", "mv", "dot")
def matmul(call: Call) -> Labels:
    """y[..., m, n] = sum_k a[..., m, k] b[..., k, n]; vectors as torch.matmul treats them."""
    left, right = call.args[0], call.args[1]
    return _matmul(call, left, right, 0, 1)


def _matmul(call: Call, left: Labels, right: Labels, data: int, weight: int) -> Labels:
    drop = []
    if len(left.shape) == 1:
        left, drop = insert_axis(left, 0), [-2]
    if len(right.shape) == 1:
        right, drop = insert_axis(right, -1), [*drop, -1]
    ndim = max(len(left.shape), len(right.shape))
    left, right = pad_left(left, ndim), pad_left(right, ndim)
    right = permute(right, [*range(ndim - 2), ndim - 1, ndim - 2])
    out = contract(call, insert_axis(left, -2), insert_axis(right, -3), [-1], macs=1, data=data, weight=weight)
    return drop_axes(out, drop) if drop else out


@rule("einsum")
def einsum(call: Call) -> Labels:
    """Two operands, no letter twice in one of them: align on all letters, sum those that the output lacks."""
    equation, operands = str(call.args[0]).replace(" ", ""), call.args[1]
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or "." in equation or not _ or any(len(set(term)) != len(term) for term in terms):
        for labels in call.all_tensors():
            call.space.fix_all(labels, call.reason("a form of einsum without a rule"))
        return Labels(call.shape, (), source_of(call.all_tensors()))
    letters = output + "".join(sorted(set("".join(terms)) - set(output)))
    spread = []
    for term, labels in zip(terms, operands, strict=True):
        labels = permute(labels, [term.index(letter) for letter in letters if letter in term])
        for position, letter in enumerate(letters):
            labels = labels if letter in term else insert_axis(labels, position)
        spread.append(labels)
    summed = range(len(output), len(letters))
    return contract(call, spread[0], spread[1], list(summed), macs=1)


@rule("addmm", "baddbmm")
def addmm(call: Call) -> Labels:
    """y = bias + a @ b."""
    bias, left, right = call.args[:3]
    out = _matmul(call, left, right, 1, 2)
    if len(bias.shape) == 1:
        return add_bias(call, out, bias, len(out.shape) - 1)
    reason = call.reason("added to a product")
    first, second = call.space.align([out, pad_left(bias, len(out.shape))], reason)
    call.produce([second], source_of([first, second]))
    return spoiled(with_shape(first, out.shape), reason)


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(call: Call) -> Labels:
    """Grouped convolution as a product over [N, groups, C_out/groups, C_in/groups]; kernel and image positions are fixed axes."""
    data, weight, bias = call.args[0], call.args[1], call.argument(2, "bias")
    name = str(call.node.target)
    if "convolution" in name:
        transposed, position = bool(call.args[6]), 8
    else:
        transposed = "transpose" in name
        position = 6 if transposed else 6
    groups = int(call.argument(position, "groups", 1))
    spatial = range(2, len(call.shape))
    if len(data.shape) == len(weight.shape) - 1:
        return _unbatched(call)
    data = drop_axes(call.fixed(spatial, data, "image position"), list(spatial))
    weight = drop_axes(call.fixed(spatial, weight, "kernel position"), list(spatial))
    taps = prod(call.args[1].shape[2:]) * prod((call.args[0].shape if transposed else call.shape)[2:])
    reason = call.reason("grouped convolution")
    channels, batch = data.shape[1], data.shape[0]
    out_channels = call.shape[1]
    data = reshape(call.space, data, (batch, groups, channels // groups), reason)
    if transposed:
        weight = permute(reshape(call.space, weight, (groups, channels // groups, out_channels // groups), reason), [0, 2, 1])
    else:
        weight = reshape(call.space, weight, (groups, out_channels // groups, channels // groups), reason)
    out = contract(call, insert_axis(data, 2), insert_axis(weight, 0), [3], macs=taps)
    if groups > 1:
        call.findings.sizes.append(SizeArgument(call.node, position, out, 1))
    out = reshape(call.space, out, (batch, out_channels), reason)
    arrays = tuple(array.map(lambda values: values.reshape(values.shape + (1,) * len(spatial))) for array in out.arrays)
    return add_bias(call, Labels(call.shape, arrays, out.source), bias, 1)


def _unbatched(call: Call) -> Labels:
    """Convolution of one image without a batch axis: nothing is removable here."""
    for labels in call.all_tensors():
        call.space.fix_all(labels, call.reason("convolution without a batch axis"))
    return Labels(call.shape)


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Labels:
    """softmax(q k^T) v: heads are aligned, their dimension and the key axis are summed over, the softmax keeps no zero."""
    query, key, value = call.args[:3]
    mask = call.argument(3, "attn_mask")
    if key.shape[1] != query.shape[1] and len(query.shape) == 4:
        key, value = (_repeat_heads(item, query.shape[1] // key.shape[1]) for item in (key, value))
    scores = contract(call, insert_axis(query, -2), insert_axis(key, -3), [-1], macs=1)
    ndim = len(scores.shape)
    scores = call.fixed([ndim - 1] + ([ndim - 2] if call.argument(5, "is_causal", False) else []), scores, "softmax")
    if mask is not None:
        scores, _ = call.space.align([scores, pad_left(mask, ndim)], call.reason("aligned with an attention mask"))
    weights = spoiled(scores, call.reason("softmax"))
    value = call.fixed([ndim - 2], value, "softmax")
    value = permute(value, [*range(ndim - 2), ndim - 1, ndim - 2])
    out = contract(call, insert_axis(weights, -2), insert_axis(value, -3), [-1], macs=1, data=0, weight=2)
    return replace(out, shape=call.shape)


def _repeat_heads(labels: Labels, times: int) -> Labels:
    """Grouped-query attention: each key and value head serves ``times`` query heads."""
    arrays = tuple(
        array.map(lambda values: np.repeat(values, times, axis=1) if values.shape[1] > 1 else values) for array in labels.arrays
    )
    shape = (labels.shape[0], labels.shape[1] * times, *labels.shape[2:])
    return Labels(shape, arrays, labels.source)
