"""A network that is its graph: it copies, trains and exports as any other, and what it cannot hold is refused."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from geta_nb.errors import ArtifactError
from geta_nb.graph.program import decode_program
from geta_nb.graph.trace import trace_model
from geta_nb.subnet.graph_net import PARAMETER, Entry, GraphNet, list_entries
from tests.files.nets import assert_same_outputs, assert_same_tensors, by_hand, conv_net, graph_subnet, image
from tests.graph.programs import OUT, program, through_json
from tests.zoo.catalogue import ZOO

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")


@pytest.mark.parametrize("name", ["resnet_basic", "tied_linear", "llama_sdpa", "gpt2_sdpa", "lstm", "many_inputs"])
def test_copies_of_a_graph_net_are_whole_and_apart(name: str) -> None:
    entry = ZOO[name]
    net = GraphNet.of(trace_model(entry.build(), entry.inputs(2), entry.kwargs(2)).module)
    net.note = {"kept": [1]}
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(net), torch.load(buffer, weights_only=False), copy.deepcopy(copy.deepcopy(net))):
        assert_same_tensors(net, again)
        assert_same_outputs(net, again, *entry.inputs(2), **entry.kwargs(2))
        assert again.note == net.note and again.note is not net.note
        with torch.no_grad():
            first = next(again.parameters())
            first.add_(1)
        assert not torch.equal(first, next(net.parameters()))


@pytest.mark.parametrize("name", ["resnet_basic", "bert_sdpa", "gpt2_sdpa", "many_inputs"])
def test_a_graph_net_can_be_exported_again_with_a_dynamic_batch(name: str) -> None:
    entry = ZOO[name]
    net = graph_subnet(entry.build(), entry.inputs(2), entry.kwargs(2))
    again = trace_model(rebuilt_net(net), entry.inputs(2), entry.kwargs(2))
    assert again.dynamic_batch
    assert set(again.module.state_dict()) == set(net.state_dict())
    assert_same_outputs(net, again.module, *entry.inputs(5), **entry.kwargs(5))


def rebuilt_net(net: GraphNet) -> GraphNet:
    return GraphNet.build(through_json(net.graph), list_entries(net), {})


def test_parameters_the_graph_does_not_use_stay() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 3), nn.Linear(2, 2)
            self.register_buffer("scratch", torch.arange(3.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + self.scratch

    model = Idle()
    net = GraphNet.of(trace_model(model, (torch.randn(2, 3),)).module, model)
    assert_same_tensors(model, net)
    assert_same_tensors(model, copy.deepcopy(net))


def test_training_moves_the_parameters_of_a_graph_net() -> None:
    net = GraphNet.of(trace_model(conv_net(), (image(),)).module)
    before = copy.deepcopy(net)
    net(image()).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert any(not torch.equal(a, b) for a, b in zip(tree_leaves(before.state_dict()), tree_leaves(net.state_dict()), strict=True))


@pytest.mark.parametrize("name", ["forward", "graph", "a..b", ""])
def test_a_tensor_whose_name_cannot_stand_in_a_module_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"name|path"):
        GraphNet.build(fx.Graph(), [Entry(name, PARAMETER, torch.ones(1))], {})


def test_a_graph_that_names_what_is_not_there_is_refused() -> None:
    graph = decode_program(program(["get_attr", "ghost.weight", [], {}], OUT))
    with pytest.raises(ArtifactError, match=r"ghost\.weight"):
        GraphNet.build(graph, [], {})


def test_a_module_that_is_no_activation_quantizer_is_refused() -> None:
    module = by_hand(lambda graph, x: x)
    module.layer = nn.Linear(2, 2)
    with module.graph.inserting_before(module.graph.output_node()):
        module.graph.call_module("layer", (next(iter(module.graph.nodes)),))
    with pytest.raises(ArtifactError, match=r"(?s)no activation quantizer.*at: +layer.*got: +Linear"):
        GraphNet.of(module)
