"""Break single operators of a lowered graph up into others, in place. Torch traces the whole graph anew for that. Used by ``trace``.

In: a functional graph with a fake tensor at every node, and what torch breaks operators up with. Out: the same graph, each such operator
traced alone on the fake tensors that go into it; or word that this cannot be done, with the graph as it was up to there.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear
from torch.utils import _pytree as pytree

from geta_nb.graph.lower import is_lowerable, lower


def break_up(module: fx.GraphModule, table: dict[Any, Any]) -> bool:
    """Replace every operator of ``table`` by what it is made of; whether that worked for all of them."""
    return all(_replace(module.graph, node, table) for node in list(module.graph.nodes) if node.target in table)


def _replace(graph: fx.Graph, node: fx.Node, table: dict[Any, Any]) -> bool:
    inputs = _nodes(node)
    try:
        parts = _traced(node, inputs, table)
    except Exception:  # of a decomposition that wants values, or of a fake tensor that is not there
        return False
    whole = {"placeholder", "call_function", "output"}
    if not all(item.op in whole for item in parts.graph.nodes) or not is_lowerable(parts):
        return False  # a constant of its own, or a write into something that others may see
    lower(parts)
    results = next(iter(parts.graph.find_nodes(op="output"))).args[0]
    if not isinstance(results, fx.Node) and not all(user.target is operator.getitem for user in node.users):
        return False
    _put(graph, node, parts.graph, dict(zip(parts.graph.find_nodes(op="placeholder"), inputs, strict=True)), results)
    return True


def _nodes(node: fx.Node) -> list[fx.Node]:
    """Nodes among the arguments, as often as they stand there."""
    return [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]


def _traced(node: fx.Node, inputs: list[fx.Node], table: dict[Any, Any]) -> fx.GraphModule:
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    target: Any = _FORMULAS.get(node.target, node.target)

    def call(*given: Any) -> Any:
        values = iter(given)
        args, kwargs = pytree.tree_unflatten([next(values) if isinstance(leaf, fx.Node) else leaf for leaf in leaves], spec)
        return target(*args, **kwargs)

    with torch.no_grad():
        traced: fx.GraphModule = make_fx(call, decomposition_table=table)(*(item.meta["val"] for item in inputs))
    return traced


def _gru_cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> Tensor:
    reset, update, new = linear(x, w, b).chunk(3, -1)
    reset_h, update_h, new_h = linear(h, u, c).chunk(3, -1)
    new = (new + (reset + reset_h).sigmoid() * new_h).tanh()
    return (h - new) * (update + update_h).sigmoid() + new


def _lstm_cell(
    x: Tensor, state: list[Tensor], w: Tensor, u: Tensor, b: Tensor | None = None, c: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    enter, forget, new, out = (linear(x, w, b) + linear(state[0], u, c)).chunk(4, -1)
    cell = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


_FORMULAS: dict[Any, Any] = {torch.ops.aten.gru_cell.default: _gru_cell, torch.ops.aten.lstm_cell.default: _lstm_cell}
"""What torch breaks up in C++ with sizes as plain numbers, which would bind the batch to that of the example."""


def _put(graph: fx.Graph, node: fx.Node, parts: fx.Graph, mapping: dict[fx.Node, fx.Node], results: Any) -> None:
    """Copy the parts to where the operator stands, in its module and at its line, and let its readers read them."""
    with graph.inserting_before(node):
        for item in parts.nodes:
            if item.op == "call_function":
                mapping[item] = graph.node_copy(item, mapping.__getitem__)
                mapping[item].meta = {**node.meta, "val": item.meta.get("val")}
    if isinstance(results, fx.Node):
        node.replace_all_uses_with(mapping[results])
    else:
        for user in list(node.users):
            user.replace_all_uses_with(mapping[results[user.args[1]]])
            graph.erase_node(user)
    graph.erase_node(node)
