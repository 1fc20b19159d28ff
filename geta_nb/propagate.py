"""Run the operator rules over a traced graph: every tensor gets its labels. Between the trace and the groups."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from geta_nb.labels import CONSTANT, REAL, Ints, LabelArray, Labels, LabelSpace, single_axis
from geta_nb.operators import RULES, Call, Findings
from geta_nb.operators.pointwise import is_pointwise, pointwise
from geta_nb.operators.registry import is_tensor_node, source_of
from geta_nb.trace import hint, module_path, operator_name, shape_of


@dataclass
class Propagation:
    """Labels of every node of a graph.

    Attributes:
        space: unions, fixed labels and zero checks.
        findings: multiply-accumulates, size arguments, producing labels.
        values: labels of each node's output (a tuple for several outputs).
        tensors: labels of each parameter and buffer, by its own name.
        buffers: names in ``tensors`` that are buffers.
    """

    space: LabelSpace
    findings: Findings
    values: dict[fx.Node, Any] = field(default_factory=dict)
    tensors: dict[str, Labels] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    classes: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def propagate(module: fx.GraphModule, names: Mapping[str, str], buffers: set[str], folded: Mapping[fx.Node, fx.Node]) -> Propagation:
    """Return the labels of all nodes.

    Args:
        module: traced graph.
        names: target of a ``get_attr`` node -> own name of the parameter or buffer; absent: a constant.
        buffers: own names that are buffers.
        folded: exit node of a quantizer branch -> node whose value enters it; such a branch changes no label.
    """
    state = Propagation(LabelSpace(), Findings(), buffers=set(buffers))
    for node in module.graph.nodes:
        if node in folded:
            state.values[node] = state.values[folded[node]]
        elif node.op == "get_attr":
            state.values[node] = _attribute(state, node, names)
        elif node.op == "placeholder":
            state.values[node] = Labels(shape_of(node) or (), (), "data")
        elif node.op == "output":
            reason = state.space.reason("an output of the network", "output", "")
            for value in _labels_in(state, node.args):
                state.space.fix_all(value, reason)
        else:
            state.values[node] = _apply(state, node)
    _straighten(state)
    return state


def _attribute(state: Propagation, node: fx.Node, names: Mapping[str, str]) -> Labels:
    shape = shape_of(node) or ()
    name = names.get(str(node.target))
    if name is None:
        return Labels(shape, (), "const")
    if name in state.tensors:
        return state.tensors[name]
    mark = state.space.reason("a buffer that is not zeroed", "buffer", name) if name in state.buffers else 0
    origin = CONSTANT if name in state.buffers else REAL
    arrays = [
        single_axis(shape, axis, state.space.new(size), np.full(size, mark, dtype=np.int64), origin=origin)
        for axis, size in enumerate(shape)
        if size > 1
    ]
    labels = Labels(shape, tuple(arrays), "const" if name in state.buffers else "param")
    state.tensors[name] = labels
    return labels


def _apply(state: Propagation, node: fx.Node) -> Any:
    if node.target is operator.getitem:
        source = state.values[node.args[0]]  # type: ignore[index]
        return source[node.args[1]] if isinstance(source, tuple) else source
    if not is_tensor_node(node) and not isinstance(node.meta.get("val"), (list, tuple)):
        return None  # a size
    call = Call(state.space, state.findings, node, *_arguments(state, node))
    name = operator_name(node)
    if name in RULES:
        return RULES[name](call)
    if is_pointwise(node):
        return pointwise(call)
    return _unknown(call)


def _unknown(call: Call) -> Any:
    """No rule: fix every label that comes in, and write the operator down by name."""
    tensors = call.all_tensors()
    if any(labels.arrays for labels in tensors):
        call.findings.unknown.append((operator_name(call.node), module_path(call.node)))
    for labels in tensors:
        call.space.fix_all(labels, call.reason("an operator without a rule"))
    source = source_of(tensors)
    if isinstance(call.node.meta["val"], (list, tuple)):
        return tuple(Labels(shape, (), source) if shape is not None else None for shape in call.shapes)
    return Labels(call.shape, (), source)


def _arguments(state: Propagation, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def value_of(item: fx.Node) -> Any:
        if item in state.values and state.values[item] is not None:
            return state.values[item]
        value = item.meta.get("val")
        return hint(value) if isinstance(value, (int, torch.SymInt)) else value

    def visit(item: Any) -> Any:
        if isinstance(item, fx.Node):
            return value_of(item)
        if isinstance(item, (list, tuple)):
            return [visit(entry) for entry in item]
        return item

    return tuple(visit(item) for item in node.args), {key: visit(item) for key, item in node.kwargs.items()}


def _labels_in(state: Propagation, value: Any) -> list[Labels]:
    if isinstance(value, fx.Node):
        return [item for item in _flat(state.values.get(value)) if isinstance(item, Labels)]
    if isinstance(value, (list, tuple)):
        return [labels for item in value for labels in _labels_in(state, item)]
    if isinstance(value, dict):
        return [labels for item in value.values() for labels in _labels_in(state, item)]
    return []


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def removable_classes(state: Propagation, classes: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Return which classes may go, [C], and for each the id of the first reason why not (0: none)."""
    count = int(classes.max()) + 1 if len(classes) else 0
    blame = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    for labels, reason in state.space.fixed:
        np.minimum.at(blame, classes[labels], reason)
    for labels, spoilers in state.space.checks:
        bad = spoilers > 0
        np.minimum.at(blame, classes[labels[bad]], spoilers[bad])
    blame[blame == np.iinfo(np.int64).max] = 0
    produced = np.zeros(count, dtype=bool)
    for labels in state.findings.produced:
        produced[classes[labels]] = True
    return produced & (blame == 0), blame


def _straighten(state: Propagation) -> None:
    """Make every joint array rectangular: what may go along it goes along one of its axes."""
    joint: dict[bytes, LabelArray] = {}
    for value in state.values.values():
        for labels in _flat(value):
            for array in labels.arrays if isinstance(labels, Labels) else ():
                if len(array.cover) > 1:
                    joint[repr(array.labels.shape).encode() + array.labels.tobytes()] = array
    while True:
        classes = state.space.classes()
        removable, _ = removable_classes(state, classes)
        bent = {}
        for array in joint.values():
            table = np.where(removable[classes[array.labels]], classes[array.labels], -1).squeeze()
            if not any(_depends_only_on(table, axis) for axis in range(table.ndim)):
                bent[table.tobytes()] = (array, table)
        if not bent:
            break
        for array, table in bent.values():
            _unite(state.space, array, table)
    state.classes = classes


def _depends_only_on(table: Ints, axis: int) -> bool:
    moved = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    return bool((moved == moved[:, :1]).all())


def _unite(space: LabelSpace, array: LabelArray, table: Ints) -> None:
    """Unite along all axes but the one that leaves the most units removable; the outermost on a tie."""
    units = []
    for axis in range(table.ndim):
        moved = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
        units.append(int((moved >= 0).all(1).sum()))
    kept = array.cover[int(np.argmax(units))]
    current: LabelArray | None = array
    for axis in array.cover:
        if axis != kept and current is not None:
            current = space.reduce(current, axis, 0)
    # a unit with a part that may never go may not go either: unions above carry that on


def attribute_tensor(module: torch.nn.Module, target: str) -> Tensor:
    """Return the tensor a ``get_attr`` target names."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value
