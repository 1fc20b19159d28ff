"""Budgets of QASSO: cost targets are met and not overdone, exceptions hold, what is out of reach is refused before training."""

import numpy as np
import pytest
import torch

from geta_nb.budget import Budget, LayerBudget
from geta_nb.errors import BudgetError, CollapseWarning
from geta_nb.qasso.schedule import Schedule
from tests.qasso.nets import BOTH, COLLAPSES, END, WEIGHTS, compress, convolutional_cost, zero_groups


@pytest.mark.parametrize("measure", ["relative_bops", "size_bytes"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("periods", [1, 3])
@pytest.mark.filterwarnings(COLLAPSES)
def test_a_cost_target_is_met_and_missed_with_one_group_less(measure, share, periods):
    cost = convolutional_cost()
    bits = dict.fromkeys(("conv1", "conv2", "head"), 4)
    least = np.zeros(14, dtype=bool)
    least[[0, 6]] = True
    low, high = (getattr(cost, measure)(alive, bits, bits) for alive in (least, np.ones(14, dtype=bool)))
    target = low + share * (high - low)
    run = compress(config=BOTH, budget=Budget(**{measure: target}), schedule=Schedule(2, 9, 6, 10, periods, 2))
    run.train(END + 2)
    optimizer, zero = run.optimizer, zero_groups(run)
    assert (~zero == optimizer.group_mask).all() and zero.any()

    def price(zero):
        return getattr(cost, measure)(~zero, optimizer.bit_widths(), optimizer.activation_bit_widths())

    assert price(zero) <= target
    with_one_back = []
    for group in np.flatnonzero(zero):
        more = zero.copy()
        more[group] = False
        with_one_back.append(price(more))
    assert max(with_one_back) > target
    assert optimizer.n_redundant is None and optimizer.progress()["target"] == {measure: target}


def test_bits_that_a_choice_relied_on_do_not_fall_under_it():
    cost = convolutional_cost()
    target = 0.6 * cost.size_bytes(np.ones(14, dtype=bool), dict.fromkeys(("conv1", "conv2", "head"), 16))
    budget = Budget(size_bytes=target, allocation="uniform")
    run = compress(config=WEIGHTS, budget=budget, schedule=Schedule(0, 1, 1, 9, 3, 0), lr_quant=0.0)

    @torch.no_grad()
    def coarser():
        for quantizer in run.quantizers.weights.values() if run.optimizer.stage == "joint" else ():
            quantizer.step_size.mul_(4)  # two bits fewer each step, if they were let

    run.train(12, after=coarser)
    bits, zero = run.optimizer.bit_widths(), zero_groups(run)
    # they stood at 14 when the first choice was made; had they fallen on, what was pruned by then would be more than the target asks
    assert set(bits.values()) == {14}
    assert cost.size_bytes(~zero, bits) <= target
    assert max(cost.size_bytes(~zero | (np.arange(14) == g), bits) for g in np.flatnonzero(zero)) > target


def test_a_target_that_needs_no_pruning_prunes_nothing():
    run = compress(config=WEIGHTS, budget=Budget(relative_bops=1.0))
    run.train(END)
    assert zero_groups(run).sum() == 0


@pytest.mark.filterwarnings(COLLAPSES)
def test_a_target_above_the_bit_bound_lowers_bits_that_pruning_cannot_make_up_for():
    cost = convolutional_cost()
    least = np.zeros(14, dtype=bool)
    least[[0, 6]] = True
    target = cost.size_bytes(least, dict.fromkeys(("conv1", "conv2", "head"), 5))
    # the bound stays at 16 (falls of 0 bits), and with lr_quant 0 so do the bits
    run = compress(
        config=WEIGHTS, budget=Budget(size_bytes=target, allocation="uniform"), schedule=Schedule(0, 3, 1, 6, 2, 0), lr_quant=0.0
    )
    run.train(12)
    assert cost.size_bytes(run.optimizer.group_mask, run.optimizer.bit_widths()) <= target
    assert set(run.optimizer.bit_widths().values()) == {5}


@pytest.mark.filterwarnings(COLLAPSES)
def test_budgets_out_of_reach_are_refused_before_training():
    with pytest.raises(BudgetError, match="K <= 12 of 14"):
        compress(budget=Budget(1.0))
    with pytest.raises(BudgetError, match="out of reach"):
        compress(config=WEIGHTS, budget=Budget(relative_bops=1e-6))
    with pytest.raises(BudgetError, match=r"did you mean .*'conv1'"):
        compress(budget=Budget(0.1, exceptions={"convl": LayerBudget(protect=True)}))
    compress(budget=Budget(12 / 14)).train(END)


def test_the_largest_budget_leaves_one_group_of_each_family():
    run = compress(config=WEIGHTS, budget=Budget(12 / 14))
    with pytest.warns(CollapseWarning, match=r"(?s)a layer collapses.*1 of [68] groups left"):
        run.train(END)
    assert np.bincount(run.table.family_of[~zero_groups(run)]).tolist() == [1, 1]


def test_exceptions_hold_per_layer():
    exceptions = {
        "conv1": LayerBudget(bit_range=(8, 8), max_sparsity=0.34), "conv2": LayerBudget(activation_bit_range=(6, 6)),
        "head": LayerBudget(protect=True),
    }  # fmt: skip
    run = compress(config=BOTH, budget=Budget(0.5, exceptions=exceptions))
    run.train(END)
    assert run.optimizer.bit_widths() == {"conv1": 8, "conv2": 4, "head": 4}
    assert run.optimizer.activation_bit_widths() == {"conv1": 4, "conv2": 6, "head": 4}
    assert zero_groups(run)[:6].sum() <= 2 and zero_groups(run).sum() == 7


def test_kept_counts_are_multiples_of_round_to():
    run = compress("mixed", budget=Budget(5 / 13, round_to=4))
    run.train(END)
    # six heads of two rows and seven filters: 2 heads and 3 filters go
    assert np.bincount(run.table.family_of[~zero_groups(run)]).tolist() == [4, 4]
