"""A cut graph for every size that the network itself takes, in place of the sizes of the example. Between a cut and a file.

In: a network and its graph, right for the example. Out: a graph that was traced with every axis of every input free; where that cannot be,
the graph that came in, which says which axes are bound. What torch takes for granted of sizes 0 and 1 is tried, not believed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import GetaError
from geta_nb.graph import InputSizes, agree_in_float64, are_close, names_in, outputs_of, value_of
from geta_nb.groups import GroupTable
from geta_nb.qadg import graph_at_any_size
from geta_nb.quantizers import own_tensors
from geta_nb.subnet.cut import Cut
from geta_nb.subnet.graph_net import GraphNet
from geta_nb.subnet.rewrite import cut_graph

_TRIED = (2, 3, 4, 5, 7, 8, 16, 33, 64)
Same = Callable[[tuple[Any, ...], dict[str, Any]], bool]


def same_space(left: GroupTable, right: GroupTable) -> bool:
    """Whether two tables have the same groups under the same numbers."""
    if left.n_groups != right.n_groups or len(left.axis_maps) != len(right.axis_maps):
        return False
    return all(
        (a.parameter, a.axis) == (b.parameter, b.axis) and np.array_equal(a.group_of_index, b.group_of_index)
        for a, b in zip(left.axis_maps, right.axis_maps, strict=True)
    )


def take_sizes(graph: GraphNet, sizes: InputSizes | None, args: tuple[Any, ...], kwargs: dict[str, Any], same: Same) -> None:
    """Let a graph refuse what it is not for.

    Conditions that nothing but a size of 1 breaks, or that the example itself breaks (a batch of one is traced as two), go where the graph
    computes what the network does at that size.

    Args:
        graph: refuses nothing yet, and computes what the network computes on the example.
        sizes: what its trace is for.
        args, kwargs: example inputs.
        same: (positional inputs, keyword inputs) -> whether the graph computes what the network computes.
    """
    graph._input_sizes = None
    if sizes is None:
        return
    example = sizes.without(sizes.conditions).read(pytree.tree_leaves((args, kwargs)))
    sizes = sizes.without(text for text in sizes.conditions if not value_of(text, example))
    for small in (*({**example, name: 1} for name in example), dict.fromkeys(example, 1)):
        broken = {text for text in sizes.conditions if not value_of(text, small)}
        if broken and all(map(_holds_from_two, broken)) and _agrees(sizes, small, (args, kwargs), same):
            sizes = sizes.without(broken)
    graph._input_sizes = sizes


def _agrees(sizes: InputSizes, at: Mapping[str, int], inputs: tuple[Any, Any], same: Same) -> bool:
    try:
        return same(*sizes.resized(inputs, dict(at)))
    except Exception:  # of a network that does not take this size, whatever it raises
        return False


def _holds_from_two(condition: str) -> bool:
    """Whether a condition holds for sizes from 2 on, as far as a few hundred of them tell."""
    names = sorted(names_in(condition))
    draw = random.Random(0)
    if len(names) <= 2:
        tried = list(itertools.product(_TRIED, repeat=len(names)))
    else:
        tried = [tuple(draw.choice(_TRIED) for _ in names) for _ in range(200)]
    return all(value_of(condition, dict(zip(names, numbers, strict=True))) for numbers in tried)


def suited(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example inputs where a module is now, in the type that it computes in: it may have been moved or cast since the cut."""
    tensors = [*module.parameters(), *module.buffers()]
    real = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = all(leaf.device == tensors[0].device for leaf in leaves) if tensors else True
    alike = all(leaf.dtype == real.dtype for leaf in leaves if leaf.is_floating_point()) if real is not None else True
    if (here and alike) or tensors[0].is_meta:
        return args, kwargs

    def moved(leaf: Tensor) -> Tensor:
        return leaf.to(tensors[0].device)

    def cast(leaf: Tensor) -> Tensor:
        return moved(leaf).to(real.dtype) if real is not None and leaf.is_floating_point() else moved(leaf)

    for change in (moved, cast):
        given = pytree.tree_map_only(Tensor, change, (args, kwargs))
        try:
            outputs_of(module, *given)
        except Exception:  # of one type that meets another, in whatever words
            continue
        return given[0], given[1]
    return args, kwargs


def fitted(native: nn.Module, graph: GraphNet, args: tuple[Any, ...], kwargs: dict[str, Any], *, dynamic: bool) -> GraphNet:
    """Return the graph of a module as it may leave the package.

    Args:
        native: a subnet of the model's own classes; it stays as it is.
        graph: its graph as it was cut.
        args, kwargs: example inputs.
        dynamic: with every axis of its inputs free, where that can be; else as it came in.
    """
    sizes, graph._input_sizes = graph._input_sizes, None
    wide, sizes = (_widened(native, graph, args, kwargs) if dynamic else None) or (graph, sizes)
    take_sizes(wide, sizes, args, kwargs, partial(_same, wide, native))
    return wide


def whole_graph(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GraphNet:
    """Return the graph of a module as it is, nothing cut, traced with every axis of its inputs free.

    Raises:
        GetaError: it cannot be traced so.
    """
    wide, sizes = _traced(module, args, kwargs)
    take_sizes(wide, sizes, args, kwargs, partial(_same, wide, module))
    return wide


def _same(graph: GraphNet, native: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether both compute the same; in float32 a sum may lie in the middle between two codes."""
    return are_close(outputs_of(graph, args, kwargs), outputs_of(native, args, kwargs)) or agree_in_float64(graph, native, args, kwargs)


def _traced(native: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[GraphNet, InputSizes | None]:
    found, own = graph_at_any_size(native, args, kwargs), own_tensors(native)
    cut = Cut(found.state, found.table, np.ones(found.table.n_groups, dtype=bool))
    tensors: dict[str, Tensor] = {**own.parameters, **own.buffers}
    wide = cut_graph(cut, found.qadg, found.names, tensors, found.quantizers.activations, copied=False)
    return wide, found.trace.sizes


def _widened(
    native: nn.Module, graph: GraphNet, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[GraphNet, InputSizes | None] | None:
    try:
        wide, sizes = _traced(native, args, kwargs)
    except GetaError:
        return None
    # it refuses what it is not for, or is not open
    return (wide, sizes) if sizes is not None and _same(wide, graph, args, kwargs) else None
