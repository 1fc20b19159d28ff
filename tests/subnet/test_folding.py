"""Constants of removed channels go into the bias of their reader: exactly, with today's numbers; the masked model stays as it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import SubnetError
from geta_nb.subnet.folding import _constant
from tests.zoo import laws
from tests.zoo.catalogue import randomise


class Gate(nn.Module):
    """A gate of two inputs, one of them by keyword, read through a buffer that has moved when the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)
        self.offset = nn.Buffer(torch.linspace(-1, 1, 16))

    def forward(self, x: Tensor, *, scale: Tensor, shift: Tensor) -> Tensor:
        return self.b((self.a(x * scale + shift) + self.offset).sigmoid())


def gate(mode: str = "plain") -> gt.GETA:
    torch.manual_seed(0)
    kwargs = {"shift": torch.randn(3, 6), "scale": torch.rand(3, 6)}
    return laws.geta_of(randomise(Gate()).eval(), (torch.randn(3, 6),), kwargs, mode)


@pytest.mark.parametrize("mode", ["plain", "weights"])
def test_a_model_that_changed_since_it_was_traced_is_folded_with_its_present_numbers(mode: str) -> None:
    geta = gate(mode)
    with torch.no_grad():
        geta.model.offset = geta.model.offset * -2  # another tensor than the traced one
        geta.model.a.bias.add_(1)
    geta.mask([3, 5, 6])
    before = copy.deepcopy(geta.model.state_dict())
    subnet = geta.construct_subnet()
    assert subnet.a.out_features == 13
    assert all(torch.equal(value, before[name]) for name, value in geta.model.state_dict().items())
    inputs = geta.example_inputs, geta.example_kwargs
    laws.assert_same(laws.outputs(geta.model, *inputs), laws.outputs(subnet, *inputs), 1e-5)


def test_the_bias_takes_over_exactly_what_the_channel_gave() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1))
    geta = gt.GETA(net, torch.randn(2, 2), quantize=None)
    geta.mask([1])
    expected = net[2].bias.detach() + 0.5 * net[2].weight.detach()[:, 1]
    torch.testing.assert_close(geta.construct_subnet()[2].bias.detach(), expected, rtol=0, atol=1e-7)


def test_a_second_compression_folds_again() -> None:
    geta = gate()
    geta.mask([0, 1])
    again = gt.GETA(geta.construct_subnet(), geta.example_inputs, example_kwargs=geta.example_kwargs, quantize=None)
    again.mask([4])
    subnet = again.construct_subnet()
    assert subnet.a.out_features == 13
    inputs = geta.example_inputs, geta.example_kwargs
    laws.assert_same(laws.outputs(again.model, *inputs), laws.outputs(subnet, *inputs), 1e-5)


def test_a_channel_that_is_no_constant_after_all_is_an_error_not_a_wrong_network() -> None:
    geta = gate()
    node = geta._analysis.state.findings.folds[0].node
    removed = np.arange(16) == 2
    weight = torch.ones(4, 16)
    same = _constant(node, torch.full((3, 16), 0.5), weight, removed)
    assert same.tolist() == [0.5] * 4
    with pytest.raises(SubnetError, match=r"(?s)does not give a constant.*at: +b"):
        _constant(node, torch.randn(3, 16), weight, removed)
