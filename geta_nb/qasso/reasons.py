"""Why each layer has the bits that it has, in words: from the plan where there is one, else from the range that it was given.

In: an optimizer. Out: layer -> bits and reasons, as the report's ``"allocation"`` holds them.
"""

from __future__ import annotations

from typing import Any

from geta_nb.budget import Budget


def reasons(optimizer: Any) -> dict[str, dict[str, Any]]:
    """Return layer -> ``bits`` and ``why`` of its weights, ``input_bits`` and ``input_why`` of its quantized input."""
    if optimizer.plan is not None:
        found: dict[str, dict[str, Any]] = optimizer.plan.by_layer()
        return found
    bank, budget, found = optimizer.bank, optimizer.budget, {}
    bits = bank.frozen if bank.frozen is not None else bank.bits()
    for (kind, layer), now, allowed, lower in zip(bank.keys, bits, bank.allowed, bank.lower, strict=True):
        key = "input_" if kind == "activation" else ""
        now = round(now, 3)
        whole = int(now) if float(now).is_integer() else now
        why = f"{whole:g} bits: {_why(budget, kind, layer, now, allowed, lower)}"
        found.setdefault(layer, {}).update({f"{key}bits": whole, f"{key}why": why})
    return found


def _why(budget: Budget, kind: str, layer: str, now: float, allowed: int, lower: int) -> str:
    own = budget.layer(layer).bit_range if kind == "weight" else budget.layer(layer).activation_bit_range
    low, high = budget.weight_bits(layer) if kind == "weight" else budget.activation_bits(layer)
    if own is not None:
        return f"an exception of the budget lets it have {own[0]} to {own[1]}"
    if now <= allowed:
        return "the low end of its range, to which all bits fall"
    if now == lower:
        return f"{lower - allowed} more than the low end of its range, for it costs little"
    return f"where training left it, between {low} and {high}"
