"""Which values of a graph can never be below zero: by what its operators do, whatever the weights and the input are.

In: an ATen graph. Out: the nodes. What is not known to give out nothing negative may be negative.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from geta_nb.graph.marks import is_mark
from geta_nb.graph.nodes import operator_name

_NEVER = frozenset({
    "relu", "relu6", "sigmoid", "softmax", "_softmax", "abs", "exp", "exp2", "hardsigmoid", "softplus", "square", "sqrt", "rsqrt",
})  # fmt: skip
"""Give out nothing negative."""
_WITH_NOTHING_NEGATIVE = frozenset({
    "view", "_unsafe_view", "reshape", "flatten", "permute", "transpose", "t", "clone", "slice", "select", "unsqueeze", "squeeze", "expand",
    "repeat", "roll", "flip", "pixel_shuffle", "pixel_unshuffle", "contiguous", "alias", "detach", "_to_copy", "to", "split", "chunk",
    "unbind", "split_with_sizes", "getitem", "cat", "stack", "index_select", "index", "gather",
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "mean", "sum", "amax", "amin", "max", "min", "cumsum", "prod", "dropout", "native_dropout", "feature_dropout", "add", "mul", "div",
    "minimum", "leaky_relu", "hardswish", "gelu", "silu", "elu", "tanh", "pow", "log1p", "erf",
})  # fmt: skip
"""Give out nothing negative whenever no operand is. (Bicubic upsampling is not one of them: its weights are negative in places.)"""
_OF_THE_FIRST = frozenset({"index_select", "index", "gather", "pow"})
_OF_TWO = frozenset({"add", "mul", "div", "minimum"})


def nonnegative_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value, or each of whose values, is never below 0; NaN aside.

    >>> import torch
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(x) + 1, torch.relu(x) - 1
    >>> found = nonnegative_nodes(torch.export.export(Net(), (torch.ones(1),)).graph)
    >>> sorted(node.name for node in found)
    ['add', 'relu', 'relu_1']
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and _is_nonnegative(node, found):
            found.add(node)
    return found


def _is_nonnegative(node: fx.Node, known: set[fx.Node]) -> bool:
    name = operator_name(node)
    arguments: Any = node.args
    options: Any = node.kwargs
    if name in _NEVER or is_mark(node):
        return name in _NEVER or arguments[0] in known
    if name in ("hardtanh", "clamp", "clamp_min", "clip"):
        low = arguments[1] if len(arguments) > 1 else options.get("min", options.get("min_val"))
        if isinstance(low, int | float) and low >= 0:
            return True
        return name != "hardtanh" and not isinstance(low, fx.Node) and _holds(arguments[0], known) and _caps(node)
    if name == "maximum":
        return any(_holds(item, known) for item in arguments[:2])
    if name in ("mul", "pow") and len(arguments) > 1:
        even = arguments[1] in (2, 2.0, 4, 4.0) if name == "pow" and not isinstance(arguments[1], fx.Node) else arguments[0] is arguments[1]
        if even:
            return True
    if name not in _WITH_NOTHING_NEGATIVE or (options.get("alpha") or 0) < 0:
        return False
    operands = arguments[:2] if name in _OF_TWO else arguments[:1]
    return bool(operands) and all(_holds(item, known) for item in operands)


def _caps(node: fx.Node) -> bool:
    """Whether the upper limit of a clamp is no negative number."""
    high: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("max")
    return high is None or (isinstance(high, int | float) and high >= 0)


def _holds(item: Any, known: set[fx.Node]) -> bool:
    """Whether an operand is never negative: a node that is known, a number, or a list of such."""
    if isinstance(item, list | tuple):
        return all(_holds(entry, known) for entry in item)
    return item in known if isinstance(item, fx.Node) else isinstance(item, int | float) and item >= 0
