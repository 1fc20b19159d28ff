"""The view of the façade: one overview of layers, groups, families, what is protected and what is quantized."""

from __future__ import annotations

from typing import Any

from geta_nb.display.groups import families_of
from geta_nb.display.markup import Number, cards, details, fragment, name, note, table
from geta_nb.display.optimizer import bits_svg
from geta_nb.display.wording import bits, clean, count, percent, plural
from geta_nb.errors import InputError


def geta_text(geta: Any) -> str:
    """Return the model's class, groups, families and quantizers."""
    groups = geta.groups
    return (
        f"GETA({clean(type(geta.model).__name__)}: {plural(len(groups), 'group')} in {plural(len(geta.families), 'family')}, "
        f"{plural(len(geta.protected), 'protected entry')}, {_quantizer_words(geta)})"
    )


def _quantizer_words(geta: Any) -> str:
    weights, inputs = geta.bit_widths(), geta.activation_bit_widths()
    return f"{plural(len(weights), 'weight quantizer')}" + (f", {plural(len(inputs), 'input quantizer')}" if inputs else "")


def geta_html(geta: Any) -> str:
    """Return headline numbers, families, what is protected and the present bit widths."""
    weights, inputs = geta.bit_widths(), geta.activation_bit_widths()
    mean = sum(map(float, weights.values())) / len(weights) if weights else None
    head = [
        ("groups", count(len(geta.groups)), f"in {plural(len(geta.families), 'family')}"),
        ("group sparsity", _sparsity(geta), "zero groups now"),
        ("protected", count(len(geta.protected)), "parameters and modules"),
        ("weight quantizers", count(len(weights)), f"{bits(mean)} bits on average"),
        ("input quantizers", count(len(inputs)), "activations"),
        ("trace", count(len(geta.trace.nodes)), f"nodes, {count(len(geta.qadg.vertices))} in the QADG"),
    ]
    # The QADG shows itself; an overview with its picture would be the bulk of every notebook.
    remark = "geta.qadg, geta.groups, geta.protected and geta.trace show themselves."
    return fragment(
        f"GETA on {clean(type(geta.model).__name__)}", cards(head), _families(geta), _protected(geta), _bits(geta), note(remark)
    )


def _sparsity(geta: Any) -> str:
    try:
        return percent(geta.group_sparsity())
    except InputError:  # a model on the meta device: nothing is zero, nothing is not
        return "no values"


def _families(geta: Any) -> str:
    rows = [(name(title), name(module), Number(count(len(groups)))) for title, module, groups in families_of(geta.groups)]
    return details(f"Families ({count(len(rows))})", table(("family", "module", "groups"), rows, label="families"), opened=len(rows) <= 12)


def _protected(geta: Any) -> str:
    rows = [(name(entry.path), clean(entry.reason), name(entry.operator or "")) for entry in geta.protected]
    return details(f"Protected ({count(len(rows))})", table(("path", "why", "operator"), rows, label="protected")) if rows else ""


def _bits(geta: Any) -> str:
    weights, inputs = geta.bit_widths(), geta.activation_bit_widths()
    if not weights and not inputs:
        return ""
    rows = [
        (name(layer), Number(bits(weights.get(layer))), Number(bits(inputs.get(layer)))) for layer in dict.fromkeys([*weights, *inputs])
    ]
    return details(f"Bit widths ({count(len(rows))})", table(("layer", "weight bits", "input bits"), rows, label="bit widths"))


def geta_svg(geta: Any) -> str:
    """Return the present bit widths per layer."""
    return bits_svg(geta.bit_widths(), geta.activation_bit_widths())
