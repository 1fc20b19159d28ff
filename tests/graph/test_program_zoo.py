"""Every net of the zoo computes the same after its graph went through JSON."""

from __future__ import annotations

import pytest

from geta_nb.graph.program import encode_program
from geta_nb.subnet.graph_net import GraphNet
from tests.files.nets import assert_same_outputs
from tests.graph.programs import rebuilt
from tests.zoo.cases import case_of
from tests.zoo.catalogue import TESTED, ZOO

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")


SOON = {"resnet_basic", "lstm", "multihead_attention", "many_inputs", "llama_sdpa"}


@pytest.mark.parametrize("name", [name if name in SOON else pytest.param(name, marks=pytest.mark.slow) for name in TESTED])
def test_every_net_of_the_zoo_computes_the_same_after_json(name: str) -> None:
    geta, entry = case_of(name).plain, ZOO[name]
    module = GraphNet.of(geta.trace.module)
    again = rebuilt(module)
    for batch in (2, 3) if geta.trace.dynamic_batch else (2,):
        _, args, kwargs = entry.double(batch)
        assert_same_outputs(module, again, *args, **kwargs)
    assert encode_program(again.graph) == encode_program(module.graph)
