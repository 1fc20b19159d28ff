"""How a tensor's numbers are coded: plain data, read off a quantizer and given to the next one."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.quantizers import ActivationQuantizer, WeightQuantizer
from geta_nb.subnet.formats import WeightFormat, set_format, weight_format
from tests.small_nets import IMAGES, ROWS, assert_same, cnn, evaluate, every_third, leaves
from tests.zoo import laws

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [4.0, 0.25, -3.0]])
FORMS = {
    "tensor": WeightFormat(4, 0.5, 3.5, 1.25),
    "channels": WeightFormat(4, (0.5, 0.25), (3.5, 1.75), 1.25, axis=0),
    "unsigned": WeightFormat(4, 0.5, 7.5, 1.0, signed=False),
    "one code lower": WeightFormat(4, 0.5, 3.5, 1.0, narrow_range=False),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_format_copies_pickles_compares_and_is_json(form: WeightFormat) -> None:
    assert copy.deepcopy(form) == form == pickle.loads(pickle.dumps(form)) and hash(copy.deepcopy(form)) == hash(form)
    assert json.loads(json.dumps(asdict(form)))["bits"] == 4


@pytest.mark.parametrize("narrow_range", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_quantizer_takes_over_the_numbers_and_codes_that_it_gave(axis: int | None, narrow_range: bool) -> None:
    first = WeightQuantizer.for_weight(WEIGHT, initial_bits=5, axis=axis, narrow_range=narrow_range)
    second = WeightQuantizer.for_weight(torch.ones(2, 3), initial_bits=5, axis=axis, narrow_range=not narrow_range)
    with torch.no_grad():
        first.exponent.fill_(1.25)
    form = weight_format(first)
    assert form.axis == axis and form.channels == (1 if axis is None else WEIGHT.shape[axis])
    assert set_format(second, form) and second.kind == first.kind == (form.signed, form.narrow_range)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert form.steps(WEIGHT).broadcast_to(WEIGHT.shape).shape == WEIGHT.shape
    assert torch.equal(form.steps(WEIGHT).flatten(), first.step_size.detach().flatten())


def test_numbers_without_a_place_change_nothing() -> None:
    form = weight_format(WeightQuantizer.for_weight(WEIGHT, axis=0))
    for weight, axis in ((WEIGHT, None), (WEIGHT, 1), (WEIGHT.t(), 0)):
        quantizer = WeightQuantizer.for_weight(weight, axis=axis)
        before = copy.deepcopy(quantizer.state_dict())
        assert not set_format(quantizer, form)
        assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_one_number_is_given_to_all_channels() -> None:
    quantizer = WeightQuantizer.for_weight(WEIGHT, axis=0)
    assert set_format(quantizer, FORMS["tensor"])
    assert quantizer.step_size.flatten().tolist() == [0.5, 0.5] and quantizer.exponent.item() == 1.25


def test_a_single_channel_is_the_whole_tensor() -> None:
    assert weight_format(WeightQuantizer.for_weight(WEIGHT[:1], axis=0)).axis is None


def test_only_the_channels_that_stay_are_in_the_format() -> None:
    form = weight_format(WeightQuantizer.for_weight(WEIGHT.t(), axis=0), lambda number: number[1:])
    assert form.channels == 2 and form.clip_max == (2.0, 3.0)


def test_an_input_without_a_sign_says_so() -> None:
    quantizer = ActivationQuantizer(torch.zeros(()), signed=False)
    quantizer.set_range(1.5, 2)
    assert weight_format(quantizer) == WeightFormat(2, 0.5, 1.5, 1.0, signed=False)


@pytest.mark.parametrize("narrow", [(True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_second_compression_starts_from_the_very_same_codes_whatever_it_is_asked_for(granularity: str, narrow: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"activations": True, "granularity": granularity}
    geta = gt.GETA(cnn().eval(), IMAGES, quantize=gt.QuantConfig(initial_bits=4, narrow_range=narrow[0], **options))
    geta.calibrate([IMAGES])
    assert geta.quantizers is not None
    with torch.no_grad():
        for weight in geta.quantizers.weights.values():  # a learned range: what lies below it counts
            weight.set_range(0.6 * weight.clip_max)
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    values = {name: subnet.get_parameter(name).detach().clone() for name in subnet.geta_info.formats}
    lowest = min(float((values[name] / form.steps(values[name])).min().round()) for name, form in subnet.geta_info.formats.items())
    assert lowest == (-7 if narrow[0] else -8)
    again = gt.GETA(subnet, IMAGES, quantize=gt.QuantConfig(narrow_range=narrow[1], **options))
    assert again.quantizers is not None
    for name, value in values.items():
        quantizer = again.quantizers.weights[again.quantizers.parameter_layer[name]]
        assert_same([quantizer(value)], [value])
    assert all(q.narrow_range is narrow[0] for q in (*again.quantizers.weights.values(), *again.quantizers.activations.values()))
    with torch.no_grad():  # the trace shows those codes too
        assert_same(leaves(again.trace.module(IMAGES)), evaluate(again.model, IMAGES), atol=2e-6)
    laws.check_same_graph(again)


@pytest.mark.parametrize("second", ["tensor", "channel"])
@pytest.mark.parametrize("first", ["tensor", "channel"])
def test_a_second_compression_starts_from_the_same_values_or_a_fresh_range(first: str, second: str) -> None:
    torch.manual_seed(0)
    geta = gt.GETA(cnn().eval(), IMAGES, quantize=gt.QuantConfig(activations=True, granularity=first, initial_bits=4))
    geta.calibrate([IMAGES])
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    before = evaluate(subnet, IMAGES)
    again = gt.GETA(subnet, IMAGES, quantize=gt.QuantConfig(activations=True, granularity=second))
    fresh = (first, second) == ("channel", "tensor")
    assert set(again.bit_widths().values()) == ({16} if fresh else {4})
    # fresh 16 bits are off by half a step, 2**-16 of the largest weight, and a code of an input may fall the other way: 2**-4 of its range
    assert_same(evaluate(again.model, IMAGES), before, atol=0.2 if fresh else 2e-6)
    again.mask([0])
    assert_same(evaluate(again.construct_subnet(), IMAGES), evaluate(again.model, IMAGES), atol=2e-6)


def test_a_bias_that_takes_over_a_constant_has_no_format_it_left() -> None:
    """A bias of two axes is a matrix that a product reads, and so quantized; with a constant added it is on no grid."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.matrix, self.bias = nn.Linear(6, 8), nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, torch.sigmoid(self.first(x)), self.matrix)

    torch.manual_seed(0)
    geta = gt.GETA(Shifted(), ROWS, quantize=gt.QuantConfig(initial_bits=3))
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    assert_same(evaluate(subnet, ROWS), evaluate(geta.model, ROWS), atol=1e-5)
    for name, form in subnet.geta_info.formats.items():
        codes = subnet.get_parameter(name).detach() / form.step_size
        assert (codes - codes.round()).abs().max() < 1e-4, name
