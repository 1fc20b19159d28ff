"""Cut a traced graph: slice its tensors and rewrite the sizes that its operators carry.

In: a graph, the labels of its tensors and which groups live. Out: the cut graph and its tensors. Part of stage 7, called by ``build``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from geta_nb.errors import SubnetError
from geta_nb.graph import attribute_tensor, module_path, operator_name
from geta_nb.groups import NUMBERS, Labels, SizeArgument, written_numbers
from geta_nb.qadg import QADG
from geta_nb.quantizers import ActivationQuantizer
from geta_nb.subnet.branches import fold_branches, quantizer_paths
from geta_nb.subnet.cut import Cut
from geta_nb.subnet.graph_net import BUFFER, PARAMETER, SCRATCH, Entry, GraphNet, copy_graph

_VIEWS = ("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias")
_SIZE_LIST = {
    **dict.fromkeys(_VIEWS, 1), "expand": 1, "broadcast_to": 1,
    "new_zeros": 1, "new_ones": 1, "new_full": 1, "new_empty": 1, "zeros": 0, "ones": 0, "full": 0, "empty": 0,
}  # fmt: skip
"""Operators that carry a whole shape, and the position of that argument."""


def cut_graph(
    cut: Cut,
    qadg: QADG,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    quantizers: Mapping[str, ActivationQuantizer],
    *,
    finish: Callable[[str, Tensor], Tensor] = lambda name, value: value,
    copied: bool = True,
) -> GraphNet:
    """Return the graph with the dead groups removed, weights materialised and input quantizers as modules; it refuses no size yet.

    Args:
        cut: labels, groups and what stays.
        qadg: trace and branches.
        names: get_attr target -> own name.
        tensors: own name -> value, not yet sliced; parameters are ``nn.Parameter``. They are not changed.
        quantizers: layer -> input quantizer of ours.
        finish: (name, slice) -> what the network uses; quantizes what ``tensors`` does not hold quantized.
        copied: no tensor is shared with ``tensors``; else those that stay whole are the very ones.
    """
    module = qadg.trace.module
    graph = copy_graph(module.graph)
    twins = {new.name: new for new in graph.nodes}
    for node in module.graph.nodes:
        if node.op == "call_function":
            _rewrite(cut, graph, node, twins[node.name])
    for size in cut.state.findings.sizes:
        _rewrite_size(cut, size, twins[size.node.name])
    _rewrite_numbers(cut, graph, twins)
    paths = quantizer_paths(qadg, quantizers)
    fold_branches(cut, graph, qadg, twins, paths)
    for node in reversed(list(graph.nodes)):  # fx's own elimination wants a module around the graph
        if not node.users and node.op not in {"placeholder", "output"}:
            graph.erase_node(node)
    alone = set(cut.computed.values())  # what such a weight starts from may have had its name, or be tied
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in alone:
            node.target = names.get(str(node.target), str(node.target))
    graph.lint()
    modules = {paths[layer]: quantizer for layer, quantizer in quantizers.items()}
    return GraphNet.build(graph, _entries(cut, module, graph, tensors, modules, finish, copied), modules)


def _entries(
    cut: Cut,
    module: fx.GraphModule,
    graph: fx.Graph,
    tensors: Mapping[str, Tensor],
    quantizers: Mapping[str, ActivationQuantizer],
    finish: Callable[[str, Tensor], Tensor],
    copied: bool,
) -> Iterable[Entry]:
    """Named tensors of the cut net, tied ones tied: the model's own, the quantizers', and loose constants of the graph."""
    made: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if id(tensor) not in made:
            whole = tensor.detach()
            value = finish(name, cut.slice(name, whole))
            if value is whole:
                value = whole.clone() if copied else tensor
            wrapped = isinstance(tensor, torch.nn.Parameter) and value is not tensor
            made[id(tensor)] = torch.nn.Parameter(value, tensor.requires_grad) if wrapped else value
        yield Entry(name, PARAMETER if isinstance(tensor, torch.nn.Parameter) else BUFFER, made[id(tensor)])
    for path, quantizer in quantizers.items():
        for name, parameter in quantizer.named_parameters():
            yield Entry(f"{path}.{name}", PARAMETER, parameter)
    for name, tensor in cut.constants.items():
        yield Entry(name, SCRATCH, tensor)
    loose = {str(node.target) for node in graph.nodes if node.op == "get_attr"} - set(tensors) - set(cut.constants)
    for target in sorted(loose):
        yield Entry(target, SCRATCH, attribute_tensor(module, target).detach().clone())


def _rewrite(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node) -> None:
    """Rewrite the integers of one node, and write down what became what."""
    out = cut.state.values.get(node)
    source = cut.state.values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
    name = operator_name(node)
    if isinstance(out, Labels) and name in _SIZE_LIST:
        _rewrite_sizes(cut, graph, node, twin, out)
    elif isinstance(out, Labels) and name == "arange":
        _rewrite_range(cut, graph, node, twin, out)
    elif not isinstance(source, Labels):
        return
    elif name in {"layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"}:
        normalised: Any = node.args[1]
        for old, new in zip(normalised, kept := cut.shape(source)[-len(normalised) :], strict=True):
            cut.note(module_path(node), old, new)
        twin.update_arg(1, list(kept))
    elif name in {"split", "split_with_sizes", "chunk", "tensor_split"} and isinstance(out, tuple):
        _rewrite_split(cut, node, twin, source, out)
    elif isinstance(out, Labels) and name in {"slice", "narrow"}:
        _rewrite_slice(cut, graph, node, twin, source)
    elif isinstance(out, Labels) and name in {"constant_pad_nd", "pad"}:
        _rewrite_padding(cut, node, twin, source, out)
    elif isinstance(out, Labels) and name == "index_select":
        _rewrite_choice(cut, graph, node, twin, source)
    elif isinstance(out, Labels) and name in {"repeat", "tile"}:
        _rewrite_repeat(cut, node, twin, source, out)
    elif isinstance(out, Labels) and name == "slice_scatter":
        _rewrite_written(cut, graph, node, twin, out)
    elif isinstance(out, Labels) and name == "index_copy" and (numbers := written_numbers(node.args[2])) is not None:
        _write_at(cut, graph, node, twin, out, _axis(node, 1, out), numbers)
    elif isinstance(out, Labels):
        if name == "repeat_interleave" and node.kwargs.get("output_size") is not None:
            twin.kwargs = {key: value for key, value in node.kwargs.items() if key != "output_size"}  # a hint that only saves a wait
        for labels in (source, out):
            for axis, size in enumerate(labels.shape):
                if labels.covering(axis) is not None:
                    cut.note(module_path(node), size, int(cut.kept(labels, axis).sum()))


def _rewrite_range(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, out: Labels) -> None:
    """Leave out the numbers of indices that go."""
    kept = cut.kept(out, 0) if out.arrays else np.ones(1, dtype=bool)
    if kept.all():
        return
    count: Any = node.target
    numbers = _constant(cut, graph, node, twin, count(*node.args, **node.kwargs)[torch.from_numpy(kept)])
    twin.replace_all_uses_with(numbers)
    graph.erase_node(twin)


def _rewrite_sizes(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, out: Labels) -> None:
    """Give an operator that carries a whole shape the new one; symbolic sizes stay."""
    position, new = _SIZE_LIST[operator_name(node)], cut.shape(out)
    sizes = list(node.args[position])  # type: ignore[arg-type]
    if len(sizes) != len(new):
        return
    for axis, size in enumerate(sizes):
        if isinstance(size, int) and size != -1:
            cut.note(module_path(node), size, new[axis])
            sizes[axis] = new[axis]
    if operator_name(node) in {"view", "_unsafe_view"}:  # another size may make a kernel lay its result out in another way
        twin.target = torch.ops.aten.reshape.default
    with graph.inserting_before(twin):
        twin.update_arg(position, _twinned(cut, graph, sizes, twin, position, out, operator_name(node) in _VIEWS))


def _twinned(cut: Cut, graph: fx.Graph, sizes: list[Any], twin: fx.Node, position: int, out: Labels, viewed: bool) -> list[Any]:
    """Take symbolic sizes from the copied node, numbers from the rewritten list; a symbolic size that holds a cut one follows it."""
    old = list(twin.args[position])  # type: ignore[arg-type]
    result = [old[i] if isinstance(old[i], fx.Node) else size for i, size in enumerate(sizes)]
    changed = [i for i, size in enumerate(result) if isinstance(size, fx.Node) and out.covering(i) is not None]
    if viewed and len(changed) == 1 and -1 not in result:  # batch times heads: the product is of traced heads
        result[changed[0]] = -1
        return result
    for i in changed:
        kept = cut.kept(out, i)
        if not kept.all():
            times = graph.call_function(operator.mul, (result[i], int(kept.sum())))
            result[i] = graph.call_function(operator.floordiv, (times, len(kept)))
    return result


def _rewrite_repeat(cut: Cut, node: fx.Node, twin: fx.Node, source: Labels, out: Labels) -> None:
    """Repeat what had one index as often as indices are left of its copies."""
    times: list[Any] = list(twin.args[1])  # type: ignore[arg-type]
    padded = (1,) * (len(out.shape) - len(source.shape)) + source.shape
    for axis, size in enumerate(padded):
        place = axis - len(out.shape) + len(times)
        if out.covering(axis) is None or place < 0:
            continue
        left = int(cut.kept(out, axis).sum())
        cut.note(module_path(node), out.shape[axis], left)
        if size == 1 and isinstance(times[place], int):
            times[place] = left
    twin.update_arg(1, times)


def _rewrite_slice(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, source: Labels) -> None:
    axis = _axis(node, 1, source)
    if source.covering(axis) is None:
        return
    kept = cut.kept(source, axis)
    if _follows_inputs(node, kept, 2):
        return
    start, end = (_whole(node.args[i]) if len(node.args) > i else None for i in (2, 3))
    step = _whole(node.args[4]) if len(node.args) > 4 else 1
    narrow = operator_name(node) == "narrow"
    if narrow:
        end = (start or 0) + (end or 0)
    begin, stop, stride = slice(start, end, step).indices(source.shape[axis])
    before = np.cumsum(np.append(0, kept))  # [size + 1], how many stay before each index
    cut.note(module_path(node), stop - begin, int(kept[begin:stop].sum()))
    cut.note(module_path(node), begin, int(before[begin]))
    if kept.all():
        return  # the run may be of an open axis, whose size is not that of the example
    if stride == 1:
        new = (int(before[begin]), int(before[max(stop, begin)]))
        twin.args = (twin.args[0], axis, new[0], new[1] - new[0]) if narrow else (twin.args[0], axis, *new)
    else:
        _pick(cut, graph, node, twin, axis, [int(before[index]) for index in range(begin, stop, stride) if kept[index]])


def _follows_inputs(node: fx.Node, kept: NDArray[np.bool_], first: int) -> bool:
    """Whether a run of indices begins or ends where the sizes of the inputs say, so that it stays as it is.

    Raises:
        SubnetError: indices along it go.
    """
    if not any(isinstance(item, fx.Node) for item in node.args[first:]):
        return False
    if not kept.all():
        what = "construct_subnet: an axis is cut whose indices are chosen by the sizes of the inputs."
        raise SubnetError(what, at=module_path(node) or node.name)
    return True


def _rewrite_written(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, out: Labels) -> None:
    """Give an assignment to a run of indices the run that is left of it."""
    axis = _axis(node, 2, out)
    if out.covering(axis) is None:
        return
    kept = cut.kept(out, axis)
    if _follows_inputs(node, kept, 3):
        return
    start, end = (_whole(node.args[i]) if len(node.args) > i else None for i in (3, 4))
    begin, stop, step = slice(start, end, _whole(node.args[5]) if len(node.args) > 5 else 1).indices(out.shape[axis])
    if step != 1:
        _write_at(cut, graph, node, twin, out, axis, list(range(begin, stop, step)))
        return
    before = np.cumsum(np.append(0, kept))
    cut.note(module_path(node), begin, int(before[begin]))
    cut.note(module_path(node), stop - begin, int(before[stop] - before[begin]))
    if kept.all():
        return
    twin.args = (*twin.args[:2], axis, int(before[begin]), int(before[stop]))


def _write_at(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, out: Labels, axis: int, numbers: list[int]) -> None:
    """Replace an assignment to indices whose steps are no longer even by one to numbers."""
    kept = cut.kept(out, axis)
    if not kept.all():
        before = np.cumsum(np.append(0, kept))
        places = _constant(cut, graph, node, twin, torch.tensor([int(before[number]) for number in numbers if kept[number]], device="cpu"))
        twin.target, twin.args, twin.kwargs = torch.ops.aten.index_copy.default, (*twin.args[:1], axis, places, _part(twin)), {}


def _part(twin: fx.Node) -> Any:
    """What an assignment writes: the second argument of one to a run of indices, the last of one to numbers."""
    return twin.args[3] if twin.target is torch.ops.aten.index_copy.default else twin.args[1]


def _pick(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, axis: int, positions: list[int]) -> None:
    """Replace a choice of indices along an axis, whose steps are no longer even, by one by numbers."""
    numbers = _constant(cut, graph, node, twin, torch.tensor(positions, device="cpu"))
    twin.target, twin.args, twin.kwargs = torch.ops.aten.index_select.default, (twin.args[0], axis, numbers), {}  # a branch may start at it


def _constant(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, value: Tensor) -> fx.Node:
    """Return a node that reads new numbers, in front of ``twin``."""
    name = f"{NUMBERS}{node.name}"
    while name in cut.state.tensors:  # of an earlier cut
        name += "_"
    cut.constants[name] = value.to(node.meta["val"].device)
    with graph.inserting_before(twin):
        made = graph.get_attr(name)
    made.meta = dict(node.meta)
    return made


def _rewrite_choice(cut: Cut, graph: fx.Graph, node: fx.Node, twin: fx.Node, source: Labels) -> None:
    """Let a choice by written numbers be of what is left."""
    numbers, axis = written_numbers(node.args[2]), _axis(node, 1, source)
    if numbers is not None and source.covering(axis) is not None:
        kept = cut.kept(source, axis)
        if kept.all():
            return
        before = np.cumsum(np.append(0, kept))
        _pick(cut, graph, node, twin, axis, [int(before[number]) for number in numbers if kept[number]])


def _axis(node: fx.Node, position: int, labels: Labels) -> int:
    """Axis argument of an operator, counted from the front."""
    found = node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)
    return (_whole(found) or 0) % len(labels.shape)


def _whole(value: Any) -> int | None:
    """An index argument; a symbolic one (along a batch axis, never cut) is None."""
    return value if isinstance(value, int) else None


def _rewrite_split(cut: Cut, node: fx.Node, twin: fx.Node, source: Labels, out: tuple[Any, ...]) -> None:
    axis = _axis(node, 2, source)
    if source.covering(axis) is None:
        return
    kept = cut.kept(source, axis)
    lengths = [labels.shape[axis] for labels in out]
    new = [int(kept[a:b].sum()) for a, b in pairwise(np.cumsum([0, *lengths]))]
    for old, size in zip(lengths, new, strict=True):
        cut.note(module_path(node), old, size)
    if kept.all():
        return
    twin.target = torch.ops.aten.split_with_sizes.default
    twin.args, twin.kwargs = (twin.args[0], new, axis), {}


def _rewrite_padding(cut: Cut, node: fx.Node, twin: fx.Node, source: Labels, out: Labels) -> None:
    widths: list[Any] = list(twin.args[1])  # type: ignore[arg-type]
    for i in range(0, len(widths), 2):
        axis = len(source.shape) - 1 - i // 2
        numbers = all(isinstance(width, int) and width >= 0 for width in widths[i : i + 2])
        if out.covering(axis) is not None and numbers:
            kept = cut.kept(out, axis)
            new = int(kept[: widths[i]].sum()), int(kept[len(kept) - widths[i + 1] :].sum()) if widths[i + 1] else 0
            for old, size in zip(widths[i : i + 2], new, strict=True):
                cut.note(module_path(node), old, size)
            widths[i : i + 2] = new
    twin.update_arg(1, widths)


def _rewrite_numbers(cut: Cut, graph: fx.Graph, twins: dict[str, fx.Node]) -> None:
    """Give norms and means over fewer channels their new numbers, and multiply what has no number of its own to change."""
    for node, numbers in cut.numbers.items():
        twin = twins[node.name]
        for position, number in numbers.items():
            if position < len(twin.args):
                twin.update_arg(position, number)
            else:
                twin.update_kwarg("eps", number)
    for node, factor in cut.factors.items():
        twin = twins[node.name]
        value = twin if isinstance(node.meta["val"], Tensor) else next(user for user in twin.users if user.args[1] == 0)
        with graph.inserting_after(value):
            product = graph.call_function(torch.ops.aten.mul.Tensor, (value, factor))
        product.meta = dict(node.meta)
        value.replace_all_uses_with(product, lambda user, product=product: user is not product)  # type: ignore[misc]
        twins[node.name] = product


def _rewrite_size(cut: Cut, size: SizeArgument, twin: fx.Node) -> None:
    new = int(cut.kept(size.labels, size.axis).sum())
    old = size.labels.shape[size.axis]
    cut.note(module_path(size.node), old, new)
    if size.position < len(twin.args):
        twin.update_arg(size.position, new)
    else:
        twin.update_kwarg("groups", new)
