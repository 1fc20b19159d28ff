"""Quantizer branches in a trace, found by structure: no class name is asked. Between the trace and the QADG.

A branch is a run of element-wise nodes around a rounding, with one tensor going in and one of the same shape coming out; everything else
it reads is a quantizer parameter (one number) or a constant. An *attached* branch starts at a weight, an *inserted* one at an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from geta_nb.operators.pointwise import is_pointwise
from geta_nb.propagate import attribute_tensor
from geta_nb.trace import module_path, operator_name, shape_of
from geta_nb.views import Shown

COMPUTE = frozenset(
    """linear addmm mm bmm matmul baddbmm mv einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
    embedding scaled_dot_product_attention""".split()
)
_LAYOUT = frozenset("view reshape _unsafe_view t transpose permute expand unsqueeze squeeze clone contiguous _to_copy slice select getitem".split())
_CASTS = frozenset("detach alias clone contiguous _to_copy to lift_fresh_copy".split())


@dataclass(frozen=True, eq=False)
class Branch(Shown):
    """One quantizer in the raw trace.

    Attributes:
        name: what it quantizes: a parameter, or the operator whose input it is.
        kind: "attached" (starts at a weight) or "inserted" (starts at an activation).
        nodes: names of the raw nodes that are folded away, in order.
        entry: name of the node whose value goes in.
        exit: name of the last folded node.
        operator: name of the node that reads the quantized value first.
        parameters: dotted targets of the numbers it reads (step size, clip value, exponent).
        keeps_zero: whether zero stays zero.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    entry: str
    exit: str
    operator: str
    parameters: tuple[str, ...]
    keeps_zero: bool


def find_branches(module: fx.GraphModule) -> tuple[Branch, ...]:
    """Return every quantizer branch of a traced graph, in order of execution."""
    graph = list(module.graph.nodes)
    order = {node: position for position, node in enumerate(graph)}
    numbers = _numbers(module, graph)
    parameters = _parameter_only(graph)
    found: list[Branch] = []
    taken: set[fx.Node] = set()
    for node in graph:
        if node in taken or not _starts(node):
            continue
        region = _grow(node, order, numbers)
        if region is None or region[0] & taken:
            continue
        members, entry, last = region
        taken |= members
        found.append(_describe(module, sorted(members, key=order.__getitem__), entry, last, numbers, parameters))
    return tuple(found)


def readers(node: fx.Node) -> list[fx.Node]:
    """Return the operators that read a value, looking through views and casts."""
    result: list[fx.Node] = []
    for user in node.users:
        result += readers(user) if operator_name(user) in _LAYOUT and user.op == "call_function" else [user]
    return result


def _starts(node: fx.Node) -> bool:
    name = operator_name(node)
    return node.op == "call_function" and (name == "round" or "fake_quantize_per_tensor" in name or "fake_quantize_learnable_per_tensor" in name)


def _numbers(module: fx.GraphModule, graph: list[fx.Node]) -> set[fx.Node]:
    """Nodes that are one number made of parameters, buffers and constants."""
    result: set[fx.Node] = set()
    for node in graph:
        shape = shape_of(node)
        if shape is None or torch.Size(shape).numel() != 1:
            continue
        if node.op == "get_attr" or (node.op == "call_function" and all(item in result for item in node.all_input_nodes)):
            result.add(node)
    return result


def _parameter_only(graph: list[fx.Node]) -> set[fx.Node]:
    result: set[fx.Node] = set()
    for node in graph:
        if node.op == "get_attr" or (node.op == "call_function" and node.all_input_nodes and all(i in result for i in node.all_input_nodes)):
            result.add(node)
    return result


def _grow(start: fx.Node, order: dict[fx.Node, int], numbers: set[fx.Node]) -> tuple[set[fx.Node], fx.Node, fx.Node] | None:
    """Grow a branch around a rounding; None when it has more than one way in or out."""
    scope, shape = module_path(start), shape_of(start)
    members = {start}
    if isinstance(start.meta.get("val"), (list, tuple)):  # a fused fake-quantize that returns its mask as well
        members |= {user for user in start.users}
        entry = start.args[0]
        last = next((user for user in start.users if user.args[1] == 0), start)
        return (members, entry, last) if isinstance(entry, fx.Node) else None
    if "fake_quantize" in operator_name(start):
        return (members, start.args[0], start) if isinstance(start.args[0], fx.Node) else None

    def tensors(node: fx.Node) -> list[fx.Node]:
        return [item for item in node.all_input_nodes if item not in numbers and shape_of(item) is not None]

    def belongs(node: fx.Node) -> bool:
        return is_pointwise(node) and shape_of(node) == shape and module_path(node) == scope

    def reads_number(node: fx.Node) -> bool:
        return any(item in numbers for item in node.all_input_nodes)

    while True:
        inputs = sorted({item for node in members for item in tensors(node)} - members, key=order.__getitem__)
        if not inputs:
            return None
        last_input = inputs[-1]
        if len(inputs) > 1 or reads_number(last_input):
            if belongs(last_input):
                members.add(last_input)
                continue
            if len(inputs) > 1:
                return None
        entry = inputs[0]
        added = [
            user
            for node in members
            for user in node.users
            if user not in members
            and belongs(user)
            and (reads_number(user) or operator_name(user) in _CASTS or (len(tensors(user)) > 1 and _joins(tensors(user), members, entry)))
        ]
        if not added:
            break
        members.update(added)
    outside = [node for node in members if any(user not in members for user in node.users)]
    return (members, entry, outside[0]) if len(outside) == 1 else None


def _joins(inputs: list[fx.Node], members: set[fx.Node], entry: fx.Node) -> bool:
    """Whether every other tensor read is inside already, the entry, or the other arm of a fork that starts at or just before the entry."""
    near = {entry, *entry.all_input_nodes}
    return all(
        item in members or item is entry or (is_pointwise(item) and bool(near & {source for s in item.all_input_nodes for source in (s, *s.all_input_nodes)}))
        for item in inputs
    )


def _describe(
    module: fx.GraphModule, members: list[fx.Node], entry: fx.Node, last: fx.Node, numbers: set[fx.Node], parameters: set[fx.Node]
) -> Branch:
    read = {item for node in members for item in _sources(node, numbers)}
    users = [user for user in readers(last) if user not in members]
    operator = next((user for user in users if operator_name(user) in COMPUTE), users[0] if users else last)
    kind = "attached" if entry in parameters else "inserted"
    name = str(entry.target) if entry.op == "get_attr" else f"{module_path(operator) or operator.name}: input"
    return Branch(
        name=name,
        kind=kind,
        nodes=tuple(node.name for node in members),
        entry=entry.name,
        exit=last.name,
        operator=operator.name,
        parameters=tuple(sorted(str(item.target) for item in read)),
        keeps_zero=_keeps_zero(module, members, entry, last),
    )


def _sources(node: fx.Node, numbers: set[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for item in node.all_input_nodes:
        if item in numbers:
            found |= {item} if item.op == "get_attr" else _sources(item, numbers)
    return found


def _keeps_zero(module: fx.GraphModule, members: list[fx.Node], entry: fx.Node, last: fx.Node) -> bool:
    """Run the branch on zeros, with its own numbers, or with ones where these are not usable yet."""
    for own in (True, False):
        value = _run(module, members, entry, last, own)
        if value is not None and bool(torch.isfinite(value).all()):
            return bool((value == 0).all())
    return False


def _run(module: fx.GraphModule, members: list[fx.Node], entry: fx.Node, last: fx.Node, own: bool) -> torch.Tensor | None:
    values: dict[fx.Node, Any] = {entry: torch.zeros(4, dtype=entry.meta["val"].dtype)}

    def value_of(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "get_attr":
                tensor = attribute_tensor(module, str(node.target)).detach()
                values[node] = tensor if own and not tensor.is_meta else torch.ones(tensor.shape, dtype=tensor.dtype)
            else:
                values[node] = node.target(*fx.map_arg(node.args, value_of), **fx.map_arg(node.kwargs, value_of))  # type: ignore[operator]
        return values[node]

    try:
        with torch.no_grad():
            for node in members:
                value_of(node)
            result = value_of(last)
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return result if isinstance(result, torch.Tensor) else None
