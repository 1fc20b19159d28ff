"""What the baselines are given beyond their papers: starts and ranges of least squared error, no code for a sign that is never there."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from geta_nb.baselines import bayesian_bits, djpq, lsq, minmax, narrow
from geta_nb.baselines.attach import MOST, SHARES, layer_inputs, least_error, quantize_layers
from geta_nb.baselines.gates import own_parameters
from geta_nb.baselines.space import Space
from geta_nb.baselines.task import eval_mode
from geta_nb.config import QuantConfig
from geta_nb.errors import InputError
from geta_nb.quantizers import attach_quantizers, calibrate
from tests.baselines.test_methods import small_net, space, task  # noqa: F401


def squared(x: torch.Tensor, out: torch.Tensor) -> float:
    return float((x - out).detach().double().square().sum())


def bell(count: int = 4000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_the_share_of_least_error_is_the_best_candidate_and_of_equals_the_widest():
    tried = []

    def rounded(x: torch.Tensor, share: float) -> torch.Tensor:
        tried.append(share)
        return x * (1 - abs(share - 0.5))

    assert abs(least_error(bell(), rounded) - 0.5) < 1e-9  # 2**-1 is one of the candidates
    assert len(tried) == SHARES + 1 and (max(tried), min(tried)) == (1, 2**-6)
    assert least_error(bell(), lambda x, _: x) == 1


def test_a_large_tensor_is_looked_at_in_part():
    seen = []
    least_error(torch.zeros(3, MOST), lambda x, _: seen.append(len(x)) or x)
    assert set(seen) == {MOST}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_no_step_rounds_much_better_than_the_fitted_one(bits, signed):
    x = bell() if signed else bell().relu()
    fitted = lsq.LSQ(x, bits, 1, start="error")
    error = squared(x, fitted(x))
    assert error <= squared(x, lsq.LSQ(x, bits, 1)(x))
    for factor in torch.logspace(-2, 2, 200, base=2).tolist():
        other = lsq.LSQ(x, bits, 1)
        with torch.no_grad():
            other.step.copy_(fitted.step * factor)
        # candidates are 7 % apart, and near its bottom the error is flat: a step off by h loses a share of order h**2
        assert error <= 1.05 * squared(x, other(x))


def test_an_unknown_start_or_range_is_refused():
    with pytest.raises(InputError, match=r"no such start(?s:.*)'paper' or 'error'"):
        lsq.LSQ(bell(), 3, 1, start="least")
    with pytest.raises(InputError, match=r"no such ranges(?s:.*)'extremes' or 'error'"):
        minmax.rounding(bell(), 3, "least")


def test_both_ends_of_a_rounding_shrink_by_one_factor_and_round_less_wrongly():
    x = torch.cat([bell() + 0.5, torch.tensor([30.0])])
    plain, fitted = (minmax.rounding(x, 4, ranges) for ranges in minmax.RANGES)
    assert (plain.low, plain.high) == (float(x.min()), 30)
    assert fitted.high < 15 and fitted.low / plain.low == pytest.approx(fitted.high / plain.high)
    assert squared(x, fitted(x)) < squared(x, plain(x))


def test_a_rounding_of_what_is_never_negative_has_all_its_codes_above_zero():
    x = torch.linspace(0, 3, 100)
    for ranges in minmax.RANGES:
        levels = minmax.rounding(x, 2, ranges)(x).unique()
        assert len(levels) == 4 and levels[0] == 0


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_the_range_of_decided_gates_is_refitted_at_their_bits(bits, signed):
    x = bell() if signed else bell().relu()
    gates = bayesian_bits.BitGates(x)
    gates.fix(bits)
    before = squared(x, gates(x))
    gates.refit(x)
    assert squared(x, gates(x)) < before
    assert 0 < float(gates.limit.detach()) < float(x.abs().max())
    assert len(gates(x).unique()) <= 2**bits


def test_what_is_seen_raw_has_not_passed_the_layers_own_quantizer():
    model = nn.Sequential(nn.Linear(3, 3))
    quantize_layers(model, ["0"], inputs=lambda _: minmax.MinMax(0.0, 1.0, 1))
    x = torch.rand(4, 3)
    assert torch.equal(layer_inputs(model, ["0"], x, raw=True)["0"], x)
    assert set(layer_inputs(model, ["0"], x)["0"].unique().tolist()) <= {0, 1}


@pytest.fixture
def attached(task):  # noqa: F811
    model = small_net()
    found = attach_quantizers(model, QuantConfig(activations=True, initial_bits=8))
    djpq.drop_signs(model, found, task.calibration)
    calibrate(model, found, task.calibration.split(64))
    return model, found


def test_djpq_spends_no_bit_on_a_sign_that_is_never_there(attached, task):  # noqa: F811
    model, found = attached
    signs = {layer: quantizer.signed for layer, quantizer in found.activations.items()}
    assert signs == {"conv1": True, "conv2": False, "hidden": False, "classes": False}
    for quantizer in found.activations.values():
        assert float(djpq.learned_bits(quantizer).detach()) == pytest.approx(8, abs=1e-4)
        djpq.hold_bits(quantizer, 3, 3)
        assert float(djpq.learned_bits(quantizer).detach()) == pytest.approx(3, abs=1e-4)
    seen = layer_inputs(model, found.activations, task.calibration)
    assert len(seen["conv2"].unique()) == 2**3 and float(seen["conv2"].min()) == 0
    assert float(seen["conv1"].min()) < 0 and len(seen["conv1"].unique()) < 2**3


def test_djpq_fits_its_ranges_anew_at_the_bits_it_decided(attached, task):  # noqa: F811
    model, found = attached
    weights = (found.weights, dict.fromkeys(found.weights, 3.0))
    inputs = (found.activations, dict.fromkeys(found.activations, 3.0))
    for table, bits in (weights, inputs):
        for layer, quantizer in table.items():
            djpq.hold_bits(quantizer, bits[layer], bits[layer])
    own = own_parameters(model)

    def errors() -> list[float]:
        with eval_mode(model):
            first = [squared(own[f"{layer}.weight"], quantizer(own[f"{layer}.weight"])) for layer, quantizer in found.weights.items()]
            return [*first, squared(task.calibration, found.activations["conv1"](task.calibration))]

    before = errors()
    djpq.refit_ranges(model, weights, inputs, task.calibration)
    assert all(after < old for after, old in zip(errors(), before, strict=True))
    for table in (found.weights, found.activations):
        assert all(float(q.bit_width()) == pytest.approx(3, abs=1e-4) for q in table.values())


@pytest.mark.parametrize("method", [bayesian_bits, djpq])
def test_refitting_keeps_the_budget_and_the_bits(method, task, space):  # noqa: F811
    short = dataclasses.replace(task, epochs=4)
    result = method.compress(short, 0.02, seed=0, activations=True, space=space, refit=True)
    assert result.relative_bops <= 0.02
    seen = layer_inputs(result.model, result.activation_bits, task.calibration)
    assert all(len(seen[layer].unique()) <= 2**bits for layer, bits in result.activation_bits.items())


def test_options_of_narrow_networks_reach_their_quantizers(task, monkeypatch):  # noqa: F811
    found = []
    monkeypatch.setattr(narrow, "train_quantized", lambda *_, **options: found.append(options))
    short = dataclasses.replace(task, epochs=1)
    build = lambda width: nn.Sequential(nn.Flatten(), nn.Linear(72, max(1, round(8 * width))), nn.Linear(max(1, round(8 * width)), 3))  # noqa: E731
    within = Space(dataclasses.replace(short, build=lambda: build(1.0)))
    narrow.compress(short, 0.5, seed=0, space=within, bits=32, build=build, lr_step=0.5, start="error")
    assert found == [{"seed": 0, "lr_step": 0.5, "start": "error"}]
