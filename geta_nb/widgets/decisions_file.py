"""Decisions as a JSON file: the present budget and those under names. Nothing in it is run, everything in it is checked.

Comes in: budgets, or a path. Goes out: a file, written whole or not at all; or the budgets that one holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from geta_nb.budget import Budget, LayerBudget
from geta_nb.errors import ArtifactError, GetaError
from geta_nb.widgets.decisions import check_name

FORMAT = "geta-nb budgets 1"
KEYS = {"format", "budget", "named"}


def write_budgets(path: str | os.PathLike[str], budget: Budget, named: Mapping[str, Budget]) -> Path:
    """Write a budget and named ones as JSON, whole or not at all; returns the path."""
    target = Path(path)
    values = {"format": FORMAT, "budget": values_of(budget), "named": {name: values_of(kept) for name, kept in named.items()}}
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def read_budgets(path: str | os.PathLike[str]) -> tuple[Budget, dict[str, Budget]]:
    """Return what :func:`write_budgets` wrote.

    Raises:
        ArtifactError: a file that is missing, damaged, or not ours.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        _only(values, KEYS)
        if values["format"] != FORMAT:
            raise ValueError(str(values["format"])[:60])
        named = {check_name(name): budget_from(kept) for name, kept in values["named"].items()}
        return budget_from(values["budget"]), named
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, GetaError) as error:
        got = " ".join(str(error).split())[:160] or type(error).__name__
        hint = "panel.save(path) writes one"
        raise ArtifactError("BudgetPanel.load: not a file of budgets.", at=path, expected=FORMAT, got=got, hint=hint) from None


def values_of(budget: Budget | LayerBudget) -> dict[str, Any]:
    """Return the fields of a budget that are not the default, JSON-able."""
    plain = type(budget)()
    found: dict[str, Any] = {}
    for field in fields(budget):
        value = getattr(budget, field.name)
        if field.name == "exceptions":
            if value:
                found[field.name] = {pattern: values_of(layer) for pattern, layer in value.items()}
        elif value is not None and (value != getattr(plain, field.name) or field.name == "group_sparsity"):
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def budget_from(values: Any) -> Budget:
    """Return the budget of which :func:`values_of` gave these."""
    given = dict(_only(values, {field.name for field in fields(Budget)}))
    names = {field.name for field in fields(LayerBudget)}
    exceptions = {pattern: LayerBudget(**_pairs(_only(layer, names))) for pattern, layer in given.pop("exceptions", {}).items()}
    return Budget(**_pairs(given), exceptions=exceptions)


def _only(values: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise TypeError(f"{type(values).__name__} where fields were expected")
    unknown = sorted(set(values) - known)
    if unknown:
        raise KeyError(f"unknown {', '.join(map(repr, unknown))[:80]}")
    return values


def _pairs(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
