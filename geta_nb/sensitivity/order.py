"""In which order groups would go if the predicted rise of the loss decided: those first that save most for it. For the preview of a budget.

In: rises of families, the cost model, what a budget lets go. Out: groups. Inside a family the least salient go first, whatever the curve
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geta_nb.cost import CostModel
from geta_nb.groups import GroupTable, IntArray
from geta_nb.qasso import FAMILY
from geta_nb.sensitivity.curves import NOTHING, rise_at


def order_by_rise(
    rises: Mapping[str, Mapping[float, float]], order: Mapping[str, Sequence[int]], cost: CostModel, table: GroupTable, limits: IntArray,
    measure: str,
) -> IntArray:
    """Return the groups that may go, in that order.

    Args:
        rises: family -> share kept -> rise.
        order: family -> its groups, the least salient first.
        limits: how many groups of each family may go, [families].
        measure: what is saved, a figure of ``cost``.
    """
    everyone = np.ones(table.n_groups, dtype=bool)
    rates, whole = cost.rates(measure, {}, {}), cost.amounts(measure, everyone)
    keys, groups = [], []
    for name, limit in zip(table.family_names, limits.tolist(), strict=True):
        own, most = order[name], 0.0
        alone = everyone.copy()
        alone[list(own[:1])] = False
        saved = float(rates @ (whole - cost.amounts(measure, alone))) or 1e-300
        risen = [rise_at(rises[name], 1 - gone / len(own), NOTHING[FAMILY]) for gone in range(limit + 1)] if name in rises else []
        for gone, group in enumerate(own[:limit]):
            most = max(most, (risen[gone + 1] - risen[gone]) / saved if risen else 0.0)
            # of what costs nothing, or the same, an even share of each family
            keys.append((most, (gone + 0.5) / len(own)))
            groups.append(group)
    ranked = sorted(range(len(groups)), key=keys.__getitem__)
    return np.array([groups[i] for i in ranked], dtype=np.int64)
