"""Operators that take some indices of an axis: by number, by range, by data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx

from geta_nb.groups.labels import Labels, sources_of
from geta_nb.groups.operators.axes import drop_axes
from geta_nb.groups.operators.registry import Call, rule

NUMBERS = "numbers."
"""Module path of the numbers that a cut wrote into its graph: choices of indices that were even steps before."""


def written_numbers(node: Any) -> list[int] | None:
    """Return the numbers that a node reads if a cut wrote them, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or not str(node.target).startswith(NUMBERS):
        return None
    value: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return cast("list[int]", value.tolist())


def take(call: Call, labels: Labels, axis: int, index: slice | list[int], size: int) -> Labels:
    """Return the labels of the indices ``index`` along ``axis``."""
    key = tuple(index if i == axis else slice(None) for i in range(len(labels.shape)))
    arrays = tuple(array.map(lambda v: v[key] if v.shape[axis] > 1 else v) for array in labels.arrays)
    call.findings.parts += [array.labels.ravel() for array in arrays if array.labels.size > 1]
    shape = (*labels.shape[:axis], size, *labels.shape[axis + 1 :])
    return call.settle(Labels(shape, arrays, labels.source))


@rule("slice", "slice_copy", "narrow")
def slice_rule(call: Call) -> Labels:
    """A run of indices."""
    labels: Labels = call.args[0]
    axis = call.axis(1, "dim", 0, labels)
    if call.shape[axis] == labels.shape[axis]:
        return replace(labels, shape=call.shape)
    start, end, step = call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1)
    if call.name == "narrow":
        end = start + end
    return take(call, labels, axis, slice(start, end, step), call.shape[axis])


@rule("select", "select_copy")
def select(call: Call) -> Labels:
    """One index of an axis, by number: that axis keeps its numbering."""
    labels = call.args[0]
    axis = call.axis(1, "dim", 0, labels)
    return drop_axes(call.fixed([axis], labels, "selected by number"), [axis])


@rule("unbind", "unbind_copy")
def unbind(call: Call) -> tuple[Labels, ...]:
    """All indices of an axis, each by number."""
    labels: Labels = call.args[0]
    axis = call.axis(1, "dim", 0, labels)
    return (drop_axes(call.fixed([axis], labels, "selected by number"), [axis]),) * labels.shape[axis]


@rule("split", "split_with_sizes", "chunk", "tensor_split", "split_copy", "split_with_sizes_copy")
def split(call: Call) -> tuple[Labels, ...]:
    """Consecutive runs of indices."""
    labels, axis = call.args[0], call.axis(2, "dim", 0, call.args[0])
    parts, start = [], 0
    for shape in call.shapes:
        assert shape is not None
        parts.append(take(call, labels, axis, slice(start, start + shape[axis]), shape[axis]))
        start += shape[axis]
    return tuple(parts)


@rule("glu")
def glu(call: Call) -> Labels:
    """First half times the sigmoid of the second: both halves are cut alike, zero where the first is."""
    labels, axis = call.args[0], call.axis(1, "dim", -1, call.args[0])
    half = labels.shape[axis] // 2
    value, gate = (take(call, labels, axis, slice(i * half, (i + 1) * half), half) for i in (0, 1))
    return replace(call.space.align([value, gate], call.reason("aligned with a fixed axis"))[0], shape=call.shape)


@rule("embedding")
def embedding(call: Call) -> Labels:
    """Rows of a table by number: rows are fixed, columns pass."""
    table, index = call.args[0], call.args[1]
    reason = call.reason("indexed by data")
    call.space.fix_all(index, reason)
    table = call.space.fix_axes(table, [0], reason)
    call.produce([table], "data")
    arrays = tuple(array.map(lambda v: v.reshape((1,) * len(index.shape) + v.shape[1:])) for array in table.arrays)
    return Labels(call.shape, arrays, "data")


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> tuple[Labels | None, ...]:
    """Rows of a table, summed by data: rows are fixed, columns pass."""
    table, *others = call.all_tensors()
    reason = call.reason("indexed by data")
    for item in others:
        call.space.fix_all(item, reason)
    table = call.space.fix_axes(table, [0], reason)
    call.produce([table], "data")
    return Labels(call.shape, table.arrays, "data"), *(None if shape is None else Labels(shape, (), "data") for shape in call.shapes[1:])


@rule("gather")
def gather(call: Call) -> Labels:
    """Elements of one axis by data: that axis is fixed; along the others table and index are aligned, zero where the table is."""
    table, axis, index = call.args[0], call.axis(1, "dim", 0, call.args[0]), call.args[2]
    reason = call.reason("indexed by data")
    shorter = [other for other in range(len(table.shape)) if other == axis or table.shape[other] != index.shape[other]]
    table, index = (call.space.fix_axes(labels, shorter, reason) for labels in (table, index))
    rows = tuple(1 if other in shorter else size for other, size in enumerate(table.shape))
    aligned = call.space.align([replace(labels, shape=rows) for labels in (table, index)], reason)
    source = sources_of(aligned)
    call.produce(aligned, source)
    return Labels(call.shape, aligned[0].arrays, source)


@rule("take_along_dim", "take")
def taken(call: Call) -> Any:
    """Every element by its own index: nothing keeps its place."""
    return call.unlabelled("indexed by data")


@rule("index_select")
def index_select(call: Call) -> Labels:
    """Indices of one axis by data: that axis is fixed."""
    table, axis, index = call.args[0], call.axis(1, "dim", 0, call.args[0]), call.argument(2, "index")
    numbers = written_numbers(call.node.args[2])
    if numbers is not None and not call.is_dynamic(axis):
        return take(call, table, axis, numbers, len(numbers))
    reason = call.reason("indexed by data")
    call.space.fix_all(index, reason)
    table = call.space.fix_axes(table, [axis], reason)
    source = sources_of([table, index])
    call.produce([table], source)
    return replace(table, shape=call.shape, source=source)


@rule("index")
def index(call: Call) -> Labels:
    """Advanced indexing with integers on neighbouring axes: these are fixed, the others pass."""
    table, indices = call.args[0], call.args[1]
    positions = [i for i, item in enumerate(indices) if item is not None]
    if not positions or positions != list(range(positions[0], positions[-1] + 1)) or _has_mask(call.node.args[1]):
        return cast(Labels, call.unlabelled())
    reason = call.reason("indexed by data")
    for item in indices:
        if item is not None:
            call.space.fix_all(item, reason)
    labels = drop_axes(call.space.fix_axes(table, positions, reason), positions)
    added, first = len(call.shape) - len(labels.shape), positions[0]
    arrays = tuple(array.map(lambda v: v.reshape(v.shape[:first] + (1,) * added + v.shape[first:])) for array in labels.arrays)
    source = sources_of(call.all_tensors())
    call.produce([labels], source)
    return Labels(call.shape, arrays, source)


def _has_mask(indices: Any) -> bool:
    """Whether one of the index tensors is a mask, which takes as many axes as it has."""
    values = [item.meta.get("val") for item in indices if isinstance(item, fx.Node)]
    return any(isinstance(value, torch.Tensor) and value.dtype in {torch.bool, torch.uint8} for value in values)
