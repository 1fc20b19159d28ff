"""Runs on networks whose weights are computed from other tensors: weight norm and spectral norm, in torch's new and old form.

In the new form they are quantized behind what computes them, and the subnet has them as plain weights on few bits.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import geta_nb as gt
from geta_nb.quantizers import fitted_clip, parameter_tensors
from tests.zoo.catalogue import randomise
from tests.zoo.computed_nets import WRAPS, net

pytestmark = pytest.mark.filterwarnings("ignore::geta_nb.errors.CollapseWarning")  # nets of six to nine channels a layer
STEPS = 36
NAMES = ["weight_norm", "weight_norm_legacy", "spectral_norm", "spectral_norm_legacy"]


def data():
    torch.manual_seed(1)
    return torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.randint(0, 4, (8,))


def model(name):
    torch.manual_seed(0)
    return randomise(net(WRAPS[name])).double().train()


def optimizer_of(geta, **rules):
    budget = gt.Budget(0.5, bit_range=(4, 16))
    return geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(STEPS), **rules)


def train(geta, optimizer, steps):
    x, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(geta.model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("rules", ["default", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_trains_all_tensors_and_ends_with_exactly_k_zero_groups_and_an_exact_subnet(name, rules, tmp_path):
    geta = gt.GETA(model(name), data()[0])
    optimizer = optimizer_of(geta, rules=rules)
    before = {key: p.detach().clone() for key, p in geta.model.named_parameters()}
    train(geta, optimizer, STEPS)
    trained = [key for key in before if "original" in key or key.endswith(("_g", "_v", "_orig"))]
    assert len(trained) >= 3 and not [key for key in trained if torch.equal(dict(geta.model.named_parameters())[key], before[key])]
    assert optimizer.n_redundant == 15 and int((~optimizer.group_mask).sum()) == 15 and geta.group_sparsity() == 0.5
    assert all(p.isfinite().all() for p in geta.model.parameters())
    bits = geta.bit_widths()
    assert all(isinstance(width, int) and 4 <= width <= 16 for width in bits.values()) and len(bits) == (2 if "legacy" in name else 5)
    geta.model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subnet = geta.construct_subnet()
    x = data()[0]
    expected = geta.model(x)
    assert subnet.geta_info.kind == "native"
    torch.testing.assert_close(subnet(x), expected, rtol=1e-9, atol=1e-9)  # the law's own number
    assert {key: form.bits for key, form in subnet.geta_info.formats.items()} == {f"{layer}.weight": width for layer, width in bits.items()}
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    torch.testing.assert_close(loaded(x), expected, rtol=1e-9, atol=1e-9)
    again = gt.load(tmp_path / "net", model=net(WRAPS[name]).double().eval())
    torch.testing.assert_close(again(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_a_cost_target_is_met_with_inputs_quantized_too(name):
    geta = gt.GETA(model(name), data()[0], quantize=gt.QuantConfig(activations=True))
    geta.calibrate([data()[0]])
    budget = gt.Budget(relative_bops=0.04, bit_range=(4, 16))
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(STEPS))
    train(geta, optimizer, STEPS)
    geta.model.eval()
    subnet = geta.construct_subnet()
    assert geta.report(subnet).to_dict()["relative_bops"] <= 0.04
    torch.testing.assert_close(subnet(data()[0]), geta.model(data()[0]), rtol=1e-9, atol=1e-9)  # the law's own number
    assert len(geta.activation_bit_widths()) == 5


def test_bits_alone_are_learned_where_nothing_may_go():
    geta = gt.GETA(model("orthogonal"), data()[0])
    budget = gt.Budget(group_sparsity=0, bit_range=(4, 16))
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(STEPS))
    train(geta, optimizer, STEPS)
    assert len(geta.bit_widths()) == 5 and all(isinstance(width, int) and 4 <= width <= 16 for width in geta.bit_widths().values())


def test_ranges_are_fitted_anew_to_the_computed_weight_when_bits_fall():
    geta = gt.GETA(model("weight_norm"), data()[0])
    optimizer = optimizer_of(geta)
    index = optimizer.bank.keys.index(("weight", "0"))
    weight = optimizer.bank.weight(index)
    torch.testing.assert_close(weight, geta.quantizers.quantized_tensors(parameter_tensors(geta.model))["0"]())
    optimizer.bank.refit([index], [3] * len(optimizer.bank))
    quantizer = geta.quantizers.weights["0"]
    expected = fitted_clip(weight, 3.0, weight.abs().max(), torch.ones((), dtype=weight.dtype), narrow_range=quantizer.narrow_range)
    torch.testing.assert_close(quantizer.clip_max.detach(), expected, rtol=0, atol=0)


def test_an_average_of_weights_is_held_to_what_the_run_reached():
    geta = gt.GETA(model("weight_norm"), data()[0])
    optimizer = optimizer_of(geta)
    average = AveragedModel(geta.model)
    for _ in range(STEPS):
        train(geta, optimizer, 1)
        average.update_parameters(geta.model)
    optimizer.hold(average)
    quantizer = average.module[0].parametrizations.weight[1]
    assert float(quantizer.bit_width()) == pytest.approx(geta.bit_widths()["0"], abs=1e-6)
    geta.model.load_state_dict(average.module.state_dict())
    optimizer.hold()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geta.construct_subnet()


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_a_resumed_run_ends_as_the_undisturbed_one(name, tmp_path):
    geta = gt.GETA(model(name), data()[0])
    optimizer = optimizer_of(geta)
    train(geta, optimizer, STEPS // 3)
    geta.save_checkpoint(tmp_path / "third")
    train(geta, optimizer, STEPS - STEPS // 3)
    again = gt.GETA.resume(tmp_path / "third", model(name), data()[0])
    optimizer = optimizer_of(again)
    assert 0 < int((~optimizer.group_mask).sum()) < 15, "the checkpoint is to be from the joint stage"
    train(again, optimizer, STEPS - STEPS // 3)
    for name, value in geta.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["weight_norm_legacy", "spectral_norm_legacy"])
def test_what_a_hook_computes_stays_as_it_is_and_the_new_form_is_named(name):
    geta = gt.GETA(model(name).eval(), data()[0])
    assert list(geta.bit_widths()) == ["2", "10"]
    named = {key.partition(".")[0] for key in geta.quantizers.excluded}
    assert named == {"0", "4", "8"}
    assert all("torch.nn.utils.parametrizations" in geta.quantizers.excluded[f"{layer}.weight"] for layer in named)
