"""Views of the optimizer: where it stands, the bits of each layer and what each family keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geta_nb.display.allocation import allocation_part
from geta_nb.display.charts import Column, Series, bar_table
from geta_nb.display.markup import cards, details, figure, fragment, note
from geta_nb.display.theme import BLUE, GREEN, ORANGE
from geta_nb.display.wording import bits, clean, count, number, percent, size


def optimizer_text(optimizer: Any) -> str:
    """Return stage, step and the shares reached."""
    now = optimizer.progress()
    groups = f"{count(now['zero_groups'])} of {count(now['n_groups'])} groups zero"
    return f"{type(optimizer).__name__}({clean(now['stage'])}, step {count(now['step'])}, {groups}, bit bound {bits(now['bit_bound'])})"


def optimizer_html(optimizer: Any) -> str:
    """Return headline numbers and a bar per layer and family."""
    now = optimizer.progress()
    weight_bits, activation_bits, kept = now["bits"], now["activation_bits"], now["kept"]
    zero, n_groups = now["zero_groups"], now["n_groups"]
    mean_bits = sum(weight_bits.values()) / len(weight_bits) if weight_bits else None
    head = [
        ("stage", clean(now["stage"]), f"step {count(now['step'])}"),
        ("weight bits", bits(mean_bits), "mean over layers"),
        ("upper bit bound", bits(now["bit_bound"]), "now"),
        ("group sparsity", percent(zero / n_groups if n_groups else None), f"{count(zero)} of {count(n_groups)} groups zero"),
        ("fading", count(now["fading_groups"]), "redundant, not yet zero"),
    ]
    parts = [cards(head), note(_target_words(now["target"]))]
    if weight_bits:
        parts.append(details("Bits per layer", figure(bits_svg(weight_bits, activation_bits), "bit widths"), opened=True))
    if kept:
        parts.append(details("Kept per family", figure(kept_svg(kept), "share of each family's groups that is kept"), opened=True))
    return fragment(type(optimizer).__name__, *parts, allocation_part(optimizer.plan))


def _target_words(target: Mapping[str, Any]) -> str:
    words = {"group_sparsity": percent, "relative_bops": percent, "size_bytes": size}
    return "Target: " + ", ".join(f"{clean(key).replace('_', ' ')} {words.get(key, number)(value)}" for key, value in target.items())


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
