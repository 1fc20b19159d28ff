"""Views of the optimizer: where it stands, the bits of each layer and what each family keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geta_nb.display.charts import Column, Series, bar_table
from geta_nb.display.markup import cards, details, figure, fragment
from geta_nb.display.theme import BLUE, GREEN, ORANGE
from geta_nb.display.wording import MISSING, bits, clean, count, percent


def pick(values: Mapping[str, Any], *keys: str) -> Any:
    """Return the first of ``keys`` that is there and not None, else None."""
    return next((values[key] for key in keys if values.get(key) is not None), None)


def optimizer_text(optimizer: Any) -> str:
    """Return stage, step and the shares reached."""
    now = optimizer.progress()
    kept = pick(now, "kept", "kept_share", "families") or {}
    mean = f", {percent(sum(kept.values()) / len(kept))} of groups kept on average over families" if kept else ""
    return f"{type(optimizer).__name__}({clean(now['stage'])}, step {count(now['step'])}{mean})"


def optimizer_html(optimizer: Any) -> str:
    """Return headline numbers and a bar per layer and family."""
    now = optimizer.progress()
    weight_bits = dict(pick(now, "bits", "bit_widths", "weight_bits") or {})
    activation_bits = dict(pick(now, "activation_bits", "activation_bit_widths") or {})
    kept = dict(pick(now, "kept", "kept_share", "families") or {})
    mean_bits = sum(weight_bits.values()) / len(weight_bits) if weight_bits else None
    head = [
        ("stage", clean(now["stage"]), f"step {count(now['step'])}"),
        ("weight bits", bits(mean_bits), "mean over layers"),
        ("upper bit bound", bits(pick(now, "bit_bound", "upper_bound")), "now"),
        ("group sparsity", percent(pick(now, "group_sparsity")), "groups at zero"),
    ]
    parts = [cards([card for card in head if card[1] != MISSING])]
    if weight_bits:
        parts.append(details("Bits per layer", figure(bits_svg(weight_bits, activation_bits), "bit widths"), opened=True))
    if kept:
        parts.append(details("Kept per family", figure(kept_svg(kept), "share of each family's groups that is kept"), opened=True))
    return fragment(type(optimizer).__name__, *parts)


def bits_svg(weight_bits: Mapping[str, float], activation_bits: Mapping[str, float]) -> str:
    """Return bars of weight bits and, where there are any, activation bits per layer."""
    names = list(dict.fromkeys([*weight_bits, *activation_bits]))
    columns = [
        Column(
            title, [Series(kind, title, [values.get(n) for n in names])], [bits(values.get(n)) for n in names], maximum=_bit_scale(values)
        )
        for title, kind, values in (("weight bits", BLUE, weight_bits), ("activation bits", ORANGE, activation_bits))
        if values
    ]
    return bar_table(names, columns, label="bit widths per layer", bar_room=150)


def _bit_scale(values: Mapping[str, float]) -> float:
    return 16.0 if max(values.values()) <= 16 else 32.0


def kept_svg(kept: Mapping[str, float]) -> str:
    """Return bars of the kept share per family."""
    column = Column("kept", [Series(GREEN, "kept", list(kept.values()))], [percent(share) for share in kept.values()], maximum=1.0)
    return bar_table(list(kept), [column], label="kept share per family", bar_room=150)
