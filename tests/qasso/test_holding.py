"""Averaged weights: an average of a run, loaded into the trained model or kept beside it, is held to what the run reached."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import geta_nb as gt
from geta_nb.errors import GetaWarning, InputError, RunStateError

STEPS = 60


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def trained(average=None, **config):
    """A finished run, its optimizer, an average of all of its steps, and the data."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    geta = gt.GETA(net(), x, quantize=gt.QuantConfig(activations=True, **config))
    geta.calibrate([x])
    options = {"budget": gt.Budget(0.5, bit_range=(4, 16), activation_bit_range=(5, 16)), "schedule": gt.Schedule.for_steps(STEPS)}
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, **options)
    averaged = AveragedModel(geta.model, multi_avg_fn=average or get_ema_multi_avg_fn(0.9), use_buffers=average is None)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(geta.model(x), y).backward()
        optimizer.step()
        averaged.update_parameters(geta.model)
    return geta, optimizer, averaged, x


def masks(model: nn.Module) -> list[torch.Tensor]:
    return [model[i].weight.detach().flatten(1).abs().sum(1) == 0 for i in (0, 3)]


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("average", [None, get_swa_multi_avg_fn()], ids=["EMA", "SWA"])
def test_loaded_averages_are_dense_and_said_to_be_until_they_are_held(average, granularity):
    geta, optimizer, averaged, x = trained(average, granularity=granularity)
    gone, bits, input_bits = masks(geta.model), geta.bit_widths(), geta.activation_bit_widths()
    geta.model.load_state_dict(averaged.module.state_dict())
    weights = {name: p.detach().clone() for name, p in geta.model.named_parameters()}
    with pytest.warns(GetaWarning, match=r"10 of the 10 groups that went are not zero[\s\S]*optimizer\.hold\(\)"):
        geta.construct_subnet()
    optimizer.hold()
    assert all(torch.equal(*pair) for pair in zip(masks(geta.model), gone, strict=True))
    assert geta.bit_widths() == bits and geta.activation_bit_widths() == input_bits
    for name, p in geta.model.named_parameters():  # what lives is the average
        assert name.endswith("step_size") or bool(((p == weights[name]) | (p == 0)).all()), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subnet = geta.construct_subnet()
    report = geta.report(subnet).to_dict()
    assert report["group_sparsity"] == report["target_group_sparsity"] == 0.5 and set(report["bit_widths"].values()) == {4}
    torch.testing.assert_close(subnet.eval()(x), geta.model.eval()(x), rtol=1e-4, atol=1e-5)


def test_an_average_beside_the_run_is_held_too_and_the_run_stays():
    geta, optimizer, averaged, _ = trained()
    before = {name: value.clone() for name, value in geta.model.state_dict().items()}
    optimizer.hold(averaged)
    assert all(torch.equal(value, before[name]) for name, value in geta.model.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(masks(averaged.module), masks(geta.model), strict=True))
    other = copy.deepcopy(averaged.module)
    geta.model.load_state_dict(other.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geta.construct_subnet()


def test_holding_a_run_that_is_held_changes_nothing():
    geta, optimizer, _, x = trained()
    before, out = {name: value.clone() for name, value in geta.model.state_dict().items()}, geta.model.eval()(x)
    optimizer.hold()
    assert all(torch.equal(value, before[name]) for name, value in geta.model.state_dict().items())
    assert torch.equal(geta.model(x), out)


def test_before_bits_are_fixed_they_are_put_into_their_range():
    geta = gt.GETA(net(), torch.randn(2, 3, 8, 8))
    optimizer = geta.qasso(torch.optim.SGD, lr=1e-2, budget=gt.Budget(0.5, bit_range=(4, 8)), schedule=gt.Schedule.for_steps(STEPS))
    assert set(geta.bit_widths().values()) == {16}
    optimizer.hold()
    assert all(4 <= bits <= 8.001 for bits in geta.bit_widths().values())


def test_ranges_that_no_run_left_are_put_where_a_width_exists():
    geta, optimizer, _, x = trained()
    with torch.no_grad():
        geta.quantizers.weights["0"].clip_max.fill_(-1)
        geta.quantizers.weights["3"].exponent.fill_(-2)
    optimizer.hold()
    assert set(geta.bit_widths().values()) == {4} and bool(geta.model.eval()(x).isfinite().all())


def test_a_sign_that_training_found_is_an_averages_too():
    geta, optimizer, averaged, _ = trained()
    for quantizer, other in zip(geta.quantizers.activations.values(), [averaged.module[3], averaged.module[7]], strict=False):
        quantizer.set_signed(not other.input_quantizer.signed)
    optimizer.hold(averaged)
    pairs = zip(geta.quantizers.activations, geta.quantizers.activations.values(), strict=True)
    assert all(averaged.module.get_submodule(layer).input_quantizer.signed == quantizer.signed for layer, quantizer in pairs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (net, r"without quantizers[\s\S]*0, 3, 7"), (lambda: net()[:4], r"not a copy[\s\S]*7\.weight"),
        (lambda: nn.Sequential(nn.Conv2d(3, 9, 3)), r"at: +0\.weight[\s\S]*shape \(8, 3, 3, 3\)[\s\S]*shape \(9, 3, 3, 3\)"),
        (lambda: "ema", "no model"),
    ],
    ids=["dense", "shorter", "wider", "no model"],
)  # fmt: skip
def test_another_model_is_refused_and_stays(make, message):
    _, optimizer, _, _ = trained()
    other = make()
    before = copy.deepcopy(other)
    with pytest.raises(InputError, match=message):
        optimizer.hold(other)
    if isinstance(other, nn.Module):
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), before.parameters(), strict=True))


def test_a_pruned_only_run_is_held():
    geta = gt.GETA(net(), torch.randn(2, 3, 8, 8), quantize=None)
    optimizer = geta.qasso(torch.optim.SGD, lr=1e-2, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(20))
    x, dense = torch.randn(4, 3, 8, 8), {name: value.clone() for name, value in geta.model.state_dict().items()}
    for _ in range(20):
        optimizer.zero_grad()
        geta.model(x).square().mean().backward()
        optimizer.step()
    geta.model.load_state_dict(dense)
    with pytest.warns(GetaWarning, match="10 of the 10 groups"):
        geta.construct_subnet()
    optimizer.hold()
    assert geta.group_sparsity() == 0.5


@pytest.mark.parametrize("name", ["budget", "schedule"])
def test_a_budget_or_schedule_that_comes_too_late_is_refused(name):
    geta = gt.GETA(net(), torch.randn(2, 3, 8, 8))
    schedule = gt.Schedule.for_steps(STEPS)
    optimizer = geta.qasso(torch.optim.SGD, lr=1e-2, budget=gt.Budget(0.5), schedule=schedule)
    with pytest.raises(RunStateError, match=rf"its {name} is fixed[\s\S]*geta\.qasso\(\.\.\., {name}=\.\.\.\)"):
        setattr(optimizer, name, gt.Budget(0.9) if name == "budget" else gt.Schedule.for_steps(10))
    assert optimizer.budget == gt.Budget(0.5) and optimizer.schedule == schedule
    assert copy.deepcopy(optimizer).budget == gt.Budget(0.5)
