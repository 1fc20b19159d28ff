"""What a budget lets go: how many groups of each family, evenly in which order, and what rounding keeps.

In: the groups and a budget. Out: limits and choices as arrays over families and groups. Serves the preview, and whoever prunes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geta_nb.extents import BoolArray, IntArray

if TYPE_CHECKING:
    from geta_nb.budget import Budget
    from geta_nb.groups import GroupTable


def family_limits(table: GroupTable, budget: Budget) -> IntArray:
    """Return how many groups of each family may go, [families]: one at least stays, exceptions hold for what a layer produces.

    A family that several layers produce obeys the strictest of their exceptions.
    """
    sizes = np.bincount(table.family_of, minlength=len(table.family_names)).astype(np.int64)
    limits = np.maximum(sizes - 1, 0)
    for axis_map in table.axis_maps:
        exception = budget.layer(axis_map.parameter)
        groups = np.unique(axis_map.group_of_index[axis_map.group_of_index >= 0])
        if not axis_map.producing or not groups.size:
            continue
        share = 0.0 if exception.protect else exception.max_sparsity
        if share is not None:
            families = np.unique(table.family_of[groups])
            # 0.29 * 100 is 28.999...96: the nudge is far below one group and above what float64 loses.
            limits[families] = np.minimum(limits[families], np.floor(share * sizes[families] + 1e-9).astype(np.int64))
    return limits


def removal_order(table: GroupTable, budget: Budget) -> IntArray:
    """Return the removable groups so that every prefix takes the same share of each family, as nearly as whole groups and limits allow."""
    limits = family_limits(table, budget)
    sizes = np.bincount(table.family_of, minlength=len(limits))
    keys, groups = [], []
    for family, limit in enumerate(limits.tolist()):
        members = np.flatnonzero(table.family_of == family)[::-1][:limit]
        keys.append((np.arange(limit) + 0.5) / max(sizes[family], 1))
        groups.append(members)
    if not groups:
        return np.zeros(0, dtype=np.int64)
    return np.concatenate(groups)[np.argsort(np.concatenate(keys), kind="stable")].astype(np.int64)


def round_up(table: GroupTable, alive: BoolArray, *, round_to: int = 1) -> BoolArray:
    """Return ``alive`` with zero groups kept until each family counts a multiple of ``round_to``, or all it has."""
    if round_to == 1:
        return alive
    kept = alive.copy()
    for family in range(len(table.family_names)):
        dead = np.flatnonzero((table.family_of == family) & ~alive)
        missing = -int(((table.family_of == family) & alive).sum()) % round_to
        kept[dead[:missing]] = True
    return kept
