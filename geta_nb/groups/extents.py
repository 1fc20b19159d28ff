"""Vectorised counting: many extents (constant times product of living elements) evaluated in one go.

In: the extents of all operators and parameters. Out: their counts for any set of living groups. ``cost`` prices with it; holds no bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geta_nb.errors import ConfigError
from geta_nb.groups.labels import Extent

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class ExtentTable:
    """Counts E extents over G groups at once: axis counts are ``base - S @ dead``, an extent is a product of some of them.

    Axes that many extents share (the output of one layer is the input of the next) are stored once.
    """

    def __init__(self, extents: Sequence[Extent], n_groups: int) -> None:
        self.n_groups = n_groups
        axis_of: dict[bytes, int] = {}
        axes: list[IntArray] = []
        picks: list[list[int]] = []
        for extent in extents:
            picks.append([])
            for array in extent.arrays:
                flat = np.ascontiguousarray(array, dtype=np.int64).ravel()
                if flat.tobytes() not in axis_of:
                    axis_of[flat.tobytes()] = len(axes)
                    axes.append(flat)
                picks[-1].append(axis_of[flat.tobytes()])
        self._const = np.array([extent.const for extent in extents], dtype=np.int64)
        self._base = np.array([axis.size for axis in axes], dtype=np.int64)
        self._members = self._membership(axes)
        # One axis more than there are always counts 1: it fills the rows of extents with fewer axes than the longest.
        width = max((len(row) for row in picks), default=0)
        self._picks = np.array([row + [len(axes)] * (width - len(row)) for row in picks], dtype=np.int64).reshape(len(picks), width)

    def _membership(self, axes: Sequence[IntArray]) -> sparse.csr_matrix:
        """Return S, [axes, G]: how many elements of each axis belong to each group."""
        rows = np.repeat(np.arange(len(axes)), [axis.size for axis in axes])
        groups = np.concatenate([*axes, np.zeros(0, dtype=np.int64)])
        kept = groups >= 0
        shape = (len(axes), self.n_groups)
        return sparse.csr_matrix((np.ones(kept.sum(), dtype=np.int64), (rows[kept], groups[kept])), shape=shape)

    def counts(self, alive: BoolArray) -> IntArray:
        """Return the count of every extent, [E], when the groups ``alive`` (bool, [G]) live.

        Raises:
            ConfigError: ``alive`` is not of length G.
        """
        living = np.asarray(alive, dtype=bool)
        if living.shape != (self.n_groups,):
            raise ConfigError("costs: alive has another length.", expected=f"[{self.n_groups}], one per group", got=list(living.shape))
        axis_counts = self._base - self._members @ (~living).astype(np.int64)
        return np.asarray(self._const * np.append(axis_counts, 1)[self._picks].prod(axis=1), dtype=np.int64)
