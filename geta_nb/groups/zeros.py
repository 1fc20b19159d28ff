"""What masking a group zeroes, beyond parameters: buffers that would keep a channel from zero, and not what something is divided by.

In: what the rules wrote down on one walk over the graph. Out: :class:`Zeros` for the next one. Serves ``propagation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from geta_nb.graph import operator_name
from geta_nb.groups.labels import Ints, Labels, LabelSpace
from geta_nb.groups.operators.registry import Findings


@dataclass(frozen=True)
class Zeros:
    """What masking zeroes beside parameters, and which of these it leaves.

    Attributes:
        buffers: own names of buffers that go to zero with their groups.
        left: (own name, axis) of parameters whose slices are removed with their groups, and not zeroed: something is divided by them.
    """

    buffers: frozenset[str] = frozenset()
    left: frozenset[tuple[str, int]] = frozenset()

    def __or__(self, other: Zeros) -> Zeros:
        return Zeros(self.buffers | other.buffers, self.left | other.left)


def wanted(findings: Findings, space: LabelSpace, tensors: Mapping[str, Labels], free: NDArray[np.bool_], classes: Ints) -> Zeros:
    """Return buffers that alone keep channels from zero and parameters that divide.

    Args:
        findings, space: of a walk.
        tensors: labels of parameters and buffers.
        free: which classes may not go, though nothing fixes them, [C].
        classes: class of each label.
    """
    reasons = {reason for labels, marks in findings.cures for reason in np.unique(marks[free[classes[labels]]]).tolist()}
    divide = np.zeros(space.size, dtype=bool)
    for labels in findings.needed:
        divide[labels] = free[classes[labels]]
    arrays = ((name, array) for name, item in tensors.items() for array in item.arrays) if divide.any() else ()
    left = frozenset((name, array.cover[0]) for name, array in arrays if divide[array.labels].any())
    return Zeros(frozenset(space.curable[reason] for reason in reasons), left)


def written(module: fx.GraphModule, names: Mapping[str, str]) -> set[str]:
    """Return own names of buffers that the network writes into: they are its state, and would not stay at zero."""
    targets = (node.args[0] for node in module.graph.nodes if node.op == "call_function" and operator_name(node) == "copy_")
    return {names[str(node.target)] for node in targets if isinstance(node, fx.Node) and str(node.target) in names}
