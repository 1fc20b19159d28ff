"""Laws of the text zoo's own kinds: routed experts whichever way torch is asked to route, and families of every kind."""

from __future__ import annotations

import pytest
import torch

import geta_nb as gt
from tests.zoo import laws
from tests.zoo import text as zoo_text
from tests.zoo.catalogue import hugging_face, randomise


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["batched_mm", "grouped_mm"])
def test_widths_of_experts_are_groups_however_rows_are_routed(routing: str) -> None:
    model_class, config, options = zoo_text.TEXT["mixtral"]
    torch.manual_seed(0)
    model = randomise(hugging_face(model_class, config, **(options | {"experts_implementation": routing}))).eval()
    ids = torch.randint(1, 90, (2, 7))
    geta = gt.GETA(model, (ids,), quantize=gt.QuantConfig())
    widths = {family.name: len(family.groups) for family in geta.families if "experts" in family.name}
    assert list(widths.values()) == [40]
    assert {"model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"} <= set(geta.quantizers.weights)
    with laws.weights_restored(geta.model):
        geta.mask(laws.some_groups(geta, seed=0))
        laws.assert_same(laws.outputs(geta.model, (ids,), {}), laws.outputs(geta.construct_subnet(), (ids,), {}), laws.RTOL_FLOAT32)


def test_there_are_two_dozen_families_and_some_of_each_kind() -> None:
    assert len(zoo_text.TEXT) >= 24
    assert min(map(len, (zoo_text.ENCODERS, zoo_text.DECODERS, zoo_text.BOTH_WAYS, zoo_text.STATE_SPACE, zoo_text.EXPERTS))) >= 4
