"""A budget as the line of Python that makes it, and as the values of a form; pure functions, no widget.

``eval(budget_code(budget))`` equals ``budget`` wherever ``import geta_nb as gt`` was said: only what is not the default is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from geta_nb.budget import Budget, LayerBudget
from geta_nb.errors import BudgetError, GetaError

MODES = ("group_sparsity", "relative_bops", "size_bytes")


def budget_code(budget: Budget) -> str:
    """Return the call that makes ``budget``: what is aimed at, and what is not the default.

    >>> budget_code(Budget())
    'gt.Budget(group_sparsity=0.5)'
    >>> budget_code(Budget(relative_bops=0.03, exceptions={"head": LayerBudget(protect=True)}))
    "gt.Budget(relative_bops=0.03, exceptions={'head': gt.LayerBudget(protect=True)})"
    """
    plain = Budget()
    values: list[str] = []
    for name in (*MODES, "bit_range", "activation_bit_range", "round_to", "allocation"):
        value = getattr(budget, name)
        if value is not None and (name in MODES or value != getattr(plain, name)):
            values.append(f"{name}={value!r}")
    if budget.exceptions:
        values.append(f"exceptions={{{', '.join(f'{pattern!r}: {layer_code(layer)}' for pattern, layer in budget.exceptions.items())}}}")
    return f"gt.Budget({', '.join(values)})"


def layer_code(layer: LayerBudget) -> str:
    """Return the call that makes an exception."""
    plain = LayerBudget()
    given = [(field.name, getattr(layer, field.name)) for field in fields(layer)]
    return f"gt.LayerBudget({', '.join(f'{name}={value!r}' for name, value in given if value != getattr(plain, name))})"


def form_of(budget: Budget) -> dict[str, Any]:
    """Return the values that a form shows, JSON-able."""
    exceptions = {
        pattern: {field.name: _plain(getattr(layer, field.name)) for field in fields(layer)} for pattern, layer in budget.exceptions.items()
    }
    return {
        "mode": next((name for name in MODES[1:] if getattr(budget, name) is not None), MODES[0]),
        **{name: getattr(budget, name) for name in MODES},
        "bits": list(budget.bit_range), "activation_bits": list(budget.activation_bit_range), "round_to": budget.round_to,
        "allocation": budget.allocation, "exceptions": exceptions,
    }


def budget_of(form: Mapping[str, Any]) -> tuple[Budget | None, dict[str, str]]:
    """Return the budget that a form asks for, and what is wrong with it: field -> text of the error. None when anything is."""
    errors: dict[str, str] = {}
    mode = form.get("mode", MODES[0])
    parts: dict[str, dict[str, Any]] = {
        "bits": {"bit_range": _pair(form.get("bits"))},
        "activation_bits": {"activation_bit_range": _pair(form.get("activation_bits"))},
        "round_to": {"round_to": form.get("round_to")},
        "allocation": {"allocation": form.get("allocation", Budget().allocation)},
    }
    given: dict[str, Any] = {}
    if mode not in MODES or form.get(mode) is None:
        missing = BudgetError("Budget: no target is given.", expected=f"a number for {mode}", got="nothing", hint="group_sparsity=0.5")
        errors["target"] = str(missing)
    else:
        parts["target"] = {mode: form[mode]}
    exceptions: dict[str, LayerBudget] = {}
    for pattern, values in (form.get("exceptions") or {}).items():
        try:
            layer = LayerBudget(**{name: _pair(value) if name.endswith("bit_range") else value for name, value in values.items()})
            if layer != LayerBudget():
                exceptions[pattern] = layer
        except (GetaError, TypeError) as error:
            errors[f"exceptions.{pattern}"] = str(error)
    for name, values in parts.items():
        try:
            Budget(**values)
            given |= values
        except GetaError as error:
            errors[name] = str(error)
    return (None if errors else Budget(**given, exceptions=exceptions)), errors


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
