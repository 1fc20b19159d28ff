"""One quantized parameter comes off without a trace, survives copies, and keeps its name: the mechanics under ``prepare``."""

import copy

import pytest
import torch
from torch import nn

from geta_nb.config import QuantConfig
from geta_nb.errors import ConfigError
from geta_nb.quantizers.modules import ActivationQuantizer, WeightQuantizer
from geta_nb.quantizers.parametrized import canonical_name, parameter_tensors, unregister
from geta_nb.quantizers.prepare import attach_quantizers
from tests.quantizers.module_identity import identity

WEIGHTS = QuantConfig()


def test_detaching_one_of_two_matrices_of_a_module_leaves_the_other():
    model = nn.LSTMCell(3, 4)
    before, x = identity(model), torch.randn(2, 3)
    for order in (["weight_ih", "weight_hh"], ["weight_hh", "weight_ih"]):
        quantizers = attach_quantizers(model, QuantConfig(initial_bits=3))
        quantizers.detach_weight(order[0])
        assert set(quantizers.weights) == set(quantizers.parameter_layer) == {order[1]}
        assert [n for n, _ in model.named_parameters() if "original" in n] == [f"parametrizations.{order[1]}.original"]
        model(x)
        quantizers.detach_weight(order[1])
        assert identity(model) == before
    with pytest.raises(ConfigError, match="no quantizer there"):
        quantizers.detach_weight("weight_ih")
    with pytest.raises(ConfigError, match="no quantizer there"):
        quantizers.detach_activation("weight_ih")


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export copies its own deprecated class
@pytest.mark.parametrize("root", [True, False])
def test_graph_modules_are_quantized_copied_and_restored(root):
    plain = nn.Linear(3, 3) if root else nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(2, 3)
    graph = torch.export.export(plain, (x,), strict=False).run_decompositions({}).module(check_guards=False)
    before, y = identity(graph), graph(x)
    quantizers = attach_quantizers(graph, QuantConfig(initial_bits=3, activations=True))
    for quantizer in quantizers.activations.values():
        quantizer.set_range(2.0, bits=3)
    assert set(quantizers.parameter_layer) == {n for n, p in plain.named_parameters() if p.ndim == 2}
    quantized = graph(x)
    assert not torch.equal(quantized, y)
    clone = copy.deepcopy(graph)
    assert torch.equal(clone(x), quantized)
    assert set(attach_quantizers(clone, WEIGHTS).taken_over) == set(quantizers.weights)
    assert torch.equal(copy.deepcopy(clone)(x), quantized)
    quantizers.undo()
    assert identity(graph) == before and torch.equal(graph(x), y) and torch.equal(clone(x), quantized)
    assert torch.equal(copy.deepcopy(graph)(x), y)


def test_canonical_names_are_looked_up_and_not_guessed():
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    model["b"] = nn.ModuleDict({"parametrizations": nn.ModuleDict({"weight": nn.Module()})})
    model["b"]["parametrizations"]["weight"].original = nn.Parameter(torch.ones(1))
    attach_quantizers(model, WEIGHTS)
    assert canonical_name(model, "a.parametrizations.weight.original") == "a.weight"
    for name in ("a.bias", "b.parametrizations.weight.original", "nowhere.parametrizations.weight.original", "original", "x.original"):
        assert canonical_name(model, name) == name
    assert set(parameter_tensors(model)) == {"a.weight", "a.bias", "b.parametrizations.weight.original"}


def test_a_parametrization_added_later_by_the_user_survives_detaching():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    model = nn.Linear(2, 2)
    attach_quantizers(model, WEIGHTS)
    nn.utils.parametrize.register_parametrization(model, "weight", Doubled())
    assert isinstance(model.parametrizations.weight[0], WeightQuantizer)
    unregister(model, "weight")
    assert torch.equal(model.weight, 2 * model.parametrizations.weight.original)
    assert not any(isinstance(m, ActivationQuantizer | WeightQuantizer) for m in model.modules())
