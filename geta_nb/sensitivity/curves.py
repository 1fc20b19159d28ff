"""Between what was asked: the rise at any bit width and any share of groups, from the rises at some. Pure numbers.

A rise is never below 0 and never smaller where the network is smaller: what noise says otherwise is lifted. At 16 bits and with all
groups it is 0; beyond the smallest that was asked the last two go on as a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

NOTHING = {"weight": 16.0, "input": 16.0, "family": 1.0}
"""Where nothing is lost, by kind."""
_NOISE = 1e-9
"""A rise of which the logarithm says nothing."""


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


def link_of(pairs: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return (sum of rises, real rise) pairs as a line that only rises: by sum, each real rise at least that of all before.

    >>> link_of([(0.2, 0.9), (0.1, 0.3), (0.4, 0.8)])
    ((0.1, 0.3), (0.2, 0.9), (0.4, 0.9))
    """
    found: list[tuple[float, float]] = []
    for total, real in sorted(pairs):
        real = max(real, found[-1][1] if found else 0.0)
        if total > 0 and math.isfinite(real) and (not found or total > found[-1][0]):
            found.append((total, real))
    return tuple(found)


def linked(link: Sequence[tuple[float, float]], total: float) -> float:
    """Return the rise that parts with this sum have together, as plans that were tried say; the sum itself where none was.

    Between two plans along a power of the sum, before the first and after the last in proportion.

    >>> linked([(0.1, 0.3), (0.4, 1.2)], 0.2), linked([], 0.2), linked([(0.1, 0.3)], 0.05)
    (0.6, 0.2, 0.15)
    """
    if not link or total <= 0 or not math.isfinite(total):
        return total
    first, last = link[0], link[-1]
    if not first[0] < total < last[0]:
        end = first if total <= first[0] else last
        found = end[1] * (total / end[0])
    else:
        low, high = next((a, b) for a, b in pairwise(link) if total <= b[0])
        if low[1] > _NOISE:
            share = math.log(total / low[0]) / math.log(high[0] / low[0])
            found = math.exp((1 - share) * math.log(low[1]) + share * math.log(high[1]))
        else:
            found = low[1] + (total - low[0]) / (high[0] - low[0]) * (high[1] - low[1])
    return float(f"{found:.12g}")
