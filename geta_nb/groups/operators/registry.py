"""The table of operator rules, and what a rule is given. A rule turns the labels of the inputs into the labels of the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from geta_nb.errors import ConfigError
from geta_nb.graph import hint, module_path, operator_name, overload_name, sizes_elsewhere
from geta_nb.groups.labels import REAL, Ints, Labels, LabelSpace, sources_of
from geta_nb.groups.reshaping import Sizes, settle

Rule = Callable[["Call"], Any]
RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one node before any cut: a fixed factor and the label arrays of the axes it runs over."""

    node: fx.Node
    const: int
    arrays: tuple[Ints, ...]
    weight: fx.Node | None
    data: fx.Node | None


@dataclass(frozen=True)
class SizeArgument:
    """An integer argument that follows a cut: the number of indices kept along ``axis`` of ``labels``."""

    node: fx.Node
    position: int
    labels: Labels
    axis: int


@dataclass(frozen=True)
class Fold:
    """A sum that removed channels reach as constants, which its bias takes over when they are cut.

    Attributes:
        node: linear or convolution node: (data, weight, bias, ...).
        labels: labels of the data's channels, [channels]; axis 1 of a convolution's input, the last of a linear one's.
        steady: which of them are constants once removed, [channels].
    """

    node: fx.Node
    labels: Ints
    steady: NDArray[np.bool_]


@dataclass(frozen=True)
class Rescale:
    """A mean over removable channels, of squares or of anything else: over fewer of them it is larger, by what share of them is left.

    Attributes:
        node: the mean, or the norm that takes it.
        arrays: labels of the channels it runs over, [channels], one array an axis.
    """

    node: fx.Node
    arrays: tuple[Ints, ...]


Choice = tuple[fx.Node, int]
"""A node, and which of its products."""


@dataclass
class Findings:
    """What the rules write down beside the labels.

    Attributes:
        macs: multiply-accumulates.
        sizes: integer arguments that follow a cut.
        produced: labels that parameters bring into the data: their slices are zeroed when a group is masked.
        lengths: the same of columns that are only read, but count in the length of a row (``weight_norm``, ``spectral_norm``).
        kin: pairs of labels that parameters and constants bring into one another: where one side is produced, the other is.
        parts: labels of each piece of a split, of which one must stay.
        unknown: (operator, module path) of what no rule understood.
        foreign: names of parameters that are not the model's own to cut.
        folds: sums whose bias takes over what removed channels still give.
        sole: nodes of parameters that nothing but one operator reads.
        nonnegative: nodes whose values are never below zero.
        rescales: means and norms that run over removable channels.
        choices: sums over part of a joint axis (head, dimension) of data that left the other part removable, each with those labels.
        inner: the choices of these that must go the other way, as nothing of the outer part may go.
        cures: labels that would be zero once removed if buffers were, and the ids of the reasons that name these buffers.
        needed: labels of parameters whose zeros make what is no number: something is divided by them.
    """

    macs: list[MacCount] = field(default_factory=list)
    sizes: list[SizeArgument] = field(default_factory=list)
    produced: list[Ints] = field(default_factory=list)
    lengths: list[Ints] = field(default_factory=list)
    kin: list[tuple[Ints, Ints]] = field(default_factory=list)
    parts: list[Ints] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    sole: set[fx.Node] = field(default_factory=set)
    nonnegative: set[fx.Node] = field(default_factory=set)
    rescales: list[Rescale] = field(default_factory=list)
    choices: list[tuple[Choice, Ints]] = field(default_factory=list)
    inner: frozenset[Choice] = frozenset()
    cures: list[tuple[Ints, Ints]] = field(default_factory=list)
    needed: list[Ints] = field(default_factory=list)


@dataclass
class Call:
    """One node as its rule sees it: arguments with labels in place of tensors, traced numbers in place of sizes."""

    space: LabelSpace
    findings: Findings
    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    products: int = 0
    _reasons: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short operator name."""
        return operator_name(self.node)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or by name, or its default."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def axis(self, position: int, name: str, default: int, labels: Labels) -> int:
        """Return an axis argument, counted from the front."""
        return int(self.argument(position, name, default)) % max(len(labels.shape), 1)

    def reason(self, text: str) -> int:
        """Return the id of a reason that names this operator and its module."""
        if text not in self._reasons:
            self._reasons[text] = self.space.reason(text, self.name, module_path(self.node))
        return self._reasons[text]

    @property
    def several(self) -> bool:
        """Whether the node has several outputs."""
        return isinstance(self.node.meta["val"], (list, tuple))

    @property
    def shape(self) -> tuple[int, ...]:
        """Traced output shape; that of the first output when there are several."""
        if self.several:
            return self.shapes[0] or ()
        return tuple(hint(size) for size in self.node.meta["val"].shape)

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Traced output shapes of a node with several outputs."""
        values = self.node.meta["val"]
        return tuple(tuple(hint(s) for s in value.shape) if isinstance(value, Tensor) else None for value in values)

    @property
    def sizes_around(self) -> tuple[Sizes, Sizes] | None:
        """Sizes of the axes of the first input and of an output that is a view of it, in the example and in others that the view takes.

        None where there are no others.
        """
        first: Any = self.node.args[0]
        before, after = first.meta["val"].shape, self.node.meta["val"].shape
        sizes = [sizes_elsewhere(size) for size in (*before, *after)]
        count = max((len(size) for size in sizes if isinstance(size, tuple)), default=0)
        table = [size if isinstance(size, tuple) else (size,) * count for size in sizes]
        whole = [math.prod(row[at] for row in table[: len(before)]) for at in range(count)]
        taken = [at for at in range(count) if whole[at] == math.prod(row[at] for row in table[len(before) :]) > 0]
        if len(taken) < 2:
            return None
        free = [tuple(size[at] for at in taken) if isinstance(size, tuple) else size for size in sizes]
        return free[: len(before)], free[len(before) :]

    def is_dynamic(self, axis: int) -> bool:
        """Whether the size of an output axis is only known at run time."""
        return not isinstance(self.node.meta["val"].shape[axis], int)

    def is_batch(self, axis: int) -> bool:
        """Whether the size of an output axis is one that only the inputs decide, not times something of the network (heads) as well."""
        size = self.node.meta["val"].shape[axis]
        return not isinstance(size, int) and bool(size.node.expr.is_Symbol)

    def input_dtype(self, index: int) -> torch.dtype | None:
        """Return the dtype of the ``index``-th input node, None when it is no tensor."""
        value = self.node.all_input_nodes[index].meta.get("val")
        return value.dtype if isinstance(value, Tensor) else None

    def fixed(self, axes: Sequence[int], labels: Labels, text: str) -> Labels:
        """Return ``labels`` with nothing removable along ``axes``."""
        return self.space.fix_axes(labels, axes, self.reason(text))

    def average(self, labels: Labels, axes: Sequence[int]) -> bool:
        """Whether what a mean over these axes runs over may go where it is zero; then the mean is written down, for what it divides by."""
        arrays = [array for array in labels.arrays if set(array.cover) <= set(axes)]
        if labels.source != "data" or not arrays:
            return False
        for array in arrays:
            self.space.require_zero(array)
        self.findings.rescales.append(Rescale(self.node, tuple(array.labels.ravel() for array in arrays)))
        return True

    def approximate(self, labels: Labels, axis: int) -> bool:
        """Whether the channels along an axis that a norm runs over may go; then it is written down that this is not exact."""
        array = labels.covering(axis)
        if not self.space.approximate_norms or array is None or array.cover != (axis,) or array.origin != REAL:
            return False
        self.space.approximations.append(array.labels.ravel())
        self.findings.rescales.append(Rescale(self.node, (array.labels.ravel(),)))
        return True

    def settle(self, labels: Labels) -> Labels:
        """Return ``labels`` in canonical form."""
        return settle(self.space, labels, self.reason("reduced to one index"))

    def produce(self, operands: Sequence[Labels], source: str) -> None:
        """Note that parameters met data here (their labelled indices are rows to zero, not columns that read) or one another."""
        parameters = [array for operand in operands if operand.source == "param" for array in operand.arrays]
        if source == "data":
            self.findings.produced += [array.labels.ravel() for array in parameters]
        elif source == "param":
            arrays = [array for operand in operands for array in operand.arrays]
            for cover in dict.fromkeys(array.cover for array in parameters):  # mask * weight: the mask's labels go on
                first, *others = [array for array in arrays if array.cover == cover]
                self.findings.kin += [(first.labels.ravel(), array.labels.ravel()) for array in others]

    def all_tensors(self) -> list[Labels]:
        """Every input tensor's labels, lists included."""
        found: list[Labels] = []

        def visit(value: Any) -> None:
            if isinstance(value, Labels):
                found.append(value)
            elif isinstance(value, (list, tuple)):
                for item in value:
                    visit(item)

        visit(self.args)
        visit(tuple(self.kwargs.values()))
        return found

    def unlabelled(self, text: str = "a form of this operator without a rule") -> Any:
        """Fix everything that comes in; nothing is removable in what goes out."""
        tensors = self.all_tensors()
        for labels in tensors:
            self.space.fix_all(labels, self.reason(text))
        source = sources_of(tensors)
        if self.several:
            return tuple(None if shape is None else Labels(shape, (), source) for shape in self.shapes)
        return Labels(self.shape, (), source)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by their short names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def register_rule(operator: str | torch._ops.OpOverload | torch._ops.OpOverloadPacket, how: Rule | str | None = None) -> Any:
    """Say how an operator that geta-nb does not know treats channels, so that what it touches can be pruned.

    Args:
        operator: ``torch.ops.mylib.gate``, or its name as ``geta.protected`` shows it: ``"mylib::gate"``, ``"special_op"`` for torch's own.
        how: ``"elementwise"`` (whatever stands at one place lives and dies together; whether zero stays zero is measured by running it),
            or a function that turns a :class:`Call` into the :class:`Labels` of the output, one for each of several; None: a decorator.

    Returns:
        The function, or a decorator for it.

    Raises:
        ConfigError: no such operator, or neither a function nor ``"elementwise"``.

    A rule is trusted in its labels and checked in its shapes; what the cut network computes is compared with the masked one, so that a
    wrong rule ends in a ``SubnetError``. For an operator made of known ones, call their rules:

    >>> import geta_nb as gt
    >>> from geta_nb.groups.operators import RULES
    >>> @gt.register_rule("mylib::linear_gelu")
    ... def linear_gelu(call):
    ...     return RULES["linear"](call)
    """
    if isinstance(operator, torch._ops.OpOverload):
        name = overload_name(operator)
    elif isinstance(operator, torch._ops.OpOverloadPacket):
        name = overload_name(getattr(operator, operator.overloads()[0]))
    else:
        name = operator.removeprefix("aten::") if isinstance(operator, str) else ""
    if not name:
        raise ConfigError("register_rule: not an operator.", expected='torch.ops.mylib.gate or "mylib::gate"', got=repr(operator))
    if how is None:
        return lambda function: register_rule(name, function)
    if how == "elementwise":
        how = RULES["clone"]
    if not callable(how):
        raise ConfigError("register_rule: no rule.", at=name, expected='"elementwise" or a function of a Call', got=repr(how))
    RULES[name] = how
    return how
