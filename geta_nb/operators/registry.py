"""The table of operator rules, and what a rule is given. A rule turns the labels of the inputs into the labels of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from geta_nb.labels import Ints, LabelArray, Labels, LabelSpace, settle
from geta_nb.trace import hint, module_path, operator_name

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


@dataclass
class Findings:
    """What the rules write down beside the labels."""

    macs: list[MacCount] = field(default_factory=list)
    sizes: list[SizeArgument] = field(default_factory=list)
    produced: list[Ints] = field(default_factory=list)
    parts: list[Ints] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Call:
    """One node as its rule sees it: arguments with labels in place of tensors."""

    space: LabelSpace
    findings: Findings
    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    _reasons: dict[str, int] = field(default_factory=dict)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or by name, or its default."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def reason(self, text: str) -> int:
        """Return the id of a reason that names this operator and its module."""
        if text not in self._reasons:
            self._reasons[text] = self.space.reason(text, operator_name(self.node), module_path(self.node))
        return self._reasons[text]

    @property
    def shape(self) -> tuple[int, ...]:
        """Traced output shape."""
        return tuple(hint(size) for size in self.node.meta["val"].shape)

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Traced output shapes of a node with several outputs."""
        values = self.node.meta["val"]
        return tuple(tuple(hint(s) for s in value.shape) if isinstance(value, Tensor) else None for value in values)

    def is_dynamic(self, axis: int) -> bool:
        """Whether the size of an output axis is only known at run time."""
        return not isinstance(self.node.meta["val"].shape[axis], int)

    def fixed(self, axes: Sequence[int], labels: Labels, text: str) -> Labels:
        """Return ``labels`` with nothing removable along ``axes``."""
        return self.space.fix_axes(labels, axes, self.reason(text))

    def settle(self, labels: Labels) -> Labels:
        """Return ``labels`` in canonical form."""
        return settle(self.space, labels, self.reason("reduced to one index"))

    def produce(self, operands: Sequence[Labels], source: str) -> None:
        """Note that parameters met data here: their labelled indices are rows to zero, not columns that read."""
        if source == "data":
            self.findings.produced += [array.labels.ravel() for op in operands if op.source == "param" for array in op.arrays]

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


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by their short names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def source_of(operands: Sequence[Labels]) -> str:
    """Return what a value made of ``operands`` is made of."""
    sources = {operand.source for operand in operands}
    return next((source for source in ("data", "param") if source in sources), "const")


def pad_left(labels: Labels, ndim: int) -> Labels:
    """Return labels with leading axes of size one, as broadcasting adds them."""
    extra = ndim - len(labels.shape)
    arrays = tuple(array.map(lambda values: values.reshape((1,) * extra + values.shape)) for array in labels.arrays)
    return Labels((1,) * extra + labels.shape, arrays, labels.source)


def insert_axis(labels: Labels, axis: int) -> Labels:
    """Return labels with an axis of size one put in at ``axis``."""
    axis = axis if axis >= 0 else len(labels.shape) + 1 + axis
    arrays = tuple(array.map(lambda values: np.expand_dims(values, axis)) for array in labels.arrays)
    return Labels((*labels.shape[:axis], 1, *labels.shape[axis:]), arrays, labels.source)


def drop_axes(labels: Labels, axes: Sequence[int]) -> Labels:
    """Return labels without ``axes``, along which no array may vary."""
    gone = {axis % len(labels.shape) for axis in axes}
    arrays = tuple(array.map(lambda values: values.reshape([s for i, s in enumerate(values.shape) if i not in gone])) for array in labels.arrays)
    return Labels(tuple(size for i, size in enumerate(labels.shape) if i not in gone), arrays, labels.source)


def permute(labels: Labels, order: Sequence[int]) -> Labels:
    """Return labels with axes in a new order."""
    order = [axis % len(labels.shape) for axis in order]
    arrays = tuple(array.map(lambda values: values.transpose(order)) for array in labels.arrays)
    return Labels(tuple(labels.shape[axis] for axis in order), arrays, labels.source)


def with_shape(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Return the same arrays for a tensor whose uncovered axes have other sizes."""
    return replace(labels, shape=shape)


def spoiled(labels: Labels, reason: int) -> Labels:
    """Return labels whose values are no longer zero when removed."""
    arrays = tuple(LabelArray(array.labels, np.full_like(array.spoilers, reason), array.origin) for array in labels.arrays)
    return replace(labels, arrays=arrays)


def is_tensor_node(node: fx.Node) -> bool:
    """Whether a node's value is one tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)
