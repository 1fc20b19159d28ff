"""Tidy an exported graph: no regions, no assertions, no scale that a cut could change. Used by ``trace``."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from geta_nb.errors import TraceError
from geta_nb.graph.nodes import module_path, operator_name, shape_of
from geta_nb.graph.twins import compile_later

_LAYOUT_KEPT = frozenset((
    "transpose", "permute", "reshape", "squeeze", "unsqueeze", "slice", "select", "expand", "clone", "alias", "detach", "_to_copy",
    "geta_nb::mark",
))  # fmt: skip
_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def tidy(module: fx.GraphModule) -> None:
    """Leave only operators that compute something."""
    inline_regions(module)
    _make_scales_explicit(module)
    _make_squeezes_explicit(module)
    _make_picks_explicit(module)
    _make_slopes_explicit(module)
    _make_bags_trainable(module)
    _free_layouts(module)
    _drop_assertions(module)
    module.graph.eliminate_dead_code()
    compile_later(module)


def inline_regions(module: fx.GraphModule) -> None:
    """Replace grad-mode and autocast regions, which compute nothing themselves, by their contents."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and getattr(node.target, "__name__", "") in _INLINED:
            _inline(module, node)


def _inline(module: fx.GraphModule, node: fx.Node) -> None:
    graph = module.graph
    position, body = _body(module, node)
    mapping: dict[fx.Node, Any] = {}

    def here(old: fx.Node) -> Any:
        return mapping[old]

    outer = iter(node.args[position + 1 :])
    results: Any = ()
    with graph.inserting_before(node):
        for item in body.graph.nodes:
            if item.op == "placeholder":
                mapping[item] = next(outer)
            elif item.op == "output":
                results = fx.map_arg(item.args[0], here)
            elif item.op == "get_attr":
                raise TraceError("trace_model: a no-grad region owns tensors of its own.", at=module_path(node))
            else:
                mapping[item] = graph.node_copy(item, here)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(results[user.args[1]])
        graph.erase_node(user)
    graph.erase_node(node)


def _body(module: fx.GraphModule, node: fx.Node) -> tuple[int, fx.GraphModule]:
    """Return where among the arguments a region's graph stands, and that graph."""
    for position, arg in enumerate(node.args):
        if isinstance(arg, fx.Node) and arg.op == "get_attr":
            found = getattr(module, str(arg.target), None)
            if isinstance(found, fx.GraphModule):
                return position, found
    raise TraceError("trace_model: a region without a graph.", at=module_path(node))


def _drop_assertions(module: fx.GraphModule) -> None:
    """Assertions on dtypes and sizes belong to the sizes as traced; a cut graph has others."""
    for node in reversed(module.graph.nodes):
        if not node.users and node.op == "call_function" and operator_name(node).startswith(("_assert", "sym_constrain")):
            module.graph.erase_node(node)


def _make_scales_explicit(module: fx.GraphModule) -> None:
    """Write down the default scale of attention, so that cutting a head dimension cannot change it."""
    for node in module.graph.nodes:
        if operator_name(node) == "scaled_dot_product_attention" and node.kwargs.get("scale") is None:
            query = shape_of(node.args[0])
            assert query is not None
            node.kwargs = {**node.kwargs, "scale": query[-1] ** -0.5}


def _make_squeezes_explicit(module: fx.GraphModule) -> None:
    """Write down which axes a squeeze drops, so that an axis cut to one index is not dropped as well."""
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.squeeze.default:
            shape = shape_of(node.args[0])
            assert shape is not None
            node.target = torch.ops.aten.squeeze.dims
            node.args = (node.args[0], [axis for axis, size in enumerate(shape) if size == 1])


def _make_picks_explicit(module: fx.GraphModule) -> None:
    """Write indexing by consecutive numbers of the code's own (``x[:, [-2]]``) as a slice, which tells where each index comes from."""
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.index.Tensor:
            continue
        given = [(axis, item) for axis, item in enumerate(node.args[1]) if item is not None]
        numbers = _numbers(module, given[0][1]) if len(given) == 1 else None
        shape = node.args[0].meta["val"].shape
        if not numbers or not isinstance(shape[given[0][0]], int):
            continue
        axis, start = given[0][0], numbers[0] % shape[given[0][0]]
        if [number % shape[axis] for number in numbers] == list(range(start, start + len(numbers))):
            node.target, node.args = torch.ops.aten.slice.Tensor, (node.args[0], axis, start, start + len(numbers))


def _make_slopes_explicit(module: fx.GraphModule) -> None:
    """Write a random slope, which is its mean where nothing trains, as that number: a file may call nothing that could draw one."""
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.rrelu.default:
            lower, upper, training = (node.args[1:4] + (1 / 8, 1 / 3, False)[len(node.args[1:4]) :])[:3]
            if not training:
                node.target, node.args = torch.ops.aten.leaky_relu.default, (node.args[0], (lower + upper) / 2)


def _make_bags_trainable(module: fx.GraphModule) -> None:
    """Call the form of a bag of embeddings that has a gradient: the one that torch's exporter writes fails outside ``no_grad``."""
    for node in module.graph.nodes:
        if node.target is torch.ops.aten._embedding_bag_forward_only.default:
            node.target = torch.ops.aten._embedding_bag.default


def _free_layouts(module: fx.GraphModule) -> None:
    """Let a view of what attention gives out be a reshape: another kernel, chosen by sizes at run time, lays it out in another way."""
    loose: set[fx.Node] = set()
    for node in module.graph.nodes:
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source in loose and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
            loose.add(node)
        if operator_name(node) == "scaled_dot_product_attention" or (not loose.isdisjoint(node.all_input_nodes) and _keeps_layout(node)):
            loose.add(node)


def _keeps_layout(node: fx.Node) -> bool:
    """Whether the memory of a result is laid out as that of what goes in."""
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
    return pointwise or operator_name(node) in _LAYOUT_KEPT


def _numbers(module: fx.GraphModule, node: fx.Node) -> list[int] | None:
    """Return the numbers of a vector that is written into the code, None for anything else."""
    while node.op == "call_function" and operator_name(node) in {"clone", "alias", "detach", "lift_fresh_copy", "_to_copy"}:
        node = node.args[0]  # type: ignore[assignment]
    if node.op != "get_attr" or "lifted_tensor" not in str(node.target):
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.tolist() if value.dim() == 1 and not value.is_floating_point() and value.dtype != torch.bool else None
