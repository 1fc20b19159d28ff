"""Operators that write into a tensor: what an assignment to a slice becomes in a functional graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import fx

from geta_nb.graph import operator_name
from geta_nb.groups.labels import LabelArray, Labels, sources_of
from geta_nb.groups.operators.axes import drop_axes, insert_axis, pad_left, spoiled
from geta_nb.groups.operators.indexing import take, written_numbers
from geta_nb.groups.operators.joining import join, merged
from geta_nb.groups.operators.pointwise import is_pointwise
from geta_nb.groups.operators.registry import Call, rule

_COPIES = frozenset(["lift_fresh_copy", "lift_fresh", "clone", "detach", "detach_", "alias", "_to_copy", "to"])


@rule("copy")
def copy(call: Call) -> Labels:
    """Every value of the first is replaced by one of the second: both are cut alike, zero where the second is."""
    target, written = call.args[0], pad_left(call.args[1], len(call.args[0].shape))
    aligned = call.space.align([target, written], call.reason("aligned with a fixed axis"))
    source = sources_of(aligned)
    call.produce(aligned, source)
    values = {array.cover: array for array in aligned[1].arrays}
    arrays = []
    for array in aligned[0].arrays:
        found = values.pop(array.cover, None)  # absent: repeated along this axis, as the values of a smaller tensor are
        arrays.append(
            array.spoiled(call.reason("expanded value")) if found is None else LabelArray(array.labels, found.spoilers, found.origin)
        )
    return Labels(call.shape, (*arrays, *values.values()), source)


@rule("slice_scatter", "select_scatter")
def write(call: Call) -> Labels:
    """A run of indices (or one) is replaced: along that axis old and new labels stand side by side, all other axes are aligned."""
    base, part, axis = call.args[0], call.args[1], call.axis(2, "dim", 0, call.args[0])
    size = base.shape[axis]
    if call.name == "select_scatter":
        start = int(call.argument(3, "index")) % size
        begin, stop, step = start, start + 1, 1
        part = insert_axis(part, axis)
    else:
        bounds = slice(call.argument(3, "start"), call.argument(4, "end"), call.argument(5, "step", 1))
        begin, stop, step = bounds.indices(size)
    along = [array for array in (base.covering(axis), part.covering(axis)) if array is not None]
    if step != 1 and along and not call.is_dynamic(axis):
        return _placed(call, base, part, axis, list(range(begin, stop, step)))
    if step != 1 or call.name == "select_scatter":
        reason = "written by position"
        base, part = call.fixed([axis], base, reason), call.fixed([axis], part, reason)
        begin, stop = 0, size  # what is written and what stays share this axis: nothing along it is removable
        aligned = call.space.align([base, replace(part, shape=_as_one(part.shape, axis))], call.reason("aligned with a fixed axis"))
        return join(call, aligned, axis, call.shape)
    parts = [(slice(0, begin), begin), (None, stop - begin), (slice(stop, size), size - stop)]
    pieces = [part if index is None else take(call, base, axis, index, count) for index, count in parts if count > 0]
    return join(call, pieces, axis, call.shape)


def _placed(call: Call, base: Labels, part: Labels, axis: int, numbers: list[int]) -> Labels:
    """Labels where indices of these numbers are replaced: old and new ones side by side, then in order."""
    rest = sorted(set(range(base.shape[axis])) - set(numbers))
    pieces = [take(call, base, axis, rest, len(rest)), part] if rest else [part]
    order = np.argsort([*rest, *numbers]).tolist()
    return take(call, join(call, pieces, axis, call.shape), axis, order, len(order))


def _as_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


@rule("masked_scatter", "put", "one_hot", "histc", "bincount", "searchsorted", "embedding_renorm")
def scattered(call: Call) -> Any:
    """Written where data says: nothing keeps its place."""
    return call.unlabelled("indexed by data")


@rule("index_add", "index_copy")
def indexed(call: Call) -> Labels:
    """Indices of one axis, by data, get something: that axis is fixed, all others are aligned, zero where both are."""
    base, axis, index, part = call.args[0], call.axis(1, "dim", 0, call.args[0]), call.args[2], call.args[3]
    numbers = written_numbers(call.node.args[2])
    if numbers is not None and call.name == "index_copy" and not call.is_dynamic(axis):
        return _placed(call, base, part, axis, numbers)
    reason = call.reason("indexed by data")
    call.space.fix_all(index, reason)
    base, part = (call.space.fix_axes(labels, [axis], reason) for labels in (base, part))
    aligned = call.space.align([replace(labels, shape=_as_one(labels.shape, axis)) for labels in (base, part)], reason)
    return join(call, aligned, axis, call.shape)


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(call: Call) -> Labels:
    """Elements of one axis, by data, get something: that axis is fixed; along the others all are aligned, zero where both values are."""
    base, axis, index, part = call.args[0], call.axis(1, "dim", 0, call.args[0]), call.args[2], call.argument(3, "src")
    value = call.argument(3, "value") if not isinstance(part, Labels) else 0
    reason = call.reason("indexed by data")
    tensors = [base, index, part] if isinstance(part, Labels) else [base, index]
    shapes = zip(*(labels.shape for labels in tensors), strict=True)
    stays = [other for other, sizes in enumerate(shapes) if other == axis or len(set(sizes)) > 1]
    rows = tuple(1 if other in stays else size for other, size in enumerate(base.shape))
    aligned = call.space.align([replace(call.space.fix_axes(labels, stays, reason), shape=rows) for labels in tensors], reason)
    call.produce(aligned, sources_of(aligned))
    values = [item for item, labels in zip(aligned, tensors, strict=True) if labels is not index]
    result = Labels(call.shape, tuple(merged(values, reason)), sources_of(aligned))
    return result if not value else spoiled(result, reason)


@rule("index_put", "_unsafe_index_put")
def index_put(call: Call) -> Labels:
    """Written where integers on neighbouring axes say, or one mask: these are fixed, the others aligned, zero where both values are."""
    base, indices, values = call.args[:3]
    found = [(place, item) for place, item in enumerate(indices) if item is not None]
    masks = [item for item in call.node.args[1] if _is_mask(item)]  # type: ignore[union-attr]
    places = [place for place, _ in found]
    if not found or places != list(range(places[0], places[-1] + 1)) or (masks and len(found) > 1):
        return cast(Labels, call.unlabelled())
    reason, first, mask = call.reason("indexed by data"), places[0], found[0][1]
    if masks and not values.shape:
        return _where(call, base, mask, first, reason)
    for _, item in found:
        call.space.fix_all(item, reason)
    taken = list(range(first, first + (len(mask.shape) if masks else len(found))))
    added = 1 if masks else max(len(item.shape) for _, item in found)
    part = pad_left(values, len(base.shape) - len(taken) + added)
    places = list(range(first, first + added))
    parts = [drop_axes(call.space.fix_axes(base, taken, reason), taken), drop_axes(call.space.fix_axes(part, places, reason), places)]
    aligned = call.space.align(parts, reason)
    source = sources_of([*aligned, *call.all_tensors()])
    call.produce(aligned, source)
    if not values.shape and _is_zero(call.node.args[2]):
        aligned = aligned[:1]
    arrays = tuple(
        array.map(lambda v: v.reshape(v.shape[:first] + (1,) * len(taken) + v.shape[first:])) for array in merged(aligned, reason)
    )
    return Labels(call.shape, arrays, source)


def _where(call: Call, base: Labels, mask: Labels, first: int, reason: int) -> Labels:
    """One number where a mask says: element-wise."""
    for axis in range(len(base.shape)):
        if not first <= axis < first + len(mask.shape):
            mask = insert_axis(mask, axis)
    aligned = call.space.align([base, mask], reason)
    source = sources_of(aligned)
    call.produce(aligned, source)
    result = Labels(call.shape, aligned[0].arrays, source)
    return result if _is_zero(call.node.args[2]) else spoiled(result, call.reason("does not keep zero"))


def _is_mask(item: Any) -> bool:
    value = item.meta.get("val") if isinstance(item, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype in {torch.bool, torch.uint8}


def _is_zero(node: Any) -> bool:
    """Whether a node is a constant zero, cast or copied."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1 and is_pointwise(node) and operator_name(node) in _COPIES:
        node = node.all_input_nodes[0]
    if node.op != "get_attr":
        return False
    value: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter) and not bool(value.any())
