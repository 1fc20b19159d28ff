"""A graph subnet is what the network is in evaluation; where that is another one in training, ``train()`` says so, and by which modules."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import RunStateError
from geta_nb.subnet.modes import what_differs


class Net(nn.Module):
    """Comes out as a graph; what it does in training is said by its parts."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.stem, self.part, self.one, self.head = nn.Conv2d(3, 16, 3, padding=1), part, nn.Conv2d(8, 8, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.part(self.stem(x)).relu().chunk(2, 1)
        return self.head(torch.cat([a, self.one(b)], 1).mean((2, 3)))


class Depth(nn.Module):
    """A branch that is left out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.5)) if self.training else x


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


PARTS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(16), "Dropout2d": lambda: nn.Dropout2d(0.5), "Depth": Depth, "Functional": Functional,
    "": nn.Identity, "GroupNorm": lambda: nn.GroupNorm(4, 16),
}  # fmt: skip


def cut(part: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model, x = Net(PARTS[part]()).train(), torch.randn(8, 3, 8, 8)
    geta = gt.GETA(model, x)
    geta.mask([2, 7])
    return model, geta.construct_subnet()


@pytest.mark.parametrize("part", ["BatchNorm2d", "Dropout2d", "Depth", "Functional"])
def test_a_graph_of_a_network_that_trains_otherwise_refuses_to(part: str, tmp_path: Path) -> None:
    model, subnet = cut(part)
    assert subnet.geta_info.kind == "graph" and model.training and not subnet.training
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    for net in (subnet, loaded, copy.deepcopy(loaded), gt.load(gt.save(loaded, tmp_path / "again"))):
        with pytest.raises(RunStateError, match=rf"(?s)computes in evaluation.*another one in training: {part}\n.*try: +train geta.model"):
            net.train()
        assert not net.training and not any(module.training for module in net.modules())
        net.eval()
        net(torch.randn(2, 3, 8, 8)).sum().backward()  # it trains on as it is
        assert all(p.grad is not None for name, p in net.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("part", ["", "GroupNorm"])
def test_a_graph_of_a_network_that_is_one_in_both_modes_trains(part: str, tmp_path: Path) -> None:
    _, subnet = cut(part)
    assert subnet.training
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded.train()(x), loaded.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("part", ["BatchNorm2d", "Dropout2d"])
def test_a_file_of_a_native_subnet_knows_it_too(part: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), PARTS[part](), nn.ReLU(), nn.Conv2d(16, 4, 1)).train()
    geta = gt.GETA(model, torch.randn(4, 3, 8, 8))
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native" and subnet.training
    before = copy.deepcopy(subnet.state_dict())
    path = gt.save(subnet, tmp_path / "net")
    assert subnet.training and all(torch.equal(value, before[name]) for name, value in subnet.state_dict().items())
    with pytest.raises(RunStateError, match=part):
        gt.load(path).train()
    again = gt.load(path, model=nn.Sequential(nn.Conv2d(3, 16, 3), PARTS[part](), nn.ReLU(), nn.Conv2d(16, 4, 1))).train()
    y = torch.randn(4, 3, 8, 8)
    if part == "BatchNorm2d":
        again(y)
        assert not torch.equal(again[1].running_mean, before["1.running_mean"])
    else:
        assert not torch.equal(again(y), again(y))


def test_the_question_changes_nothing() -> None:
    model, x = Net(nn.BatchNorm2d(16)).train(), torch.randn(8, 3, 8, 8)
    before, state, given = copy.deepcopy(model.state_dict()), torch.random.get_rng_state(), x.clone()
    assert what_differs(model, (x,), {}) == "BatchNorm2d"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(x, given) and model.part.training


def test_a_mode_that_fails_is_another_one() -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets, please")
            return x

    assert what_differs(nn.Sequential(nn.Linear(3, 3), Strict()), (torch.randn(2, 3),), {}) == "Strict"
