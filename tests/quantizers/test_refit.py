"""Ranges of least squared error: close to the best of a brute-force search, from a weight, of each channel, and from a histogram."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from geta_nb.quantizers.fake_quant import fake_quantize, step_size
from geta_nb.quantizers.modules import WeightQuantizer
from geta_nb.quantizers.refit import BINS, Histogram, fitted_clip, largest_code

ONE = torch.ones((), dtype=torch.float64)
KINDS = ["normal", "laplace", "relu", "outlier"]


def data(kind, seed, count=4000):
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"normal": x, "laplace": x * x.abs(), "relu": x.relu(), "outlier": torch.cat([x, x[:1] + 100])}[kind]


def error(x, clip, bits, *, signed=True, exponent=ONE):
    """Squared error against what a quantizer with ever finer steps would give out."""
    clip = torch.as_tensor(clip, dtype=torch.float64)
    bent = x.abs().pow(exponent).copysign(x)
    found = fake_quantize(x, step_size(bits, clip, exponent, signed=signed), clip, exponent, signed=signed)
    return float((found - bent).square().sum())


def brute_force(x, bits, **options):
    largest = float(x.abs().max())
    return min(error(x, largest * k / 200, bits, **options) for k in range(1, 201))


def filled(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram(batch)
    return histogram


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.sampled_from([2, 3, 4, 6, 8]), st.sampled_from(KINDS), st.sampled_from([0.7, 1.0, 1.6]))
def test_no_range_of_a_brute_force_search_is_much_better_than_the_fitted_one(seed, bits, kind, t):
    x, exponent = data(kind, seed), t * ONE
    clip = fitted_clip(x, largest_code(bits, signed=True), ONE, exponent)
    assert error(x, clip, bits, exponent=exponent) <= 1.06 * brute_force(x, bits, exponent=exponent)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.sampled_from([2, 3, 4, 6, 8]), st.sampled_from(KINDS), st.booleans())
def test_a_histogram_does_nearly_as_well_as_the_values_themselves(seed, bits, kind, signed):
    x = data(kind, seed) if signed else data(kind, seed).abs()
    clip = filled(*x.split(1000)).fitted_clip(largest_code(bits, signed=signed))
    assert 0 < clip <= float(x.abs().max())
    assert error(x, clip, bits, signed=signed) <= 1.15 * brute_force(x, bits, signed=signed)


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (1, 40), (40, 1)])
@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_gets_the_range_it_would_get_alone(shape, axis):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, shape[axis]).view(
        [-1 if at == axis else 1 for at in range(len(shape))]
    )
    quantizer = WeightQuantizer.for_weight(weight, axis=axis)
    clip = fitted_clip(weight, 3.0, quantizer.clip_max.detach(), torch.ones(()))
    alone = [fitted_clip(part, 3.0, torch.ones(()), torch.ones(())) for part in weight.unbind(axis)]
    torch.testing.assert_close(clip.flatten(), torch.stack(alone))
    assert clip.shape == quantizer.clip_max.shape


def test_where_all_is_zero_the_range_stays():
    clip = torch.tensor([[0.3], [0.4]])
    assert fitted_clip(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), 1.0, clip, torch.ones(())).flatten().tolist() == pytest.approx([0.3, 1.0])
    assert float(fitted_clip(torch.zeros(3, 3), 1.0, torch.tensor(0.7), torch.ones(()))) == pytest.approx(0.7)
    assert filled(torch.zeros(5)).fitted_clip(7.0) == 1.0


def test_sixteen_bits_keep_an_outlier_that_four_bits_give_up():
    x = torch.cat([torch.linspace(-1, 1, 10_001), torch.tensor([40.0])])
    assert filled(x).fitted_clip(largest_code(16, signed=True)) == 40.0
    assert filled(x).fitted_clip(largest_code(4, signed=True)) < 10
    assert float(fitted_clip(x, 7.0, torch.ones(()), torch.ones(()))) < 10


@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20), st.randoms())
@settings(deadline=None)
def test_counts_do_not_depend_on_the_order_in_which_values_of_any_size_come(values, random):
    shuffled = random.sample(values, len(values))
    one, other = (filled(*(torch.tensor([v], dtype=torch.float64) for v in order)) for order in (values, shuffled))
    assert torch.equal(one.counts, other.counts) and torch.equal(one.extremes, other.extremes)
    assert float(one.counts.sum()) == len(values) and float(one.extremes[0]) == max(values)
    assert one.counts.shape == (BINS,)  # memory stays what it was
    assert one.fitted_clip(largest_code(32, signed=True)) == max(values)


def test_what_was_seen_makes_no_difference_between_one_batch_and_many():
    x = torch.randn(64, 10, dtype=torch.float64)
    one, many = filled(x), filled(*x.split(8))
    assert torch.equal(one.counts, many.counts) and torch.equal(one.extremes, many.extremes)


def test_a_large_batch_is_looked_at_in_places():
    histogram = Histogram(most=100)
    histogram(torch.arange(1.0, 10_001.0))
    assert 50 <= float(histogram.counts.sum()) <= 100
    histogram(torch.full((3, 3), -2.0, dtype=torch.bfloat16))
    assert not histogram.never_negative()


def test_values_that_are_no_numbers_break_nothing():
    histogram = filled(torch.tensor([1.0, math.nan, 2.0]))
    assert float(histogram.counts.sum()) == 2 and histogram.never_negative() and 0 < histogram.fitted_clip(3.0) <= 2


@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_forward_that_counts_is_compiled_once():
    histogram, counter = Histogram(most=100), CompileCounter()

    def forward(x):
        histogram(x)
        return x + 1

    compiled = torch.compile(forward, backend=counter)
    for seed in range(4):
        compiled(data("normal", seed).float())
    # the first call writes that it was called, which compiled code does not read
    assert counter.frame_count == 1 and histogram.called
    assert torch.equal(histogram.counts, filled(*(data("normal", seed).float()[::40] for seed in range(4))).counts)
