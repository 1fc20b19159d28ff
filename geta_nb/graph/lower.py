"""Lower an exported graph to functional ATen in place, without tracing it once more. Used by ``trace``.

``run_decompositions({})`` does the same by running the whole graph through the tracer again, which costs as much as the export itself.
Where a graph holds nothing but operators that are functional already, and the few whose functional form is known here, it need not run.

    dropout, detach_, a cast to the same type    nothing
    contiguous                                   nothing, or a copy
    chunk                                        split
    reshape, reshape_as, flatten, unflatten      view, with a copy before it where the memory asks for one
    expand_as, broadcast_to, view_as             expand, view
    mT, movedim, swapaxes                        permute
    batch_norm                                   its form for inference
    an operator that writes                      its functional form, where all views of that memory are known: see ``writes``
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph.nodes import hint
from geta_nb.graph.unmap import is_mapping
from geta_nb.graph.writes import are_writable, is_write, write_out

aten = torch.ops.aten
_REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def lower(module: fx.GraphModule) -> None:
    """Rewrite ``module``, for which :func:`is_lowerable` said yes; regions must be inlined already."""
    write_out(module.graph)
    for node in list(module.graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and node.target in _KNOWN:
            _KNOWN[node.target][1](module.graph, node)


def is_lowerable(module: torch.nn.Module) -> bool:
    """Whether every node of an exported graph, those inside its regions too, is functional or has its form here."""
    graphs = [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]
    return all(_is_known(node) for graph in graphs for node in graph.nodes) and all(map(are_writable, graphs))


def _is_known(node: fx.Node) -> bool:
    if node.op != "call_function":
        return node.op in {"placeholder", "get_attr", "output"}
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        name = getattr(target, "__name__", "")
        if is_mapping(node):
            return True  # written out before
        opaque = isinstance(target, torch._ops.HigherOrderOperator) or getattr(target, "__module__", "").startswith("torch._functorch")
        return (name in _REGIONS and not (name == _REGIONS[1] and _casts(node))) if opaque else True
    if _is_functional(target):
        return True
    return _KNOWN[target][0](node) if target in _KNOWN else is_write(node)


def _casts(node: fx.Node) -> bool:
    """Whether an autocast region really casts: its third argument says if it is on."""
    enabled: Any = node.args[2] if len(node.args) > 2 else True
    return enabled is not False


@lru_cache(maxsize=4096)
def _is_functional(target: torch._ops.OpOverload) -> bool:
    """Whether ``run_decompositions({})`` leaves an operator as it is."""
    if target._schema.is_mutable or target in _KNOWN:
        return False
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), torch._C.DispatchKey.CompositeImplicitAutograd)
    aliases = any(argument.alias_info is not None for argument in target._schema.arguments)
    # tagged: composite operators that torch decomposes whatever it is asked, because they may alias or write
    return not composite or not (aliases or torch.Tag.maybe_aliasing_or_mutating in target.tags)


def _drop(graph: fx.Graph, node: fx.Node) -> None:
    source: Any = node.args[0]
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _cast(graph: fx.Graph, node: fx.Node) -> None:
    source: Any = node.args[0]
    kept = {"memory_format": torch.contiguous_format} if _format(node) == torch.contiguous_format else {}
    if source.meta["val"].dtype != node.meta["val"].dtype:
        node.target, node.args, node.kwargs = aten._to_copy.default, (source,), {"dtype": node.meta["val"].dtype, **kept}
    elif kept:
        _contiguous(graph, node)
    else:
        _drop(graph, node)


def _format(node: fx.Node) -> torch.memory_format | None:
    """Return the order in memory that a conversion asks for."""
    given = [item for item in (*node.args, node.kwargs.get("memory_format")) if isinstance(item, torch.memory_format)]
    return given[0] if given and given[0] != torch.preserve_format else None


def _contiguous(graph: fx.Graph, node: fx.Node) -> None:
    source: Any = node.args[0]
    if _strides(source.meta["val"]) == _strides(node.meta["val"]):
        _drop(graph, node)
    else:
        node.target, node.args, node.kwargs = aten.clone.default, (source,), {"memory_format": torch.contiguous_format}


def _strides(value: Tensor) -> list[int]:
    return [hint(stride) for stride in value.stride()]


def _is_plain(node: fx.Node) -> bool:
    """Whether a copy is asked for in the usual order of memory."""
    source: Any = node.args[0]
    return len(node.args) == 1 and not node.kwargs and isinstance(source.meta.get("val"), Tensor)


def _casts_only(node: fx.Node) -> bool:
    """Whether a conversion changes the type and nothing else, or nothing."""
    old, new = (item.meta.get("val") if isinstance(item, fx.Node) else None for item in (node.args[0], node))
    both = isinstance(old, Tensor) and isinstance(new, Tensor) and old.device == new.device and old.layout == new.layout
    plain = not node.kwargs.get("copy") and _format(node) in (None, torch.contiguous_format)
    return both and plain and True not in node.args[1:]


def _batch_norm(graph: fx.Graph, node: fx.Node) -> None:
    x, weight, bias, mean, var, _, momentum, eps = node.args[:8]
    value: Tensor = node.meta["val"]
    with graph.inserting_before(node):
        whole = graph.call_function(aten._native_batch_norm_legit_no_training.default, (x, weight, bias, mean, var, momentum, eps))
        first = graph.call_function(operator.getitem, (whole, 0))
    empty = torch.empty(0, dtype=value.dtype, device="meta")
    whole.meta, first.meta = {**node.meta, "val": (value, empty, empty)}, dict(node.meta)
    node.replace_all_uses_with(first)
    graph.erase_node(node)


def _view(graph: fx.Graph, node: fx.Node) -> None:
    """Write a reshape, flatten or unflatten as a view, behind a copy where the memory of its input does not allow one."""
    source: Any = node.args[0]
    sizes: Any = node.args[1] if node.target is aten.reshape.default else _view_sizes(graph, node)
    with graph.inserting_before(node):
        if not _is_viewable(source.meta["val"], node.meta["val"]):
            copied = graph.call_function(aten.clone.default, (source,), {"memory_format": torch.contiguous_format})
            copied.meta = {**node.meta, "val": source.meta["val"]}
            source = copied
    node.target, node.args, node.kwargs = aten.view.default, (source, sizes), {}


def _view_sizes(graph: fx.Graph, node: fx.Node) -> list[Any]:
    if node.target is not aten.reshape_as.default:
        return _flat_sizes(graph, node)
    other: Any = node.args[1]
    return [_size(graph, node, other, axis) for axis in range(other.meta["val"].dim())]


def _flat_sizes(graph: fx.Graph, node: fx.Node) -> list[Any]:
    """Sizes of a flatten or unflatten: axes that stay follow its input, one that is made of several is what is left."""
    source: Any = node.args[0]
    before, after = source.meta["val"].shape, node.meta["val"].shape
    given: Any = dict(zip(("input", "start_dim", "sizes"), node.args, strict=False)) | dict(node.kwargs)
    start = given.get("start_dim", given.get("dim", 0)) % len(before)
    made = [after[start] if isinstance(after[start], int) else -1]
    if node.target is aten.unflatten.int:
        made = list(given["sizes"])
    behind = [_size(graph, node, source, axis) for axis in range(len(before) - (len(after) - start - len(made)), len(before))]
    return [*(_size(graph, node, source, axis) for axis in range(start)), *made, *behind]


def _size(graph: fx.Graph, before: fx.Node, source: fx.Node, axis: int) -> Any:
    """Return the size of an axis: a number, or a node in front of ``before`` that reads it."""
    size = source.meta["val"].shape[axis]
    if isinstance(size, int):
        return size
    with graph.inserting_before(before):
        item = graph.call_function(aten.sym_size.int, (source, axis))
    item.meta = {**before.meta, "val": size}
    return item


def _expand_as(graph: fx.Graph, node: fx.Node) -> None:
    source, other = node.args
    assert isinstance(other, fx.Node)
    sizes = [_size(graph, node, other, axis) for axis in range(other.meta["val"].dim())]
    node.target, node.args, node.kwargs = aten.expand.default, (source, sizes), {}


def _broadcast_to(graph: fx.Graph, node: fx.Node) -> None:
    node.target = aten.expand.default


def _view_as(graph: fx.Graph, node: fx.Node) -> None:
    _expand_as(graph, node)
    node.target = aten.view.default


def _permute(graph: fx.Graph, node: fx.Node) -> None:
    """Write what only moves axes as a permutation: where each axis comes from is seen by its size."""
    source: Any = node.args[0]
    target: Any = node.target
    sizes = range(1, source.meta["val"].dim() + 1)
    moved = target(torch.empty(tuple(sizes), device="meta"), *node.args[1:], **node.kwargs).shape
    node.target, node.args, node.kwargs = aten.permute.default, (source, [size - 1 for size in moved]), {}


def _chunk(graph: fx.Graph, node: fx.Node) -> None:
    source, (count, axis) = _chunks(node)
    node.target, node.args, node.kwargs = aten.split.Tensor, (source, -(-source.meta["val"].shape[axis] // count), axis), {}


def _chunks(node: fx.Node) -> tuple[Any, tuple[Any, Any]]:
    """Return what is split, in how many parts and along which axis."""
    return node.args[0], (node.args[1], node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))


def _splits_whole_size(node: fx.Node) -> bool:
    source, (count, axis) = _chunks(node)
    value = source.meta.get("val")
    return isinstance(value, Tensor) and isinstance(count, int) and isinstance(value.shape[axis], int) and value.shape[axis] > 0


def _is_viewable(source: Tensor, result: Tensor) -> bool:
    shape, strides, new = ([hint(size) for size in sizes] for sizes in (source.shape, source.stride(), result.shape))
    try:
        torch.empty_strided(shape, strides, device="meta").view(new)
    except RuntimeError:
        return False
    return True


def _is_off(position: int) -> Callable[[fx.Node], bool]:
    def check(node: fx.Node) -> bool:
        return len(node.args) > position and node.args[position] is False

    return check


def _always(node: fx.Node) -> bool:
    return True


def _has_axes(node: fx.Node) -> bool:
    source = node.args[0]
    return isinstance(source, fx.Node) and isinstance(source.meta.get("val"), Tensor) and source.meta["val"].dim() > 0


def _runs_on_statistics(node: fx.Node) -> bool:
    return len(node.args) >= 8 and node.args[5] is False and node.args[3] is not None and node.args[4] is not None


_CASTS = tuple(aten.to.__getattr__(name) for name in ("dtype", "device", "dtype_layout", "other"))
_KNOWN: dict[Any, tuple[Callable[[fx.Node], bool], Callable[[fx.Graph, fx.Node], None]]] = {
    aten.dropout.default: (_is_off(2), _drop),
    aten.dropout_.default: (_is_off(2), _drop),
    aten.detach_.default: (_always, _drop),
    aten.reshape.default: (_always, _view),
    aten.flatten.using_ints: (_has_axes, _view),
    aten.unflatten.int: (_has_axes, _view),
    aten.reshape_as.default: (_always, _view),
    aten.expand_as.default: (_always, _expand_as),
    aten.broadcast_to.default: (_always, _broadcast_to),
    aten.view_as.default: (_always, _view_as),
    **dict.fromkeys((aten.mT.default, aten.numpy_T.default, aten.movedim.int, aten.movedim.intlist), (_always, _permute)),
    **dict.fromkeys((aten.swapaxes.default, aten.swapdims.default, aten.moveaxis.int, aten.moveaxis.intlist), (_always, _permute)),
    aten.chunk.default: (_splits_whole_size, _chunk),
    aten.batch_norm.default: (_runs_on_statistics, _batch_norm),
    aten.contiguous.default: (_is_plain, _contiguous),
    aten.type_as.default: (_casts_only, _cast),
    **dict.fromkeys(_CASTS, (_casts_only, _cast)),
}
"""Operator -> whether a node is of a form that is known here, and what writes it as functional operators."""
