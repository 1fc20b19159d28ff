"""Claims about a budget while a run goes on: it cannot be changed, the widgets say so and how, and afterwards it can, and counts."""

from __future__ import annotations

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import RunStateError
from geta_nb.widgets.budget_code import form_of
from tests.widgets.live_runs import Gated, Training

FREE = {"locked": False, "words": ""}


class Both:
    """A step that trains, let through by a gate."""

    def __init__(self, total: int = 8) -> None:
        self.training = Training(total)
        self.gate = Gated(training=self.training)

    def __call__(self, i: int, optimizer):
        self.gate(i)
        self.training.optimizer = optimizer
        return self.training.step(i)

    def studio(self, optimizer=torch.optim.SGD):
        return gt.studio(self.training.geta, self, optimizer, self.training.total)


def assign(where):
    return {
        "panel": lambda studio, budget: setattr(studio.panel, "budget", budget),
        "studio": lambda studio, budget: setattr(studio, "budget", budget),
        "explorer": lambda studio, budget: setattr(studio.explorer, "budget", budget),
        "beside": lambda studio, budget: setattr(gt.BudgetPanel(studio.geta), "budget", budget),
        "protect": lambda studio, budget: studio.explorer.protect(0),
    }[where]


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.parametrize("where", ["panel", "studio", "explorer", "beside", "protect"])
def test_a_budget_set_from_python_while_a_run_goes_on_is_an_error_that_says_how(where, state):
    both = Both()
    studio = both.studio()
    studio.budget = gt.Budget(0.25)
    run = studio.run.start()
    if state == "paused":
        both.gate.ask(run, "pause")
    code = studio.panel.code
    with pytest.raises(RunStateError, match=r"stop the run, change the budget, then start\.(?s:.)*got:      LiveRun\(" + state):
        assign(where)(studio, gt.Budget(0.4))
    assert studio.budget == studio.explorer.budget == run.optimizer.budget == gt.Budget(0.25) and studio.panel.code == code
    assert studio.panel.preview == studio.geta.preview(gt.Budget(0.25))
    studio.budget = gt.Budget(0.25)  # which changes nothing
    both.gate.open()
    assert run.resume().wait().state == "finished"
    studio.budget = gt.Budget(0.4)
    assert studio.explorer.budget == gt.Budget(0.4)


def test_the_panel_is_locked_from_start_to_end_and_says_with_which_budget_and_how_to_change_it():
    both = Both()
    studio = both.studio()
    beside = gt.BudgetPanel(both.training.geta)
    assert studio.panel.notice == beside.notice == FREE
    studio.run.start()
    for panel in (studio.panel, beside, gt.BudgetPanel(both.training.geta)):
        assert panel.notice["locked"] and "gt.Budget(group_sparsity=0.5)" in panel.notice["words"]
        assert "stop the run, change the budget, then start" in panel.notice["words"]
    assert studio.explorer.message == studio.panel.notice["words"]
    both.gate.ask(studio.run, "stop")
    assert studio.panel.notice == beside.notice == FREE and studio.explorer.message == ""
    studio.run.start()
    assert studio.panel.notice["locked"]
    both.gate.open()
    studio.run.wait()
    assert studio.panel.notice == FREE


def test_a_form_that_was_sent_as_the_run_started_changes_nothing_and_the_page_shows_what_holds():
    both = Both()
    studio = both.studio()
    studio.run.start()
    studio.panel.form = {**studio.panel.form, "group_sparsity": 0.3, "sent": 7}
    assert studio.panel.form == form_of(gt.Budget(0.5)) and studio.panel.result["answers"] == 7
    assert "then start" in studio.panel.result["errors"]["target"]
    studio.explorer.handle({"kind": "protect", "family": 0, "on": True})
    assert "then start" in studio.explorer.message and studio.budget == studio.explorer.budget == gt.Budget(0.5)
    both.gate.open()
    studio.run.wait()
    assert studio.panel.result["errors"] == {} and studio.explorer.message == ""


@pytest.mark.parametrize("shares", [[0.25], [0.25, 0.5, 0.75]])
def test_stop_change_start_begins_anew_with_the_budget_that_is_shown(shares):
    both = Both()
    studio, budgets = both.studio(), []
    studio.budget = gt.Budget(0.125)
    run = studio.run.start()
    for share in shares:
        both.gate.let(2)
        both.gate.ask(run, "stop")
        budgets.append(run.optimizer.budget)
        studio.budget = gt.Budget(share)
        assert not studio.panel.notice["locked"] and "begins anew at step 0 with this budget" in studio.panel.notice["words"]
        before = run.optimizer
        run.start()
        assert run.optimizer is not before and run.optimizer.budget == studio.budget and len(run.history) == 0
        both.gate.calls.clear()
        both.training.calls.clear()
    both.gate.open()
    assert run.wait().state == "finished" and both.training.calls == list(range(8))
    assert budgets == [gt.Budget(share) for share in [0.125, *shares[:-1]]]
    assert both.training.geta.group_sparsity() >= shares[-1]


def test_stop_and_start_with_the_same_budget_goes_on():
    both = Both()
    studio = both.studio()
    run = studio.run.start()
    both.gate.let(1)
    both.gate.ask(run, "stop")
    optimizer, done = run.optimizer, run.step_count
    studio.budget = gt.Budget(0.25)
    studio.budget = gt.Budget(0.5)  # taken back
    assert studio.panel.notice == FREE
    both.gate.open()
    assert run.start().wait().state == "finished" and run.optimizer is optimizer
    assert done > 0 and both.training.calls == list(range(8))


def test_a_budget_that_cannot_be_met_at_the_start_leaves_the_stopped_run_as_it_was():
    both, fail = Both(), []

    def make(budget, schedule):
        if fail:
            raise gt.GetaError("no memory for that.")
        return both.training.geta.qasso(torch.optim.SGD, budget=budget, schedule=schedule)

    studio = both.studio(make)
    run = studio.run.start()
    both.gate.let(1)
    both.gate.ask(run, "stop")
    optimizer, done = run.optimizer, run.step_count
    studio.budget = gt.Budget(0.25)
    fail.append(True)
    with pytest.raises(gt.GetaError, match="no memory"):
        run.start()
    run.request("start")
    assert (run.state, run.optimizer, run.step_count) == ("stopped", optimizer, done) and studio.outcome["can_cut"]
    assert "no memory" in run.view.whole_log()["status"]["error"]
    studio.budget = gt.Budget(0.5)
    both.gate.open()
    assert run.start().wait().state == "finished" and run.optimizer is optimizer


def test_an_optimizer_that_was_given_built_starts_with_its_own_budget_only_and_the_panel_says_so():
    both = Both()
    studio = both.studio(both.training.optimizer)
    studio.budget = gt.Budget(0.25)
    assert not studio.panel.notice["locked"] and "gt.Budget(group_sparsity=0.5)" in studio.panel.notice["words"]
    with pytest.raises(RunStateError, match=r"(?s)given built, for another budget.*expected: gt\.Budget\(group_sparsity=0\.5\)"):
        studio.run.start()
    assert studio.run.state == "idle" and studio.run.step_count == 0
    studio.run.request("start")
    assert studio.run.state == "idle" and "given built" in studio.run.view.whole_log()["status"]["error"]
    studio.budget = gt.Budget(0.5)
    both.gate.open()
    assert studio.run.start().wait().state == "finished"
    studio.budget = gt.Budget(0.25)
    assert "has finished" in studio.panel.notice["words"]


def test_a_panel_beside_a_run_says_that_the_run_goes_on_with_the_budget_it_was_made_for():
    training = Training(8)
    gate = Gated(training=training)
    panel, run = gt.BudgetPanel(training.geta), gate.run(total=4)
    run.start()
    gate.ask(run, "stop")
    assert panel.notice == FREE
    panel.budget = gt.Budget(0.25)
    assert "goes on with gt.Budget(group_sparsity=0.5)" in panel.notice["words"]
    assert "Another budget wants another run" in panel.notice["words"]


def test_a_page_forgets_the_log_of_before_when_a_run_begins_anew():
    both = Both()
    studio = both.studio()
    run, view = studio.run, studio.run.view
    run.start()
    both.gate.let(2)
    both.gate.ask(run, "stop")
    assert view.whole_log()["records"] and view.tick["status"]["beginnings"] == 0
    studio.budget = gt.Budget(0.25)
    run.start()
    assert view.whole_log() == {"records": [], "status": view.whole_log()["status"]} and view.tick["after"] == -1
    assert view.tick["status"]["beginnings"] == 1
    both.gate.open()
    run.wait()
    assert [record[0] for record in view.whole_log()["records"]] == run.history.steps == list(range(1, 9))
