"""Ranges come from data: small error at 16 bits, outliers weighed at few, clear refusals, and nothing else of the model changes."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from geta_nb.config import QuantConfig
from geta_nb.errors import CalibrationError, InputError, NonFiniteError
from geta_nb.quantizers.calibration import calibrate
from geta_nb.quantizers.modules import ActivationQuantizer
from geta_nb.quantizers.prepare import attach_quantizers
from tests.zoo.catalogue import ZOO

BOTH = QuantConfig(activations=True)
SIGNED = QuantConfig(activations=True, signed=True)


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    )


IMAGES = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.mark.parametrize("net", ["bert_sdpa", "vgg7"])
def test_defect_11_sixteen_bits_everywhere_change_the_output_by_less_than_a_thousandth(net):
    entry = ZOO[net]
    model, args, kwargs = entry.build(), entry.inputs(2), entry.kwargs(2)
    with torch.no_grad():
        before = first_tensor(model(*args, **kwargs))
        quantizers = attach_quantizers(model, BOTH)
        assert calibrate(model, quantizers, [args], kwargs) == ()
        error = float((first_tensor(model(*args, **kwargs)) - before).norm() / before.norm())
        assert error < 1e-3
        # the defect: ranges that start from the weight's maximum
        for layer, quantizer in quantizers.activations.items():
            quantizer.set_range(quantizers.weights[layer].clip_max)
        assert float((first_tensor(model(*args, **kwargs)) - before).norm() / before.norm()) > 10 * error


def first_tensor(output):
    return output if isinstance(output, torch.Tensor) else next(iter(output.values() if hasattr(output, "values") else output))


def test_an_input_that_is_always_zero_gets_a_usable_range():
    model = nn.Sequential(nn.Linear(3, 3))
    quantizers = attach_quantizers(model, BOTH)
    assert calibrate(model, quantizers, [torch.zeros(2, 3)]) == ()
    assert quantizers.activations["0"].clip_max.item() == 1 and bool(model(torch.randn(2, 3)).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_range_is_the_largest_input_and_the_bits_are_the_initial_ones(dtype):
    model = nn.Sequential(nn.Linear(3, 3)).to(dtype)
    quantizers = attach_quantizers(model, QuantConfig(activations=True, initial_bits=12))
    calibrate(model, quantizers, [torch.tensor([[1.0, -2.5, 0.0]], dtype=dtype), (torch.tensor([[0.5, 0.5, 1.5]], dtype=dtype),)])
    quantizer = quantizers.activations["0"]
    assert quantizer.clip_max.item() == 2.5 and float(quantizer.bit_width()) == pytest.approx(12, abs=1e-5)


def test_activations_are_observed_as_they_are_and_weights_as_they_will_be():
    seen = []
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    quantizers = attach_quantizers(model, QuantConfig(activations=True, initial_bits=2))
    model[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.randn(4, 3)
    expected = nn.functional.linear(x, model[0].weight, model[0].bias)
    calibrate(model, quantizers, [x])
    assert torch.equal(seen[0], expected)  # at 2 bits a quantized input would differ


def test_everything_but_the_ranges_is_as_before():
    model = small_cnn().train()
    quantizers = attach_quantizers(model, BOTH)
    model[1].eval()
    modes = [m.training for m in model.modules()]
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    calibrate(model, quantizers, iter(IMAGES))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)  # no dropout was drawn
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, state[name])}
    ranges = {f"{layer}.input_quantizer.{part}" for layer in ("0", "4", "6") for part in ("clip_max", "step_size")}
    assert changed == {*ranges, "4.input_quantizer.has_sign"}  # behind a ReLU
    assert all(p.grad is None for p in model.parameters()) and all(q.observer is None for q in quantizers.activations.values())
    model(IMAGES[0]).sum().backward()


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], InputError, "there are no batches"),
        (IMAGES[0], InputError, r"calibrate\(\[batch\]\)"),
        ([IMAGES[0], torch.randn(2, 4)], InputError, "batch 1"),
        ([IMAGES[0], (IMAGES[0], 3)], InputError, "TypeError"),
        ([IMAGES[0], IMAGES[0] * math.nan], InputError, "NaN in a batch"),
        ([IMAGES[0], IMAGES[0] + math.inf], NonFiniteError, r"at: +0\n"),
        ([{"wrong": IMAGES[0]}], InputError, "wrong"),
    ],
)
def test_batches_that_cannot_serve_are_refused_and_change_nothing(batches, error, message):
    model = small_cnn()
    model[1].eval()
    quantizers = attach_quantizers(model, BOTH)
    modes, state = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        calibrate(model, quantizers, batches)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(q.calibrated or q.observer for q in quantizers.activations.values())
    with pytest.raises(CalibrationError):
        model(IMAGES[0])


def test_an_error_of_the_batches_themselves_passes_through():
    def broken():
        yield IMAGES[0]
        raise OSError("disk")

    model = small_cnn()
    quantizers = attach_quantizers(model, BOTH)
    with pytest.raises(OSError, match="disk"):
        calibrate(model, quantizers, broken())
    assert model.training and not any(q.observer for q in quantizers.activations.values())


def test_a_layer_that_no_batch_calls_is_reported_and_stays_uncalibrated():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.by_hand = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x, scale=1.0):
            return nn.functional.linear(self.used(x), self.by_hand.weight) * scale

    model = Partly()
    quantizers = attach_quantizers(model, BOTH)
    assert calibrate(model, quantizers, [{"x": torch.ones(2, 3)}], {"scale": 2.0}) == ("unused", "by_hand")
    model(torch.ones(2, 3))
    with pytest.raises(CalibrationError, match="unused"):
        model.unused(torch.ones(2, 3))
    only = attach_quantizers(nn.Linear(2, 2), QuantConfig())
    assert calibrate(nn.Linear(2, 2), only, [torch.ones(1, 2)]) == ()  # no activation quantizers: nothing to do


def test_the_fast_path_of_a_transformer_layer_does_not_hide_its_inputs():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    quantizers = attach_quantizers(model, BOTH)
    assert calibrate(model, quantizers, [torch.randn(2, 4, 8)]) == ("self_attn.out_proj",)  # attention reads that weight by itself


@pytest.mark.parametrize(("config", "signs"), [(BOTH, [True, False]), (SIGNED, [True, True])], ids=["auto", "signed"])
def test_inputs_that_were_never_negative_need_no_sign_unless_all_are_to_have_one(config, signs):
    model = nn.Sequential(nn.Linear(2, 2), nn.Softplus(), nn.Linear(2, 2))
    quantizers = attach_quantizers(model, config)  # no graph here that would tell
    calibrate(model, quantizers, [torch.tensor([[1.0, -0.5]])])
    found = list(quantizers.activations.values())
    assert [q.signed for q in found] == [bool(q.has_sign) for q in found] == signs
    assert all(float(q.bit_width()) == pytest.approx(16, abs=1e-4) for q in found)
    twin = nn.Sequential(nn.Linear(2, 2), nn.Softplus(), nn.Linear(2, 2))
    again = attach_quantizers(twin, config)
    twin.load_state_dict(model.state_dict())
    assert [q.signed for q in again.activations.values()] == signs


def test_a_state_from_before_there_were_unsigned_quantizers_loads_as_signed():
    model = nn.Sequential(nn.Linear(2, 2))
    quantizer = attach_quantizers(model, BOTH).activations["0"]
    quantizer.set_range(1.0)
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("has_sign")}
    quantizer.set_signed(False)
    model.load_state_dict(state)
    assert quantizer.signed and bool(quantizer.has_sign)


def test_calibrating_again_starts_from_the_new_data():
    model = nn.Sequential(nn.Linear(2, 2))
    quantizers = attach_quantizers(model, BOTH)
    for largest in (4.0, 0.5):
        calibrate(model, quantizers, [torch.tensor([[largest, 0.1], [-0.1, 0.2]])])
        assert quantizers.activations["0"].clip_max.item() == largest


def test_one_module_under_many_names_counts_all_of_its_calls():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    quantizers = attach_quantizers(model, BOTH)
    with torch.no_grad():
        shared.parametrizations.weight.original.copy_(3 * torch.eye(2))
        shared.bias.zero_()
        shared.parametrizations.weight[0].set_range(3.0)
    calibrate(model, quantizers, [torch.tensor([[1.0, 0.5]])])
    (quantizer,) = quantizers.activations.values()
    assert isinstance(quantizer, ActivationQuantizer) and quantizer.clip_max.item() == pytest.approx(3, rel=1e-4)
    assert list(itertools.chain(quantizers.activations)) == ["0"]
