"""Why an axis is fixed, carried from operator to operator: what is said of a channel is the cause, not that it met an axis fixed before.

In: a walk over the graph, node by node. Out: the reasons in ``space.fixed``, each a cause where one is known. Serves ``propagation``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx

from geta_nb.groups.labels import Ints, Labels, LabelSpace, Reason
from geta_nb.groups.operators.pointwise import is_pointwise

_CONSEQUENCE = "aligned with a fixed "
"""How reasons begin behind which there is another one."""


def is_consequence(reason: Reason) -> bool:
    """Whether a reason only says that something was fixed before."""
    return reason.text.startswith(_CONSEQUENCE)


class Causes:
    """Reasons why axes are fixed, by node.

    Axes are followed by place, counted from the last, and size: that of an output is the one of an input at the same place, else any of
    that size. Where two are of one size the words may be those of the other; what may go is decided elsewhere.
    """

    def __init__(self, space: LabelSpace, values: Mapping[fx.Node, Any]) -> None:
        self._space, self._values = space, values
        self._axes: dict[fx.Node, tuple[tuple[int, ...], ...]] = {}
        self._of_label = np.zeros(1024, dtype=np.int32)  # ids of reasons
        self._done = 0

    def begin(self, node: fx.Node, text: str) -> None:
        """Say that nothing of a node's value can go, for this reason: an input, a constant. Sizes of the inputs' own are no reason."""
        value = node.meta.get("val")
        sizes = tuple(value.shape) if isinstance(value, Tensor) else ()
        if any(isinstance(size, int) and size > 1 for size in sizes):
            reason = self._space.reason(text, node.op, "")
            self._axes[node] = (tuple(reason if isinstance(size, int) else 0 for size in sizes),)

    def settle(self, node: fx.Node) -> None:
        """Give what was fixed at this node its cause, and note why axes of its value are fixed."""
        fixed = self._space.fixed
        if self._space.size > len(self._of_label):
            more = self._space.size + self._space.size // 2 - len(self._of_label)
            self._of_label = np.concatenate([self._of_label, np.zeros(more, dtype=np.int32)])
        for place in range(self._done, len(fixed)):
            labels, reason = fixed[place]
            if is_consequence(self._space.reasons[reason]):
                reason = self._cause(node, labels) or reason
                fixed[place] = labels, reason
            self._of_label[labels] = np.where(self._of_label[labels] == 0, reason, self._of_label[labels])
        self._done = len(fixed)
        value = self._values.get(node)
        outputs = value if isinstance(value, tuple) else (value,)
        self._axes[node] = tuple(self._of_output(node, item) if isinstance(item, Labels) else () for item in outputs)

    def pick(self, node: fx.Node) -> None:
        """Note the same of one of several values."""
        several, index = self._axes.get(node.all_input_nodes[0], ()), node.args[1]
        self._axes[node] = several[index : index + 1] if isinstance(index, int) and index >= 0 else ()

    def _cause(self, node: fx.Node, labels: Ints) -> int:
        """Return the first reason of an axis that these labels may have met, 0 where none is known; an input's axis is the last guess."""
        found = set(self._inherited(node, len(labels), self._place(node, labels) if is_pointwise(node) else None))
        inner = {reason for reason in found if self._space.reasons[reason].operator != "placeholder"}
        return min(inner or found, default=0)

    def _place(self, node: fx.Node, labels: Ints) -> int | None:
        """Return the axis, counted from the last, that has these labels in an input."""
        for item in node.all_input_nodes:
            value = self._values.get(item)
            for array in value.arrays if isinstance(value, Labels) else ():
                if len(array.cover) == 1 and array.labels.size == len(labels) and array.labels.flat[0] == labels[0]:
                    return array.cover[0] - array.labels.ndim
        return None

    def _of_output(self, node: fx.Node, labels: Labels) -> tuple[int, ...]:
        return tuple(
            next((reason for at in (axis - len(labels.shape), None) for reason in self._inherited(node, size, at)), 0)
            if size > 1 and labels.covering(axis) is None else 0
            for axis, size in enumerate(labels.shape)
        )  # fmt: skip

    def _inherited(self, node: fx.Node, size: int, place: int | None = None) -> Iterator[int]:
        """Yield the reasons of fixed axes of this size among the inputs; ``place``: only at this one, counted from the last."""
        for item in node.all_input_nodes:
            value = self._values.get(item)
            if isinstance(value, Labels):
                for axis, length in enumerate(value.shape):
                    if length == size and place in (None, axis - len(value.shape)) and (reason := self._of_axis(item, value, axis)):
                        yield reason

    def _of_axis(self, node: fx.Node, labels: Labels, axis: int) -> int:
        array = labels.covering(axis)
        if array is not None:
            return int(self._of_label[array.labels.flat[0]]) if self._space.is_fixed(array) else 0
        axes = self._axes.get(node, ())
        return axes[0][axis] if axes and axis < len(axes[0]) else 0
