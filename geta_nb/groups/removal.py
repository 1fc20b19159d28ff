"""What a budget lets go: how many groups of each family, evenly in which order, and what rounding keeps.

In: the groups and a budget. Out: limits and choices as arrays over families and groups. Serves the preview, and whoever prunes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geta_nb.groups.extents import BoolArray, IntArray

if TYPE_CHECKING:
    from geta_nb.budget import Budget
    from geta_nb.groups.table import GroupTable


def family_limits(table: GroupTable, budget: Budget) -> IntArray:
    """Return how many groups of each family may go, [families]: one at least stays, exceptions hold for what a layer produces.

    A family that several layers produce obeys the strictest of their exceptions.
    """
    sizes = _family_sizes(table)
    limits = np.maximum(sizes - 1, 0)
    for axis_map in table.axis_maps:
        exception = budget.layer(axis_map.parameter)
        share = 0.0 if exception.protect else exception.max_sparsity
        if axis_map.producing and share is not None:
            families = np.unique(table.family_of[axis_map.group_of_index[axis_map.group_of_index >= 0]])
            # 0.29 * 100 is 28.999...96: the nudge is far below one group and above what float64 loses.
            limits[families] = np.minimum(limits[families], np.floor(share * sizes[families] + 1e-9).astype(np.int64))
    return limits


def removal_order(table: GroupTable, budget: Budget) -> IntArray:
    """Return the removable groups so that every prefix takes the same share of each family, as nearly as whole groups and limits allow."""
    limits, sizes = family_limits(table, budget), _family_sizes(table)
    rank = _rank_in_family(table.family_of)
    chosen = np.flatnonzero(rank < limits[table.family_of])
    keys = (rank[chosen] + 0.5) / sizes[table.family_of[chosen]]
    return np.asarray(chosen[np.argsort(keys, kind="stable")], dtype=np.int64)


def channels_per_group(table: GroupTable) -> IntArray:
    """Return how many indices of its widest producing axis one group of each family takes, [families]: a head's rows, a filter's one."""
    sizes = _family_sizes(table)
    channels = np.ones(len(sizes), dtype=np.int64)
    for entry in table.axis_maps:
        owners = entry.group_of_index[entry.group_of_index >= 0]
        if entry.producing and len(owners):
            families, members = np.unique(table.family_of[owners], return_counts=True)
            channels[families] = np.maximum(channels[families], members // np.maximum(sizes[families], 1))
    return channels


def unit_of_families(table: GroupTable, round_to: int) -> IntArray:
    """Return the fewest groups of each family whose channels are a multiple of ``round_to``, [families]."""
    channels = channels_per_group(table)
    return np.asarray(round_to // np.gcd(round_to, channels), dtype=np.int64)


def round_up(table: GroupTable, alive: BoolArray, *, round_to: int = 1) -> BoolArray:
    """Return ``alive`` with zero groups kept until each family's channels are a multiple of ``round_to``, or all it has."""
    if round_to == 1:
        return alive
    missing = -np.bincount(table.family_of[alive], minlength=len(table.family_names)) % unit_of_families(table, round_to)
    dead = np.flatnonzero(~alive)
    families = table.family_of[dead]
    kept = alive.copy()
    kept[dead[_rank_in_family(families) < missing[families]]] = True
    return kept


def _family_sizes(table: GroupTable) -> IntArray:
    return np.bincount(table.family_of, minlength=len(table.family_names)).astype(np.int64)


def _rank_in_family(families: IntArray) -> IntArray:
    """Return for each entry how many of the same family stand before it."""
    order = np.argsort(families, kind="stable")
    starts = np.searchsorted(families[order], families[order])
    rank = np.empty(len(families), dtype=np.int64)
    rank[order] = np.arange(len(families)) - starts
    return rank
