"""A weight that others compute is as sensitive as the same weight in a plain layer, measured and estimated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import geta_nb as gt
from tests.zoo.parametrized_nets import NETS


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("name", ["gated", "two_originals", "twice"])
@pytest.mark.parametrize("estimate", ["measured", "gradient"])
def test_bits_of_a_computed_weight_cost_what_they_cost_in_a_plain_layer(name, estimate):
    torch.manual_seed(0)
    model, x = NETS[name]().double().eval(), torch.randn(12, 6).double()
    plain = copy.deepcopy(model)
    for layer in plain.modules():
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    batches = [(rows, torch.arange(4) % 3) for rows in x.split(4)]
    found = []
    for net in (model, plain):
        geta = gt.GETA(net, x[:2])
        rises = geta.sensitivity(batches, loss, kept=(0.5,), bits=(2, 4), estimate=estimate).rises
        found.append({(rise.kind, rise.name, rise.at): rise.rise for rise in rises if rise.kind == "weight"})
    assert len(found[0]) == 2 * len(geta.bit_widths()) and any(found[0].values())
    assert found[0] == pytest.approx(found[1], rel=1e-9, abs=1e-12)  # the same float64 numbers, computed in another order
