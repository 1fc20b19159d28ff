"""Quantizers behind what others compute a weight with: what they are given, what reaches the originals, and how they come off again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

import geta_nb as gt
from geta_nb.quantizers import Asked, ComputedWeight, WeightQuantizer, attach_quantizers, computed, fake_quantize, without_parametrizations
from tests.quantizers.module_identity import identity
from tests.zoo.parametrized_nets import Gated, LowRank, linear


def layers():
    torch.manual_seed(0)
    net = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 8)), parametrizations.spectral_norm(nn.Linear(8, 8)),
        parametrizations.orthogonal(nn.Linear(8, 8)), linear(4, 8, Gated(4)),
    )  # fmt: skip
    return net.double()


def test_one_quantizer_stands_behind_all_that_computes_a_weight_and_starts_on_what_they_give():
    model = layers().eval()
    before = [layer.weight.detach().clone() for layer in model]
    quantizers = attach_quantizers(model, gt.QuantConfig(initial_bits=3))
    assert quantizers.computed == {f"{i}.weight": str(i) for i in range(4)} and not quantizers.parameter_layer and not quantizers.excluded
    for layer, plain, (name, quantizer) in zip(model, before, quantizers.weights.items(), strict=True):
        assert computed(layer)["weight"][-1] is quantizer and float(quantizer.clip_max.detach()) == float(plain.abs().max()), name
        assert torch.equal(layer.weight, quantizer(plain)) and len(layer.weight.unique()) <= 7


def test_gradients_pass_to_the_originals_as_through_the_formula():
    model = layers()[3]
    quantizer = attach_quantizers(model, gt.QuantConfig(initial_bits=4)).weights["weight"]
    x, original, gate = torch.randn(5, 8).double(), model.parametrizations.weight.original, model.parametrizations.weight[0].gate
    model(x).square().sum().backward()
    twins = [p.detach().clone().requires_grad_() for p in (original, gate, quantizer.step_size, quantizer.clip_max, quantizer.exponent)]
    weight = fake_quantize(twins[0] * twins[1].sigmoid(), *twins[2:])
    nn.functional.linear(x, weight, model.bias).square().sum().backward()
    for p, twin in zip((original, gate, *quantizer.parameters()), twins, strict=True):
        torch.testing.assert_close(p.grad, twin.grad, rtol=1e-12, atol=1e-12)  # float64, gradients added in another order


def test_looking_at_a_weight_moves_no_power_iteration_and_no_mode():
    model = layers().train()
    state, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    quantizers = attach_quantizers(model, gt.QuantConfig())
    values = [ComputedWeight(layer, "weight")() for layer in model]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    assert [part.training for part in model.modules() if not isinstance(part, WeightQuantizer)] == modes
    assert all(q.training for q in quantizers.weights.values()) and not any(value.requires_grad for value in values)
    torch.testing.assert_close(values[1], model.eval()[1].weight, rtol=1e-4, atol=1e-4)  # 16 bits: half a step is 1.5e-5 of the range


@pytest.mark.parametrize("asked", [None, Asked(frozenset(), frozenset(), computed=frozenset({"0.weight"}))])
def test_undo_leaves_each_parametrization_as_it_was(asked):
    model = layers()
    before = identity(model)
    quantizers = attach_quantizers(model, gt.QuantConfig(activations=True), asked)
    assert list(quantizers.weights) == (["0"] if asked is not None else ["0", "1", "2", "3"])
    quantizers.undo()
    assert identity(model) == before and not quantizers.computed and not quantizers.weights


def test_a_second_call_takes_over_and_a_copy_has_quantizers_of_its_own():
    model = layers()
    first = attach_quantizers(model, gt.QuantConfig())
    again = attach_quantizers(copy.deepcopy(model), gt.QuantConfig())
    assert again.taken_over == tuple(first.weights) and again.computed == first.computed
    assert not {id(q) for q in first.weights.values()} & {id(q) for q in again.weights.values()}
    first.detach_weight("1")
    assert "1.weight" not in first.computed and len(computed(model[1])["weight"]) == 1


def test_a_weight_that_others_compute_may_be_skipped_and_a_module_keeps_its_other_matrix():
    layer = nn.Bilinear(3, 4, 5)
    layer.more = nn.Parameter(torch.randn(3, 3))
    register_parametrization(layer, "weight", Gated(3))
    model = nn.ModuleDict({"both": layer})
    found = attach_quantizers(model, gt.QuantConfig())
    assert set(found.weights) == {"both.weight", "both.more"} and found.parameter_layer == {"both.more": "both.more"}
    found.undo()
    assert set(attach_quantizers(model, gt.QuantConfig(skip=("both.weight",))).weights) == {"both.more"}


def test_a_plain_state_dict_gives_a_fresh_range_to_what_it_makes_of_its_numbers():
    model, pretrained = layers().eval(), layers().eval()
    with torch.no_grad():
        for p in pretrained.parameters():
            p.mul_(3)
    gt.GETA(model, torch.randn(2, 6).double())
    model.load_state_dict(pretrained.state_dict())
    for layer, plain in zip(model, pretrained, strict=True):
        quantizer = computed(layer)["weight"][-1]
        assert isinstance(quantizer, WeightQuantizer)
        assert float(quantizer.clip_max.detach()) == pytest.approx(float(plain.weight.detach().abs().max()), rel=1e-12)
    broken = {key: value for key, value in pretrained.state_dict().items() if key != "3.parametrizations.weight.0.gate"}
    with pytest.raises(RuntimeError, match=r"Missing key.*3\.parametrizations\.weight\.0\.gate"):
        model.load_state_dict(broken)


def test_parametrizations_are_taken_off_and_come_back():
    model = layers().eval()
    register_parametrization(model[3], "weight", LowRank(4, 8).double())
    before, weights = identity(model), [layer.weight.detach().clone() for layer in model]
    names = [*(f"{i}.weight" for i in range(4)), "0.bias", "nowhere.weight"]
    plain = []

    def block():
        with without_parametrizations(model, names):
            plain.extend((type(layer), hasattr(layer, "parametrizations"), layer.weight.detach().clone()) for layer in model)
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert not any(parametrized for _, parametrized, _ in plain)
    assert all(kind is nn.Linear and torch.equal(found, weight) for (kind, _, found), weight in zip(plain, weights, strict=True))
    assert identity(model) == before and all(torch.equal(a.weight, w) for a, w in zip(model, weights, strict=True))
