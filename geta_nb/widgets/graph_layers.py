"""One numbering of everything in a trace, and three pictures of it: raw trace, branches before folding, folded graph.

In: a QADG. Out: nodes in order of execution, the modules and branches that hold them, and the edges of each picture. Pure; no widget.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from geta_nb.display.wording import clean, plain_operator, shape_text
from geta_nb.graph import module_path, operator_name, running_paths, shape_of
from geta_nb.qadg import QADG
from geta_nb.widgets.structure import Item, Picture, find_structure, quiet_nodes

Pair = tuple[int, int]
LAYERS = ("raw", "branches", "QADG")


@dataclass
class Layers:
    """Nodes and pictures of one network.

    Attributes:
        nodes: every node of the trace, in order of execution; a parameter stands where it is read first. Positions are what follows
            speaks of.
        modules: dotted path of every module that holds a node; the root, ``""``, is the first.
        called: for each of ``modules`` whether it runs as a module; a list of modules does not.
        module: position in ``modules`` of each node.
        branch: position of each node's branch, -1 for none. Its entry, where a parameter, and its numbers belong to it.
        serves: for each node the position of the QADG vertex that it is, or is part of; -1 for none.
        members: nodes of each picture, by the names in :data:`LAYERS`.
        edges: pairs of nodes of each picture.
    """

    nodes: list[fx.Node]
    modules: list[str] = field(default_factory=list)
    called: list[bool] = field(default_factory=list)
    module: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    serves: list[int] = field(default_factory=list)
    members: dict[str, list[int]] = field(default_factory=dict)
    edges: dict[str, list[Pair]] = field(default_factory=dict)


def find_layers(qadg: QADG) -> Layers:
    """Return the three pictures of a network."""
    nodes = _in_order(qadg)
    index = {node.name: i for i, node in enumerate(nodes)}
    layers = Layers(nodes)
    _place(layers)
    layers.branch = _branches(qadg, nodes, index)
    folded = [index[vertex.name] for vertex in qadg.vertices]
    layers.serves = _served(qadg, nodes, index, set(folded))
    parts = {i for i, branch in enumerate(layers.branch) if branch >= 0}
    layers.members = {"raw": list(range(len(nodes))), "branches": sorted(parts | set(folded)), "QADG": folded}
    raw = [(index[source.name], i) for i, node in enumerate(nodes) for source in node.all_input_nodes]
    layers.edges = {
        "raw": list(dict.fromkeys(raw)),
        "branches": _looking_through(nodes, index, set(layers.members["branches"])),
        "QADG": [(index[a], index[b]) for a, b in qadg.edges],
    }
    return layers


def _in_order(qadg: QADG) -> list[fx.Node]:
    nodes = list(qadg.trace.module.graph.nodes)
    place = {node: (float(i), i) for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):
        if node.op == "get_attr" and node.users:
            place[node] = (min(place[user][0] for user in node.users) - 0.5, i)
    return sorted(nodes, key=place.__getitem__)


def owner_path(node: fx.Node) -> str:
    """Return the module that a node belongs to: whose forward ran it, or which owns the parameter."""
    return str(node.target).rpartition(".")[0] if node.op == "get_attr" else module_path(node)


def _place(layers: Layers) -> None:
    position = {"": 0}
    for node in layers.nodes:
        path, above = owner_path(node), ""
        for part in path.split(".") if path else ():
            above = f"{above}.{part}" if above else part
            position.setdefault(above, len(position))
        layers.module.append(position[path])
    layers.modules = list(position)
    running = {path for node in layers.nodes for path in running_paths(node)}
    owners = {owner_path(node) for node in layers.nodes}
    layers.called = [path == "" or path in running or path in owners for path in layers.modules]


def _branches(qadg: QADG, nodes: list[fx.Node], index: dict[str, int]) -> list[int]:
    found = [-1] * len(nodes)
    for position, branch in enumerate(qadg.branches):
        for name in branch.nodes:
            found[index[name]] = position
            for source in nodes[index[name]].all_input_nodes:  # its numbers, and the weight it starts at
                if source.op == "get_attr" and (str(source.target) in branch.parameters or source.name == branch.entry):
                    found[index[source.name]] = position
    return found


def _served(qadg: QADG, nodes: list[fx.Node], index: dict[str, int], folded: set[int]) -> list[int]:
    """QADG vertex of each node: itself, the operator of its branch, or the first that reads it."""
    operator = [index[branch.operator] for branch in qadg.branches]
    owner = {index[name]: operator[i] for i, branch in enumerate(qadg.branches) for name in branch.nodes}
    served = [-1] * len(nodes)
    for i in range(len(nodes) - 1, -1, -1):
        node = nodes[i]
        if i in folded:
            served[i] = i
        elif owner.get(i, -1) in folded:
            served[i] = owner[i]
        elif node.op == "get_attr" or shape_of(node) is not None:
            sources = [] if node.op == "get_attr" else node.all_input_nodes
            picked = any(index[source.name] in folded and shape_of(source) is None for source in sources)
            ends: Iterable[fx.Node] = sources if picked else node.users
            found = [index[end.name] if picked else served[index[end.name]] for end in ends]
            served[i] = next((vertex for vertex in found if vertex >= 0), -1)
    return served


def _looking_through(nodes: list[fx.Node], index: dict[str, int], shown: set[int]) -> list[Pair]:
    """Edges between the nodes that are shown, also where hidden ones lie between them; a size carries no activation."""
    origins: list[tuple[int, ...]] = []
    edges: dict[Pair, None] = {}
    for i, node in enumerate(nodes):
        sources = dict.fromkeys(origin for item in node.all_input_nodes for origin in origins[index[item.name]])
        if i in shown:
            edges.update(dict.fromkeys((origin, i) for origin in sources))
        is_size = shape_of(node) is None and not isinstance(node.meta.get("val"), (list, tuple))
        origins.append((i,) if i in shown else () if is_size else tuple(sources))
    return list(edges)


def find_trees(layers: Layers, carrying: Collection[str], names: Sequence[str] = LAYERS) -> tuple[set[int], dict[str, Item]]:
    """Return the quiet nodes and the tree of each picture, by the names in :data:`LAYERS`.

    Args:
        layers: the three pictures.
        carrying: positions, as text, of vertices with a family, a parameter, a quantizer or a cost.
        names: of the pictures wanted.
    """
    ends = {i for i, node in enumerate(layers.nodes) if node.op in ("placeholder", "output")}
    values = [_value(node) for node in layers.nodes]
    folded = layers.members["QADG"]
    data = {i for i in ends if values[i] == "f"}  # an image is what flows through the network; whole numbers only say which, or where
    quiet = quiet_nodes(folded, layers.edges["QADG"], data | {int(i) for i in carrying}, values) - ends
    quiet |= {i for i, vertex in enumerate(layers.serves) if i not in ends and (vertex in quiet or vertex < 0)}
    operators = [operator_words(node) for node in layers.nodes]
    trees = {}
    for layer in names:
        inside = layers.branch if layer == "branches" else [-1] * len(layers.nodes)
        module = [layers.module[layers.serves[i]] if inside[i] >= 0 else own for i, own in enumerate(layers.module)]
        members, edges = layers.members[layer], layers.edges[layer]
        picture = Picture(layers.modules, layers.called, module, members, edges, operators, quiet, values)
        trees[layer] = find_structure(picture)
    return quiet, trees


def _value(node: fx.Node) -> str:
    """What a node gives: "b" truth values, "i" whole numbers, "f" other numbers, "" no tensor."""
    value = node.meta.get("val")
    first = next((one for one in value if isinstance(one, torch.Tensor)), None) if isinstance(value, (list, tuple)) else value
    if not isinstance(first, torch.Tensor):
        return ""
    return "b" if first.dtype == torch.bool else "f" if first.is_floating_point() or first.is_complex() else "i"


def node_shape(node: fx.Node) -> str:
    """Return the output shape in words; of an operator with several outputs, that of the first."""
    shape = shape_of(node)
    if shape is None and isinstance(node.meta.get("val"), (list, tuple)):
        shape = next((found for user in node.users if (found := shape_of(user)) is not None), None)
    return shape_text(shape)


def operator_words(node: fx.Node) -> str:
    """Return the operator's name; a parameter is called one, and an input."""
    name = operator_name(node)
    return {"get_attr": "parameter", "placeholder": "input"}.get(node.op) or plain_operator(name)


def module_types(model: nn.Module, paths: Iterable[str]) -> list[str]:
    """Return the class name of each module, "" for a path that is no module of its own."""
    known: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
    return [clean(type_before_parametrizations(known[path]).__name__) if path in known else "" for path in paths]
