"""Between what was asked: the rise at any bit width and any share of groups, from the rises at some. Pure numbers.

A rise is never below 0 and never smaller where the network is smaller: what noise says otherwise is lifted. At 16 bits and with all
groups it is 0; beyond the smallest that was asked the last two go on as a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

NOTHING = {"weight": 16.0, "input": 16.0, "family": 1.0}
"""Where nothing is lost, by kind."""


def steady(rises: Mapping[float, float]) -> dict[float, float]:
    """Return rises by size, the largest first, each at least 0 and at least as high as all before.

    >>> steady({8.0: -0.1, 4.0: 0.3, 3.0: 0.2})
    {8.0: 0.0, 4.0: 0.3, 3.0: 0.3}
    """
    found: dict[float, float] = {}
    most = 0.0
    for at in sorted(rises, reverse=True):
        most = max(most, rises[at])
        found[at] = most
    return found


def rise_at(rises: Mapping[float, float], at: float, nothing: float) -> float:
    """Return the rise at ``at``, linear between neighbours.

    Args:
        rises: size -> rise.
        at: bits, or a share.
        nothing: the size at which nothing is lost.

    >>> rise_at({8.0: 0.0, 4.0: 0.4}, 6.0, 16.0), rise_at({0.5: 0.1, 0.25: 0.3}, 0.0, 1.0)
    (0.2, 0.5)
    """
    known = {nothing: 0.0, **steady(rises)} if nothing not in rises else steady(rises)
    sizes = sorted(known)
    if at >= sizes[-1] or len(sizes) == 1:
        return known[sizes[-1]]
    low, high = next(((a, b) for a, b in pairwise(sizes) if at <= b), (sizes[0], sizes[1]))
    share = (high - at) / (high - low)
    rise = known[high] + share * (known[low] - known[high]) if share else known[high]
    return float(f"{rise:.12g}")
