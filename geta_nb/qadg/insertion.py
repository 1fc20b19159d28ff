"""Put the branches of quantizers into a graph that was traced without them. Between the quantizers and the QADG.

In: a plain trace, in which marks stand for quantizers before inputs, its labels, and the quantizers. Out: the same trace with the nodes
that torch's exporter would have written, and a :class:`Branch` for each; labels pass through them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph import call_of, drop_mark, is_mark, mark_label, marked_value, operator_name
from geta_nb.groups import Propagation
from geta_nb.qadg.branches import COMPUTE, Branch, name_of_input, readers, with_unique_names
from geta_nb.qadg.folded import QADG
from geta_nb.qadg.names import place_tensor
from geta_nb.quantizers import NUMBERS, WEIGHT, WRITTEN_AT, Quantizer, Quantizers, branch_program, mark_of


@dataclass(frozen=True)
class _Place:
    """Where a quantizer stands: ``users`` of ``replaced`` read what it gives out; it comes before ``before``, in its scope."""

    kind: str
    layer: str
    replaced: fx.Node
    users: tuple[fx.Node, ...]
    before: fx.Node

    @property
    def source(self) -> fx.Node:
        """The node whose value it quantizes: what a mark hands on, itself quantized where it is a quantized parameter."""
        return marked_value(self.replaced) if is_mark(self.replaced) else self.replaced


@dataclass
class Inserted:
    """What was put into a graph.

    Attributes:
        branches: one for each place where a quantizer stands.
        layers: exit of a branch -> layer of its quantizer.
        ends: node that a branch stands for now (a mark, or a parameter) -> first and last node of the branch.
    """

    branches: list[Branch] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    ends: dict[fx.Node, tuple[fx.Node, fx.Node]] = field(default_factory=dict)


def put_branches(module: fx.GraphModule, names: Mapping[str, str], quantizers: Quantizers, state: Propagation) -> Inserted:
    """Write the branches of ``quantizers`` into a graph.

    Args:
        module: its plain trace; changed in place: no mark is left.
        names: get_attr target -> own name.
        quantizers: what was attached, whose numbers the graph reads from now on.
        state: labels of the plain trace; the new nodes get theirs, and operands are the quantized ones.
    """
    found, computed = Inserted(), {layer: name for name, layer in reversed(list(quantizers.computed.items()))}
    top, like, known = next(iter(module.graph.nodes)), _Likes(), _readers(module)
    for place in _places(module.graph, names, quantizers):
        quantizer = (quantizers.weights if place.kind == WEIGHT else quantizers.activations)[place.layer]
        source = place.source
        nodes = _write(module, place, quantizer, quantizers.paths[quantizer], known, top, like)
        found.ends[place.replaced] = nodes[0], nodes[-1]
        found.layers[nodes[-1].name] = place.layer
        own = computed.get(place.layer) if place.kind == WEIGHT else None
        found.branches.append(_describe(place, source, nodes, names, quantizers.paths[quantizer], own))
        state.values.update(dict.fromkeys(nodes, state.values[source]))
    moved = {old: last for old, (_, last) in found.ends.items()}
    for node in [node for node in module.graph.nodes if is_mark(node)]:
        moved.setdefault(node, marked_value(node))  # its quantizer could not be attached
        drop_mark(node)
        del state.values[node]
    for i, macs in enumerate(state.findings.macs):
        weight, data = (moved.get(item, item) if item is not None else None for item in (macs.weight, macs.data))
        state.findings.macs[i] = replace(macs, weight=weight, data=data)
    module.recompile()
    return found


def match_codes(module: fx.GraphModule, qadg: QADG, quantizers: Quantizers, state: Propagation) -> QADG:
    """Return the QADG whose branches compute what their quantizers do now; the very one that came in where they all do.

    A quantizer of an input may lose its sign when it is calibrated, and one of a weight takes over the codes that a subnet has. The folded
    graph stays; the raw nodes of such a branch are written anew.
    """
    nodes = {node.name: node for node in module.graph.nodes}
    branches, layers, changed, known = [], dict(qadg.layers), False, _readers(module)
    for branch in qadg.branches:
        layer = layers.get(branch.exit)
        table = quantizers.weights if branch.kind == "attached" else quantizers.activations
        quantizer: Quantizer | None = table.get(layer or "")
        if quantizer is None or layer is None:
            branches.append(branch)
            continue
        old = [nodes[name] for name in branch.nodes]
        source, last = nodes[branch.entry], old[-1]
        program = branch_program(source.meta["val"].dtype, quantizer.step_size.dtype, quantizer.kind)
        if [node.target for node in program.nodes if node.op == "call_function"] == [node.target for node in old]:
            branches.append(branch)
            continue
        numbers = [known[f"{quantizers.paths[quantizer]}.{name}"] for name in NUMBERS]
        new = _write_program(module, source, numbers, quantizer, old[0], {**old[0].meta, "val": None}, _Likes())
        last.replace_all_uses_with(new[-1])
        state.values.update(dict.fromkeys(new, state.values[source]))
        for node in reversed(old):
            del state.values[node]
            module.graph.erase_node(node)
        del layers[branch.exit]
        layers[new[-1].name], changed = layer, True
        branches.append(replace(branch, nodes=tuple(node.name for node in new), exit=new[-1].name))
    if not changed:
        return qadg
    module.recompile()
    return QADG(qadg.trace, tuple(branches), layers, qadg.families)


def _readers(module: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the first node that reads each tensor, by the tensor's name."""
    return {str(node.target): node for node in reversed(list(module.graph.find_nodes(op="get_attr")))}


def join_branches(module: fx.GraphModule, foreign: Iterable[Branch], inserted: Inserted) -> tuple[Branch, ...]:
    """Return the branches of others and ours in order of execution, under unique names."""
    ends = {old.name: (first.name, last.name) for old, (first, last) in inserted.ends.items() if is_mark(old)}
    mended = [
        replace(branch, entry=ends.get(branch.entry, ("", branch.entry))[1], operator=ends.get(branch.operator, (branch.operator, ""))[0])
        for branch in foreign
    ]
    order = {node.name: position for position, node in enumerate(module.graph.nodes)}
    return with_unique_names(sorted([*mended, *inserted.branches], key=lambda branch: order[branch.exit]))


def _places(graph: fx.Graph, names: Mapping[str, str], quantizers: Quantizers) -> list[_Place]:
    """Return where quantizers stand, in order of execution; a parameter's before that of an input which it is."""
    found: list[_Place] = []
    order = {node: position for position, node in enumerate(graph.nodes)}
    at_marks = {mark_of(mark_label(node)) for node in order if is_mark(node)}
    for node in order:
        if is_mark(node):
            kind, layer = mark_of(mark_label(node))
            if layer in (quantizers.weights if kind == WEIGHT else quantizers.activations):
                found.append(_Place(kind, layer, node, tuple(node.users), node))
        elif node.op == "get_attr" and node.users:
            owner = quantizers.parameter_layer.get(names.get(str(node.target), ""))
            if owner is not None and (WEIGHT, owner) not in at_marks:
                path = names[str(node.target)].rpartition(".")[0]
                calls: dict[str, list[fx.Node]] = {}
                for user in sorted(node.users, key=order.__getitem__):
                    calls.setdefault(call_of(user, path), []).append(user)
                found += [_Place(WEIGHT, owner, node, tuple(users), users[0]) for users in calls.values()]
    return sorted(found, key=lambda place: (order[place.before], place.kind != WEIGHT))


def _write(
    module: fx.GraphModule, place: _Place, quantizer: Quantizer, path: str, known: dict[str, fx.Node], top: fx.Node, like: _Likes
) -> list[fx.Node]:
    """Write the nodes of one branch and let all that read the plain value read its result; return them in order."""
    source = place.source
    x: Tensor = source.meta["val"]
    numbers = [_number(module, f"{path}.{name}", getattr(quantizer, name), x, known, top, like) for name in NUMBERS]
    name = f"{type(quantizer).__module__}.{type(quantizer).__qualname__}"
    scopes = {**(place.before.meta.get("nn_module_stack") or {}), f"L__self__{path}": (path, name)}
    meta = {"nn_module_stack": scopes, "stack_trace": WRITTEN_AT}
    nodes = _write_program(module, source, numbers, quantizer, place.before, meta, like)
    for user in place.users:
        user.replace_input_with(place.replaced, nodes[-1])
    return nodes


def _write_program(
    module: fx.GraphModule, source: fx.Node, numbers: list[fx.Node], quantizer: Quantizer, before: fx.Node, meta: dict[str, Any],
    like: _Likes,
) -> list[fx.Node]:
    """Write the formula of a quantizer, which nothing reads yet; return its nodes in order."""
    x: Tensor = source.meta["val"]
    inputs = iter((source, *numbers))
    twins: dict[fx.Node, fx.Node] = {}
    nodes: list[fx.Node] = []
    with module.graph.inserting_before(before):
        for item in branch_program(x.dtype, quantizer.step_size.dtype, quantizer.kind).nodes:
            if item.op == "placeholder":
                twins[item] = next(inputs)
            elif item.op == "call_function":
                twin = twins[item] = module.graph.node_copy(item, twins.__getitem__)
                value: Tensor = item.meta["val"]
                # a number that is cast keeps its shape, which is not 0-dim where there is one a channel
                shape = x.shape if value.dim() else tuple(twin.all_input_nodes[0].meta["val"].shape)
                twin.meta = {**meta, "val": like(x, value.dtype, shape)}
                nodes.append(twin)
    return nodes


class _Likes:
    """What nodes give out, as a trace notes it: shape and type, no numbers. Each is made once: torch takes its time for one."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, x: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Return a value of ``dtype`` and ``shape``; of the shape of ``x``, laid out as that."""
        if shape == x.shape and shape:
            return x if dtype == x.dtype else torch.empty_like(x, dtype=dtype)
        if (key := (dtype, x.dtype, *shape)) not in self._made:
            self._made[key] = x.new_empty(shape, dtype=dtype)
        return self._made[key]


def _number(
    module: fx.GraphModule, target: str, parameter: Tensor, x: Tensor, known: dict[str, fx.Node], top: fx.Node, like: _Likes
) -> fx.Node:
    """Return the node that reads a number of a quantizer; ``known`` has those that are there."""
    if (node := known.get(target)) is not None:
        return node
    place_tensor(module, target, parameter)
    with module.graph.inserting_before(top):
        made = known[target] = module.graph.get_attr(target)
    made.meta = {"val": like(x, parameter.dtype, tuple(parameter.shape))}
    return made


def _describe(
    place: _Place, source: fx.Node, nodes: list[fx.Node], names: Mapping[str, str], path: str, computed: str | None
) -> Branch:
    users = readers(nodes[-1])
    operator = next((user for user in users if operator_name(user) in COMPUTE), users[0] if users else nodes[-1])
    own: Any = computed or names.get(str(source.target), place.layer)
    return Branch(
        name=own if place.kind == WEIGHT else name_of_input(operator),
        kind="attached" if place.kind == WEIGHT else "inserted",
        nodes=tuple(node.name for node in nodes),
        entry=source.name,
        exit=nodes[-1].name,
        operator=operator.name,
        parameters=tuple(sorted(f"{path}.{name}" for name in NUMBERS)),
        keeps_zero=True,
    )
