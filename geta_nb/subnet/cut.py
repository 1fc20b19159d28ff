"""What goes: labels, groups, and which of them live, as every part of a cut asks. Under ``rewrite``, ``folding`` and ``rescaling``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from geta_nb.groups import GroupTable, Labels, Propagation

Number = int | float | None
Pair = tuple[Number, Number]


@dataclass
class Cut:
    """What a cut needs to know.

    Attributes:
        state: labels of every node.
        table: groups.
        alive: [G], which groups stay.
        sizes: module path -> pairs of (old, new) numbers that its operators carry; collected while rewriting.
        constants: numbers that the cut graph reads where the whole one counted; collected while rewriting.
        numbers: node of the whole graph -> position of a number among its arguments -> what it becomes.
        factors: node of the whole graph -> what its value is multiplied by in the cut one.
        scales: own name of a parameter -> (factor, offset): it became (value + offset) * factor - offset, rounded to its type.
        computed: layer of a quantized weight that others compute -> its name, under which the cut graph has it.
    """

    state: Propagation
    table: GroupTable
    alive: NDArray[np.bool_]
    sizes: dict[str, set[Pair]] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[fx.Node, dict[int, float]] = field(default_factory=dict)
    factors: dict[fx.Node, float] = field(default_factory=dict)
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    computed: dict[str, str] = field(default_factory=dict)

    def kept(self, labels: Labels, axis: int) -> NDArray[np.bool_]:
        """Return which indices of an axis stay, [size]."""
        array = labels.covering(axis)
        if array is None:
            return np.ones(labels.shape[axis], dtype=bool)
        alive = self.table.kept(array.labels, self.alive)
        others = tuple(other for other in range(alive.ndim) if other != axis)
        return np.asarray(alive.any(axis=others), dtype=bool)

    def filled(self) -> Cut:
        """Return a cut in which every tensor keeps an index along each axis: where none is left, one more group stays."""
        alive = self.alive.copy()
        cut = Cut(self.state, self.table, alive, computed=self.computed)
        found = [item for value in self.state.values.values() for item in (value if isinstance(value, tuple) else (value,))]
        tensors = [labels for labels in (*self.state.tensors.values(), *found) if isinstance(labels, Labels)]
        for labels in tensors:  # one pass does: a group that comes back takes no index away
            for axis in range(len(labels.shape)):
                array = labels.covering(axis)
                if array is not None and array.labels.size and not cut.kept(labels, axis).any():
                    groups = self.table.label_groups[array.labels]
                    alive[groups.min()] = True
        return cut

    def shape(self, labels: Labels) -> tuple[int, ...]:
        """Return the shape after the cut."""
        return tuple(int(self.kept(labels, axis).sum()) for axis in range(len(labels.shape)))

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """Return the indices of a parameter or buffer that stay: a new tensor, or the same one where all do.

        Args:
            name: own name of the parameter or buffer.
            tensor: it, or one that broadcasts against it, such as a step a channel: of that, axes of size 1 stay.
        """
        labels = self.state.tensors.get(name)
        for axis in range(tensor.dim()) if labels is not None else ():
            assert labels is not None
            kept = self.kept(labels, axis)
            if not kept.all() and tensor.shape[axis] == len(kept):
                tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(kept)).to(tensor.device))
        return tensor

    def note(self, path: str, old: Number, new: Number) -> None:
        """Write down that a number of this module's forward became another (or stayed); None: one that was left out."""
        self.sizes.setdefault(path, set()).add((old, new))
