"""Marks: an operator that computes nothing and shows in a trace where something will stand. Beside the trace.

In: a tensor, while ``torch.export`` traces, and a label. Out: the same tensor; the trace has a node there that carries the label, until
whoever put the mark replaces it. Nothing but a trace ever holds one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

_NAME = "geta_nb::mark"


def _define() -> None:
    """Make the operator known to torch, once a process: a module may be loaded again (``%autoreload``)."""

    @torch.library.custom_op(_NAME, mutates_args=())
    def same(x: Tensor, label: str) -> Tensor:
        return x.clone()

    @same.register_fake
    def _(x: Tensor, label: str) -> Tensor:
        # laid out as x, so that what follows is traced as if no mark were there
        return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=x.device)


if not hasattr(torch.ops.geta_nb, "mark"):
    _define()
MARK = torch.ops.geta_nb.mark.default


def mark(x: Tensor, label: str) -> Tensor:
    """Return ``x``, any shape and dtype; a trace keeps a node with ``label`` there."""
    return cast(Tensor, MARK(x, label))


def is_mark(node: fx.Node) -> bool:
    """Whether a node is a mark."""
    return node.op == "call_function" and node.target is MARK


def mark_label(node: fx.Node) -> str:
    """Return the label of a mark."""
    return str(node.args[1])


def marked_value(node: fx.Node) -> fx.Node:
    """Return the node whose value a mark hands on."""
    value = node.args[0]
    assert isinstance(value, fx.Node)
    return value


def drop_mark(node: fx.Node) -> None:
    """Take a mark out of its graph."""
    node.replace_all_uses_with(marked_value(node))
    node.graph.erase_node(node)


def writes_at_marks(module: torch.nn.Module) -> bool:
    """Whether an exported graph, those of its regions too, writes into what a mark hands on, or into what it was given and still shows.

    Such a mark is a copy that the model can tell from the original: it cannot be taken out, nor put in later.
    """
    graphs = [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]
    if not any(is_mark(node) for graph in graphs for node in graph.nodes):
        return False
    return any(_writes_at_marks(graph, outer=at == 0) for at, graph in enumerate(graphs))


def _writes_at_marks(graph: fx.Graph, *, outer: bool) -> bool:
    order = {node: at for at, node in enumerate(graph.nodes)}
    last_read: dict[fx.Node, int] = {}  # what a mark was given -> where its copy is read last
    for node in filter(is_mark, order):
        for root in _roots(marked_value(node)):
            last_read[root] = max(last_read.get(root, -1), *(order[user] for user in node.users), -1)
    for node, at in order.items():
        for written in _written(node):
            roots = _roots(written)
            if any(is_mark(root) or at < last_read.get(root, -1) or (not outer and root.op == "placeholder") for root in roots):
                return True
    return False


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the arguments that a node writes into; of an operator that may write unseen, all."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return
    schema = node.target._schema.arguments
    named = [(argument, node.kwargs[argument.name]) for argument in schema if argument.name in node.kwargs]
    given: list[tuple[Any, Any]] = [*zip(schema, node.args, strict=False), *named]
    for argument, value in given:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, fx.Node))


def _roots(node: fx.Node) -> set[fx.Node]:
    """Return the nodes whose memory a value may be."""
    found, queue = set(), [node]
    while queue:
        item = queue.pop()
        if item in found:
            continue
        found.add(item)
        if item.op == "call_function" and not is_mark(item) and _may_share(item.target):
            queue += item.all_input_nodes
    return found


def _may_share(target: Any) -> bool:
    """Whether a result may be the memory of an argument."""
    if not isinstance(target, torch._ops.OpOverload):
        return True
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), torch._C.DispatchKey.CompositeImplicitAutograd)
    aliases = any(result.alias_info is not None for result in target._schema.returns)
    return aliases or torch.Tag.maybe_aliasing_or_mutating in target.tags or (composite and torch.Tag.pointwise not in target.tags)
