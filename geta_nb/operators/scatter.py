"""Operators that write into a tensor: what an assignment to a slice becomes in a functional graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from geta_nb.labels import LabelArray, Labels, sources_of
from geta_nb.operators.axes import insert_axis, pad_left
from geta_nb.operators.indexing import take
from geta_nb.operators.joining import join
from geta_nb.operators.registry import Call, rule


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
    if step != 1 or call.name == "select_scatter":
        reason = "written by position"
        base, part = call.fixed([axis], base, reason), call.fixed([axis], part, reason)
        begin, stop = 0, size  # what is written and what stays share this axis: nothing along it is removable
        aligned = call.space.align([base, replace(part, shape=_as_one(part.shape, axis))], call.reason("aligned with a fixed axis"))
        return join(call, aligned, axis, call.shape)
    parts = [(slice(0, begin), begin), (None, stop - begin), (slice(stop, size), size - stop)]
    pieces = [part if index is None else take(call, base, axis, index, count) for index, count in parts if count > 0]
    return join(call, pieces, axis, call.shape)


def _as_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


@rule("scatter", "scatter_add", "scatter_reduce", "masked_scatter", "index_put", "_unsafe_index_put", "put", "one_hot", "histc", "bincount",
      "searchsorted", "embedding_renorm")  # fmt: skip
def scattered(call: Call) -> Any:
    """Written where data says: nothing keeps its place."""
    return call.unlabelled("indexed by data")


@rule("index_add", "index_copy")
def indexed(call: Call) -> Labels:
    """Indices of one axis, by data, get something: that axis is fixed, all others are aligned, zero where both are."""
    base, axis, index, part = call.args[0], call.axis(1, "dim", 0, call.args[0]), call.args[2], call.args[3]
    reason = call.reason("indexed by data")
    call.space.fix_all(index, reason)
    base, part = (call.space.fix_axes(labels, [axis], reason) for labels in (base, part))
    aligned = call.space.align([replace(labels, shape=_as_one(labels.shape, axis)) for labels in (base, part)], reason)
    return join(call, aligned, axis, call.shape)
