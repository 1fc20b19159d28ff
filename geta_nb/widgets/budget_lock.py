"""Why a budget may not be changed now: a run keeps the one that it began with, and would not heed another.

Comes in: a network, or the run that trains it. Goes out: words for the widgets, an error for Python.
"""

from __future__ import annotations

from typing import Any

from geta_nb.errors import RunStateError
from geta_nb.widgets.attempt import run_over
from geta_nb.widgets.budget_code import budget_code

HOW = "stop the run, change the budget, then start"


def lock_words(run: Any) -> str:
    """Say which budget holds as long as ``run`` goes on, and how to change it."""
    made = getattr(run.optimizer, "budget", None)
    held = f" with {budget_code(made)}" if made is not None else ""
    return f"Locked while a run trains this network{held}. To change it: {HOW}."


def check_budget_is_free(geta: object, what: str) -> None:
    """Raise :class:`RunStateError` while a run trains this network."""
    run = run_over(geta)
    if run is not None:
        raise RunStateError(
            f"{what}: a run keeps the budget that it began with; {HOW}.", expected="a stopped or finished run", got=repr(run),
            hint="gt.LiveRun.of(geta).stop()",
        )
