"""More bits where they cost little: one for each factor of four, never outside a layer's range, never against an exception."""

import math

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.cost import lowest_bits
from geta_nb.errors import BudgetError


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def geta():
    return gt.GETA(net(), torch.randn(2, 1, 12, 12), quantize=gt.QuantConfig(activations=True))


def lowest(geta, budget):
    return lowest_bits(geta.cost, budget, _fewest(geta))


def macs(geta):
    return {row.layer: row.macs for row in geta.cost.dense.layers if row.macs}


@pytest.mark.parametrize("low", [2, 3])
def test_a_layer_has_one_bit_more_for_each_factor_of_four_that_it_is_cheaper(geta, low):
    weights, inputs = lowest(geta, gt.Budget(relative_bops=0.02, bit_range=(low, 16), activation_bit_range=(low, 7)))
    work = macs(geta)
    dearest = max(work.values())
    assert weights.keys() == inputs.keys() == work.keys() and len(set(weights.values())) > 2
    for layer, count in work.items():
        more = round(math.log2(dearest / count) / 2)
        assert weights[layer] == min(low + more, 8) and inputs[layer] == min(low + more, 7)


@pytest.mark.parametrize("budget", [gt.Budget(0.5), gt.Budget(relative_bops=0.02, allocation="uniform")], ids=["no target", "uniform"])
def test_without_a_cost_target_or_where_it_is_not_wanted_all_fall_to_the_low_end(geta, budget):
    weights, inputs = lowest(geta, budget)
    assert set(weights.values()) == set(inputs.values()) == {4.0}


def test_bytes_are_counted_where_bytes_are_the_target(geta):
    weights, inputs = lowest(geta, gt.Budget(size_bytes=3000, bit_range=(2, 16), activation_bit_range=(3, 16)))
    elements = {"0": 72, "2": 2304, "4": 4608, "8": 160}
    assert weights == {layer: min(2 + round(math.log2(4608 / n) / 2), 8) for layer, n in elements.items()}
    assert set(inputs.values()) == {3.0}


def test_what_an_exception_says_of_a_layer_is_not_touched(geta):
    exceptions = {"0": gt.LayerBudget(bit_range=(2, 5)), "8": gt.LayerBudget(activation_bit_range=(3, 3))}
    weights, inputs = lowest(geta, gt.Budget(relative_bops=0.02, bit_range=(2, 16), exceptions=exceptions))
    assert weights["0"] == 2 and inputs["8"] == 3 and weights["8"] > 2 < inputs["0"]


def test_preview_and_run_rest_on_the_same_bits():
    model = net()
    geta = gt.GETA(model, torch.randn(2, 1, 12, 12), quantize=gt.QuantConfig(activations=True))
    geta.calibrate([torch.randn(8, 1, 12, 12)])
    budget = gt.Budget(relative_bops=0.006, bit_range=(2, 16), activation_bit_range=(3, 16), allocation="cost")
    preview = geta.preview(budget)
    assert "more where a layer costs little" in preview.assumption
    schedule = gt.Schedule(1, 10, 5, 9, 3, 3, joint_start=3)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.01, budget=budget, schedule=schedule)
    for _ in range(schedule.cool_down_start):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 12, 12)).square().mean().backward()
        optimizer.step()
    assert geta.bit_widths() == preview.bit_widths and geta.activation_bit_widths() == preview.activation_bit_widths
    assert geta.report(geta.construct_subnet()).to_dict()["relative_bops"] <= 0.006


@pytest.mark.filterwarnings("ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning")  # there is no other way
def test_a_target_that_only_the_low_end_reaches_is_reached_there():
    model = net()
    geta = gt.GETA(model, torch.randn(2, 1, 12, 12))
    least = geta.cost.relative_bops(_fewest(geta), dict.fromkeys(macs(geta), 2.0), {})
    raised, _ = lowest(geta, gt.Budget(relative_bops=0.5, bit_range=(2, 16)))
    assert geta.cost.relative_bops(_fewest(geta), raised, {}) > 1.02 * least
    budget = gt.Budget(relative_bops=1.01 * least, bit_range=(2, 16))
    assert geta.preview(budget).relative_bops <= 1.01 * least
    optimizer = geta.qasso(
        torch.optim.SGD, lr=0.0, budget=budget, schedule=gt.Schedule(1, 8, 4, 9, 2, 4, joint_start=2),
    )  # fmt: skip
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 12, 12)).square().mean().backward()
        optimizer.step()
    assert geta.report(geta.construct_subnet()).to_dict()["relative_bops"] <= 1.01 * least


def _fewest(geta):
    alive = torch.zeros(len(geta.groups), dtype=torch.bool)
    for family in geta.families:
        alive[geta.groups.index(family.groups[0])] = True
    return alive.numpy()


def test_an_unknown_allocation_is_refused():
    with pytest.raises(BudgetError, match=r"(?s)allocation.*'joint' or 'cost' or 'uniform'"):
        gt.Budget(allocation="equal")
