"""Price a folded graph: each operator and parameter as a product of group extents. Between the QADG and the cost model.

In: a QADG, labels, groups and quantizers. Out: a :class:`CostModel`, whose layers are the quantizers' where there are any.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from geta_nb.cost import CostModel, OperatorCost, ParameterCost, Totals
from geta_nb.graph import Trace, module_path, operator_name, shape_of
from geta_nb.groups import Extent, GroupTable, Labels, MacCount, Propagation
from geta_nb.qadg.branches import Branch, ancestors
from geta_nb.qadg.computed import labels_of_computed, parts_of
from geta_nb.qadg.folded import QADG
from geta_nb.quantizers import OwnTensors, Quantizers

_PICKS = frozenset({"index", "index_select"})


def price(
    tensors: OwnTensors, qadg: QADG, state: Propagation, table: GroupTable, quantizers: Quantizers, dense: Totals | None
) -> CostModel:
    """Return the costs of a network by group.

    Args:
        tensors: the network's.
        qadg: its folded graph.
        state: labels, and the multiply-accumulates of each operator.
        table: groups.
        quantizers: whose bits count where.
        dense: what costs are compared with; None: the network itself at 32 bits.
    """
    taken: dict[str, int] = {}
    exits = {branch.exit: branch for branch in qadg.branches}
    repeats = _repeats(qadg.trace)
    counted = [replace(macs, const=macs.const // repeats) if _is_dynamic(macs.node) else macs for macs in state.findings.macs]
    static = _of_parameters(qadg.trace.module.graph, exits)
    others = labels_of_computed(qadg, state, quantizers)  # such a weight is stored, and not what it is computed from
    unseen = {node for one in others.values() for node in ancestors(one.entry)}
    operators = [_operator_cost(macs, qadg, exits, static, state, table, taken) for macs in counted if macs.node not in unseen]
    layer_of = quantizers.parameter_layer
    parameters, seen = [], parts_of(others, tensors.parameters)
    for name, one in others.items():
        parameters.append(_parameter_cost(name, one.entry.meta["val"], one.labels, quantizers.computed[name], quantizers, table))
    for name, tensor in tensors.parameters.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        labels = state.tensors.get(name) or Labels(tuple(tensor.shape))
        parameters.append(_parameter_cost(name, tensor, labels, layer_of.get(name), quantizers, table))
    return CostModel(operators, parameters, table.n_groups, dense=dense)


def _parameter_cost(
    name: str, tensor: Tensor, labels: Labels, layer: str | None, quantizers: Quantizers, table: GroupTable
) -> ParameterCost:
    bits, steps = tensor.element_size() * 8, tensor if layer is None else quantizers.weights[layer].step_size
    channels = None if layer is None else _channels_of(steps, labels, table)
    return ParameterCost(name, _extent(labels, table), layer, bits, channels, steps.element_size() * 8)


def _repeats(trace: Trace) -> int:
    """How often the example batch stands in the traced one: a single example is traced as two, and must be counted as one."""
    given = next((leaf for leaf in pytree.tree_leaves((trace.args, trace.kwargs)) if isinstance(leaf, Tensor) and leaf.dim()), None)
    traced = next((shape for node in trace.module.graph.nodes if node.op == "placeholder" and (shape := shape_of(node))), None)
    return traced[0] // max(given.shape[0], 1) if trace.dynamic_batch and given is not None and traced else 1


def _is_dynamic(node: fx.Node) -> bool:
    value = node.meta["val"]
    first = value[0] if isinstance(value, (list, tuple)) else value
    return any(not isinstance(size, int) for size in first.shape)


def _extent(labels: Labels, table: GroupTable) -> Extent:
    covered = {axis for array in labels.arrays for axis in array.cover}
    const = int(np.prod([size for axis, size in enumerate(labels.shape) if axis not in covered], dtype=np.int64))
    return table.extent(const, [array.labels for array in labels.arrays])


def _channels_of(steps: Tensor, labels: Labels, table: GroupTable) -> Extent | None:
    """Return the channels of a parameter that have a step each; None: one step for all."""
    axis = next((at for at, size in enumerate(steps.shape) if size > 1), None)
    if axis is None:
        return None
    array = labels.covering(axis)
    if array is None:
        return Extent(labels.shape[axis])
    # where the label of an element is a matter of several axes, one of an index's labels stands for it
    others = tuple(at for at in range(len(labels.shape)) if at != axis)
    return table.extent(1, [array.labels.max(axis=others)])


def _operator_cost(
    macs: MacCount,
    qadg: QADG,
    exits: dict[str, Branch],
    static: set[fx.Node],
    state: Propagation,
    table: GroupTable,
    taken: dict[str, int],
) -> OperatorCost:
    path, name = module_path(macs.node), operator_name(macs.node)
    if macs.weight is not None and macs.weight not in static and macs.data in static:
        macs = replace(macs, weight=macs.data, data=macs.weight)  # a matrix that data picks from a stack, on the left
    weight = _operand_layer(macs.weight, qadg, exits, "attached")
    data = _operand_layer(macs.data, qadg, exits, "inserted")
    attention = macs.weight is not None and macs.weight not in static
    base = weight or path or macs.node.name
    taken[base] = taken.get(base, 0) + 1
    unique = base if taken[base] == 1 else f"{base}@{taken[base]}"
    return OperatorCost(
        layer=unique,
        module_path=path,
        operator=name,
        macs=table.extent(macs.const, macs.arrays),
        weight=weight if not attention else _operand_layer(macs.weight, qadg, exits, "inserted"),
        activation=data,
        attention=attention,
        channels=_channels(macs.node, state, table, name),
    )


def _channels(node: fx.Node, state: Propagation, table: GroupTable, name: str) -> Extent | None:
    out = state.values.get(node)
    if not isinstance(out, Labels) or len(out.shape) < 2:
        return None
    axis = 1 if "conv" in name else len(out.shape) - 1
    array = out.covering(axis)
    return Extent(out.shape[axis]) if array is None else table.extent(1, [array.labels]) if array.cover == (axis,) else None


def _operand_layer(node: fx.Node | None, qadg: QADG, exits: dict[str, Branch], kind: str) -> str | None:
    """Layer of the quantizer of ours whose output this operand is, looking through views."""
    while node is not None:
        branch = exits.get(node.name)
        if branch is not None:
            return qadg.layers.get(branch.exit) if branch.kind == kind else None
        inputs = node.all_input_nodes
        node = inputs[0] if node.op == "call_function" and (len(inputs) == 1 or operator_name(node) in _PICKS) else None
    return None


def _of_parameters(graph: fx.Graph, exits: dict[str, Branch]) -> set[fx.Node]:
    """Nodes made of parameters only, or of those that data picks from a stack.

    Found in order of execution: a chain of operators may be longer than Python likes to recurse.
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        inputs = inputs[:1] if operator_name(node) in _PICKS else inputs
        made = node.op == "call_function" and bool(inputs) and all(item in found for item in inputs)
        if node.op == "get_attr" or made or (node.name in exits and exits[node.name].kind == "attached"):
            found.add(node)
    return found
