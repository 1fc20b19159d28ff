"""The run of a studio: its optimizer is made with the budget of the moment in which it starts, and anew where that has changed.

Comes in: a step, what makes an optimizer, and where the budget is read. Goes out: a :class:`~geta_nb.widgets.live_run.LiveRun`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from geta_nb.errors import ConfigError, RunStateError
from geta_nb.qasso import QASSO, Schedule
from geta_nb.widgets.budget_code import budget_code
from geta_nb.widgets.live_run import LiveRun

if TYPE_CHECKING:
    from geta_nb.budget import Budget
    from geta_nb.geta import GETA

HINT = "gt.studio(geta, step, total_steps=1000)"


class StudioRun(LiveRun):
    """A live run that never starts with another budget than the one that is shown.

    Args:
        step: ``step(i)`` or ``step(i, optimizer)``.
        geta: the network.
        optimizer: as :func:`~geta_nb.widgets.studio.studio` takes it.
        budget: returns the budget that is shown.
        total_steps: length of the run.
        options: those of :class:`~geta_nb.widgets.live_run.LiveRun`.
    """

    def __init__(
        self, step: Callable[..., Any], geta: GETA, optimizer: Any, budget: Callable[[], Budget], *, total_steps: int, **options: Any
    ) -> None:
        self._budget, self._given = budget, isinstance(optimizer, QASSO)
        self._made_with: Budget | None = optimizer.budget if self._given else None
        make = optimizer if self._given else self._maker(geta, optimizer, total_steps)
        takes_optimizer = callable(step) and _wants_optimizer(step)
        super().__init__((lambda i: step(i, self.optimizer)) if takes_optimizer else step, geta, make, total_steps=total_steps, **options)

    def _maker(self, geta: GETA, optimizer: Any, total_steps: int) -> Callable[[], Any]:
        """How the optimizer is made when the run starts, with the budget of that moment."""
        kind = torch.optim.AdamW if optimizer is None else optimizer
        if not callable(kind):
            raise ConfigError(
                "studio: no optimizer.", expected="a torch optimizer class, a function of (budget, schedule), or geta.qasso(...)",
                got=type(optimizer).__name__,
            )

        def make() -> Any:
            budget, schedule = self._budget(), Schedule.for_steps(total_steps)
            if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
                made = geta.qasso(kind, budget=budget, schedule=schedule, total_steps=total_steps)
            else:
                made = kind(budget, schedule)
            self._made_with = budget
            return made

        return make

    def _renews(self) -> bool:
        budget, made_with = self._budget(), self._made_with
        if made_with is None or budget == made_with:
            return False
        if self._given:
            raise RunStateError(
                "studio: the optimizer was given built, for another budget.", expected=budget_code(made_with), got=budget_code(budget),
                hint=HINT,
            )
        return True

    def budget_words(self, budget: Budget) -> str:
        """Say what the next start does with a ``budget`` that the optimizer was not made with; "" where there is nothing to say."""
        if self._made_with is None or budget == self._made_with:
            return ""
        made = budget_code(self._made_with)
        if self.state == "finished":
            return f"The run has finished, with {made}. Another budget wants another run: {HINT}"
        if self._given:
            return f"The optimizer was given built, for {made}: the run starts with that budget only. For another one: {HINT}"
        again = "with the network as it is now: groups that are zero stay zero"
        return f"The next start begins anew at step 0 with this budget, {again}. With {made} it goes on."


def _wants_optimizer(step: Callable[..., Any]) -> bool:
    """Whether ``step`` takes a second positional argument that has no default."""
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters) == 2
