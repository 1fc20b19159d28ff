"""Operators that multiply and sum: linear, matmul, einsum. All are one: align on an extended shape, then sum some axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch import fx

from geta_nb.groups.labels import FREE, NOT_FINITE, SHARED, UNSTEADY, LabelArray, Labels, product_spoilers, sources_of
from geta_nb.groups.operators.axes import along, drop_axes, insert_axis, pad_left, permute, spoiled
from geta_nb.groups.operators.buffers import curable, note_cures
from geta_nb.groups.operators.registry import Call, Fold, MacCount, rule

Operands = tuple[fx.Node | None, fx.Node | None]


def contract(
    call: Call, left: Labels, right: Labels, axes: Sequence[int], *, macs: int = 0, operands: Operands | None = None, folds: bool = False
) -> Labels:
    """Return the labels of sum over ``axes`` of ``left * right``; both have the same number of axes.

    Labels that are summed over may go only where a factor is zero; joint labels are united along a summed axis, so that whole heads go.

    Args:
        macs: a further factor of the multiply-accumulates; 0: do not count them.
        operands: nodes of left and right; default: the first two arguments.
        folds: whether a bias of the node's own can take over what removed channels give as constants.
    """
    axes = [axis % len(left.shape) for axis in axes]
    shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape, strict=True))
    choice, call.products = (call.node, call.products), call.products + 1
    if left.source == right.source == "data":
        left, right = _whole_units(call, left, right, axes), _whole_units(call, right, left, axes)
        if choice in call.findings.inner:
            left, right = _inner_units(call, left, axes), _inner_units(call, right, axes)
    pair = call.space.align([left, right], call.reason("aligned with a fixed axis"))
    if macs:
        _count(call, pair, shape, macs, operands or (_node(call, 0), _node(call, 1)))
    source = sources_of(pair)
    kept: list[LabelArray] = []
    for cover in dict.fromkeys(array.cover for labels in pair for array in labels.arrays):
        found = [(labels, array) for labels in pair for array in labels.arrays if array.cover == cover]
        if set(cover) <= set(axes):
            _sum_over(call, found, folds)
            continue
        merged = _product([array for _, array in found])
        if left.source == right.source == "data" and (len(found) == 1 or any(array.origin == FREE for _, array in found)):
            merged = _shared(merged)
        if left.source == right.source == "data" and len(found) == 2 and not set(cover).isdisjoint(axes):
            call.findings.choices.append((choice, merged.labels.ravel()))
        for axis in set(cover) & set(axes):
            reduced = call.space.reduce(merged, axis, call.reason("summed over together with a removable axis"))
            assert reduced is not None
            merged = reduced
        kept.append(merged)
        call.produce([Labels(labels.shape, (array,), labels.source) for labels, array in found], source)
    return drop_axes(Labels(shape, tuple(kept), source), axes)


def _whole_units(call: Call, labels: Labels, other: Labels, axes: Sequence[int]) -> Labels:
    """Unite what is summed over where the other factor lacks the axes that stay (one key for all heads): whole heads go."""
    for axis in axes:
        array, partner = labels.covering(axis), other.covering(axis)
        if array is not None and not set(array.cover) <= set(axes) and (partner is None or partner.cover != array.cover):
            labels = call.fixed([axis], labels, "summed over together with a removable axis")
    return labels


def _inner_units(call: Call, labels: Labels, axes: Sequence[int]) -> Labels:
    """Unite along the axes that stay what is summed over too: where no head may go, a dimension of all heads may."""
    for array in labels.arrays:
        outer = [axis for axis in array.cover if axis not in axes]
        if len(outer) < len(array.cover):
            labels = call.fixed(outer, labels, "summed over together with an axis that stays")
    return labels


def _sum_over(call: Call, found: list[tuple[Labels, LabelArray]], folds: bool) -> None:
    """Check that what is summed over is zero once removed; a weight's own columns need not be: they are not masked, only finite."""
    if folds:
        found = [(labels, _folded(call, array) if labels.source == "data" else array) for labels, array in found]
    values = [array for labels, array in found if labels.source != "param"]
    columns = [array for labels, array in found if labels.source == "param"]
    others = [(labels.source, array) for labels, array in found if labels.source != "param"]
    if columns and all(source == "const" and curable(call, array.spoilers).all() for source, array in others):
        # of parameters and of buffers of one number a channel (not of a table's features): those of the first are zeroed
        (call.findings.lengths if values else call.findings.produced).append(columns[0].labels.ravel())
        values = columns[:1]
    product = _product(values)
    shared = (product.spoilers & SHARED > 0) & (product.spoilers < NOT_FINITE)
    if columns and shared.any():
        call.findings.produced += [array.labels[shared] for array in columns]
        product = LabelArray(product.labels, np.where(shared, 0, product.spoilers), product.origin)
    call.space.require_zero(product)
    for _, array in found:
        call.space.require_zero(LabelArray(array.labels, np.where(array.spoilers >= NOT_FINITE, array.spoilers, 0)))


def _folded(call: Call, array: LabelArray) -> LabelArray:
    """Leave constants of removed channels to the bias, and write them down."""
    if not array.steady.any():
        return array
    call.findings.folds.append(Fold(call.node, array.labels.ravel(), array.steady.ravel()))
    return LabelArray(array.labels, np.where(array.steady, 0, array.spoilers), array.origin)


def has_own_bias(call: Call, weight: Labels) -> bool:
    """Whether a linear or convolution node adds a bias parameter that nothing else reads to a product with parameters."""
    bias = call.node.args[2] if len(call.node.args) > 2 else call.node.kwargs.get("bias")
    return weight.source == "param" and isinstance(bias, fx.Node) and bias in call.findings.sole


def _shared(array: LabelArray) -> LabelArray:
    """Mark what is not zero where the other factor is the same for every index: one value head for all, so nothing of it can be zeroed."""
    loose = (array.spoilers > 0) & (array.spoilers < NOT_FINITE)
    marks = np.where(loose, array.spoilers | UNSTEADY | SHARED, array.spoilers)
    return LabelArray(array.labels, marks, array.origin)


def _product(arrays: Sequence[LabelArray]) -> LabelArray:
    """A product is zero where one factor is."""
    spoilers = arrays[0].spoilers
    for array in arrays[1:]:
        spoilers = product_spoilers(spoilers, array.spoilers)
    return LabelArray(arrays[0].labels, spoilers, min(array.origin for array in arrays))


def _node(call: Call, position: int) -> fx.Node | None:
    value = call.node.args[position] if position < len(call.node.args) else None
    return value if isinstance(value, fx.Node) else None


def _count(call: Call, pair: list[Labels], shape: tuple[int, ...], macs: int, operands: Operands) -> None:
    arrays = list({array.cover: array for labels in pair for array in labels.arrays}.values())
    covered = {axis for array in arrays for axis in array.cover}
    const = macs * prod(size for axis, size in enumerate(shape) if axis not in covered)
    data, weight = operands
    if pair[0].source == "param" and pair[1].source != "param":
        data, weight = weight, data
    call.findings.macs.append(MacCount(call.node, const, tuple(array.labels for array in arrays), weight, data))


def add_bias(call: Call, out: Labels, bias: Labels | None, axis: int) -> Labels:
    """Add a vector along ``axis``: zero only where both are."""
    if bias is None:
        return out
    shaped = along(bias, len(out.shape), axis)
    first, second = call.space.align([out, shaped], call.reason("aligned with a fixed axis"))
    source = sources_of([out, bias])
    call.produce([first, second], source)
    arrays = []
    for array in first.arrays:
        other = next((item for item in second.arrays if item.cover == array.cover), None)
        if other is not None:
            note_cures(call, [other], array.spoilers == 0)
            array = LabelArray(array.labels, np.maximum(array.spoilers, other.spoilers), array.origin)
        elif axis not in array.cover:  # a bias that does not know this axis is added to removed indices as well
            array = array.spoiled(call.reason("adds a bias"))
        arrays.append(array)
    return Labels(out.shape, tuple(arrays), source)


@rule("linear")
def linear(call: Call) -> Labels:
    """y[..., o] = sum_i x[..., i] W[o, i] + b[o]."""
    data, weight, bias = call.args[0], call.args[1], call.argument(2, "bias")
    if len(weight.shape) == 1:
        return _matmul(call, data, weight, (0, 1))
    out = contract(call, insert_axis(data, -2), pad_left(weight, len(data.shape) + 1), [-1], macs=1, folds=has_own_bias(call, weight))
    return add_bias(call, out, bias, len(out.shape) - 1)


@rule("matmul", "mm", "bmm", "mv", "dot")
def matmul(call: Call) -> Labels:
    """y[..., m, n] = sum_k a[..., m, k] b[..., k, n]; vectors as torch.matmul treats them."""
    return _matmul(call, call.args[0], call.args[1], (0, 1))


def _matmul(call: Call, left: Labels, right: Labels, positions: tuple[int, int]) -> Labels:
    drop = []
    if len(left.shape) == 1:
        left, drop = insert_axis(left, 0), [-2]
    if len(right.shape) == 1:
        right, drop = insert_axis(right, -1), [*drop, -1]
    ndim = max(len(left.shape), len(right.shape))
    left, right = pad_left(left, ndim), pad_left(right, ndim)
    right = permute(right, [*range(ndim - 2), ndim - 1, ndim - 2])
    operands = (_node(call, positions[0]), _node(call, positions[1]))
    out = contract(call, insert_axis(left, -2), insert_axis(right, -3), [-1], macs=1, operands=operands)
    return drop_axes(out, drop) if drop else out


@rule("einsum")
def einsum(call: Call) -> Labels:
    """Operands are met from left to right: align on all letters, sum those that neither the output nor a later operand has."""
    nodes: Any = call.node.args[1]
    terms, output = _letters(str(call.args[0]), [len(labels.shape) for labels in call.args[1]])
    operands = [_diagonal(call, labels, term) for labels, term in zip(call.args[1], terms, strict=True)]
    (held, left), *others = operands
    node = nodes[0]
    if not others:  # with a constant one: a sum and a transpose
        return _met(call, (held, left), ("", Labels((), (), "const")), output, 0, (None, None))
    for position, (term, right) in enumerate(others, 1):
        later = set(output).union(*(other for other, _ in others[position:]))
        kept = output if position == len(others) else "".join(sorted(later & set(held + term)))
        left = _met(call, (held, left), (term, right), kept, 1, (node, nodes[position]))
        held, node = kept, None
    return left


def _letters(equation: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the output, one an axis; those behind an ellipsis are digits, counted from the last.

    >>> _letters("...ij, jk", [4, 2])
    (['10ij', 'jk'], '10ik')
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    hidden = [ndim - len(term.replace("...", "")) if "." in term else 0 for term, ndim in zip(terms, ndims, strict=True)]
    digits = "9876543210"
    dots = digits[len(digits) - max(hidden) :]
    if not arrow:
        letters = inputs.replace("...", "").replace(",", "")
        output = "..." + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    spelled = [term.replace("...", digits[len(digits) - count :]) for term, count in zip(terms, hidden, strict=True)]
    return spelled, output.replace("...", dots)


def _diagonal(call: Call, labels: Labels, term: str) -> tuple[str, Labels]:
    """Take the diagonal over axes of one letter: what stands on both lives and dies together."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            reason = call.reason("a diagonal")
            if any((array := labels.covering(axis)) is None or array.cover != (axis,) for axis in (first, second)):
                labels = call.space.fix_axes(labels, [first, second], reason)
            one, other = labels.covering(first), labels.covering(second)
            if one is not None and other is not None:
                call.space.union(one.labels.ravel(), other.labels.ravel())
                marks = np.maximum(one.spoilers.ravel(), other.spoilers.ravel()).reshape(one.spoilers.shape)
                kept = [array for array in labels.arrays if array is not one and array is not other]
                labels = Labels(labels.shape, (*kept, LabelArray(one.labels, marks, one.origin).unsteady()), labels.source)
            labels = drop_axes(labels, [second])
            term = term[:second] + term[second + 1 :]
    return term, labels


def _met(call: Call, one: tuple[str, Labels], other: tuple[str, Labels], output: str, macs: int, operands: Operands) -> Labels:
    """Contract two operands given with their letters; the result has the letters ``output``."""
    letters = output + "".join(sorted(set(one[0] + other[0]) - set(output)))
    spread = []
    for term, labels in (one, other):
        labels = permute(labels, [term.index(letter) for letter in letters if letter in term]) if term else labels
        for position, letter in enumerate(letters):
            labels = labels if letter in term else insert_axis(labels, position)
        spread.append(labels)
    return contract(call, spread[0], spread[1], range(len(output), len(letters)), macs=macs, operands=operands)


@rule("_trilinear")
def trilinear(call: Call) -> Labels:
    """A product of three, summed: what the third does not have is summed over before it comes in."""
    ndim, summed = len(call.args[0].shape) + len(call.args[3]), set(call.args[6])
    first, second, third = (_inserted(labels, axes) for labels, axes in zip(call.args[:3], call.args[3:6], strict=True))
    early = sorted(axis for axis in summed if axis in call.args[5])
    half = contract(call, first, second, early, macs=1)
    left = [axis for axis in range(ndim) if axis not in early]
    late = [left.index(axis) for axis in sorted(summed - set(early))]
    return contract(call, half, drop_axes(third, early), late, macs=1, operands=(None, _node(call, 2)))


def _inserted(labels: Labels, axes: Sequence[int]) -> Labels:
    for axis in sorted(axes):
        labels = insert_axis(labels, axis)
    return labels


@rule("_cdist_forward")
def distance(call: Call) -> Labels:
    """Distances between rows: a feature may go where both sides are zero; a distance to a zero row is none."""
    ndim = len(call.shape) + 1
    left, right = pad_left(insert_axis(call.args[0], -2), ndim), pad_left(insert_axis(call.args[1], -3), ndim)
    aligned = call.space.align([left, right], call.reason("aligned with a fixed axis"))
    for labels in aligned:
        for array in labels.arrays:
            if array.cover == (ndim - 1,):
                call.space.require_zero(array)
    call.produce(aligned, "data")
    for labels in aligned:
        call.fixed(range(ndim - 1), labels, "a distance")
    return Labels(call.shape, (), sources_of(aligned))


@rule("addmm", "baddbmm")
def addmm(call: Call) -> Labels:
    """y = bias + a @ b."""
    bias, left, right = call.args[:3]
    out = _matmul(call, left, right, (1, 2))
    if len(bias.shape) == 1:
        return add_bias(call, out, bias, len(out.shape) - 1)
    reason = call.reason("added to a product")
    aligned = call.space.align([out, pad_left(bias, len(out.shape))], reason)
    source = sources_of(aligned)
    call.produce(aligned, source)
    return spoiled(Labels(out.shape, aligned[0].arrays, source), reason)


@rule("_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_matmul(call: Call) -> Labels:
    """y[s, n] = sum_k a[s, k] b[e, k, n], rows by rows with another matrix e: which one is up to data, so that axis is fixed."""
    rows, stack, ends = call.args[:3]
    if (len(rows.shape), len(stack.shape)) != (2, 3) or call.argument(3, "bias") is not None:
        result: Labels = call.unlabelled("a form of a grouped product without a rule")
        return result
    reason = call.reason("indexed by data")
    call.space.fix_all(ends, reason)
    matrix = drop_axes(call.space.fix_axes(stack, [0], reason), [0])
    return contract(call, insert_axis(rows, -2), pad_left(permute(matrix, [1, 0]), 3), [-1], macs=1)
