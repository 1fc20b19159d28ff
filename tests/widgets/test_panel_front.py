"""The budget panel with a sensitivity: the predicted rise beside the costs, the front with a budget for each plan, rises of layers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError
from geta_nb.widgets.budget_code import budget_of
from geta_nb.widgets.panel_front import MOST, front_facts, rises_of_layers
from tests.small_nets import IMAGES, cnn


def loss(model, batch):
    return model(batch).square().mean()


@pytest.fixture(scope="module")
def geta():
    torch.manual_seed(0)
    found = gt.GETA(cnn().eval(), IMAGES, quantize=gt.QuantConfig(activations=True))
    found.calibrate([IMAGES])
    return found


@pytest.fixture(scope="module")
def sensitivity(geta):
    return geta.sensitivity([IMAGES[:1], IMAGES[1:]], loss, bits=(2, 4, 8), kept=(0.5, 0.25))


def test_without_a_sensitivity_nothing_is_said_of_the_loss(geta):
    panel = gt.BudgetPanel(geta)
    assert panel.facts["front"] is None and panel.result["rise"] is None and "rises" not in panel.result


def test_the_predicted_rise_follows_the_budget(geta, sensitivity):
    panel = gt.BudgetPanel(geta, sensitivity=sensitivity)
    seen = []
    for sparsity in (0.0, 0.25, 0.5):
        panel.budget = gt.Budget(sparsity)
        assert panel.result["rise"] == pytest.approx(panel.preview.predicted_rise, rel=1e-5)
        seen.append(panel.result["rise"])
    assert seen == sorted(seen) and seen[2] > seen[0]


def test_each_plan_has_the_form_of_its_budget(geta, sensitivity):
    panel = gt.BudgetPanel(geta, sensitivity=sensitivity)
    facts, front = json.loads(json.dumps(panel.facts["front"])), sensitivity.front()
    assert 2 <= len(facts["points"]) <= MOST and 0 <= facts["knee"] < len(facts["points"])
    of_cost = {float(f"{point.cost:.6g}"): point for point in front.points}
    for cost, rise, form in facts["points"]:
        point = of_cost[cost]
        assert rise == pytest.approx(point.rise, rel=1e-5, abs=1e-12)
        budget, errors = budget_of(form)
        assert errors == {} and budget == point.budget
    assert facts["points"][facts["knee"]][0] == pytest.approx(front.knee.cost, rel=1e-5)


def test_a_chosen_plan_becomes_the_budget(geta, sensitivity):
    panel = gt.BudgetPanel(geta, sensitivity=sensitivity)
    cost, _, form = panel.facts["front"]["points"][2]
    panel.form = {**form, "sent": 7}
    assert panel.budget.relative_bops == pytest.approx(cost, rel=1e-4) and panel.result["answers"] == 7
    assert panel.result["errors"] == {} and panel.preview.relative_bops <= panel.budget.relative_bops


def test_rises_of_layers_add_up_to_all_of_it(geta, sensitivity):
    preview = geta.preview(gt.Budget(0.5, bit_range=(2, 16), activation_bit_range=(2, 16)), sensitivity=sensitivity)
    found = rises_of_layers(geta, preview)
    parts = [rise for own in found["rises"].values() for rise in own.values()]
    assert math.fsum(parts) == pytest.approx(preview.predicted_rise, rel=1e-4) and found["rise"] > 0
    assert set(found["rises"]["0"]) <= {"weights", "inputs", "groups"} and "groups" in found["rises"]["0"]
    assert all(layer in {row.layer for row in preview.layers} for layer in found["rises"])


def test_a_long_front_is_thinned_and_keeps_its_ends(geta, sensitivity, monkeypatch):
    monkeypatch.setattr("geta_nb.widgets.panel_front.MOST", 4)
    facts, whole = front_facts(geta, sensitivity), gt.BudgetPanel(geta, sensitivity=sensitivity).facts["front"]
    assert len(facts["points"]) <= 4 and facts["points"][0] == whole["points"][0] and facts["points"][-1] == whole["points"][-1]


@pytest.mark.parametrize("wrong", [0.5, "s.json", {}])
def test_what_is_no_sensitivity_is_refused(geta, wrong):
    with pytest.raises(ConfigError, match="not a sensitivity"):
        gt.BudgetPanel(geta, sensitivity=wrong)


def test_of_another_network_it_is_refused(sensitivity):
    other = gt.GETA(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    with pytest.raises(InputError, match="of another network"):
        gt.BudgetPanel(other, sensitivity=sensitivity)


def test_a_studio_shows_it_too(geta, sensitivity):
    studio = gt.studio(geta, sensitivity=sensitivity)
    assert studio.panel.sensitivity is sensitivity and studio.panel.facts["front"] is not None
