"""Which families each row of the budget panel makes, and which of them a budget keeps whole. Pure functions.

In: a network, a budget. Out: JSON-able values for the page, which ticks "keep" for all layers of a family at once.
"""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING, Any

import numpy as np

from geta_nb.budget import Budget, paths_of
from geta_nb.qasso import reasons

if TYPE_CHECKING:
    from geta_nb.geta import GETA


class Families:
    """Who makes which family of groups, by parameter."""

    def __init__(self, geta: GETA) -> None:
        table = geta.groups.table
        self.names = list(table.family_names)
        self.made: dict[str, set[int]] = {}
        for entry in table.axis_maps:
            if entry.producing:
                found = np.unique(table.family_of[entry.group_of_index[entry.group_of_index >= 0]]).tolist()
                self.made.setdefault(entry.parameter, set()).update(found)
        self.of_path: dict[str, set[int]] = {}
        for parameter, families in self.made.items():
            for path in paths_of(parameter):
                self.of_path.setdefault(path, set()).update(families)

    def of_layer(self, key: str) -> list[int]:
        """Return the families that a layer or parameter makes."""
        return sorted(self.of_path.get(key, ()))

    def makers(self) -> list[list[str]]:
        """Return for each family the patterns that name one maker of it, and none of another family: its parameters and modules."""
        found: list[list[str]] = [[] for _ in self.names]
        for path, families in self.of_path.items():
            if len(families) == 1:
                found[min(families)].append(glob.escape(path))
        return found

    def kept(self, budget: Budget) -> list[int]:
        """Return the families of which a budget protects every group."""
        if not any(layer.protect for layer in budget.exceptions.values()):
            return []
        kept: set[int] = set()
        for parameter, families in self.made.items():
            if not families <= kept and budget.layer(parameter).protect:
                kept |= families
        return sorted(kept)


def plan_of_run(optimizer: Any, keys: dict[str, str]) -> dict[str, list[str]]:
    """Return layer -> what a run over this network gave it, and why; {} before there is anything to say.

    Args:
        optimizer: of the run; None before it has started.
        keys: layer of the panel -> what its weight quantizer is called.
    """
    if optimizer is None:
        return {}
    found = reasons(optimizer)
    rows = {layer: found[key] for layer, key in keys.items() if "bits" in found.get(key, ())}
    return {layer: [f"{row['bits']:g} bit", str(row["why"])] for layer, row in rows.items()}
