"""Bit widths stay where they belong, per layer, for weights and activations alike."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from geta_nb.qasso.projection import CLIP_FLOOR, QuantizerBank
from geta_nb.qasso.steps import levels, project_step_size
from geta_nb.quantizers.fake_quant import bit_width
from geta_nb.quantizers.modules import WeightQuantizer

positive = st.floats(1e-3, 1e3)


def bank(n=2, ranges=((4, 8), (4, 16)), bits=16):
    quantizers = {f"l{i}": WeightQuantizer(tensor(0.5 + i), initial_bits=bits) for i in range(n)}
    return QuantizerBank(dict(list(quantizers.items())[:1]), dict(list(quantizers.items())[1:]), list(ranges)), list(quantizers.values())


@given(st.floats(1e-9, 1e3), positive, st.floats(0.5, 2), st.integers(2, 16), st.integers(0, 16))
def test_projection_lands_in_the_range_and_is_idempotent(step, clip, exponent, low, more):
    d, q, t = (tensor([v], dtype=torch.float64) for v in (step, clip, exponent))
    few, many = levels([low], d), levels([low + more], d)
    once = project_step_size(d, q, t, few, many)
    assert torch.equal(project_step_size(once, q, t, few, many), once)
    # log2 of a float64 quotient: a few ulp of 32 bits, 1e-12 is generous
    assert low - 1e-12 <= float(bit_width(once, q, t)) <= low + more + 1e-12


@given(positive, st.floats(0.5, 2), st.floats(4, 12))
def test_projection_leaves_a_step_inside_the_range_alone(clip, exponent, bits):
    q, t = tensor([clip], dtype=torch.float64), tensor([exponent], dtype=torch.float64)
    d = q**t / (2 ** (bits - 1) - 1)
    # one half bit of room on each side: rounding cannot reach the bounds
    assert torch.equal(project_step_size(d, q, t, levels([3], d), levels([13], d)), d)


def test_each_quantizer_is_projected_to_its_own_range():
    mine, (first, second) = bank()
    mine.constrain()
    # float32 log2 near 16: 1e-5 of a bit
    assert first.bit_width().item() == pytest.approx(8, abs=1e-5)
    assert second.bit_width().item() == pytest.approx(16, abs=1e-5)


def test_frozen_bits_hold_whatever_happens_to_clip_and_exponent():
    mine, (first, second) = bank(bits=6.4)
    mine.freeze(mine.rounded_bits(mine.upper))
    with torch.no_grad():
        first.clip_max.mul_(3)
        second.exponent.mul_(1.2)
    mine.constrain()
    assert mine.frozen == [6, 6]
    assert [q.bit_width().item() for q in (first, second)] == pytest.approx([6, 6], abs=1e-5)


def test_clip_and_exponent_are_kept_where_a_bit_width_exists():
    mine, (first, second) = bank()
    for quantizer in (first, second):
        for parameter in quantizer.parameters():
            parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        first.clip_max.fill_(-1)
        second.exponent.fill_(-5)
    mine.keep_positive()
    mine.constrain()
    assert first.clip_max.item() == pytest.approx(CLIP_FLOOR)
    assert all(4 - 1e-5 <= q.bit_width().item() <= 16 + 1e-5 for q in (first, second))


def test_a_quantizer_that_took_no_step_is_left_alone():
    mine, (first, _) = bank()
    with torch.no_grad():
        first.clip_max.zero_()  # an activation quantizer before calibration
    mine.keep_positive()
    assert first.clip_max.item() == 0


def test_rounding_respects_the_range_and_survives_a_missing_width():
    mine, (first, _) = bank(bits=2.6)
    assert mine.rounded_bits([8, 16]) == [4, 4]
    with torch.no_grad():
        first.clip_max.zero_()
        first.step_size.zero_()
    assert mine.rounded_bits([8, 16]) == [8, 4]


def test_only_what_trains_is_offered_to_the_optimizer():
    quantizer = WeightQuantizer(tensor(1.0), learn_exponent=False)
    mine = QuantizerBank({"l": quantizer}, {}, [(4, 8)])
    assert {id(p) for p in mine.parameters()} == {id(quantizer.step_size), id(quantizer.clip_max)}


def test_a_network_without_quantizers_is_an_empty_bank():
    mine = QuantizerBank({}, {}, [])
    mine.constrain()
    mine.keep_positive()
    mine.freeze([])
    assert mine.bits() == [] and len(mine) == 0
