"""A model that has quantizers already: a second GETA, and one of a subnet, price it as what it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import geta_nb as gt

MODES = {"plain": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True)}


class Attends(nn.Module):
    """A product of two activations, a matrix that is read twice, and one that no module owns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out, self.bare = nn.Linear(6, 12), nn.Linear(12, 6), nn.Parameter(torch.randn(12, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x)) @ self.bare
        return self.out((h @ h.transpose(1, 2)).softmax(-1) @ h) + self.out(h)


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if name == "attends":
        return Attends(), torch.randn(2, 5, 6)
    conv = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(54, 4))
    return conv.eval(), torch.randn(2, 2, 7, 7)


def priced(geta: gt.GETA) -> tuple[object, ...]:
    """Who is read by which operator, and what all of it costs dense and at 4 bits."""
    bits = [dict.fromkeys(table, 4.0) for table in (geta.bit_widths(), geta.activation_bit_widths())]
    operators = sorted((op.weight or "", op.activation or "", op.attention) for op in geta.cost.operators)
    return operators, geta.cost.dense.figures(), geta.cost.evaluate(None, *bits).figures()


@pytest.mark.parametrize("name", ["attends", "conv"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(MODES, MODES)))
def test_a_second_geta_prices_as_the_first_of_all_that_stands_there(name: str, first: str, second: str) -> None:
    model, x = made(name)
    gt.GETA(model, x, quantize=MODES[first])
    again = gt.GETA(model, x, quantize=MODES[second])
    strongest = max(first, second, key=list(MODES).index)
    fresh = gt.GETA(made(name)[0], x, quantize=MODES[strongest])
    assert priced(again) == priced(fresh)
    assert again.cost.dense.macs > 0


@pytest.mark.parametrize("name", ["attends", "conv"])
@pytest.mark.parametrize("mode", MODES)
def test_a_subnet_costs_what_its_report_says_when_it_is_compressed_again(name: str, mode: str) -> None:
    model, x = made(name)
    geta = gt.GETA(model, x, quantize=MODES[mode])
    geta.calibrate([x])
    geta.mask(range(0, len(geta.groups), 3))
    subnet = geta.construct_subnet()
    again = gt.GETA(subnet, x, quantize=MODES[mode])
    facts = geta.report(subnet).to_dict()
    now = again.cost.evaluate(np.ones(len(again.groups), dtype=bool), again.bit_widths(), again.activation_bit_widths())
    for figure in ("relative_bops", "relative_bops_full"):
        assert getattr(now, figure) == pytest.approx(facts[figure], rel=1e-6) and getattr(now, figure) > 0
    assert now.macs == facts["macs"]["subnet"] and now.macs_full == facts["macs"]["subnet_full"]
