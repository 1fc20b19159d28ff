"""From a model with quantizers to groups and costs: trace, fold, label, read off. What the façade keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from geta_nb.cost import CostModel, OperatorCost, ParameterCost, Totals
from geta_nb.graph import Trace, attribute_tensor, module_path, operator_name, shape_of, trace_model
from geta_nb.groups import (
    Extent,
    GroupTable,
    Labels,
    MacCount,
    Propagation,
    ProtectedList,
    find_groups,
    propagate,
    understood,
)
from geta_nb.qadg.branches import COMPUTE, Branch, readers
from geta_nb.qadg.folded import QADG, build_qadg
from geta_nb.quantizers import Quantizers, canonical_name, foreign_parameters, parameter_tensors

_PICKS = frozenset({"index", "index_select"})
_IDLE = "no matrix operator reads what it would give out"


@dataclass
class Analysis:
    """All that was found out about a model.

    Attributes:
        trace, qadg: raw and folded graph.
        names: get_attr target -> own name of a parameter or buffer.
        state: labels.
        table, protected: groups, and what may not go.
        cost: cost model.
    """

    trace: Trace
    qadg: QADG
    names: dict[str, str]
    state: Propagation
    table: GroupTable
    protected: ProtectedList
    cost: CostModel


def analyse(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    quantizers: Quantizers | None,
    *,
    protect: Callable[[str], bool],
    dense: Totals | None = None,
    approximate_norms: bool = False,
) -> Analysis:
    """Return groups, graph and costs of ``model``; quantizers that reach no matrix operator are taken off again."""
    trace = trace_model(model, args, kwargs, understood=understood)
    with torch.device("cpu"):  # rules measure what operators do to zeros, which wants values whatever device is the default
        return _read_off(model, trace, quantizers, protect, dense, approximate_norms)


def _read_off(
    model: nn.Module,
    trace: Trace,
    quantizers: Quantizers | None,
    protect: Callable[[str], bool],
    dense: Totals | None,
    approximate_norms: bool,
) -> Analysis:
    qadg = build_qadg(trace)
    if quantizers is not None and _drop_idle(model, trace, qadg, quantizers):
        qadg = build_qadg(trace)
    names = _own_names(model, trace.module)
    if quantizers is not None:
        qadg.layers = _branch_layers(trace.module, qadg, quantizers)
    buffers = dict.fromkeys(name for name, _ in model.named_buffers(remove_duplicate=False))
    state = propagate(trace.module, names, set(buffers), qadg.folded, approximate_norms=approximate_norms)
    # the model's own order, whatever order quantizers give the trace: groups get the same numbers with and without them
    order = [name for name in (*parameter_tensors(model), *buffers) if name in state.tensors]
    state.tensors = {name: state.tensors[name] for name in order}
    table, protected = find_groups(state, protect=protect)
    qadg.families = _entry_families(trace.module, names, table)
    cost = _cost_model(model, qadg, state, table, quantizers, dense)
    return Analysis(trace, qadg, names, state, table, protected, cost)


def _own_names(model: nn.Module, module: fx.GraphModule) -> dict[str, str]:
    """Map get_attr targets to the model's names, tied tensors to one; what is not the model's (a constant) is left out."""
    known: dict[int, str] = {}
    own: dict[str, Tensor] = {**parameter_tensors(model), **dict(model.named_buffers(remove_duplicate=False))}
    for name, tensor in own.items():
        known.setdefault(id(tensor), name)
    names = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            target = str(node.target)
            found = known.get(id(attribute_tensor(module, target))) or canonical_name(model, target)
            if found in own:
                names[target] = known[id(own[found])]
    return names


def _quantizer_layers(quantizers: Quantizers) -> dict[int, str]:
    both = (*quantizers.weights.items(), *quantizers.activations.items())
    return {id(parameter): layer for layer, quantizer in both for parameter in quantizer.parameters()}


def _branch_layers(module: fx.GraphModule, qadg: QADG, quantizers: Quantizers) -> dict[str, str]:
    """Exit node -> layer, for branches whose numbers belong to our quantizers."""
    layers = _quantizer_layers(quantizers)
    found = {}
    for branch in qadg.branches:
        owners = {layers.get(id(attribute_tensor(module, target))) for target in branch.parameters}
        if len(owners) == 1 and (layer := owners.pop()) is not None:
            found[branch.exit] = layer
    return found


def _serves(module: fx.GraphModule, branch: Branch, quantizers: Quantizers) -> str:
    """Whose quantizer a branch of ours is: "inserted" before an input, even where a parameter is that input, or "attached" to a weight."""
    inputs = {id(parameter) for quantizer in quantizers.activations.values() for parameter in quantizer.parameters()}
    return "inserted" if any(id(attribute_tensor(module, target)) in inputs for target in branch.parameters) else "attached"


def _drop_idle(model: nn.Module, trace: Trace, qadg: QADG, quantizers: Quantizers) -> bool:
    """Take off quantizers, attached just now, whose branch no matrix operator reads, in model and trace; say if there were any."""
    layers = _branch_layers(trace.module, qadg, quantizers)
    nodes = {node.name: node for node in trace.module.graph.nodes}
    useful: dict[str, set[str]] = {"attached": set(quantizers.taken_over), "inserted": set(quantizers.taken_over)}
    for branch in qadg.branches:
        if branch.exit in layers and any(operator_name(user) in COMPUTE for user in readers(nodes[branch.exit])):
            useful[_serves(trace.module, branch, quantizers)].add(layers[branch.exit])
    if useful["attached"] >= quantizers.weights.keys() and useful["inserted"] >= quantizers.activations.keys():
        return False
    for branch in qadg.branches:
        layer = layers.get(branch.exit)
        if layer is not None and layer not in useful[_serves(trace.module, branch, quantizers)]:
            nodes[branch.exit].replace_all_uses_with(nodes[branch.entry])
    _detach(model, trace.module, quantizers, useful)
    _mend_targets(model, trace.module)
    trace.module.graph.eliminate_dead_code()
    trace.module.recompile()
    return True


def _detach(model: nn.Module, module: fx.GraphModule, quantizers: Quantizers, useful: dict[str, set[str]]) -> None:
    """Give up the quantizers that are of no use, and say so."""
    idle = [layer for layer in quantizers.weights if layer not in useful["attached"]]
    names = [name for name, layer in quantizers.parameter_layer.items() if layer in idle]
    for node in module.graph.nodes:
        if node.op == "get_attr" and (own := canonical_name(model, str(node.target))) in names:
            node.target = own
    for layer in idle:
        quantizers.detach_weight(layer)
    for layer in [layer for layer in quantizers.activations if layer not in useful["inserted"]]:
        quantizers.detach_activation(layer)
        quantizers.excluded[f"{layer}.input_quantizer"] = _IDLE
    quantizers.excluded.update(dict.fromkeys(names, _IDLE))


def _mend_targets(model: nn.Module, module: fx.GraphModule) -> None:
    """Give the traced module the parameters that stand under their own names again."""
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        *path, name = str(node.target).split(".")
        owner: nn.Module = module
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        if not hasattr(owner, name):
            setattr(owner, name, attribute_tensor(model, str(node.target)))


def _entry_families(module: fx.GraphModule, names: dict[str, str], table: GroupTable) -> dict[str, str]:
    """get_attr node name -> the family that this parameter produces."""
    families = {}
    for entry in table.axis_maps:
        if entry.producing:
            group = int(entry.group_of_index.max())
            families[entry.parameter] = table.family_names[int(table.family_of[group])]
    return {
        node.name: families[names[str(node.target)]]
        for node in module.graph.nodes
        if node.op == "get_attr" and names.get(str(node.target)) in families
    }


def _cost_model(
    model: nn.Module, qadg: QADG, state: Propagation, table: GroupTable, quantizers: Quantizers | None, dense: Totals | None
) -> CostModel:
    taken: dict[str, int] = {}
    exits = {branch.exit: branch for branch in qadg.branches}
    repeats = _repeats(qadg.trace)
    counted = [replace(macs, const=macs.const // repeats) if _is_dynamic(macs.node) else macs for macs in state.findings.macs]
    static = _of_parameters(qadg.trace.module.graph, exits)
    operators = [_operator_cost(macs, qadg, exits, static, state, table, taken) for macs in counted]
    layer_of = quantizers.parameter_layer if quantizers is not None else {}
    parameters, seen = [], set()
    for name, tensor in (*parameter_tensors(model).items(), *foreign_parameters(model).items()):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        labels = state.tensors.get(name) or Labels(tuple(tensor.shape))
        parameters.append(ParameterCost(name, _extent(labels, table), layer_of.get(name), tensor.element_size() * 8))
    return CostModel(operators, parameters, table.n_groups, dense=dense)


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
