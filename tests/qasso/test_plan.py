"""Which groups go: never a family's last, in order of score, in units, just as many as asked, or as a cost asks."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geta_nb.budget import Budget, LayerBudget
from geta_nb.errors import BudgetError
from geta_nb.qasso.plan import Limits, choose_count, choose_for_cost, count_redundant, find_limits, give_back, removal_order
from tests.qasso.nets import convolutional_cost, convolutional_table, mixed_table


def limits_of(sizes, unit=None):
    family_of = np.repeat(np.arange(len(sizes)), sizes)
    return Limits(family_of, np.array(sizes) - 1, np.array(unit or [1] * len(sizes)))


families = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@given(families, st.integers(0, 2**31 - 1), st.data())
def test_exactly_k_groups_go_and_every_family_keeps_one(sizes, seed, data):
    limits = limits_of(sizes)
    k = data.draw(st.integers(0, limits.reachable))
    scores = np.random.default_rng(seed).random(sum(sizes))
    chosen = choose_count(removal_order(scores, np.ones(sum(sizes), dtype=bool), limits), k, limits, exactly=True)
    assert len(set(chosen)) == k
    left = np.array(sizes) - np.bincount(limits.family_of[chosen], minlength=len(sizes))
    assert (left >= 1).all()
    # nothing that stayed, though its family could have spared it, scores lower than something that went
    spared = np.setdiff1d(np.flatnonzero(left[limits.family_of] > 1), chosen)
    assert not len(chosen) or not len(spared) or scores[spared].min() >= scores[chosen].max()


@given(st.integers(0, 2**31 - 1), st.integers(0, 53))
def test_kept_counts_are_multiples_but_for_one_family_that_makes_up_the_number(seed, k):
    sizes = [24, 16, 17]
    limits = limits_of(sizes, [8, 8, 8])
    scores = np.random.default_rng(seed).random(57)
    order = removal_order(scores, np.ones(57, dtype=bool), limits)
    chosen = choose_count(order, k, limits, exactly=True)
    left = np.array(sizes) - np.bincount(limits.family_of[chosen], minlength=3)
    assert len(set(chosen)) == k and (left >= 1).all()
    if k <= 57 - 24 and k >= 1 + 7:  # enough room for units everywhere: at most two families are out of step, one that made up k
        assert sum(n % 8 != 0 for n in left) <= 2
    loose = choose_count(order, k, limits, exactly=False)
    assert len(loose) <= k
    assert all(n % 8 == 0 or n == 17 for n in np.array(sizes) - np.bincount(limits.family_of[loose], minlength=3))


def test_a_second_period_goes_on_where_the_first_one_stopped():
    limits = limits_of([4, 4])
    alive = np.array([False, True, True, True, False, False, False, True])
    order = removal_order(np.arange(8.0), alive, limits)
    assert order.groups.tolist() == [1, 2]


def test_ties_go_by_index():
    limits = limits_of([3, 3])
    assert removal_order(np.zeros(6), np.ones(6, dtype=bool), limits).groups.tolist() == [0, 1, 3, 4]


def test_protection_and_shares_hold_for_the_layers_that_produce_a_group():
    budget = Budget(exceptions={"conv1": LayerBudget(protect=True), "conv2": LayerBudget(max_sparsity=0.25)})
    assert find_limits(convolutional_table(), budget).capacity.tolist() == [0, 2]
    # the head reads conv2's groups and produces none
    assert find_limits(convolutional_table(), Budget(exceptions={"head": LayerBudget(protect=True)})).capacity.tolist() == [5, 7]
    assert find_limits(convolutional_table(), Budget(exceptions={"norm": LayerBudget(protect=True)})).capacity.tolist() == [0, 7]


def test_round_to_counts_channels_not_groups():
    limits = find_limits(mixed_table(), Budget(round_to=4))
    # a head has two rows, so two heads make four channels; a filter has one
    assert limits.unit.tolist() == [2, 4]
    # seven filters can keep no multiple of eight, so they are left free
    assert find_limits(mixed_table(), Budget(round_to=8)).unit.tolist() == [4, 1]


def test_a_budget_out_of_reach_names_the_largest_that_is_not():
    limits = find_limits(convolutional_table(), Budget())
    assert count_redundant(limits, Budget(12 / 14), 1) == 12
    with pytest.raises(BudgetError, match="K <= 12 of 14") as caught:
        count_redundant(limits, Budget(1.0), 1)
    share = float(str(caught.value.hint).split("=")[1])
    assert count_redundant(limits, Budget(share), 1) <= 12
    with pytest.raises(BudgetError, match="joint stage"):
        count_redundant(limits, Budget(0.5), 0)
    assert count_redundant(limits, Budget(0.0), 0) == 0


@given(st.integers(0, 2**31 - 1), st.floats(0.002, 0.02))
def test_a_cost_is_met_with_the_shortest_prefix_and_nothing_is_given_up_for_nothing(seed, goal):
    limits = find_limits(convolutional_table(), Budget())
    alive = np.ones(14, dtype=bool)
    cost = convolutional_cost().measure("relative_bops", dict.fromkeys(("conv1", "conv2", "head"), 4), {})
    order = removal_order(np.random.default_rng(seed).random(14), alive, limits)
    chosen = choose_for_cost(order, alive, cost, goal * 8)

    def after(groups):
        living = alive.copy()
        living[groups] = False
        return cost(living)

    if len(chosen) < len(order.groups):
        assert after(chosen) <= goal * 8
    if len(chosen) and after(chosen) <= goal * 8:
        assert after(chosen[:-1]) > goal * 8
        kept = give_back(chosen, alive, cost, goal * 8)
        assert after(kept) <= goal * 8
        for group in kept:
            assert after(kept[kept != group]) > goal * 8


def test_a_network_without_groups_has_an_empty_order():
    limits = find_limits(SimpleNamespace(family_names=[], family_of=np.zeros(0, dtype=np.int64), axis_maps=[]), Budget())
    order = removal_order(np.zeros(0), np.zeros(0, dtype=bool), limits)
    assert len(order.groups) == 0 and limits.reachable == 0
    assert len(choose_count(order, 0, limits, exactly=True)) == 0
