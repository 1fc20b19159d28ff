"""A weight that others compute is as sensitive as the same weight in a plain layer, measured and estimated."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import geta_nb as gt
from tests.zoo.parametrized_nets import NETS


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def built(name, *, plain):
    torch.manual_seed(0)
    model = NETS[name]().double().eval()
    for layer in model.modules():
        if plain and parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    return model


@pytest.mark.parametrize("name", ["gated", "two_originals", "twice"])
@pytest.mark.parametrize("estimate", ["measured", "gradient"])
def test_bits_of_a_computed_weight_cost_what_they_cost_in_a_plain_layer(name, estimate):
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(1)).double()
    batches = [(rows, torch.arange(4) % 3) for rows in x.split(4)]
    found = []
    for plain in (False, True):
        geta = gt.GETA(built(name, plain=plain), x[:2])
        found.append(geta.sensitivity(batches, loss, kept=(0.5,), bits=(2, 4), estimate=estimate).by_layer)
    assert found[0].keys() == found[1].keys() == geta.bit_widths().keys()
    for layer, rises in found[0].items():
        assert rises == pytest.approx(found[1][layer], rel=1e-9, abs=1e-12) and any(rises.values())  # float64, in another order
