"""Runs on networks whose norms are frozen: their shifts are buffers, which fade, go and stay at zero with the groups they belong to."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import geta_nb as gt
from tests.zoo.frozen_nets import Frozen, plain

STEPS = 36
SHIFTS = ("1.bias", "1.running_mean", "4.bias", "4.running_mean")


def net(norm=Frozen):
    return plain(norm).double().eval()


def data():
    torch.manual_seed(1)
    return torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.randint(0, 4, (8,))


def start(**rules):
    torch.manual_seed(0)
    geta = gt.GETA(net(), data()[0])
    return geta, optimizer_of(geta, **rules)


def optimizer_of(geta, **rules):
    budget = gt.Budget(0.5, bit_range=(4, 16))
    return geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(STEPS), **rules)


def train(geta, optimizer, steps, also=lambda: None):
    x, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(geta.model(x).mean((2, 3)), y).backward()
        optimizer.step()
        also()


def gone(geta):
    """Which channels are zero, by tensor; those of one norm are those of the convolution before it."""
    model = geta.model
    found = [torch.cat([(model[i].weight.flatten(1) == 0).all(1), model[i + 3].weight.flatten(1).eq(0).all(1)]) for i in (0,)]
    shifts = [torch.cat([dict(model.named_buffers())[name] == 0 for name in names]) for names in (SHIFTS[::2], SHIFTS[1::2])]
    return [*found, *shifts]


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_a_run_ends_with_exactly_k_zero_groups_and_an_exact_subnet(rules):
    geta, optimizer = start(rules=rules)
    before = {name: value.clone() for name, value in geta.model.named_buffers()}
    train(geta, optimizer, STEPS)
    assert optimizer.n_redundant == 7 and geta.group_sparsity() == 0.5 and int((~optimizer.group_mask).sum()) == 7
    weights, *shifts = gone(geta)
    assert int(weights.sum()) == 7 and all(torch.equal(weights, shift) for shift in shifts)
    for name, value in geta.model.named_buffers():  # what lives is as it was, and a variance always
        same = value == before[name]
        assert bool(same.all()) if name not in SHIFTS else bool((same | (value == 0)).all()), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subnet = geta.construct_subnet()
    x = data()[0]
    assert subnet.geta_info.kind == "native" and len(subnet[1].bias) + len(subnet[4].bias) == 7
    torch.testing.assert_close(subnet(x), geta.model(x), rtol=1e-9, atol=1e-9)  # the law's own number


def test_a_resumed_run_ends_as_the_undisturbed_one(tmp_path):
    geta, optimizer = start()
    train(geta, optimizer, STEPS // 3)
    geta.save_checkpoint(tmp_path / "half")
    train(geta, optimizer, STEPS - STEPS // 3)
    again = gt.GETA.resume(tmp_path / "half", net(), data()[0])
    optimizer = optimizer_of(again)
    assert 0 < int((~optimizer.group_mask).sum()) < 7, "the checkpoint is to be from the joint stage"
    train(again, optimizer, STEPS - STEPS // 3)
    for name, value in geta.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_buffers_that_a_move_replaced_still_go():
    geta, optimizer = start()
    train(geta, optimizer, 1)
    old = geta.model[1].bias
    geta.model.float().double()
    assert geta.model[1].bias is not old
    train(geta, optimizer, STEPS - 1)
    assert geta.group_sparsity() == 0.5


def test_an_average_and_weights_from_elsewhere_are_held():
    geta, optimizer = start()
    averaged, first = AveragedModel(geta.model, use_buffers=True), copy.deepcopy(geta.model.state_dict())
    train(geta, optimizer, STEPS, lambda: averaged.update_parameters(geta.model))
    expected = gone(geta)
    optimizer.hold(averaged)
    twin = copy.deepcopy(geta)
    twin.model.load_state_dict(averaged.module.state_dict())
    assert all(torch.equal(*pair) for pair in zip(gone(twin), expected, strict=True))
    geta.model.load_state_dict({name: value for name, value in first.items() if name in SHIFTS}, strict=False)
    assert geta.group_sparsity() == 0, "a shift alone is not zero"
    optimizer.hold()
    assert all(torch.equal(*pair) for pair in zip(gone(geta), expected, strict=True))


def test_a_copy_of_a_run_moves_its_own_buffers():
    geta, optimizer = start()
    train(geta, optimizer, STEPS // 3)
    twin = copy.deepcopy(geta)
    kept = {name: value.clone() for name, value in geta.model.named_buffers()}
    train(twin, twin._optimizer, STEPS - STEPS // 3)
    assert twin.group_sparsity() == 0.5
    assert all(torch.equal(value, kept[name]) for name, value in geta.model.named_buffers())


def test_nothing_counts_a_buffer():
    geta, optimizer = start()
    assert not {"1.bias", "1.running_mean"} & set(optimizer.pruner.members.names)
    x, y = data()
    nn.functional.cross_entropy(geta.model(x).mean((2, 3)), y).backward()
    before = [part.clone() for part in (*optimizer.pruner.members.square_sums(), optimizer.pruner.members.inner_products())]
    with torch.no_grad():
        geta.model[1].running_mean.add_(100)
    after = [*optimizer.pruner.members.square_sums(), optimizer.pruner.members.inner_products()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_network_without_such_buffers_holds_no_model():
    geta = gt.GETA(net(nn.BatchNorm2d), data()[0])
    assert not any(entry.zeroed for entry in geta.groups.table.axis_maps)
    assert optimizer_of(geta).pruner.members._model is None


def test_a_probe_of_sensitivity_takes_the_shift_away_and_gives_it_back():
    geta, _ = start()
    before = {name: value.clone() for name, value in geta.model.named_buffers()}

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]).mean((2, 3)), batch[1])

    plain_loss = loss(geta.model, data()).item()
    found = geta.sensitivity([data()], loss, kept=(0.5,), estimate="measured")
    geta.sensitivity([data()], loss, kept=(0.5,), estimate="gradient")
    assert all(torch.equal(value, before[name]) for name, value in geta.model.named_buffers())
    geta.mask(found.order["0"][:4])
    (rise,) = [rise for probe, rise in found.rises.items() if probe.name == "0" and probe.kind == "family"]
    assert rise.mean == pytest.approx(loss(geta.model, data()).item() - plain_loss, abs=1e-12)  # both in float64


class Running(Frozen):
    """Statistics of its own making: training moves the mean, which evaluation takes off."""

    def forward(self, x):
        if self.training:
            mean = x.mean((0, 2, 3))
            self.running_mean.lerp_(mean.detach(), 0.1)
        else:
            mean = self.running_mean
        return (x - mean[:, None, None]) * (self.running_var + 1e-5).rsqrt()[:, None, None]


def test_a_buffer_that_training_moves_stays_at_zero_where_its_channel_is():
    torch.manual_seed(0)
    geta = gt.GETA(net(Running), data()[0])
    assert {entry.parameter for entry in geta.groups.table.axis_maps if entry.zeroed} == {"1.running_mean", "4.running_mean"}
    geta.model.train()
    train(geta, optimizer_of(geta), STEPS)
    geta.model(data()[0])  # once more, and no step after it
    geta.model.eval()
    assert geta.group_sparsity() == 0.5 and geta.model[1].running_mean.count_nonzero() > 0
    x, subnet = data()[0], geta.construct_subnet()
    torch.testing.assert_close(subnet(x), geta.model(x), rtol=1e-9, atol=1e-9)  # the law's own number
