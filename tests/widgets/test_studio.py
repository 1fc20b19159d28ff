"""Claims about the studio's Python part: one budget, an optimizer made at the start, a subnet at the end; with a stand-in explorer."""

from __future__ import annotations

import sys
import types

import ipywidgets
import pytest
import torch
import traitlets

import geta_nb as gt
from geta_nb.errors import ConfigError, RunStateError
from tests.widgets.live_runs import Training


class StandIn(ipywidgets.Widget):
    """What the studio asks of an explorer: a budget that can be observed, and a look at the network from time to time."""

    budget = traitlets.Any()

    def __init__(self, geta):
        super().__init__()
        self.geta, self.looks = geta, 0

    def refresh(self):
        self.looks += 1


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = types.ModuleType("geta_nb.widgets.explorer")
    module.Explorer = StandIn
    monkeypatch.setitem(sys.modules, "geta_nb.widgets.explorer", module)


def test_the_three_stand_beside_each_other_and_share_one_budget():
    training = Training(8)
    studio = gt.studio(training.geta, training.step, training.optimizer, 8)
    assert studio.children == [studio.explorer, studio.panel, studio.run.view]
    assert studio.explorer.budget == studio.panel.budget == training.optimizer.budget
    studio.panel.budget = gt.Budget(0.25)
    assert studio.explorer.budget == gt.Budget(0.25)
    studio.explorer.budget = gt.Budget(0.3, bit_range=(8, 8))
    assert studio.panel.budget == gt.Budget(0.3, bit_range=(8, 8)) and studio.panel.preview.bit_widths["0"] == 8


def test_a_budget_of_the_explorer_that_cannot_be_met_is_refused_in_the_panel():
    training = Training(8)
    studio = gt.studio(training.geta)
    studio.explorer.budget = gt.Budget(relative_bops=1e-9)
    assert studio.explorer.budget == studio.panel.budget == gt.Budget()
    assert "cannot be reached" in studio.panel.result["errors"]["target"]


def test_starting_makes_the_optimizer_with_the_present_budget():
    training = Training(8)

    def step(i, optimizer):
        training.optimizer = optimizer
        return training.step(i)

    studio = gt.studio(training.geta, step, total_steps=40, evaluate=training.evaluate, every=10)
    assert studio.run.optimizer is None
    studio.panel.budget = gt.Budget(0.25)
    studio.run.start().wait()
    made = studio.run.optimizer
    assert isinstance(made.inner, torch.optim.AdamW)
    assert made.budget == gt.Budget(0.25) and made.schedule == gt.Schedule.for_steps(40)
    assert training.geta.group_sparsity() == 0.25 and studio.explorer.looks >= 1


def test_the_optimizer_may_be_a_class_a_function_or_what_qasso_returned():
    for kind in (torch.optim.SGD, "function", "built"):
        training = Training(8)
        make = {
            "function": lambda budget, schedule, t=training: t.geta.qasso(torch.optim.Adam, budget=budget, schedule=schedule, lr=0.01),
            "built": training.optimizer,
        }.get(kind, kind)
        studio = gt.studio(training.geta, training.step, make, 8)
        studio.run.start().wait()
        expected = {"function": torch.optim.Adam, "built": torch.optim.SGD}.get(kind, kind)
        assert isinstance(studio.run.optimizer.inner, expected)


def test_cutting_gives_the_subnet_and_its_report_and_waits_for_the_run():
    training = Training(40)
    studio = gt.studio(training.geta, training.step, training.optimizer, 40, evaluate=training.evaluate, every=10)
    assert studio.outcome["can_cut"] is False
    studio.run.start().pause()
    with pytest.raises(RunStateError, match="still going on"):
        studio.cut()
    studio.handle({"action": "cut"})
    assert "still going on" in studio.outcome["error"]
    studio.run.resume().wait()
    assert studio.outcome["can_cut"] is True
    subnet = studio.cut()
    small, whole = (sum(p.numel() for p in model.parameters()) for model in (subnet, training.geta.model))
    assert studio.subnet is subnet and small < whole
    assert studio.report.to_dict()["group_sparsity"] == 0.5 and "accuracy" in studio.report.to_dict()["metrics"]
    assert "geta-view" in studio.outcome["html"] and studio.outcome["error"] == ""


def test_without_a_step_there_is_no_run_but_a_line_that_says_how():
    studio = gt.studio(Training(8).geta)
    assert studio.run is None and len(studio.children) == 2
    assert "total_steps" in studio.outcome["hint"] and studio.outcome["can_cut"]
    bundle = studio._repr_mimebundle_()
    assert bundle["text/plain"] == "Studio(gt.Budget(group_sparsity=0.5), no run)" and "geta-view" in bundle["text/html"]


def test_arguments_that_make_no_sense_are_refused():
    training = Training(8)
    with pytest.raises(ConfigError, match="the run has no length"):
        gt.studio(training.geta, training.step)
    with pytest.raises(ConfigError, match="no optimizer"):
        gt.studio(training.geta, training.step, 3, 8)
