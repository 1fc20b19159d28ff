"""Runs on networks whose weights are computed from other tensors: weight norm and spectral norm, in torch's new and old form."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import geta_nb as gt
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
    geta.model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subnet = geta.construct_subnet()
    x = data()[0]
    expected = geta.model(x)
    assert subnet.geta_info.kind == "native"
    torch.testing.assert_close(subnet(x), expected, rtol=1e-9, atol=1e-9)  # the law's own number
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    torch.testing.assert_close(loaded(x), expected, rtol=1e-9, atol=1e-9)
    again = gt.load(tmp_path / "net", model=net(WRAPS[name]).double().eval())
    torch.testing.assert_close(again(x), expected, rtol=1e-9, atol=1e-9)


def test_a_resumed_run_ends_as_the_undisturbed_one(tmp_path):
    geta = gt.GETA(model("weight_norm"), data()[0])
    optimizer = optimizer_of(geta)
    train(geta, optimizer, STEPS // 3)
    geta.save_checkpoint(tmp_path / "third")
    train(geta, optimizer, STEPS - STEPS // 3)
    again = gt.GETA.resume(tmp_path / "third", model("weight_norm"), data()[0])
    optimizer = optimizer_of(again)
    assert 0 < int((~optimizer.group_mask).sum()) < 15, "the checkpoint is to be from the joint stage"
    train(again, optimizer, STEPS - STEPS // 3)
    for name, value in geta.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize("name", [*NAMES, "orthogonal"])
def test_only_plain_weights_are_quantized_and_what_is_not_is_named(name):
    geta = gt.GETA(model(name).eval(), data()[0])
    assert list(geta.bit_widths()) == ["2", "10"]
    named = {key.partition(".")[0] for key in geta.quantizers.excluded}
    assert named == {"0", "4", "8"}
    if "legacy" not in name:
        assert all(key.endswith(".weight") and "parametrization" in reason for key, reason in geta.quantizers.excluded.items())
