"""Views of what a subnet says of itself: its kind, and the integer format of each weight and layer input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from geta_nb.display.markup import Cell, Number, details, fragment, name, note, table
from geta_nb.display.quantizers import code_words
from geta_nb.display.wording import bits, clean, count, number, plural, spread


def format_text(weight_format: Any) -> str:
    """Return bits, step, clip value and exponent of one tensor's integer format; of several channels the smallest and the largest."""
    f = weight_format
    words = "".join(f", {word}" for word in _words(f))
    return (
        f"WeightFormat({bits(f.bits)} bits{words}, d={spread(f.step_size)}, q_m={spread(f.clip_max)}, t={number(float(f.exponent))})"
    )


def _words(weight_format: Any) -> list[str]:
    """Return what is unusual about a format."""
    by_channel = [f"per channel ({count(weight_format.channels)})"] if weight_format.axis is not None else []
    return [*by_channel, *code_words(weight_format)]


def subnet_text(info: Any) -> str:
    """Return the kind and how many tensors have how many bits."""
    widths = Counter(bits(f.bits) for f in info.formats.values())
    words = ", ".join(f"{many} × {width} bits" for width, many in sorted(widths.items(), key=lambda item: float(item[0])))
    inputs = f", {plural(len(info.activation_formats), 'quantized input')}" if info.activation_formats else ""
    return (
        f"SubnetInfo({clean(info.kind)}, {plural(len(info.formats), 'quantized parameter')}"
        + (f": {words}" if words else "")
        + f"{inputs}{sizes_text(info.sizes)})"
    )


def sizes_text(sizes: Any) -> str:
    """Return which sizes of inputs a graph takes: letters where any will do, numbers where one alone."""
    if sizes is None:
        return ""
    extra = f", with {plural(len(sizes.conditions), 'condition')}" if sizes.conditions else ""
    return f"; takes {clean(sizes.words)}{extra}"


def subnet_html(info: Any) -> str:
    """Return the table of formats."""
    tables = details(f"Weights ({count(len(info.formats))})", _formats(info.formats), opened=True)
    if info.activation_formats:
        tables += details(f"Inputs ({count(len(info.activation_formats))})", _formats(info.activation_formats))
    return fragment("Subnet", note(subnet_text(info)), tables)


def _formats(formats: Mapping[str, Any]) -> str:
    rows: list[tuple[Cell, ...]] = [
        (
            name(key),
            Number(bits(f.bits)),
            ", ".join(_words(f)) or "signed",
            *(Number(spread(value)) for value in (f.step_size, f.clip_max, f.exponent)),
        )
        for key, f in formats.items()
    ]
    return table(("tensor", "bits", "codes", "step d", "clip q_m", "exponent t"), rows, label="formats")
