"""Scores: what they do not depend on, what they rank, and the two laws of forgetting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from geta_nb.errors import ConfigError
from geta_nb.qasso.forgetting import split_quantized, uniform_rate
from geta_nb.qasso.members import Members, Products, Segments
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.saliency import fisher_scores, paper_scores, taylor_scores
from geta_nb.quantizers.fake_quant import fake_quantize
from tests.qasso.nets import compress, mixed_table

ALL = torch.ones(4, dtype=torch.bool)
FAMILIES = tensor([0, 0, 1, 1])


def test_a_family_that_has_lost_groups_is_spared():
    alive = tensor([True, False, True, True])
    scores = taylor_scores(tensor([2.0, 0.0, 2.0, 2.0]), FAMILIES, alive, 2, 0.5)
    assert scores[2] == 1  # nothing lost
    assert abs(float(scores[0]) - 2**0.5) < 1e-6  # one of two lives; one rounding of float32 in sqrt and division


def test_scale_of_a_family_does_not_matter_to_the_default_score():
    small = taylor_scores(tensor([1.0, 3.0, 2.0, 4.0]), FAMILIES, ALL, 2)
    large = taylor_scores(tensor([1.0, 3.0, 2000.0, 4000.0]), FAMILIES, ALL, 2)
    # two divisions in float32: a few ulp
    torch.testing.assert_close(small, large, rtol=1e-6, atol=0)
    torch.testing.assert_close(small, tensor([0.5, 1.5, 2 / 3, 4 / 3]), rtol=1e-6, atol=0)


def test_the_mean_of_a_family_counts_living_groups_only():
    alive = tensor([True, True, True, False])
    assert taylor_scores(tensor([1.0, 3.0, 2.0, 4.0]), FAMILIES, alive, 2)[2] == 1


def test_a_family_of_zeros_scores_zero_and_not_nan():
    assert taylor_scores(tensor([0.0, 0.0, 1.0, 1.0]), FAMILIES, ALL, 2).tolist() == [0, 0, 1, 1]


def test_the_sign_of_the_average_does_not_matter():
    average = tensor([1.0, -3.0, 2.0, -4.0])
    assert torch.equal(taylor_scores(average, FAMILIES, ALL, 2), taylor_scores(-average, FAMILIES, ALL, 2))


def test_the_root_of_mean_squares_is_shared_out_as_the_mean_is():
    values, alive = tensor([1.0, 3.0, 2.0, 4.0]), tensor([True, True, True, False])
    assert torch.equal(fisher_scores(values.square(), FAMILIES, alive, 2, 0.5), taylor_scores(values, FAMILIES, alive, 2, 0.5))


@pytest.mark.parametrize(("saliency", "first"), [("fisher", "steady"), ("taylor", "alternating")])
def test_a_group_whose_products_alternate_in_sign_is_unimportant_only_to_the_average_with_signs(saliency, first, monkeypatch):
    pruner = compress("mixed", rules=Rules(saliency=saliency, sparing=0.0)).optimizer.pruner
    alternating, steady = 0, 1  # two groups of one family
    assert pruner.members.family_of[alternating] == pruner.members.family_of[steady]
    begin = pruner.schedule.joint_begin
    for step in range(begin - pruner.rules.window, begin):
        products = torch.ones(13)
        products[alternating], products[steady] = 4.0 * (-1) ** step, 0.5
        found = Products(products, products.sum(), frozenset())
        monkeypatch.setattr(Members, "products", lambda _, found=found: found)
        pruner.observe(step)
        pruner.before(step)
    scores = pruner.scores()
    lowest = {alternating: "alternating", steady: "steady"}[min((alternating, steady), key=lambda group: float(scores[group]))]
    assert lowest == first


def test_the_papers_score_is_the_mean_of_five_shares():
    xx, gg, xg, size = tensor([4.0, 16.0]), tensor([1.0, 1.0]), tensor([2.0, -4.0]), tensor([4, 16])
    scores = paper_scores(xx, gg, xg, size, torch.ones(2, dtype=torch.bool))
    # by hand: |x| 2, 4; |x|/sqrt(size) 1, 1; cos+1 2, 0; |<x,g>| 2, 4; <x,g>^2/2 2, 8; each over its sum
    expected = [np.mean([2 / 6, 1 / 2, 1, 2 / 6, 2 / 10]), np.mean([4 / 6, 1 / 2, 0, 4 / 6, 8 / 10])]
    torch.testing.assert_close(scores, tensor(expected, dtype=torch.float32), rtol=1e-6, atol=0)


def test_the_papers_score_of_a_dead_group_is_no_nan():
    zeros = torch.zeros(2)
    assert paper_scores(zeros, zeros, zeros, tensor([1, 1]), torch.ones(2, dtype=torch.bool)).isfinite().all()


def test_group_sums_count_every_producing_element_once():
    run = compress("mixed")
    members = Members(mixed_table(), dict(run.model.named_parameters()))
    sums = members.sums([torch.ones_like(t) for t in members.tensors])
    # two rows of five and two biases a head; four taps of two and a bias a transposed filter
    assert sums.tolist() == [12.0] * 6 + [9.0] * 7


def test_inner_products_agree_with_a_loop_over_groups():
    run = compress("mixed", double=True)
    run.train(1)
    tensors = dict(run.model.named_parameters())
    members = Members(mixed_table(), tensors)
    by_hand = np.zeros(13)
    for entry in mixed_table().axis_maps:
        if entry.producing:
            product = (tensors[entry.parameter] * tensors[entry.parameter].grad).detach().movedim(entry.axis, 0)
            for group, part in zip(entry.group_of_index, product, strict=True):
                by_hand[group] += float(part.sum())
    # the same float64 terms in another order
    np.testing.assert_allclose(members.inner_products().numpy(), by_hand, rtol=1e-10, atol=1e-14)


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_segments_add_up_what_belongs_to_them(ids):
    values = torch.arange(len(ids), dtype=torch.float64)
    expected = [float(values[[i for i, s in enumerate(ids) if s == segment]].sum()) for segment in range(5)]
    assert Segments(torch.tensor(ids, dtype=torch.int64), 5).sum(values).tolist() == expected


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_elements_are_the_rows_of_the_chosen_groups_in_any_memory_layout(memory_format):
    run = compress("convolutional")
    tensors = {n: p.detach().to(memory_format=memory_format) if p.ndim == 4 else p.detach() for n, p in run.model.named_parameters()}
    members = Members(run.table, tensors)
    chosen = torch.zeros(14, dtype=torch.bool)
    chosen[[2, 9]] = True
    elements = members.elements(chosen, {"conv2.weight": 1})
    assert len(elements) == 27 + 3 + 54 + 1 and elements.n_quantized == 54
    elements.put(torch.zeros_like(elements.take()))
    assert not tensors["conv1.weight"][2].any() and not tensors["conv2.weight"][3].any() and not tensors["norm.bias"][2].any()
    assert tensors["conv1.weight"][[0, 1, 3, 4, 5]].all() and tensors["conv2.weight"][[0, 1, 2, 4, 5, 6, 7]].all()


@given(st.integers(1, 30))
def test_uniform_forgetting_leaves_equal_portions_and_then_nothing(length):
    left = 1.0
    for k in range(length):
        left *= 1 - uniform_rate(k, length)
        assert left == pytest.approx((length - k - 1) / length, abs=1e-12)  # some thirty float64 products
    assert left == 0


@settings(max_examples=50)
@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0.7, 1.5))
def test_the_quantized_value_is_c_plus_d_times_r(step, clip, exponent):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    d, q, t = (tensor(v, dtype=torch.float64) for v in (step, clip, exponent))
    c, residual = split_quantized(x, d.expand(41), q.expand(41), t.expand(41))
    # one rounding of c, d R and their sum, all below 4 ** 1.5
    torch.testing.assert_close(c + d * residual, fake_quantize(x, d, q, t), rtol=0, atol=1e-13)


def test_rules_know_two_presets_and_refuse_other_names():
    assert (Rules().saliency, Rules().forgetting) == ("fisher", "uniform")
    assert (Rules.preset("paper").saliency, Rules.preset("paper").forgetting) == ("paper", "paper")
    assert (Rules.preset("paper").refit, Rules.preset("paper").tie) == (False, "never")
    assert Rules.of("paper", "taylor", None) == Rules(saliency="taylor", forgetting="paper", refit=False, tie="never")
    with pytest.raises(ConfigError, match="no such preset"):
        Rules.preset("papers")
    for bad in (
        {"saliency": "magnitude"}, {"forgetting": "none"}, {"tie": "loose"}, {"average_decay": 1.0}, {"weight_counts": 0.0},
        {"input_counts": True}, {"eta": 2}, {"shrink": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Rules(**bad)
