"""Run the operator rules over a traced graph: every tensor gets its labels.

In: a trace, and which tensors are the model's. Out: a :class:`Propagation`, labels by node. Second step of stage 2, before ``find``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from geta_nb.graph import attribute_tensor, hint, module_path, nonnegative_nodes, operator_name, overload_name, shape_of
from geta_nb.groups.causes import Causes, is_consequence
from geta_nb.groups.labels import CONSTANT, REAL, SHARED, UNSTEADY, Ints, LabelArray, Labels, LabelSpace, components, single_axis
from geta_nb.groups.operators.pointwise import is_pointwise, pointwise, tagged_pointwise
from geta_nb.groups.operators.registry import RULES, Call, Choice, Findings
from geta_nb.groups.zeros import Zeros, wanted, written

_STEADY = frozenset([
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t", "slice", "select",
    "split", "split_with_sizes", "chunk", "unbind", "zeros", "ones", "full", "batch_norm", "_native_batch_norm_legit_no_training",
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "mean", "amax", "amin", "cat", "concat", "expand", "repeat",
    "repeat_interleave", "flip", "roll", "index_select", "pixel_unshuffle", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
])  # fmt: skip
"""Operators, beside the element-wise ones, that give a constant where a channel is a constant: the same at every position."""


_LATER = 1 << 37
"""Added to the id of a reason that is a consequence of another: the first cause is blamed before it."""


@dataclass
class Propagation:
    """Labels of every node of a graph.

    Attributes:
        space: unions, fixed labels and zero checks.
        findings: multiply-accumulates, size arguments, producing labels.
        values: labels of each node's output (a tuple for several outputs).
        tensors: labels of each parameter and buffer, by its own name.
        buffers: names in ``tensors`` that are buffers.
        zeros: what masking zeroes, where that is not parameters alone and all of them.
    """

    space: LabelSpace
    findings: Findings
    values: dict[fx.Node, Any] = field(default_factory=dict)
    tensors: dict[str, Labels] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    zeros: Zeros = field(default_factory=Zeros)
    classes: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def produced(self, *, lengths: bool = True) -> NDArray[np.bool_]:
        """Return which labels are zeroed in a parameter when their group is masked, [labels].

        Args:
            lengths: also the columns that are only read, but count in the length of a row.
        """
        marks = np.zeros(self.space.size, dtype=bool)
        for labels in (*self.findings.produced, *(self.findings.lengths if lengths else ())):
            marks[labels] = True
        if self.findings.kin:
            families = components(self.space.size, self.findings.kin)
            found = np.zeros(self.space.size, dtype=bool)
            found[families[marks]] = True
            marks = found[families]
        for name, axis in self.zeros.left:
            array = self.tensors[name].covering(axis)
            if array is not None:
                marks[array.labels] = False
        return marks


def propagate(
    module: fx.GraphModule,
    names: Mapping[str, str],
    buffers: set[str],
    folded: Mapping[fx.Node, fx.Node],
    *,
    approximate_norms: bool = False,
    saved: Collection[str] = (),
) -> Propagation:
    """Return the labels of all nodes.

    Masking zeroes parameters first of all. Where nothing but the numbers of some buffers stands against a removal (the shift of a frozen
    norm), these are zeroed too; what a bias can take over (an unpadded convolution) needs no buffer at zero. Where a parameter divides
    (the direction of ``weight_norm``, by its length), it keeps its numbers if that lets more go: what it is multiplied by is zeroed.

    Args:
        module: traced graph.
        names: target of a ``get_attr`` node -> own name of the parameter or buffer; absent: a constant.
        buffers: own names that are buffers.
        folded: exit node of a quantizer branch -> node whose value enters it; such a branch changes no label.
        approximate_norms: whether channels that norms run over may go.
        saved: own names of buffers that may be zeroed: those that a state dict holds, so that the zeros are kept.
    """
    curable = buffers.intersection(saved) - written(module, names)

    def walk(inner: frozenset[Choice], zeros: Zeros) -> Propagation:
        return _walk(module, names, buffers, folded, approximate_norms, inner, zeros, curable)

    state = _cured(walk, frozenset())
    inner = _without_outer(state)
    state = _cured(walk, inner) if inner else state
    state.space.edges.clear()  # the classes say it all
    return state


def _cured(walk: Callable[[frozenset[Choice], Zeros], Propagation], inner: frozenset[Choice]) -> Propagation:
    """Walk, and again with other zeros as long as these let more go; what they do not help keeps its own reason."""
    best = state = walk(inner, Zeros())
    while (more := state.zeros | _wanted(state)) != state.zeros:
        state = walk(inner, more)
        if _removable_labels(state) > _removable_labels(best):
            best = state
    return best


def _wanted(state: Propagation) -> Zeros:
    """Return what else had better be zero, or not, where channels may not go and nothing fixes them."""
    if not state.findings.cures and not state.findings.needed:
        return Zeros()
    free = ~removable_classes(state, state.classes)[0]
    for labels, _ in state.space.fixed:
        free[state.classes[labels]] = False
    return wanted(state.findings, state.space, state.tensors, free, state.classes)


def _removable_labels(state: Propagation) -> int:
    return int(removable_classes(state, state.classes)[0][state.classes].sum())


def _without_outer(state: Propagation) -> frozenset[Choice]:
    """Products in which whole heads were kept removable, and none of which may go: what fixes a head may come after its product."""
    if not state.findings.choices:
        return frozenset()
    removable, _ = removable_classes(state, state.classes)
    return frozenset(choice for choice, labels in state.findings.choices if not removable[state.classes[labels]].any())


def _walk(
    module: fx.GraphModule,
    names: Mapping[str, str],
    buffers: set[str],
    folded: Mapping[fx.Node, fx.Node],
    approximate_norms: bool,
    inner: frozenset[Choice],
    zeros: Zeros,
    curable: set[str],
) -> Propagation:
    """Run the rules once.

    Args:
        inner: products that keep dimensions removable in place of heads.
        zeros: what is zeroed with a group.
        curable: buffers that may be.
    """
    state = Propagation(LabelSpace(approximate_norms=approximate_norms), Findings(inner=inner), buffers=set(buffers), zeros=zeros)
    state.findings.sole, state.findings.nonnegative = _sole_readers(module, names), nonnegative_nodes(module.graph)
    causes = Causes(state.space, state.values)
    for node in module.graph.nodes:
        if node in folded:
            state.values[node] = state.values[folded[node]]
            causes.settle(node)
        elif node.op == "get_attr":
            state.values[node] = _attribute(state, module, node, names, curable)
            if str(node.target) not in names:
                causes.begin(node, "a constant of the network")
        elif node.op == "placeholder":
            state.values[node] = Labels(shape_of(node) or (), (), "data")
            causes.begin(node, "an input of the network")
        elif node.op == "output":
            reason = state.space.reason("an output of the network", "output", "")
            for value in _labels_in(state, node.args):
                state.space.fix_all(value, reason)
        else:
            state.values[node] = _apply(state, node)
            (causes.pick if node.target is operator.getitem else causes.settle)(node)
    _straighten(state)
    return state


def _sole_readers(module: fx.GraphModule, names: Mapping[str, str]) -> set[fx.Node]:
    """Nodes of parameters of one axis, which no quantizer reads, that are read once, under all their names together."""
    readers: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in names and len(shape_of(node) or ()) == 1:
            readers.setdefault(names[str(node.target)], []).extend([node] * len(node.users))
    return {nodes[0] for nodes in readers.values() if len(nodes) == 1}


def _attribute(state: Propagation, module: fx.GraphModule, node: fx.Node, names: Mapping[str, str], curable: set[str]) -> Labels:
    shape = shape_of(node) or ()
    name = names.get(str(node.target))
    if name is None:
        if max(shape, default=1) > 1 and isinstance(attribute_tensor(module, str(node.target)), nn.Parameter):
            state.findings.foreign.append(str(node.target))
        return Labels(shape, (), "const")
    if name in state.tensors:
        return state.tensors[name]
    mark = state.space.reason("a buffer that is not zeroed", "buffer", name) if name in state.buffers - state.zeros.buffers else 0
    if mark and sum(size > 1 for size in shape) > 1:
        mark += UNSTEADY  # along one axis its numbers differ along the other
    elif mark and name in curable and node.meta["val"].is_floating_point():  # one number a channel, as a norm has
        state.space.curable[mark] = name
    origin = CONSTANT if name in state.buffers else REAL
    divides = state.space.reason("a parameter that something is divided by", "parameter", name) + UNSTEADY if state.zeros.left else 0
    marks = [divides if (name, axis) in state.zeros.left else mark for axis in range(len(shape))]
    arrays = [
        single_axis(shape, axis, state.space.new(size), np.full(size, marks[axis]) if marks[axis] else None, origin=origin)
        for axis, size in enumerate(shape)
        if size > 1
    ]
    labels = Labels(shape, tuple(arrays), "const" if name in state.buffers else "param")
    state.tensors[name] = labels
    return labels


def _apply(state: Propagation, node: fx.Node) -> Any:
    value = node.meta.get("val")
    if node.target is operator.getitem:
        source: Any = state.values[node.args[0]]  # type: ignore[index]
        index: Any = node.args[1]
        return source[index] if isinstance(source, tuple) else source
    if not isinstance(value, (Tensor, list, tuple)):
        return None  # a size
    call = Call(state.space, state.findings, node, *_arguments(state, node))
    known = RULES.get(operator_name(node)) if isinstance(node.target, torch._ops.OpOverload) else None
    if known is None and is_pointwise(node):
        known = pointwise
    if known is None:
        return _unknown(call)
    try:
        result = known(call)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        return _unknown(call)  # a form of the operator that its rule does not know
    if not _fits(call, result):
        return _unknown(call)
    return result if operator_name(node) in _STEADY or is_pointwise(node) or _sees_pixels_only(node) else _unsteady(result)


def _sees_pixels_only(node: fx.Node) -> bool:
    """Whether a padding is by copies, or an average pool has neither padding nor a divisor of its own."""
    if operator_name(node) == "pad":
        return len(node.args) > 2 and node.args[2] != "constant"
    padding: Any = node.args[3] if len(node.args) > 3 else 0
    inside = not any(padding if isinstance(padding, (list, tuple)) else [padding]) and len(node.args) < 7
    return operator_name(node) in {"avg_pool1d", "avg_pool2d", "avg_pool3d"} and inside and not node.kwargs


def _unsteady(value: Any) -> Any:
    """Labels after an operator that need not carry a constant to a constant, the same at every position."""
    if isinstance(value, tuple):
        return tuple(_unsteady(item) for item in value)
    return replace(value, arrays=tuple(array.unsteady() for array in value.arrays)) if isinstance(value, Labels) else value


def understood(target: object) -> bool:
    """Whether there is a rule for an operator."""
    return isinstance(target, torch._ops.OpOverload) and (overload_name(target) in RULES or tagged_pointwise(target))


def _fits(call: Call, result: Any) -> bool:
    """Whether what a rule returns has the shapes of the node's outputs; a wrong one is worth no guess."""
    if not call.several:
        return isinstance(result, Labels) and _is_shaped(result, call.shape)
    pairs = zip(result, call.shapes, strict=False)
    return isinstance(result, tuple) and all(labels is None or (shape is not None and _is_shaped(labels, shape)) for labels, shape in pairs)


def _is_shaped(labels: Labels, shape: tuple[int, ...]) -> bool:
    return labels.shape == shape and all(
        len(array.labels.shape) == len(shape) and all(size in (1, full) for size, full in zip(array.labels.shape, shape, strict=True))
        for array in labels.arrays
    )


def _unknown(call: Call) -> Any:
    """No rule: fix every label that comes in, and write the operator down by name."""
    if any(labels.arrays for labels in call.all_tensors()):
        call.findings.unknown.append((call.name, module_path(call.node)))
    return call.unlabelled("an operator without a rule")


def _arguments(state: Propagation, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def value_of(item: fx.Node) -> Any:
        known = state.values.get(item)
        if known is not None:
            return state.space.trimmed(known) if isinstance(known, Labels) else known
        value = item.meta.get("val")
        return hint(value) if isinstance(value, (int, torch.SymInt)) else value

    def visit(item: Any) -> Any:
        if isinstance(item, fx.Node):
            return value_of(item)
        if isinstance(item, (list, tuple)):
            return [visit(entry) for entry in item]
        return item

    return tuple(visit(item) for item in node.args), {key: visit(item) for key, item in node.kwargs.items()}


def _labels_in(state: Propagation, value: Any) -> list[Labels]:
    if isinstance(value, fx.Node):
        return [item for item in _flat(state.values.get(value)) if isinstance(item, Labels)]
    if isinstance(value, (list, tuple)):
        return [labels for item in value for labels in _labels_in(state, item)]
    if isinstance(value, dict):
        return [labels for item in value.values() for labels in _labels_in(state, item)]
    return []


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def removable_classes(state: Propagation, classes: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Return which classes may go, [C], and for each the id of the first reason why not, a cause where there is one (0: none)."""
    count = int(classes.max()) + 1 if len(classes) else 0
    none = np.iinfo(np.int64).max
    blame = np.full(count, none, dtype=np.int64)
    for labels, reason in state.space.fixed:
        later = _LATER if is_consequence(state.space.reasons[reason]) else 0
        np.minimum.at(blame, classes[labels], reason + later)
    for labels, spoilers in state.space.checks:
        bad = spoilers > 0
        np.minimum.at(blame, classes[labels[bad]], spoilers[bad] % SHARED)
    blame = np.where(blame == none, 0, blame % _LATER)
    produced = np.zeros(count, dtype=bool)
    produced[classes[state.produced()]] = True
    return produced & (blame == 0), blame


def _straighten(state: Propagation) -> None:
    """Make every joint array rectangular: what may go along it goes along one of its axes."""
    joint: dict[bytes, LabelArray] = {}
    for value in state.values.values():
        for labels in _flat(value):
            for array in labels.arrays if isinstance(labels, Labels) else ():
                if len(array.cover) > 1:
                    joint[repr(array.labels.shape).encode() + array.labels.tobytes()] = array
    while True:
        classes = state.space.classes()
        removable, _ = removable_classes(state, classes)
        bent = {}
        for array in joint.values():
            table = np.where(removable[classes[array.labels]], classes[array.labels], -1).squeeze()
            if not any(_depends_only_on(table, axis) for axis in range(table.ndim)):
                bent[table.tobytes()] = (array, table)
        if not bent:
            break
        met: set[int] = set()
        for array, table in bent.values():
            touched = {int(owner) for owner in np.unique(table) if owner >= 0}
            if met.isdisjoint(touched):  # what one union straightens, or bends another way, the next round sees
                _unite(state.space, array, table)
                met |= touched
    state.classes = classes


def _depends_only_on(table: Ints, axis: int) -> bool:
    moved = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    return bool((moved == moved[:, :1]).all())


def _unite(space: LabelSpace, array: LabelArray, table: Ints) -> None:
    """Unite along all axes but the one that leaves the most units removable; the outermost on a tie."""
    units = []
    for axis in range(table.ndim):
        moved = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
        units.append(int((moved >= 0).all(1).sum()))
    kept = array.cover[int(np.argmax(units))]
    current: LabelArray | None = array
    for axis in array.cover:
        if axis != kept and current is not None:
            current = space.reduce(current, axis, 0)
    # a unit with a part that may never go may not go either: unions above carry that on


