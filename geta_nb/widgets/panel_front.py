"""What the budget panel shows of a sensitivity: the front with a form for each of its plans, and the rise of each layer. Pure functions.

In: a network, its sensitivity, a preview. Out: JSON-able values for the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geta_nb.widgets.budget_code import form_of

if TYPE_CHECKING:
    from geta_nb.cost import Preview
    from geta_nb.geta import GETA
    from geta_nb.sensitivity import Sensitivity

MOST = 60
"""Plans that are shown; of more, some evenly by the logarithm of their cost."""
DIGITS = 6


def front_facts(geta: GETA, sensitivity: Sensitivity | None) -> dict[str, Any] | None:
    """Return the plans, [cost, rise, form] each, the index of the knee, and where the axis of rises ends; None without a sensitivity."""
    if sensitivity is None:
        return None
    front = sensitivity.of(geta.cost, geta.groups.table).front()
    most = front.worth_showing
    points = [point for point in front.points if point.rise <= most and point.cost > 0]
    if len(points) > MOST:
        costs = np.log([point.cost for point in points])
        wanted = np.linspace(costs[0], costs[-1], MOST)
        points = [points[i] for i in dict.fromkeys(int(np.abs(costs - cost).argmin()) for cost in wanted)]
    knee = min(range(len(points)), key=lambda i: abs(points[i].cost - front.knee.cost), default=0)
    return {"points": [[_short(p.cost), _short(p.rise), form_of(p.budget)] for p in points], "knee": knee, "most": _short(most)}


def rises_of_layers(geta: GETA, preview: Preview) -> dict[str, Any]:
    """Return the predicted rise of a preview, and layer -> what of it -> rise: its weights, its inputs, the groups that it makes."""
    if preview.predicted_rise is None:
        return {"rise": None}
    weights = {op.layer: op.weight for op in geta.cost.operators if not op.attention}
    inputs = {op.layer: op.activation for op in geta.cost.operators}
    made: dict[str, list[str]] = {}
    for family in geta.families:
        made.setdefault(family.module_path, []).append(family.name)
    found: dict[str, dict[str, float]] = {}
    counted: set[str] = set()
    for row in preview.layers:
        layer, path = row.layer, row.module_path
        parts = [("weights", f"weights of {weights.get(layer)}"), ("inputs", f"input of {inputs.get(layer)}")]
        parts += [("groups", f"groups of {name}") for name in made.get(path, ())]
        for words, part in parts:
            if part in preview.rises and part not in counted:
                counted.add(part)
                own = found.setdefault(layer, {})
                own[words] = _short(own.get(words, 0.0) + preview.rises[part])
    return {"rise": _short(preview.predicted_rise), "rises": found}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
