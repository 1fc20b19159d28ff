"""Colours of an overlay in static pictures; the page's own are in ``widgets/explorer/src/overlay.js``, and are the same.

In: an overlay, see ``overlay_values``. Out: a colour and a word by vertex name, and the entries of a legend. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from geta_nb.display.theme import HUE_OF_KIND

Colour = str
GREY = "#8a8a8a"
ODD = HUE_OF_KIND["gv-c5"]  # what is not finite: in no scale
_VIRIDIS = (
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121), (110, 206, 88),
    (181, 222, 43), (253, 231, 37),
)  # fmt: skip
_DIVERGING = ((33, 102, 172), (103, 169, 207), (150, 150, 150), (239, 138, 98), (178, 24, 43))
_LOG_FROM = 1000.0  # largest over least from which a scale of positive numbers is logarithmic
_MOST = 7


class Painted(NamedTuple):
    """Colour and words of each vertex that has a value, by name; the legend; the two ends of a scale with its colours, or none."""

    colours: Mapping[str, Colour]
    words: Mapping[str, str]
    legend: Sequence[tuple[Colour, str]]
    scale: tuple[str, str, Sequence[Colour]] | None


def paint(overlay: Mapping[str, Any], names: Sequence[str]) -> Painted:
    """Return how an overlay looks; ``names`` are those of all nodes."""
    own = [names[node] for node in overlay["nodes"]]
    values, odd = overlay["values"], overlay["odd"]
    words = {name: odd.get(str(i)) or word(value, overlay["unit"]) for i, (name, value) in enumerate(zip(own, values, strict=True))}
    if overlay["kind"] == "texts":
        hues = list(HUE_OF_KIND.values())[:_MOST]
        common = [text for text, _ in Counter(values).most_common()]
        hue_of = {text: hues[i] if i < _MOST else GREY for i, text in enumerate(common)}
        legend = [(hue_of[text], text) for text in common[:_MOST]]
        legend += [(GREY, f"{len(common) - _MOST} others")] if len(common) > _MOST else []
        return Painted({name: hue_of[value] for name, value in zip(own, values, strict=True)}, words, legend, None)
    known = [value for value in values if value is not None]
    at, steps = scale_of(known)
    colours = {name: ODD if value is None else at(value) for name, value in zip(own, values, strict=True)}
    ends = (word(min(known), overlay["unit"]), word(max(known), overlay["unit"]), steps) if known else None
    return Painted(colours, words, [(ODD, f"NaN or infinite ({len(odd)})")] if odd else [], ends)


def scale_of(known: Sequence[float]) -> tuple[Callable[[float], Colour], list[Colour]]:
    """Return the colour of a number, and those of the scale from its least to its largest."""
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low < 0 < high:
        most = max(-low, high)
        ends = [low + (high - low) * k / 4 for k in range(5)]
        return lambda value: _mix(_DIVERGING, (value / most + 1) / 2), [_mix(_DIVERGING, (value / most + 1) / 2) for value in ends]
    change: Callable[[float], float] = math.log if low > 0 and high / low >= _LOG_FROM else float
    span = change(high) - change(low) or 1.0
    start = change(low) if high > low else change(low) - 0.5
    return lambda value: _mix(_VIRIDIS, (change(value) - start) / span), [_mix(_VIRIDIS, k / 4) for k in range(5)]


def _mix(ramp: Sequence[tuple[int, int, int]], share: float) -> Colour:
    at = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    low = min(int(at), len(ramp) - 2)
    return "#" + "".join(f"{round(a + (at - low) * (b - a)):02x}" for a, b in zip(ramp[low], ramp[low + 1], strict=True))


def word(value: float | str | None, unit: str = "") -> str:
    """Return a value as a label: three digits of a number.

    >>> word(0.01234), word(12345.0, "ms"), word("head")
    ('0.0123', '12.3k ms', 'head')
    """
    if isinstance(value, str) or value is None:
        return value or "–"
    size = abs(value)
    if size >= 1000 and size < 1e15:
        power = min(int(math.log10(size)) // 3, 4)
        text = f"{value / 1000**power:.3g}{('', 'k', 'M', 'G', 'T')[power]}"
    else:
        text = f"{value:.3g}" if size >= 1e-3 or size == 0 else f"{value:.1e}"
    return f"{text} {unit}".strip()
