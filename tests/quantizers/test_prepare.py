"""Quantizers reach every matrix, change nothing else about a model, and come off without a trace."""

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from geta_nb.config import QuantConfig
from geta_nb.errors import CalibrationError, ConfigError, NonFiniteError
from geta_nb.quantizers.modules import quantize_input
from geta_nb.quantizers.parametrized import canonical_name, parameter_tensors
from geta_nb.quantizers.prepare import attach_quantizers
from tests.quantizers.module_identity import identity

WEIGHTS = QuantConfig()
BOTH = QuantConfig(activations=True)


def flags(parameters):
    return {n: (id(p), p.requires_grad, p.dtype, p.device, p.shape) for n, p in parameters.items()}


class Branches(nn.Module):
    """Tied weights, a module under two names, a bare matrix, attention, a frozen bfloat16 layer, and an nn.LSTM."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight
        self.conv = nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular")
        self.again = self.conv
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.frozen = nn.Linear(8, 8).bfloat16().requires_grad_(False).eval()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.again(self.conv(x.transpose(1, 2))).transpose(1, 2) @ self.matrix
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.lstm(self.frozen(x.bfloat16()).float())[0]
        return self.head(self.norm(x))


TOKENS = torch.tensor([[1, 2, 3, 4]])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4), nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 1),
        nn.ConvTranspose1d(4, 4, 2), nn.ConvTranspose2d(4, 4, 2), nn.Embedding(9, 4, padding_idx=0), Conv1D(4, 4), nn.LSTMCell(4, 4),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
@pytest.mark.parametrize("root", [True, False])
def test_every_kind_of_layer_computes_with_its_quantized_weights(layer, root):
    layer = copy.deepcopy(layer)
    model = layer if root else nn.ModuleDict({"part": layer})
    shapes = {nn.Conv1d: (2, 4, 5), nn.Conv2d: (2, 4, 5, 5), nn.Conv3d: (2, 4, 3, 3, 3), nn.ConvTranspose1d: (2, 4, 5)}
    x = torch.randn(shapes.get(type(layer), (2, 4, 5, 5) if isinstance(layer, nn.ConvTranspose2d) else (2, 4)))
    x = torch.tensor([1, 3]) if isinstance(layer, nn.Embedding) else x
    by_hand = copy.deepcopy(layer)
    quantizers = attach_quantizers(model, QuantConfig(initial_bits=3))
    matrices = [n for n, p in by_hand.named_parameters() if p.ndim >= 2]
    assert set(quantizers.parameter_layer) == {n if root else f"part.{n}" for n in matrices} and matrices
    with torch.no_grad():
        for name, parameter in by_hand.named_parameters():
            if name in matrices:
                quantizer = quantizers.weights[quantizers.parameter_layer[name if root else f"part.{name}"]]
                assert not torch.equal(quantizer(parameter), parameter)
                parameter.copy_(quantizer(parameter))
    torch.testing.assert_close(layer(x), by_hand(x), rtol=0, atol=0)


def test_layers_are_named_by_module_or_by_parameter_path():
    quantizers = attach_quantizers(Branches(), BOTH)
    assert quantizers.parameter_layer == {
        "matrix": "matrix", "embed.weight": "embed", "head.weight": "embed", "conv.weight": "conv", "again.weight": "conv",
        "attention.in_proj_weight": "attention.in_proj_weight", "attention.out_proj.weight": "attention.out_proj",
        "frozen.weight": "frozen",
    }  # fmt: skip
    assert set(quantizers.weights) == set(quantizers.parameter_layer.values())
    assert set(quantizers.activations) == {"head", "conv", "attention.out_proj", "frozen"}
    assert set(quantizers.excluded) == {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    assert set(attach_quantizers(nn.Linear(2, 2), BOTH).activations) == {"weight"}


def test_parameters_keep_identity_names_order_and_flags():
    model = Branches()
    before = dict(model.named_parameters(remove_duplicate=False))
    was, padding = flags(before), model.conv.padding_mode
    modes = {path: m.training for path, m in model.named_modules()}
    attach_quantizers(model, BOTH)
    assert flags(parameter_tensors(model)) == was
    assert list(parameter_tensors(model)) == list(before)
    assert {path: m.training for path, m in model.named_modules() if path in modes} == modes
    assert not any(m.training for m in model.frozen.modules())
    assert model.conv.padding_mode == padding == "circular"
    assert model.frozen.weight.dtype == torch.bfloat16 and model.frozen.weight.requires_grad  # through d, q_m, t only
    names = {canonical_name(model, n) for n, _ in model.named_parameters(remove_duplicate=False)}
    assert set(before) <= names


def test_defect_12_tied_weights_stay_tied_and_share_one_quantizer():
    model = Branches()
    quantizers = attach_quantizers(model, QuantConfig(initial_bits=4))
    assert model.embed.parametrizations.weight[0] is model.head.parametrizations.weight[0] is quantizers.weights["embed"]
    assert model.embed.parametrizations.weight.original is model.head.parametrizations.weight.original
    assert model.conv is model.again and torch.equal(model.embed.weight, model.head.weight)
    assert len(model.conv.parametrizations.weight) == 1  # a module under two names is quantized once
    clone = copy.deepcopy(model)
    assert clone.embed.parametrizations.weight[0] is clone.head.parametrizations.weight[0] is not quantizers.weights["embed"]
    clone(TOKENS).sum().backward()
    shared = clone.embed.parametrizations.weight.original
    assert shared is clone.head.parametrizations.weight.original and shared.grad is not None


def test_an_optimizer_built_before_keeps_training_the_same_tensors():
    model = Branches()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    attach_quantizers(model, WEIGHTS)
    before = {n: p.detach().clone() for n, p in parameter_tensors(model).items()}
    model(TOKENS).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in parameter_tensors(model).items() if not torch.equal(p, before[n])}
    assert {"matrix", "conv.weight", "attention.in_proj_weight", "embed.weight"} <= moved
    assert not any(n.startswith("frozen") for n in moved)


@pytest.mark.parametrize("config", [WEIGHTS, BOTH, QuantConfig(weights=False, activations=True)])
def test_undo_brings_back_classes_parameters_orders_and_hooks(config):
    model = Branches().eval()
    model.conv.register_forward_pre_hook(lambda module, args: args)
    model.conv.register_forward_hook(lambda module, args, output: None)
    before, y = identity(model), model(TOKENS)
    quantizers = attach_quantizers(model, config)
    assert identity(model) != before
    quantizers.undo()
    assert identity(model) == before and torch.equal(model(TOKENS), y)
    assert not quantizers.weights and not quantizers.activations and not quantizers.parameter_layer
    quantizers.undo()
    pickle.dumps(model.frozen)  # no parametrization is left that would forbid it


def test_a_deep_copy_stays_quantized_when_the_original_is_undone_or_changed():
    model = Branches().eval()
    quantizers = attach_quantizers(model, QuantConfig(initial_bits=4))
    clone = copy.deepcopy(model)
    y = clone(TOKENS)
    quantizers.undo()
    assert torch.equal(clone(TOKENS), y) and not torch.equal(model(TOKENS), y)
    cell = nn.LSTMCell(3, 4)
    attach_quantizers(cell, QuantConfig(skip=("weight_ih",)))
    other = copy.deepcopy(cell)
    attach_quantizers(other, WEIGHTS)  # hangs one more property on a class that torch lets the two share
    assert "weight_ih" in dict(cell.named_parameters())
    cell(torch.randn(2, 3))


def test_a_second_call_takes_over_and_never_doubles():
    model = Branches()
    first = attach_quantizers(model, BOTH)
    before = identity(model)
    second = attach_quantizers(model, QuantConfig(initial_bits=8))
    assert identity(model) == before
    assert second.weights == first.weights and second.activations == first.activations
    assert second.parameter_layer == first.parameter_layer and set(second.taken_over) == {*first.weights, *first.activations}
    assert first.taken_over == ()
    second.undo()
    assert identity(model) == before
    second.detach_weight("conv")
    second.detach_activation("conv")
    assert type(model.conv) is nn.Conv1d and not model.conv._forward_pre_hooks


def test_a_call_that_adds_activations_takes_only_those_off_again():
    model = nn.Sequential(nn.Linear(2, 2))
    first = attach_quantizers(model, WEIGHTS)
    before = identity(model)
    second = attach_quantizers(model, BOTH)
    assert second.taken_over == ("0",) and set(second.activations) == {"0"}
    second.undo()
    assert identity(model) == before and set(second.weights) == set(first.weights) == {"0"}


def test_defect_13_a_skip_pattern_matches_whole_paths_never_parts():
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("c1", "c10", "c2")})
    model["block"] = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def layers(*skip):
        quantizers = attach_quantizers(model, QuantConfig(activations=True, skip=skip))
        quantizers.undo()
        assert set(quantizers.parameter_layer) == set()
        again = attach_quantizers(model, QuantConfig(activations=True, skip=skip))
        found, inputs = set(again.weights), set(again.activations)
        again.undo()
        assert found == inputs
        return found

    assert layers("c1") == {"c10", "c2", "block.0", "block.1"}
    assert layers("c1*", "block.1") == {"c2", "block.0"}
    assert layers("block") == {"c1", "c10", "c2"}  # a module's path covers what lies in it
    assert layers("*.weight") == set()
    with pytest.raises(ConfigError, match='skip=\\("c1"'):
        layers("c_1")


def test_a_tied_weight_is_skipped_under_any_of_its_names():
    assert "embed" not in attach_quantizers(Branches(), QuantConfig(skip=("head",))).weights


def test_flags_choose_weights_activations_and_what_is_learned():
    model = nn.Sequential(nn.Linear(2, 2))
    quantizers = attach_quantizers(model, QuantConfig(activations=True, learn_exponent=True, initial_bits=9))
    weight, activation = quantizers.weights["0"], quantizers.activations["0"]
    assert weight.exponent.requires_grad and not activation.exponent.requires_grad
    assert float(weight.bit_width()) == pytest.approx(9, abs=1e-5) and float(activation.bit_width()) == 9
    quantizers.undo()
    only = attach_quantizers(model, QuantConfig(weights=False, activations=True, learn_activation_exponent=True))
    assert not only.weights and only.activations["0"].exponent.requires_grad and type(model[0]) is nn.Linear


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_quantizer_parameters_follow_the_weight_but_are_float32_at_least(dtype):
    model = nn.Linear(3, 3).to(dtype)
    quantizers = attach_quantizers(model, BOTH)
    wide = dtype if dtype is torch.float64 else torch.float32
    assert {p.dtype for q in (*quantizers.weights.values(), *quantizers.activations.values()) for p in q.parameters()} == {wide}
    assert model.weight.dtype == dtype


def test_models_that_a_parametrization_would_break_stay_whole_and_are_listed():
    class Steps(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(3, 3))
            self.scale = nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return super().forward(x) @ self.scale

    class Stubborn(nn.Linear):
        def __delattr__(self, name):
            raise RuntimeError("not from here")

    model = nn.ModuleDict({"steps": Steps(), "stubborn": Stubborn(3, 3), "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))})
    model["lazy"] = nn.LazyLinear(3)
    model["lazy"].nothing = nn.Parameter(torch.empty(0, 3))
    before = identity(model)
    quantizers = attach_quantizers(model, WEIGHTS)
    assert set(quantizers.excluded) == {"steps.scale", "stubborn.weight"} and set(quantizers.weights) == {"steps.0", "normed"}
    assert "not from here" in quantizers.excluded["stubborn.weight"]
    x = torch.randn(2, 3)
    assert model["normed"](model["stubborn"](model["steps"](x))).shape == (2, 3)
    quantizers.undo()
    assert identity(model) == before


def test_after_an_error_midway_the_model_is_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    before = identity(model)
    with pytest.raises(NonFiniteError, match=r"at: +2"):
        attach_quantizers(model, BOTH)
    assert identity(model) == before


def test_the_input_hook_quantizes_the_first_floating_tensor_wherever_it_stands():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(2))

        def forward(self, scale=1, x=None, other=None):
            return x, other

    model = Layer()
    quantizers = attach_quantizers(model, BOTH)
    quantizer = quantizers.activations["weight"]
    with pytest.raises(CalibrationError, match=r"at: +weight"):
        model(2, torch.ones(1))
    quantizer.set_range(1.0, bits=2)
    x, other = torch.tensor([0.7, -3.0]), torch.tensor([0.7])
    for result in (model(2, x, other), model(x=x, other=other), model(2, x=x, other=other)):
        assert result[0].tolist() == [1, -2] and result[1] is other
    whole = torch.tensor([7])
    assert model(2, whole, other) == (whole, other)  # tokens: nothing to quantize
    assert model(2) == (None, None)
    assert pickle.loads(pickle.dumps(quantize_input)) is quantize_input
    clone = copy.deepcopy(model)
    quantizers.undo()
    assert model(2, x)[0] is x and clone(2, x)[0].tolist() == [1, -2]


def test_a_users_own_attribute_called_input_quantizer_is_left_alone():
    model = nn.Linear(2, 2)
    model.input_quantizer = nn.Identity()
    quantizers = attach_quantizers(model, BOTH)
    assert not quantizers.activations and isinstance(model.input_quantizer, nn.Identity) and not model._forward_pre_hooks
    assert "attribute of this name" in quantizers.excluded["weight.input_quantizer"]


def test_a_sparse_embedding_trains_through_its_quantizer():
    model = nn.Embedding(5, 3, sparse=True)
    quantizers = attach_quantizers(model, WEIGHTS)
    model(torch.tensor([1, 1])).sum().backward()
    gradient = parameter_tensors(model)["weight"].grad
    assert gradient.to_dense().tolist() == [[0] * 3, [2] * 3, *[[0] * 3] * 3]
    assert quantizers.weights["weight"].step_size.grad is not None


def test_states_load_into_a_prepared_twin_and_calibration_comes_along():
    model, twin = Branches(), Branches()
    quantizers, others = attach_quantizers(model, BOTH), attach_quantizers(twin, BOTH)
    for quantizer in quantizers.activations.values():
        quantizer.set_range(4.0)
    twin.load_state_dict(model.state_dict())
    assert all(q.calibrated for q in others.activations.values())
    assert torch.equal(twin.eval()(TOKENS), model.eval()(TOKENS))


def test_a_meta_model_is_prepared_without_reading_a_value():
    with torch.device("meta"):
        model = Branches()
    quantizers = attach_quantizers(model, BOTH)
    assert all(p.is_meta for q in quantizers.weights.values() for p in q.parameters())
    assert not any(q.calibrated for q in quantizers.activations.values())
