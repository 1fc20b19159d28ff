"""Writes into tensors, and into parts of them, as functional operators, without another trace. Used by ``lower``.

In: a graph in which operators write (``y.relu_()``, ``y[:, :8] = x``). Out: the same graph, each write a new value of the whole tensor,
which all that comes later reads, under whatever name it knew it.

    y.relu_()             relu(y)
    y[:, :8] = x          slice_scatter(y, copy(y[:, :8], x), 1, 0, 8)
    y[0].mul_(2)          select_scatter(y, mul(y[0], 2), 0, 0)

Only what is known to the last name is rewritten: the tensor was made by an operator that makes a new one, and up to its last write every
other name of its memory is one of the views below. Anything else is left to torch.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph.nodes import hint

aten = torch.ops.aten
_SAME = frozenset((aten.alias.default, aten.detach.default, aten.detach_.default))
_VIEWS = _SAME | {aten.slice.Tensor, aten.select.int, aten.unsqueeze.default, aten.squeeze.dim, aten.transpose.int, aten.t.default}
"""Views of which it is known here how a new part goes back into the whole."""
_MAKING = frozenset((
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul", "layer_norm",
    "group_norm", "instance_norm", "batch_norm", "scaled_dot_product_attention", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "softmax", "log_softmax", "multiply", "divide", "subtract",
    "prelu", "hstack", "vstack", "concatenate", "concat", "std", "var", "outer",
))  # fmt: skip
"""Operators that torch makes of others, and whose result is a new tensor whatever they are made of; of another one nobody says so."""
_CASTING = frozenset((
    "copy", "fill", "zero", "masked_fill", "masked_scatter", "index_put", "index_add", "index_copy", "index_fill", "scatter", "scatter_add",
    "scatter_reduce",
))  # fmt: skip
"""Operators that give out the type of what they write into, whatever is written, by whatever index."""


@dataclass
class _Memory:
    """The memory of one tensor: the node that made it, and the names that it has, each with the one that it is a view of."""

    base: fx.Node
    names: dict[fx.Node, fx.Node | None] = field(default_factory=dict)
    unsure: bool = False
    written: bool = False


def are_writable(graph: fx.Graph) -> bool:
    """Whether :func:`write_out` knows every write of a graph."""
    return _memories(graph) is not None


def write_out(graph: fx.Graph) -> None:
    """Rewrite every write of a graph, for which :func:`are_writable` said yes."""
    memories = _memories(graph)
    assert memories is not None
    written = {name: memory for name, memory in memories.items() if memory.written}
    if not written:
        return
    present = _Present(graph)
    for node in list(graph.nodes):
        for item in dict.fromkeys(node.all_input_nodes):
            if item in written and (now := present.value(item, written[item], node)) is not item:
                node.replace_input_with(item, now)
        if node in written:
            if is_write(node):
                present.write(node, written[node])
            else:
                present.made[node] = node, present.version(written[node])
    for node in reversed(list(graph.nodes)):
        if (is_write(node) or (node in written and node.target in _VIEWS)) and not node.users:
            graph.erase_node(node)


def is_write(node: fx.Node) -> bool:
    """Whether a node writes into an argument; a detach in place does not, nor a dropout that drops nothing."""
    idle = node.target is aten.dropout_.default and len(node.args) == 3 and node.args[2] is False
    mutable = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return mutable and node.target not in _SAME and not idle


def gives_views(target: torch._ops.OpOverload) -> bool:
    """Whether a result may share memory with an argument."""
    if target._schema.is_mutable or any(result.alias_info is not None for result in target._schema.returns):
        return True
    return torch.Tag.maybe_aliasing_or_mutating in target.tags and target is not aten.batch_norm.default


def _memories(graph: fx.Graph) -> dict[fx.Node, _Memory] | None:
    """Return what is known of the memory behind each name; None where something is written of which not all is known."""
    found: dict[fx.Node, _Memory] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        memory = found.get(first) if first is not None else None
        if is_write(node):
            if first is None or memory is None or memory.unsure or not _is_known_write(node):
                return None
            memory.names[node], memory.written = first, True
            found[node] = memory
        elif node.target in _VIEWS:
            if memory is not None:
                memory.names[node], found[node] = first, memory
        elif node.target is operator.getitem and first is not None and first not in found and _is_sole_part(node, first):
            found[node] = _Memory(node, {node: None})
        elif not isinstance(node.target, torch._ops.OpOverload) or gives_views(node.target):
            for item in node.all_input_nodes:
                if item in found:
                    found[item].unsure = True
        elif isinstance(node.meta.get("val"), Tensor) and _makes_new(node.target):
            found[node] = _Memory(node, {node: None})
    return found


def _is_sole_part(node: fx.Node, whole: fx.Node) -> bool:
    """Whether a node is one of several new tensors that an operator makes, under no other name."""
    new = isinstance(whole.target, torch._ops.OpOverload) and _makes_new(whole.target)
    same = [user for user in whole.users if user.target is not operator.getitem or user.args == node.args]
    return new and same == [node] and isinstance(node.meta.get("val"), Tensor)


@lru_cache(maxsize=4096)
def _makes_new(target: torch._ops.OpOverload) -> bool:
    """Whether a result is a tensor that nothing else sees."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), torch._C.DispatchKey.CompositeImplicitAutograd)
    known = torch.Tag.pointwise in target.tags or target._schema.name.removeprefix("aten::") in _MAKING
    return not gives_views(target) and (known or not composite)


def _is_known_write(node: fx.Node) -> bool:
    """Whether a write has a functional form that gives out the shape and type of what is written into."""
    target: Any = node.target
    arguments = target._schema.arguments
    twin, writes = functional_twin(target), [arg for arg in arguments if arg.alias_info is not None and arg.alias_info.is_write]
    old, new = node.args[0].meta.get("val"), node.meta.get("val")  # type: ignore[union-attr]
    if twin is None or len(writes) != 1 or writes[0].name != arguments[0].name:
        return False
    if not (isinstance(old, Tensor) and isinstance(new, Tensor) and [*map(hint, old.shape)] == [*map(hint, new.shape)]):
        return False
    if twin._schema.name.removeprefix("aten::") in _CASTING:
        return True
    values = [item.meta.get("val") for item in node.all_input_nodes]
    return all(value.dtype == old.dtype for value in values if isinstance(value, Tensor))


def functional_twin(target: Any) -> torch._ops.OpOverload | None:
    """Return ``relu`` for ``relu_``, or None."""
    space, _, name = target._schema.name.partition("::")
    if space != "aten" or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(aten, name[:-1], None)
    found = getattr(packet, target._overloadname, None) if packet is not None else None
    if found is None or found._schema.is_mutable or gives_views(found):
        return None
    arguments = [[argument.name for argument in op._schema.arguments] for op in (target, found)]
    return found if arguments[0] == arguments[1] else None


class _Present:
    """What each name stands for at the place where a graph is being rewritten."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.made: dict[fx.Node, tuple[fx.Node, int]] = {}  # name -> node that has its value, and after how many writes
        self.writes: dict[fx.Node, int] = {}

    def version(self, memory: _Memory) -> int:
        """Return how often a memory has been written so far."""
        return self.writes.get(memory.base, 0)

    def value(self, name: fx.Node, memory: _Memory, before: fx.Node) -> fx.Node:
        """Return the node that has the present value of a name; it is made in front of ``before`` where there is none."""
        node, version = self.made.get(name, (name, -1))
        source = memory.names[name]
        if version == self.version(memory) or source is None:
            return node
        part = self.value(source, memory, before)
        if not is_write(name) and name.target not in _SAME:
            target: Any = name.target
            with self.graph.inserting_before(before):
                value = self.graph.call_function(target, (part, *name.args[1:]), dict(name.kwargs))
            value.meta = dict(name.meta)
            part = value
        self.made[name] = part, self.version(memory)
        return part

    def write(self, node: fx.Node, memory: _Memory) -> None:
        """Make a write a value, and that the new part of all that it is a part of."""
        name: Any = memory.names[node]
        value = self._functional(node, name)
        new: dict[fx.Node, fx.Node] = {node: value, name: value}
        while (whole := memory.names[name]) is not None:
            value = self._put_back(name, value, self.value(whole, memory, node), whole, node)
            new[whole], name = value, whole
        self.writes[memory.base] = self.version(memory) + 1
        for item, now in new.items():
            self.made[item] = now, self.version(memory)

    def _functional(self, node: fx.Node, name: fx.Node) -> fx.Node:
        twin: Any = functional_twin(node.target)
        assert twin is not None
        args: tuple[Any, ...] = node.args
        if twin is aten.zero.default:
            twin = aten.zeros_like.default
        with self.graph.inserting_before(node):
            value = self.graph.call_function(twin, args, dict(node.kwargs))
        value.meta = {**node.meta, "val": name.meta["val"]}
        return value

    def _put_back(self, name: fx.Node, part: fx.Node, old: fx.Node, whole: fx.Node, at: fx.Node) -> fx.Node:
        """Return the whole of which ``name`` is a view, with a new part in its place."""
        if is_write(name) or name.target in _SAME or _is_all(name) or _keeps_axes(name, whole):
            return part
        args: Any = name.args[1:]
        with self.graph.inserting_before(at):
            if name.target is aten.slice.Tensor:
                value = self.graph.call_function(aten.slice_scatter.default, (old, part, *args), dict(name.kwargs))
            elif name.target is aten.select.int:
                value = self.graph.call_function(aten.select_scatter.default, (old, part, *args), dict(name.kwargs))
            elif name.target is aten.unsqueeze.default:
                value = self.graph.call_function(aten.squeeze.dim, (part, args[0] % name.meta["val"].dim()))
            elif name.target is aten.squeeze.dim:
                value = self.graph.call_function(aten.unsqueeze.default, (part, args[0] % whole.meta["val"].dim()))
            else:  # turned once more it is as it was
                turn: Any = name.target
                value = self.graph.call_function(turn, (part, *args))
        value.meta = {**at.meta, "val": whole.meta["val"]}
        return value


def _is_all(name: fx.Node) -> bool:
    """Whether a slice takes all there is, whatever size that has."""
    if name.target is not aten.slice.Tensor or name.kwargs:
        return False
    given: list[Any] = [*name.args[1:], *(0, None, None, 1)[len(name.args) - 1 :]]
    start, end, step = given[1:]
    return start in (0, None) and step == 1 and (end is None or (isinstance(end, int) and end >= 2**63 - 1))


def _keeps_axes(name: fx.Node, whole: fx.Node) -> bool:
    """Whether a squeeze found no axis of one index."""
    return name.target is aten.squeeze.dim and name.meta["val"].dim() == whole.meta["val"].dim()
