"""Weights that parametrizations of the model's own compute, in the graph: which of them can stand there without what computes them.

In: a plain trace with a mark behind each, or a quantizer of ours. Out: those that a matrix operator reads and whose parts nothing else
reads; a subnet has such a weight as a plain quantized one. Serves the sites, the costs and the cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from geta_nb.graph import operator_name
from geta_nb.groups import Labels, Propagation
from geta_nb.qadg.branches import COMPUTE, ancestors, readers
from geta_nb.qadg.folded import QADG
from geta_nb.quantizers import Quantizers, WeightQuantizer, computed, is_foreign

_HINT = "remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations)"


@dataclass
class FoundComputed:
    """Weights that others compute.

    Attributes:
        asked: name -> its marks, of those that a matrix operator reads and that can stand alone.
        apart: name -> why it cannot.
    """

    asked: dict[str, list[fx.Node]] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)


def feeds_matrix_operator(node: fx.Node) -> bool:
    """Whether a matrix operator reads a value."""
    return any(operator_name(user) in COMPUTE for user in readers(node))


def find_computed(graph: fx.Graph, names: Mapping[str, str], marks: Mapping[fx.Node, str]) -> FoundComputed:
    """Return which marked weights a quantizer has a use for.

    Args:
        graph: plain trace with marks.
        names: get_attr target -> own name of a parameter or buffer.
        marks: mark behind what computes a weight -> the weight's name.
    """
    found = FoundComputed()
    for node, name in marks.items():
        found.asked.setdefault(name, []).append(node)
    found.asked = {name: nodes for name, nodes in found.asked.items() if any(map(feeds_matrix_operator, nodes))}
    while True:  # a part that two weights share is free once both can stand alone
        alive = _alive(graph, {node for nodes in found.asked.values() for node in nodes})
        apart = {name: why for name, nodes in found.asked.items() if (why := _why_not(name, nodes, names, alive)) is not None}
        if not apart:
            return found
        found.apart |= apart
        found.asked = {name: nodes for name, nodes in found.asked.items() if name not in apart}


def _alive(graph: fx.Graph, ends: set[fx.Node]) -> list[fx.Node]:
    """Return the tensors that something reads where marks are taken for the weights themselves."""
    dead: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        writes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op in ("get_attr", "call_function") and not writes and all(user in dead or user in ends for user in node.users):
            dead.add(node)
    return [node for node in graph.find_nodes(op="get_attr") if node not in dead]


def _why_not(name: str, marks: Iterable[fx.Node], names: Mapping[str, str], alive: list[fx.Node]) -> str | None:
    made = {item for node in marks for item in ancestors(node)}
    if any(item.op == "placeholder" for item in made):
        return f"computed from what the network is given: {_HINT}"
    if any(isinstance(item.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in item.target.tags for item in made):
        return f"computed with random numbers: {_HINT}"
    parts = {names.get(str(item.target), str(item.target)) for item in made if item.op == "get_attr"} & set(names.values())
    if any(names.get(str(item.target), "") in parts or str(item.target).startswith(_inside(name)) for item in alive):
        return f"computed from what is read elsewhere too: {_HINT}"
    return None


def _inside(name: str) -> str:
    """Return how the names of all that computes a weight begin; the only tensor that a single parametrization starts from has its own."""
    path, _, leaf = name.rpartition(".")
    return f"{path}.parametrizations.{leaf}." if path else f"parametrizations.{leaf}."


@dataclass(frozen=True)
class ComputedLabels:
    """A quantized weight that others compute, in a graph.

    Attributes:
        labels: of its axes.
        entry: the node whose value goes into its quantizer.
        inside: how the names of all that computes it begin; what stands behind the quantizer is none of it.
    """

    labels: Labels
    entry: fx.Node
    inside: tuple[str, ...]


def labels_of_computed(qadg: QADG, state: Propagation, quantizers: Quantizers) -> dict[str, ComputedLabels]:
    """Return what a graph says of each quantized weight that others compute, by its first name."""
    nodes, found = {node.name: node for node in qadg.trace.module.graph.nodes}, {}
    layers = {layer: name for name, layer in reversed(list(quantizers.computed.items()))}
    for branch in qadg.branches:
        layer = qadg.layers.get(branch.exit, "")
        if branch.kind == "attached" and layer in layers and layers[layer] not in found:
            entry = nodes[branch.entry]
            labels = state.values[entry]
            labels = labels if isinstance(labels, Labels) else Labels(tuple(entry.meta["val"].shape))
            behind = int(quantizers.paths[quantizers.weights[layer]].rpartition(".")[2])
            inside = tuple(f"{_inside(layers[layer])}{part}" for part in ("original", *(f"{number}." for number in range(behind))))
            found[layers[layer]] = ComputedLabels(labels, entry, inside)
    return found


def parts_of(found: Mapping[str, ComputedLabels], tensors: Mapping[str, torch.Tensor]) -> set[int]:
    """Return the ids of those ``tensors``, by own name, from which the found weights are computed: nothing else reads them."""
    read = {str(item.target) for one in found.values() for item in ancestors(one.entry) if item.op == "get_attr"}
    inside = tuple(start for one in found.values() for start in one.inside)
    return {id(tensor) for name, tensor in tensors.items() if name in read or name.startswith(inside)}


def computed_by_others(model: nn.Module) -> dict[str, str]:
    """Return {name: why it stays unquantized} for weights that others compute: parametrizations of the model's own, or hooks."""
    found = {}
    for path, module in model.named_modules():
        for name, tensors in computed(module).items():
            if is_foreign(module, name) and not any(isinstance(item, WeightQuantizer) for item in tensors):
                reason = f"computed by {type(tensors[0]).__name__}, a parametrization of the model's own"
                found[f"{path}.{name}" if path else name] = reason
        for name in _hooked(module):
            hint = "use the form in torch.nn.utils.parametrizations, which is quantized, or remove it first"
            found[f"{path}.{name}" if path else name] = f"a plain attribute that a hook computes before each forward: {hint}"
    return found


def _hooked(module: nn.Module) -> list[str]:
    """Return the matrices that a module with forward pre-hooks keeps as plain attributes beside the parameters they are made of."""
    others = [hook for hook in module._forward_pre_hooks.values() if not getattr(hook, "__module__", "").startswith("geta_nb.")]
    shapes = {tuple(parameter.shape) for parameter in module._parameters.values() if parameter is not None}
    plain = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor) and value.is_floating_point()}
    return [name for name, value in plain.items() if others and value.ndim >= 2 and tuple(value.shape) in shapes]
