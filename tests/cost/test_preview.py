"""Claims about the preview of a budget, figures worked out by hand on ``cost_nets.three_layers``."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geta_nb.budget import Budget, LayerBudget
from geta_nb.cost.allocation import lowest_bits
from geta_nb.cost.model import CostModel
from geta_nb.cost.preview import preview
from geta_nb.errors import BudgetError
from geta_nb.groups.removal import family_limits, removal_order, round_up
from tests.cost.nets import EVERY, alive_without, three_layers, three_layers_table


def show(budget, **options):
    return preview(three_layers(), three_layers_table(), budget, **options)


def channels(shown):
    return [row.channels for row in shown.layers]


def test_half_of_each_family_goes_and_weights_take_the_low_end():
    shown = show(Budget(0.5, bit_range=(4, 16), activation_bit_range=(8, 8)))
    # K = floor(0.5 * 10 + 0.5) = 5: two of 4 filters, three of 6. conv1 3 -> 2, conv2 2 -> 3, fc 3 -> 10.
    assert channels(shown) == [2, 3, 10]
    assert shown.macs == 64 * 9 * 3 * 2 + 64 * 9 * 2 * 3 + 3 * 10 == 3456 + 3456 + 30
    assert shown.bops == 6942 * 4 * 8
    assert shown.relative_bops == shown.relative_bops_full == 6942 * 32 / (1024 * 20796)
    assert shown.parameters == (54 + 2) + (54 + 3) + (30 + 10) == 153
    assert shown.size_bytes == (138 * 4 + 15 * 32) / 8 == 129
    assert shown.group_sparsity == 0.5
    assert shown.bit_widths == dict.fromkeys(EVERY, 4) and shown.activation_bit_widths == dict.fromkeys(EVERY, 8)


def test_dense_stands_beside_the_preview():
    dense = show(Budget(0.5)).dense
    assert (dense.macs, dense.parameters, dense.size_bytes, dense.bops) == (20796, 404, 1616, 1024 * 20796)
    assert (dense.relative_bops, dense.relative_bops_full) == (1.0, 1.0)
    assert [row.channels for row in dense.layers] == [4, 6, 10]


def test_given_groups_and_bits_are_priced_exactly():
    w_bits, a_bits = {"conv1": 8, "conv2": 4, "fc": 6}, {"conv1": 8, "conv2": 8, "fc": 4}
    by_groups = show(Budget(0.5), groups=[0, SimpleNamespace(index=5), np.int64(9)], weight_bits=w_bits, activation_bits=a_bits)
    by_mask = show(Budget(0.5), alive=alive_without(0, 5, 9), weight_bits=w_bits, activation_bits=a_bits)
    assert by_groups == by_mask
    assert (by_groups.bops, by_groups.size_bytes, by_groups.group_sparsity) == (553920, 233, 0.3)  # as in test_cost
    assert by_groups.assumption == "exactly 3 given groups removed; weight bits as given; input bits as given"


def test_the_preview_says_what_it_assumes():
    words = show(Budget(0.5, round_to=2)).assumption
    assert "5 of 10 groups removed, evenly over 2 families" in words
    assert "weight bits at the low end of their range" in words
    assert "rounded up to a multiple of 2" in words
    assert "just enough for size_bytes <= 300" in show(Budget(size_bytes=300)).assumption


@pytest.mark.parametrize(("name", "value"), [("relative_bops", 0.004), ("relative_bops", 0.0018), ("size_bytes", 130), ("size_bytes", 71)])
def test_a_target_is_met_with_the_fewest_groups(name, value):
    shown = show(Budget(**{name: value}, allocation="uniform"))  # the bits that a sparsity has
    assert getattr(shown, name) <= value
    removed = round(shown.group_sparsity * 10)
    one_less = show(Budget((removed - 1) / 10))
    assert getattr(one_less, name) > value


def test_a_target_below_what_one_group_per_family_costs_is_refused():
    # One filter each, 4 bits: conv1 27 * 4 + 32, conv2 9 * 4 + 32, fc 10 * 4 + 10 * 32 bits: 140 + 68 + 360 = 568, 71 bytes.
    with pytest.raises(BudgetError, match=r"cannot be reached by this network(.|\n)*size_bytes >= 71"):
        show(Budget(size_bytes=70))


def test_every_family_keeps_one_group():
    assert family_limits(three_layers_table(), Budget()).tolist() == [3, 5]
    assert channels(show(Budget(0.8))) == [1, 1, 10]
    with pytest.raises(BudgetError, match=r"more groups than may be removed(.|\n)*at most 8 of 10(.|\n)*0\.8"):
        show(Budget(0.9))


def test_a_protected_layer_keeps_its_groups_and_the_others_pay():
    shown = show(Budget(0.3, exceptions={"conv1": LayerBudget(protect=True)}))
    assert channels(shown) == [4, 3, 10]
    # protecting the consumer protects nothing: conv2 only reads the filters of conv1
    assert family_limits(three_layers_table(), Budget(exceptions={"conv2": LayerBudget(protect=True)})).tolist() == [3, 0]


def test_exceptions_match_whole_paths_only():
    with pytest.raises(BudgetError, match="matches no layer"):
        show(Budget(exceptions={"conv": LayerBudget(protect=True)}))
    assert family_limits(three_layers_table(), Budget(exceptions={"conv*": LayerBudget(protect=True)})).tolist() == [0, 0]


@pytest.mark.parametrize(("share", "limit"), [(0.5, 3), (0.34, 2), (0.33, 1), (1.0, 5), (0.0, 0)])
def test_max_sparsity_is_never_exceeded(share, limit):
    budget = Budget(exceptions={"conv2": LayerBudget(max_sparsity=share)})
    assert family_limits(three_layers_table(), budget).tolist() == [3, limit]


def test_a_bit_range_of_a_layer_counts_in_its_figures():
    shown = show(Budget(0.0, exceptions={"conv2": LayerBudget(bit_range=(8, 8), activation_bit_range=(6, 8))}))
    assert shown.bit_widths == {"conv1": 4, "conv2": 8, "fc": 4}
    assert shown.bops == 6912 * 4 * 4 + 13824 * 8 * 6 + 60 * 4 * 4


def test_layers_without_quantizers_expect_no_bits():
    model = three_layers()
    plain = [op.__class__(op.layer, op.module_path, op.operator, op.macs) for op in model.operators]
    bare = CostModel(plain, [p.__class__(p.name, p.numel) for p in model.parameters], 10)
    assert lowest_bits(bare, Budget(), EVERY) == ({}, {})
    assert preview(bare, three_layers_table(), Budget(0.0)).relative_bops == 1.0


def test_kept_channels_are_rounded_up():
    shown = show(Budget(0.5, round_to=2))
    assert channels(shown) == [2, 4, 10]  # 2 of 4 stay, 3 of 6 become 4
    assert shown.group_sparsity == 0.5  # zero groups: one of them is kept for the hardware's sake
    assert channels(show(Budget(0.5, round_to=8))) == [4, 6, 10]  # there are no 8


def test_a_network_without_groups_has_a_preview():
    model = CostModel(three_layers().operators[:0], [], 0)
    empty = SimpleNamespace(n_groups=0, family_of=np.zeros(0, dtype=np.int64), family_names=[], axis_maps=[])
    assert preview(model, empty, Budget(0.5)).group_sparsity == 0.0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_every_prefix_takes_the_same_share_of_each_family(sizes):
    family_of = np.repeat(np.arange(len(sizes)), sizes)
    table = SimpleNamespace(n_groups=len(family_of), family_of=family_of, family_names=sizes, axis_maps=[])
    order = removal_order(table, Budget())
    assert len(set(order.tolist())) == len(order) == sum(sizes) - len(sizes)
    for n in range(len(order) + 1):
        taken = np.bincount(family_of[order[:n]], minlength=len(sizes))
        assert (taken < np.array(sizes)).all()
        # Family f has taken t groups when the threshold s passed (t - 1/2) / n_f but not (t + 1/2) / n_f: |t - s n_f| <= 1/2 for one s.
        open_ = taken < np.array(sizes) - 1
        low = ((taken - 0.5) / sizes).max()
        high = ((taken + 0.5) / sizes)[open_].min(initial=1.0)
        assert low <= high + 1e-12  # two quotients rounded in float64


@given(st.sets(st.integers(0, 9)), st.integers(1, 9))
def test_rounding_only_revives_and_reaches_a_multiple(dead, round_to):
    table, alive = three_layers_table(), alive_without(*dead)
    kept = round_up(table, alive, round_to=round_to)
    assert (kept >= alive).all()
    for family, size in enumerate([4, 6]):
        count, before = kept[table.family_of == family].sum(), alive[table.family_of == family].sum()
        assert count == min(-(-before // round_to) * round_to, size)


def test_the_preview_is_json_and_its_repr_is_not_a_dump():
    shown = show(Budget(0.5))
    facts = json.loads(json.dumps(shown.to_dict(), allow_nan=False))
    assert facts["dense"]["parameters"] == 404
    assert facts["layers"][1]["channels_before"] == 6 and facts["layers"][1]["channels_after"] == 3
    assert facts["layers"][1]["macs_before"] == 13824 and facts["layers"][1]["macs_after"] == 3456
    assert len(repr(shown)) < 300
