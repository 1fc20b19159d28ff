"""A branch that runs in training only: its parameters are named, what feeds it stays whole, and the subnet runs in both modes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import GetaWarning


class Net(nn.Module):
    """An auxiliary head behind the first layer (GoogLeNet, segmentation, detection)."""

    def __init__(self, *, idle: bool = False) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, 2, 1)
        self.c, self.head, self.aux = nn.Conv2d(16, 12, 1), nn.Linear(12, 4), nn.Linear(16, 4)
        self.idle = nn.Parameter(torch.zeros(5, 5)) if idle else None

    def forward(self, x: Tensor) -> object:
        x = self.norm(self.a(x)).relu()
        y = self.head(self.c(self.b(x).relu()).relu().mean((2, 3)))
        return (y, self.aux(F.dropout(x, 0.2, self.training).mean((2, 3)))) if self.training else y


def reasons(geta: gt.GETA) -> dict[str, str]:
    return {entry.path: entry.reason for entry in geta.protected}


@pytest.mark.parametrize("quantize", [None, gt.QuantConfig(activations=True)])
def test_what_feeds_an_auxiliary_head_stays_whole(quantize: gt.QuantConfig | None) -> None:
    torch.manual_seed(0)
    model, x, y = Net().train(), torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    geta = gt.GETA(model, x, quantize=quantize)
    geta.calibrate([x])
    assert {family.name for family in geta.families} == {"b", "c"}
    assert reasons(geta)["a.weight[axis 0]"] == "channels that a branch reads which runs in training only"
    assert reasons(geta)["aux.weight"] == reasons(geta)["aux.bias"] == "a parameter that the network does not read in evaluation"
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-3, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(20))
    for _ in range(20):
        optimizer.zero_grad()
        sum(F.cross_entropy(out, y) for out in model(x)).backward()
        optimizer.step()
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native" and subnet.a.out_channels == 16 and subnet.b.out_channels + subnet.c.out_channels == 14
    first, second = subnet.train()(x)
    assert first.shape == second.shape == (8, 4)


def test_the_user_s_own_protection_keeps_its_reason() -> None:
    geta = gt.GETA(Net(), torch.randn(2, 3, 8, 8), protect=("a.*", "c.*"))
    assert {family.name for family in geta.families} == {"b"}
    assert reasons(geta)["a.weight[axis 0]"] == reasons(geta)["c.weight[axis 0]"] == "protected on request"


def test_a_parameter_that_nothing_reads_is_named_and_keeps_nothing() -> None:
    class Idle(Net):
        def forward(self, x: Tensor) -> object:
            x = self.norm(self.a(x)).relu()
            return self.head(self.c(self.b(x).relu()).relu().mean((2, 3)))

    geta = gt.GETA(Idle(idle=True), torch.randn(2, 3, 8, 8))
    assert {family.name for family in geta.families} == {"a", "b", "c"}
    assert {path for path, reason in reasons(geta).items() if "does not read" in reason} == {"idle", "aux.weight", "aux.bias"}


def test_looking_changes_nothing() -> None:
    model, x = Net().train(), torch.randn(4, 3, 8, 8)
    model.aux.eval()
    before, modes, state = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()], torch.random.get_rng_state()
    gt.GETA(model, x, quantize=None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes and torch.equal(torch.random.get_rng_state(), state)


def test_training_that_cannot_be_looked_at_is_said() -> None:
    class Asks(Net):
        def forward(self, x: Tensor, target: Tensor | None = None) -> object:
            if self.training and target is None:
                raise ValueError("In training mode, targets should be passed")
            return super().forward(x)

    with pytest.warns(GetaWarning, match=r"(?s)training could not be looked at.*aux.weight.*targets should be passed.*protect=") as seen:
        geta = gt.GETA(Asks(), torch.randn(2, 3, 8, 8))
    assert len(seen) == 1 and seen[0].filename == __file__ and {family.name for family in geta.families} == {"a", "b", "c"}


def test_a_parameter_of_the_root_is_read_in_training_too() -> None:
    class Tokens(nn.Module):
        """Puts a learned row in some places, in training (wav2vec2, BEiT)."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head, self.mask = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2), nn.Parameter(torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            if self.training:
                y = torch.where(torch.arange(x.shape[1])[:, None] % 2 == 0, y, self.mask)
            return self.head(self.b(y).relu())

    geta = gt.GETA(Tokens(), torch.randn(2, 4, 6), quantize=None)
    assert reasons(geta)["mask"] == "a parameter that the network does not read in evaluation"
    assert {family.name for family in geta.families} == {"b"}


def test_quantizers_that_have_seen_no_data_do_not_matter() -> None:
    model, x = Net(), torch.randn(4, 3, 8, 8)
    gt.GETA(model, x, quantize=gt.QuantConfig(activations=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {family.name for family in gt.GETA(model, x).families} == {"b", "c"}


def test_a_network_that_reads_all_it_has_is_not_run_in_training() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            return self.b(self.a(x).relu())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(gt.GETA(Same(), torch.randn(2, 3), quantize=None).groups) == 8
