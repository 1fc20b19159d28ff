"""Quantizer branches in a trace, found by structure: no class name is asked. Between the trace and the QADG.

A branch is a run of element-wise nodes around a rounding, in one module's scope, with one tensor going in and one of the same shape coming
out. Everything else it reads is one number, or one a channel: a quantizer parameter or a constant; it reads one before the rounding and
one after it, so a bare ``round`` is no branch. An *attached* branch starts at a parameter, an *inserted* one at an activation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from geta_nb.graph import module_path, operator_name, shape_of
from geta_nb.groups import is_pointwise
from geta_nb.qadg.zero_check import keeps_zero
from geta_nb.views import Shown

COMPUTE = frozenset(
    (
        "linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "mv", "einsum", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d", "convolution", "embedding", "embedding_bag", "scaled_dot_product_attention",
        "_grouped_mm", "transformers::grouped_mm_fallback",
    )
)  # fmt: skip
_LAYOUT = frozenset(
    (
        "view", "reshape", "_unsafe_view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "flatten", "clone", "contiguous",
        "_to_copy", "slice", "select", "getitem", "index", "index_select",
    )
)  # fmt: skip
_ARITHMETIC = frozenset(("mul", "div", "add", "sub", "rsub", "true_divide", "clamp", "clamp_min", "clamp_max", "minimum", "maximum", "pow"))
_CASTS = frozenset(("detach", "alias", "clone", "contiguous", "_to_copy", "to", "lift_fresh_copy"))
_AGAIN = " @"
_LARGEST = 48
"""Nodes of the largest branch that is looked for; a quantizer has 3 to 15."""


@dataclass(frozen=True, eq=False)
class Branch(Shown):
    """One quantizer in the raw trace.

    Attributes:
        name: what it quantizes: a parameter, or the operator whose input it is; unique.
        kind: "attached" (starts at a parameter) or "inserted" (starts at an activation).
        nodes: names of the raw nodes that are folded away, in order.
        entry: name of the node whose value goes in.
        exit: name of the last folded node.
        operator: name of the node that reads the quantized value first.
        parameters: dotted targets of the numbers it reads (step size, clip value, exponent).
        keeps_zero: whether zero stays zero, whatever values its trainable numbers take.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    entry: str
    exit: str
    operator: str
    parameters: tuple[str, ...]
    keeps_zero: bool


@dataclass(frozen=True)
class _Region:
    members: frozenset[fx.Node]
    entry: fx.Node
    exit: fx.Node


class _Finder:
    """A graph with what is asked of it again and again: order, numbers (one, or one a channel), and values made of parameters alone."""

    def __init__(self, graph: fx.Graph) -> None:
        self.order = {node: position for position, node in enumerate(graph.nodes)}
        self.numbers: set[fx.Node] = set()
        self.static: set[fx.Node] = set()
        for node in graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "get_attr" or (node.op == "call_function" and inputs and all(item in self.static for item in inputs)):
                self.static.add(node)
            if is_small(node) and (node.op == "get_attr" or (node.op == "call_function" and all(map(self._is_number, inputs)))):
                self.numbers.add(node)

    def _is_number(self, node: fx.Node) -> bool:
        """Whether a value is one element, or one a channel, made of parameters, buffers and constants, or a size."""
        return node in self.numbers or (shape_of(node) is None and not isinstance(node.meta.get("val"), (list, tuple)))

    def tensors(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs that are tensors of more than a number."""
        return [item for item in node.all_input_nodes if shape_of(item) is not None and not self._serves_as_number(item, node)]

    def _serves_as_number(self, item: fx.Node, reader: fx.Node) -> bool:
        """Whether an input is a number to its reader; a matrix of one element is none to what works on it element by element."""
        shape = shape_of(item) or ()
        if item not in self.numbers or (len(shape) > 1 and shape == shape_of(reader)):
            return False
        return size_of(item) == 1 or len(shape) == len(shape_of(reader) or ())

    def sources(self, node: fx.Node) -> set[fx.Node]:
        """Return the parameters and buffers behind the numbers that a node reads."""
        numbers = [item for item in node.all_input_nodes if self._serves_as_number(item, node)]
        return {source for item in numbers for source in ancestors(item) if source.op == "get_attr"}

    def reads_number(self, node: fx.Node) -> bool:
        """Whether a number takes part: a parameter's, or one written into the code."""
        if any(self._serves_as_number(item, node) for item in node.all_input_nodes):
            return True
        return operator_name(node) in _ARITHMETIC and any(isinstance(arg, (int, float)) for arg in (*node.args[1:], *node.kwargs.values()))

    def find(self, start: fx.Node) -> _Region | None:
        """Return the largest branch around a rounding, or None."""
        scope, shape = module_path(start), shape_of(start)

        def belongs(node: fx.Node) -> bool:
            return is_pointwise(node) and shape_of(node) == shape and module_path(node) == scope

        for members, entry in reversed(list(self._upward(start, belongs))):
            region = self._downward(start, set(members), entry, belongs)
            if region is not None and self._begins(region):
                return region
        return None

    def _begins(self, region: _Region) -> bool:
        """Whether arithmetic begins right behind the entry: its one reader reads a number too, or several readers meet again."""
        first = [node for node in region.members if region.entry in node.all_input_nodes]
        return len(first) > 1 or self.reads_number(first[0])

    def _upward(self, start: fx.Node, belongs: Any) -> Iterator[tuple[frozenset[fx.Node], fx.Node]]:
        """Yield larger and larger sets of nodes before a rounding, each with the one tensor that it reads."""
        members = {start}
        while len(members) < _LARGEST:
            inputs = sorted({item for node in members for item in self.tensors(node)} - members, key=self.order.__getitem__)
            if len(inputs) == 1 and any(self.reads_number(node) for node in members - {start}):
                yield frozenset(members), inputs[0]
            if not inputs or not belongs(inputs[-1]):
                return
            members.add(inputs[-1])

    def _downward(self, start: fx.Node, members: set[fx.Node], entry: fx.Node, belongs: Any) -> _Region | None:
        """Grow after the rounding; return the largest set that one node leaves, which has read a number or met its own input."""
        best, after = None, {start}
        while len(members) < _LARGEST:
            leaving = [node for node in members if any(user not in members for user in node.users)]
            if len(leaving) == 1 and leaving[0] in after - {start} and self._scales(after):
                last = leaving[0]
                if self.reads_number(last) or len(self.tensors(last)) > 1:
                    best = _Region(frozenset(members), entry, last)
            found = self._next(members, entry, after, belongs)
            if found is None:
                return best
            user, needed = found
            members |= needed
            after.add(user)
        return best

    def _scales(self, after: set[fx.Node]) -> bool:
        return any(operator_name(node) not in {"clamp", "round"} and self.reads_number(node) for node in after)

    def _next(self, members: set[fx.Node], entry: fx.Node, after: set[fx.Node], belongs: Any) -> tuple[fx.Node, set[fx.Node]] | None:
        """Return the first node that may follow, with what else it reads of the same input."""
        users = {user for node in after for user in node.users} - members
        for user in sorted(users, key=self.order.__getitem__):
            needed = self._closure(user, members, entry, belongs)
            if needed is not None and (len(self.tensors(user)) == 1 or _rejoins(user)):
                return user, needed
        return None

    def _closure(self, node: fx.Node, members: set[fx.Node], entry: fx.Node, belongs: Any) -> set[fx.Node] | None:
        """Return the nodes between the region and ``node``, itself too; None when it reads something from outside."""
        needed: set[fx.Node] = set()
        pending = [node]
        while pending:
            item = pending.pop()
            if item in members or item is entry or item in needed:
                continue
            if not belongs(item) or len(needed) > _LARGEST:
                return None
            needed.add(item)
            pending += self.tensors(item)
        return needed


def find_branches(module: fx.GraphModule) -> tuple[Branch, ...]:
    """Return every quantizer branch of a traced graph, in order of execution."""
    finder = _Finder(module.graph)
    found: list[Branch] = []
    taken: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function" or node in taken:
            continue
        region = _fused(node) if "fake_quantize" in operator_name(node) else finder.find(node) if operator_name(node) == "round" else None
        if region is not None and not region.members & taken:
            taken |= region.members
            found.append(_describe(module, finder, region))
    return with_unique_names(found)


def readers(node: fx.Node) -> list[fx.Node]:
    """Return the operators that read a value, looking through views and casts."""
    result: list[fx.Node] = []
    for user in node.users:
        result += readers(user) if operator_name(user) in _LAYOUT and user.op == "call_function" else [user]
    return result


def is_small(node: fx.Node) -> bool:
    """Whether a value has one element, or one for each index of a single axis of several, as steps of channels have."""
    shape = shape_of(node)
    return size_of(node) == 1 or (shape is not None and len(shape) > 1 and sum(size != 1 for size in shape) == 1)


def size_of(node: fx.Node) -> int | None:
    """Return how many elements a value has; None where it is no tensor."""
    shape = shape_of(node)
    return torch.Size(shape).numel() if shape is not None else None


def _fused(node: fx.Node) -> _Region | None:
    """Branch of an operator that is a whole per-tensor quantizer; it may give out a mask as a second value."""
    entry = node.args[0]
    if not isinstance(entry, fx.Node) or "per_tensor" not in operator_name(node):
        return None
    if not isinstance(node.meta.get("val"), (list, tuple)):
        return _Region(frozenset({node}), entry, node)
    values = [user for user in node.users if user.args[1] == 0]
    return _Region(frozenset({node, *node.users}), entry, values[0]) if values else None


def _rejoins(node: fx.Node) -> bool:
    """Whether a node joins two arms as quantizers do: a + (b - a), a - (a - b), a sign given back, a choice; a residual sum is none."""
    name, args = operator_name(node), [item for item in node.args if isinstance(item, fx.Node)]
    if name in {"copysign", "where"} or len(args) < 2:
        return True
    first, second = (_through_casts(item) for item in args[:2])
    if name == "mul":
        return not {"sign", "sgn"}.isdisjoint({operator_name(first), operator_name(second)})
    if name == "sub" and _is_difference(second):
        return _through_casts(second.args[0]) is first
    if name == "add":
        return any(_is_difference(a) and _through_casts(a.args[1]) is b for a, b in ((first, second), (second, first)))
    return name == "sub" and all(isinstance(item, fx.Node) for item in (first, second)) and _feeds_estimator(node)


def _is_difference(node: fx.Node) -> bool:
    return operator_name(node) == "sub" and len(node.args) > 1 and all(isinstance(item, fx.Node) for item in node.args[:2])


def _feeds_estimator(node: fx.Node) -> bool:
    """Whether a difference goes, through casts, into the sum or difference that makes a straight-through estimator of it."""
    return any(
        _feeds_estimator(user) if operator_name(user) in _CASTS else operator_name(user) in {"add", "sub"} and _rejoins(user)
        for user in node.users
        if user.op == "call_function"
    )


def _through_casts(node: Any) -> Any:
    while isinstance(node, fx.Node) and node.op == "call_function" and operator_name(node) in _CASTS:
        node = node.args[0]
    return node


def _describe(module: fx.GraphModule, finder: _Finder, region: _Region) -> Branch:
    members = sorted(region.members, key=finder.order.__getitem__)
    users = [user for user in readers(region.exit) if user not in region.members]
    operator = next((user for user in users if operator_name(user) in COMPUTE), users[0] if users else region.exit)
    attached = region.entry in finder.static
    return Branch(
        name=_parameter_of(region.entry, finder) if attached else name_of_input(operator),
        kind="attached" if attached else "inserted",
        nodes=tuple(node.name for node in members),
        entry=region.entry.name,
        exit=region.exit.name,
        operator=operator.name,
        parameters=tuple(sorted({str(item.target) for node in members for item in finder.sources(node)})),
        keeps_zero=keeps_zero(module, members, region.entry, region.exit),
    )


def _parameter_of(node: fx.Node, finder: _Finder) -> str:
    """Name of the largest parameter that a static value is made of."""
    found = [item for item in ancestors(node) if item.op == "get_attr"]
    return str(max(found, key=lambda item: size_of(item) or 0).target) if found else node.name


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Return all nodes that a value is made of, itself among them."""
    seen, pending = set(), [node]
    while pending:
        item = pending.pop()
        if item not in seen:
            seen.add(item)
            pending += item.all_input_nodes
    return seen


def name_of_input(operator: fx.Node) -> str:
    """Return the name of what quantizes an input: by the module of its reader, in the network's own forward by the reader's operator.

    Not by the reader's name: in a trace that quantizers are part of, the second sum of a network may be ``add_7``.
    """
    return f"{module_path(operator) or operator_name(operator)}: input"


def with_unique_names(branches: list[Branch]) -> tuple[Branch, ...]:
    """Return branches in the same order, numbered anew where several have one name: a module called twice quantizes its input twice."""
    seen: dict[str, int] = {}
    result = []
    for branch in branches:
        name = branch.name.partition(_AGAIN)[0]
        count = seen[name] = seen.get(name, 0) + 1
        result.append(replace(branch, name=name if count == 1 else f"{name}{_AGAIN}{count}"))
    return tuple(result)
