"""Claims about costs, every figure worked out by hand in a comment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geta_nb.cost.model import MEASURES, CostModel
from geta_nb.cost.totals import OperatorCost, ParameterCost
from geta_nb.errors import BudgetError, ConfigError
from tests.cost.nets import CONV1, CONV2, EVERY, Extent, alive_without, ids, three_layers

W_BITS = {"conv1": 8, "conv2": 4, "fc": 6}
A_BITS = {"conv1": 8, "conv2": 8, "fc": 4}


def test_dense_network_costs_what_is_written_on_paper():
    costs = three_layers().evaluate()
    assert costs.macs == costs.macs_full == 6912 + 13824 + 60 == 20796
    assert costs.parameters == 112 + 222 + 70 == 404
    assert costs.size_bytes == 404 * 4 == 1616
    assert costs.bops == 1024 * 20796
    assert costs.relative_bops == costs.relative_bops_full == 1.0
    assert [row.channels for row in costs.layers] == [4, 6, 10]


def test_pruned_and_quantized_network_costs_what_is_written_on_paper():
    # One filter of conv1 and two of conv2 gone: conv1 3 out, conv2 3 in and 4 out, fc 4 in.
    costs = three_layers().evaluate(alive_without(0, 5, 9), W_BITS, A_BITS)
    macs = {"conv1": 64 * 9 * 3 * 3, "conv2": 64 * 9 * 3 * 4, "fc": 4 * 10}  # 5184, 6912, 40
    bops = {"conv1": 5184 * 8 * 8, "conv2": 6912 * 4 * 8, "fc": 40 * 6 * 4}  # 331776, 221184, 960
    assert {row.layer: row.macs for row in costs.layers} == macs
    assert {row.layer: row.bops for row in costs.layers} == bops
    assert costs.bops == 553920
    assert costs.relative_bops == 553920 / (1024 * 20796)
    # conv1 81 weights of 8 bits and 3 biases of 32; conv2 108 of 4 and 4 of 32; fc 40 of 6 and 10 of 32.
    assert {row.layer: row.parameters for row in costs.layers} == {"conv1": 84, "conv2": 112, "fc": 50}
    bits = {"conv1": 81 * 8 + 3 * 32, "conv2": 108 * 4 + 4 * 32, "fc": 40 * 6 + 10 * 32}  # 744, 560, 560
    assert {row.layer: row.size_bytes * 8 for row in costs.layers} == bits
    assert costs.size_bytes == (744 + 560 + 560) / 8 == 233
    assert costs.size_bits == 1864
    assert [row.channels for row in costs.layers] == [3, 4, 10]
    assert [(row.weight_bits, row.input_bits) for row in costs.layers] == [(8, 8), (4, 8), (6, 4)]
    assert costs.dense.bops == 1024 * 20796


def test_a_channel_with_a_range_of_its_own_costs_two_numbers_as_long_as_it_lives():
    facts = three_layers()
    channels = {"conv1.weight": (Extent(1, (CONV1,)), 32), "conv2.weight": (Extent(1, (CONV2,)), 64), "fc.weight": (Extent(10), 32)}
    numbers = {name: dict(zip(("channels", "number_bits"), found, strict=True)) for name, found in channels.items()}
    model = CostModel(facts.operators, [replace(p, **numbers.get(p.name, {})) for p in facts.parameters], 10)
    alive = alive_without(0, 5, 9)
    plain, costs = facts.evaluate(alive, W_BITS, A_BITS), model.evaluate(alive, W_BITS, A_BITS)
    # 3 channels of conv1 and the 10 of fc at 2 * 4 bytes, 4 of conv2 in float64 at 16
    extra = {"conv1": 24, "conv2": 64, "fc": 80}
    assert {a.layer: a.size_bytes - b.size_bytes for a, b in zip(costs.layers, plain.layers, strict=True)} == extra
    assert costs.size_bytes == 233 + 24 + 64 + 80 == model.size_bytes(alive, W_BITS) == model.measure("size_bytes", W_BITS, {})(alive)
    assert replace(costs, size_bytes=0, layers=(), dense=plain.dense) == replace(plain, size_bytes=0, layers=())
    # without quantizers there are no ranges; nor are there any in the dense network
    assert model.size_bytes(alive, {"conv1": 8}) == facts.size_bytes(alive, {"conv1": 8}) + 24
    assert model.dense.size_bytes == facts.dense.size_bytes == model.evaluate().size_bytes == 1616


def test_an_operand_without_quantizer_counts_32_bits():
    costs = three_layers().evaluate(None, {"conv2": 4}, {"fc": 8})
    assert [row.bops for row in costs.layers] == [6912 * 32 * 32, 13824 * 4 * 32, 60 * 32 * 8]
    assert [(row.weight_bits, row.input_bits) for row in costs.layers] == [(None, None), (4, None), (None, 8)]


def test_grouped_convolution_counts_the_channels_of_its_own_group():
    # Depthwise, 6 channels on 8 x 8, 3x3: N Cin Cout k^2 H W / groups = 6 * 6 * 9 * 64 / 6 = 3456; without two channels 2304.
    operator = OperatorCost("dw", "dw", "conv2d", Extent(64 * 9, (np.arange(6),)))
    model = CostModel([operator], [ParameterCost("dw.weight", Extent(9, (np.arange(6),)))], 6)
    assert model.evaluate().macs == 3456
    assert model.evaluate(alive_without(1, 2, n_groups=6)).macs == 2304
    # Two groups of 3 channels, 4 filters each: 8 * 3 * 9 * 64 = 13824, whichever of the 8 filters go.
    grouped = CostModel([OperatorCost("g", "g", "conv2d", Extent(64 * 9 * 3, (np.arange(8),)))], [], 8)
    assert grouped.evaluate().macs == 13824
    assert grouped.evaluate(alive_without(7, n_groups=8)).macs == 13824 * 7 // 8


def attention(*, quantized=False):
    """q-projection 8 -> 8 on 5 positions, then QK^T over two heads of 4: a group is a head."""
    heads = ids(0, 0, 0, 0, 1, 1, 1, 1)
    bits = {"weight": "q_side", "activation": "k_side"} if quantized else {}
    operators = [
        OperatorCost("q", "q", "linear", Extent(5 * 8, (heads,)), "q", "q"),  # 5 * 8 * 8 = 320
        OperatorCost("matmul", "", "matmul", Extent(5 * 5, (heads,)), attention=True, **bits),  # 5 * 5 * 8 = 200
    ]
    return CostModel(operators, [ParameterCost("q.weight", Extent(8, (heads,)), "q")], 2)


def test_attention_products_count_nothing_on_paper_and_fully_in_the_full_counting():
    costs = attention().evaluate(alive_without(1, n_groups=2), {"q": 8}, {"q": 8})
    assert (costs.macs, costs.macs_full) == (160, 160 + 100)
    assert costs.bops == 160 * 64 == 10240
    assert costs.bops_full == 10240 + 100 * 1024 == 112640
    assert costs.relative_bops == 10240 / (1024 * 320)  # dense without the product
    assert costs.relative_bops_full == 112640 / (1024 * 520)  # dense with it
    assert (costs.layers[1].bops, costs.layers[1].bops_full) == (0, 102400)
    assert (costs.dense.macs, costs.dense.macs_full) == (320, 520)


def test_quantized_operands_of_an_attention_product_count_their_bits():
    costs = attention(quantized=True).evaluate(None, {}, {"q_side": 8, "k_side": 4})
    assert costs.bops_full == 320 * 1024 + 200 * 8 * 4
    assert (costs.layers[1].weight_bits, costs.layers[1].input_bits) == (8, 4)


def test_a_tied_parameter_weighs_once_and_works_twice():
    # Embedding of 11 tokens, width 4, tied to the output layer, 3 positions: 3 * 4 * 11 = 132 MACs by the head, none by the table.
    width = np.arange(4)
    operators = [
        OperatorCost("embed", "embed", "embedding", Extent(0), "embed"),
        OperatorCost("head", "head", "linear", Extent(33, (width,)), "embed"),
    ]
    model = CostModel(operators, [ParameterCost("embed.weight", Extent(11, (width,)), "embed")], 4)
    costs = model.evaluate(alive_without(0, n_groups=4), {"embed": 8})
    assert (costs.parameters, costs.size_bytes) == (33, 33)
    assert costs.bops == 99 * 8 * 32
    assert [row.parameters for row in costs.layers] == [33, 0]


def test_a_parameter_listed_twice_is_refused():
    twice = [ParameterCost("embed.weight", Extent(8))] * 2
    with pytest.raises(ConfigError, match=r"parameter listed twice(.|\n)*embed\.weight(.|\n)*tied parameters once"):
        CostModel([], twice, 0)
    with pytest.raises(ConfigError, match="operator listed twice"):
        CostModel([OperatorCost("a", "a", "linear", Extent(1))] * 2, [], 0)


def test_parameters_that_nothing_multiplies_have_rows_of_their_own():
    parameters = [
        ParameterCost("bn.weight", Extent(1, (CONV1,))),
        ParameterCost("bn.bias", Extent(1, (CONV1,))),
        ParameterCost("position", Extent(40), "position"),
    ]
    costs = CostModel([], parameters, 4).evaluate(alive_without(3, n_groups=4), {"position": 4})
    assert [(row.layer, row.operator, row.parameters, row.size_bytes) for row in costs.layers] == [
        ("bn", "parameters", 6, 24),
        ("position", "parameters", 40, 20),
    ]


def test_an_unquantized_parameter_weighs_its_dtype_but_dense_is_fp32():
    half = CostModel([], [ParameterCost("w", Extent(10), bits=16)], 0)
    assert half.evaluate().size_bytes == 20
    assert half.dense.size_bytes == 40


def test_a_network_without_products_has_a_share_of_zero_not_nan():
    costs = CostModel([], [ParameterCost("w", Extent(10))], 0).evaluate()
    assert costs.relative_bops == costs.relative_bops_full == 0.0
    assert CostModel([], [], 0).evaluate().size_bytes == 0


def test_a_second_compression_is_measured_against_the_first_dense_model():
    first = three_layers()
    second = three_layers(dense=first.evaluate(alive_without(0)).dense)
    twice_as_big = CostModel([OperatorCost("a", "a", "linear", Extent(100))], [], 0).dense
    assert second.evaluate().relative_bops == 1.0
    assert three_layers(dense=twice_as_big).evaluate().relative_bops == 20796 / 100
    assert three_layers(dense=twice_as_big).relative_bops(alive_without(), {}, {}) == pytest.approx(207.96, rel=1e-15)


bits_strategy = st.dictionaries(st.sampled_from(sorted(EVERY)), st.integers(2, 32))
dead_strategy = st.sets(st.integers(0, 9))


@given(dead_strategy, bits_strategy, bits_strategy)
@settings(max_examples=60, deadline=None)
def test_rows_add_up_and_fast_figures_are_the_exact_ones(dead, w_bits, a_bits):
    model, alive = three_layers(), alive_without(*dead)
    costs = model.evaluate(alive, w_bits, a_bits)
    for name in ("macs", "macs_full", "bops", "bops_full", "parameters", "size_bytes"):
        assert sum(getattr(row, name) for row in costs.layers) == getattr(costs, name)
    assert costs.macs == sum(op.macs.count(alive) for op in model.operators)
    assert costs.parameters == sum(p.numel.count(alive) for p in model.parameters)
    for name in MEASURES:
        # Three or six products of integers below 2^35, each scaled by one rounded factor: a few units in the last place of float64.
        assert model.measure(name, w_bits, a_bits)(alive) == pytest.approx(getattr(costs, name), rel=1e-14)


@given(st.permutations(range(10)), st.floats(0.001, 1.0), st.sampled_from(["relative_bops", "size_bytes"]))
@settings(max_examples=60, deadline=None)
def test_prefix_is_the_first_one_under_the_target(order, share, measure):
    model = three_layers()
    evaluate = model.measure(measure, W_BITS, A_BITS)
    costs = [evaluate(alive_without(*order[:n])) for n in range(11)]
    assert costs == sorted(costs, reverse=True)
    target = costs[-1] + share * (costs[0] - costs[-1])
    n = model.prefix_for_target(order, target, measure, weight_bits=W_BITS, activation_bits=A_BITS)
    assert n == next(n for n, cost in enumerate(costs) if cost <= target)


def test_prefix_starts_from_what_lives_and_settles_each_choice():
    model = three_layers()
    # fp32 bytes = 4 * (112 ... ): without filters 0 and 1 there are 2 * 28 + (9 * 2 * 6 + 6) + 70 = 240 elements.
    assert model.size_bytes(alive_without(0, 1), {}) == 240 * 4
    assert model.prefix_for_target([1, 2], 960, "size_bytes", alive=alive_without(0)) == 1

    def even(alive):
        kept = alive.copy()
        if kept[CONV1].sum() % 2:
            kept[CONV1[~kept[CONV1]][-1]] = True
        return kept

    assert model.prefix_for_target([0, 1, 2], 1000, "size_bytes", settle=even) == 2


def test_a_target_out_of_reach_says_what_is_in_reach():
    # Without filters 0..2: 28 + 6 * 9 + 6 + 70 = 158 elements, 632 bytes.
    with pytest.raises(BudgetError, match=r"size_bytes cannot be reached(.|\n)*size_bytes >= 632(.|\n)*size_bytes=100"):
        three_layers().prefix_for_target([0, 1, 2], 100, "size_bytes")


def test_unknown_measure_and_wrong_length_are_refused():
    with pytest.raises(ConfigError, match=r"no such figure(.|\n)*relative_bops"):
        three_layers().measure("latency", {}, {})
    with pytest.raises(ConfigError, match=r"another length(.|\n)*\[10\]"):
        three_layers().relative_bops(np.ones(9, dtype=bool), {}, {})


def test_fixed_elements_always_live():
    model = CostModel([OperatorCost("a", "a", "linear", Extent(2, (ids(-1, 0, 1, 1, -1), CONV2 - 4)))], [], 6)
    assert model.evaluate(np.zeros(6, dtype=bool)).macs == 0  # CONV2 has no fixed element
    assert model.evaluate(alive_without(1, n_groups=6)).macs == 2 * 3 * 5
