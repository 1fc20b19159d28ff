"""Which buffers are zeroed with a group, and which never are: what a state dict does not hold, what the network writes, whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from tests.zoo import laws

C = nn.Conv2d


class Stepped(nn.Module):
    """Two padded convolutions with a step between them that reads some buffers."""

    def __init__(self, step: Callable[[Stepped, Tensor], Tensor], saved: bool = True, **buffers: Tensor) -> None:
        super().__init__()
        self.a, self.b, self.step = C(3, 8, 3, padding=1), C(8, 4, 3, padding=1), step
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=saved)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.step(self, self.a(x)))


def channel(seed: int = 0) -> Tensor:
    return torch.rand(8, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def geta_of(net: nn.Module, **options: object) -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(net.double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64), quantize=None, **options)


def zeroed(geta: gt.GETA) -> set[str]:
    return {entry.parameter for entry in geta.groups.table.axis_maps if entry.zeroed}


def normalised(s: Stepped, x: Tensor) -> Tensor:
    return (x - s.mean) / (s.var.sqrt()) * s.scale + s.shift


STEPS: dict[str, tuple[Callable[[Stepped, Tensor], Tensor], set[str]]] = {
    "a shift": (lambda s, x: x + s.shift, {"shift"}),
    "two shifts": (lambda s, x: (x + s.shift - s.mean).relu(), {"shift", "mean"}),
    "a mean and a deviation, which is no number at zero": (lambda s, x: (x - s.mean) / s.var.sqrt(), {"mean"}),
    "everything, undone by hand": (normalised, {"mean", "shift"}),
    "a scale behind what is not zero at zero": (lambda s, x: x.sigmoid() * s.scale, {"scale"}),
    "a shift made of a scale that comes first": (lambda s, x: x + s.scale * s.shift, {"scale"}),
    "a shift divided by a deviation": (lambda s, x: x * s.scale - s.mean / (s.var + 1e-5).sqrt(), {"mean"}),
    "a norm without numbers of its own, then scale and shift": (
        lambda s, x: nn.functional.batch_norm(x, s.mean.flatten(), s.var.flatten()) * s.scale + s.shift, {"scale", "shift"}
    ),
    "an instance norm with a shift": (
        lambda s, x: nn.functional.instance_norm(x, weight=s.scale.flatten(), bias=s.shift.flatten()), {"shift"}
    ),
    "a depthwise convolution with buffers": (
        lambda s, x: nn.functional.conv2d(x, s.scale.reshape(8, 1, 1, 1), s.shift.flatten(), groups=8), {"shift"}
    ),
    "nothing but a scale": (lambda s, x: (x * s.scale).relu(), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_the_fewest_buffers_that_make_a_channel_zero_go_with_it(name: str) -> None:
    step, expected = STEPS[name]
    geta = geta_of(Stepped(step, mean=channel(1), var=channel(2), scale=channel(3), shift=channel(4)))
    assert len(geta.groups) == 8, geta.protected
    assert zeroed(geta) == expected
    assert {part.parameter for part in geta.groups[0].producers} == {"a.weight", "a.bias", *expected}
    laws.check_partition(geta)
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0, share=0.5))


def test_a_constant_that_a_bias_takes_over_needs_no_buffer_at_zero() -> None:
    net = Stepped(lambda s, x: x + s.shift, shift=channel())
    net.b = C(8, 4, 3)
    geta = geta_of(net)
    assert len(geta.groups) == 8 and not zeroed(geta)
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def written(s: Stepped, x: Tensor) -> Tensor:
    s.shift.copy_(s.shift * 0.9)
    return x + s.shift


KEPT: dict[str, Callable[[], Stepped]] = {
    "one that a state dict does not hold": lambda: Stepped(lambda s, x: x + s.shift, saved=False, shift=channel()),
    "one that the network writes": lambda: Stepped(written, shift=channel()),
    "whole numbers": lambda: Stepped(lambda s, x: x + s.shift, shift=torch.arange(1, 9)[:, None, None]),
    "one that is another number at each place": lambda: Stepped(lambda s, x: x + s.shift, shift=torch.rand(8, 6, 6) + 1),
    "one of which zeros would not help": lambda: Stepped(lambda s, x: x + s.shift.exp(), shift=channel()),
    "one whose order counts": lambda: Stepped(lambda s, x: x + s.shift.cumsum(0), shift=channel()),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_buffers_stay_and_protect_the_channels(name: str) -> None:
    geta = geta_of(KEPT[name]())
    assert len(geta.groups) == 0 and "a.weight[axis 0]" in {entry.path for entry in geta.protected}


def test_what_the_user_protects_by_the_path_of_a_frozen_norm_stays() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.unused = nn.Buffer(channel()), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.value

    net = nn.Sequential(C(3, 8, 3, padding=1), Shift(), C(8, 6, 3, padding=1), nn.ReLU(), C(6, 4, 3, padding=1))
    geta = geta_of(net, protect=["1"])
    assert [family.name for family in geta.families] == ["2"]
    assert "protected on request" in {entry.reason for entry in geta.protected if entry.path == "0.weight[axis 0]"}


def test_a_channel_of_zero_weights_whose_shift_is_not_zero_is_no_zero_group() -> None:
    geta = geta_of(Stepped(lambda s, x: x + s.shift, shift=channel()))
    with torch.no_grad():
        geta.model.a.weight[:3] = 0
        geta.model.a.bias[:3] = 0
    assert geta.group_sparsity() == 0 and geta.construct_subnet().a.out_channels == 8
    geta.mask([0])
    assert geta.group_sparsity() == 1 / 8
