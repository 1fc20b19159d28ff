"""Explorer, budget panel and live run beside each other: from model to subnet without typing more than the training step.

Comes in: the network's ``GETA`` and a step. Goes out: a budget that all three share, a run that begins with it, the subnet, its report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from geta_nb import _extra
from geta_nb.errors import ConfigError, GetaError
from geta_nb.qasso import QASSO
from geta_nb.views import find_view
from geta_nb.widgets.attempt import run_over
from geta_nb.widgets.budget_panel import BudgetPanel
from geta_nb.widgets.cells import stands_in_a_cell
from geta_nb.widgets.live_static import last_metrics, run_html
from geta_nb.widgets.page_script import PageWidget
from geta_nb.widgets.panel_assets import joined_module, panel_style
from geta_nb.widgets.studio_run import HINT, StudioRun

if TYPE_CHECKING:
    from torch import nn

    from geta_nb.budget import Budget
    from geta_nb.cost import Report
    from geta_nb.geta import GETA
    from geta_nb.sensitivity import Sensitivity

REFRESH = 2.0
"""Seconds between two looks of the explorer at the network in training."""


class Studio(PageWidget):
    """What :func:`studio` returns.

    Attributes:
        explorer, panel: the graph explorer and the budget panel.
        budget: the budget of both; may be set while no run goes on.
        run: the live run, None without a step. ``run.optimizer`` is there once it has started.
        subnet, report: what the button "Cut" made, None before.
    """

    children = traitlets.List(traitlets.Instance(ipywidgets.Widget)).tag(sync=True, **ipywidgets.widget_serialization)
    outcome = traitlets.Dict().tag(sync=True)

    def __init__(self, geta: GETA, explorer: Any, panel: BudgetPanel, run: StudioRun | None) -> None:
        self.geta, self.explorer, self.panel, self.run = geta, explorer, panel, run
        self.subnet: nn.Module | None = None
        self.report: Report | None = None
        self._refreshed, self._following = 0.0, threading.RLock()
        views = [explorer, panel, *([run.view] if run is not None else [])]
        super().__init__(children=views, outcome={"can_cut": run is None, "hint": "" if run is not None else HINT, "html": "", "error": ""})
        if run is not None:
            run.listen(self._follow_run)
            panel.run_changed(run)

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script and the style of the page."""
        return joined_module("studio.js"), panel_style()

    def close(self) -> None:
        """Take the studio and the three in it out of every page."""
        super().close()
        for child in self.children:
            if not stands_in_a_cell(child):
                child.close()

    @property
    def budget(self) -> Budget:
        """The budget of panel and explorer; setting it is setting ``panel.budget``, with the same errors."""
        return self.panel.budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        self.panel.budget = budget

    def cut(self) -> nn.Module:
        """Cut the zero groups out and report on the subnet, as the button does.

        Raises:
            RunStateError: the run is still going on, or another one over this network.
        """
        going = run_over(self.geta)
        if going is not None:
            going.check_at_rest("studio.cut")
        self.subnet = self.geta.construct_subnet()
        self.report = self.geta.report(self.subnet, metrics=last_metrics(self.run) if self.run is not None else None)
        view = find_view(self.report)
        self.outcome = {**self.outcome, "html": view.html(self.report) if view and view.html else "", "error": ""}
        return self.subnet

    def _follow_run(self, changed: bool) -> None:
        if self.run is None:
            return
        now = time.monotonic()
        with self._following:  # the run's thread and the one that steers it may both be here: the later one is right
            at_rest = self.run.state in {"stopped", "finished"}
            if changed and self.outcome["can_cut"] != at_rest:
                self.outcome = {**self.outcome, "can_cut": at_rest}
        if self.run.between_steps and (changed or now - self._refreshed >= REFRESH):
            self._refreshed = now
            self.explorer.refresh()  # bits and kept shares in the graph

    def handle(self, content: Mapping[str, Any]) -> None:
        """Cut, when the button asks for it."""
        if content.get("action") == "cut":
            try:
                self.cut()
            except GetaError as error:
                self.outcome = {**self.outcome, "error": str(error)}

    def __repr__(self) -> str:
        return f"Studio({self.panel.code}, {self.run if self.run is not None else 'no run'})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = super()._repr_mimebundle_(**kwargs)
        bundle = dict((found[0] if isinstance(found, tuple) else found) or {})
        parts = [self.panel._repr_mimebundle_()["text/html"], run_html(self.run) if self.run is not None else "", self.outcome["html"]]
        return bundle | {"text/plain": repr(self), "text/html": "".join(parts)}


def studio(
    geta: GETA, step: Callable[..., Any] | None = None, optimizer: Any = None, total_steps: int | None = None, *,
    sensitivity: Sensitivity | None = None, **options: Any,
) -> Studio:
    """Return explorer, budget panel and live run in one panel; they share one budget.

    Args:
        geta: the network.
        step: ``step(i)`` or ``step(i, optimizer)``: forward, backward, ``optimizer.step()``; returns ``{"loss": ...}``. None: no training.
        optimizer: a torch optimizer class (None: AdamW), made with the panel's budget when the run starts; or a function of
            (budget, schedule) that returns ``geta.qasso(...)``; or what ``geta.qasso`` returned, whose budget the panel then shows.
        total_steps: length of the run; needed with a step.
        sensitivity: what ``geta.sensitivity`` returned, for the predicted rise of the loss in the budget panel.
        options: ``evaluate``, ``every``, ``checkpoint`` of :class:`LiveRun`.

    Raises:
        ConfigError: a step without a length, or an optimizer of the wrong kind.

    While the run goes on its budget is locked. Stop the run, change the budget, start: that makes the optimizer anew and begins at step 0,
    with the network as it is then. With the same budget a start goes on. An optimizer that was given built starts with its own budget only.
    """
    if step is not None and total_steps is None:
        raise ConfigError("studio: the run has no length.", expected="total_steps", hint=HINT)
    panel = BudgetPanel(geta, optimizer.budget if isinstance(optimizer, QASSO) else None, sensitivity=sensitivity)
    explorer = _extra.load("geta_nb.widgets.explorer", "notebook").Explorer(geta)
    _share_budget(panel, explorer)
    run = None
    if step is not None and total_steps is not None:
        run = StudioRun(step, geta, optimizer, lambda: panel.budget, total_steps=total_steps, **options)
    return Studio(geta, explorer, panel, run)


def _share_budget(panel: BudgetPanel, explorer: Any) -> None:
    """Keep both budgets one; what the network cannot meet is refused, and shown in the panel."""
    explorer.budget = panel.budget
    panel.observe(lambda change: setattr(explorer, "budget", change["new"]), "budget")

    def follow(change: Any) -> None:
        try:
            panel.budget = change["new"]
        except GetaError as error:
            panel.refuse(error)
            explorer.budget = panel.budget

    explorer.observe(follow, "budget")
