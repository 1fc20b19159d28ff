"""Earlier runs laid under the curves of a live run.

In: histories, runs, or names with either. Out: their names and histories; loss and metrics as points over steps, few enough for a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from geta_nb.errors import ConfigError
from geta_nb.widgets.history import History

MOST, POINTS = 4, 250
"""Runs that can be told apart, and points of each of their lines."""


def earlier_runs(compare: object) -> dict[str, History]:
    """Return name -> history of the runs to lay under.

    Args:
        compare: histories or runs in any order, named "run 1", "run 2", ...; or a mapping from names to them. At most four.

    Raises:
        ConfigError: something else, or too many.
    """
    what = {"expected": f"at most {MOST} histories or runs, or a mapping from names to them", "hint": "LiveRun(..., compare=[run.history])"}
    if isinstance(compare, History) or not isinstance(compare, Iterable) or isinstance(compare, str | bytes):
        raise ConfigError("LiveRun: compare takes several runs.", got=type(compare).__name__, **what)
    named = dict(compare) if isinstance(compare, Mapping) else {f"run {i}": run for i, run in enumerate(compare, 1)}
    found = {str(name): getattr(run, "history", run) for name, run in named.items()}
    wrong = [type(run).__name__ for run in found.values() if not isinstance(run, History)]
    if wrong or len(found) > MOST:
        raise ConfigError("LiveRun: compare takes runs.", got=wrong[0] if wrong else f"{len(found)} runs", **what)
    return found


def earlier_curves(runs: Mapping[str, History]) -> list[dict[str, Any]]:
    """Return for each run ``{"name", "loss": points, "metrics": {name: points}}``, a point being [step, value]."""
    return [
        {"name": name, "loss": _points(run.steps, run.loss), "metrics": {key: _points(run.steps, row) for key, row in run.metrics.items()}}
        for name, run in runs.items()
    ]


def _points(steps: list[int], values: list[float | None]) -> list[list[float]]:
    """Points with a finite value; of many every n-th, and the last."""
    pairs = zip(steps, values, strict=False)  # the run may still be going on
    found = [[step, float(f"{value:.5g}")] for step, value in pairs if value is not None and math.isfinite(value)]
    stride = max(1, math.ceil(len(found) / POINTS))
    return found[::stride] if not found or (len(found) - 1) % stride == 0 else [*found[::stride], found[-1]]
