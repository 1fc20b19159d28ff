"""A state dict of the plain network, loaded after ``gt.GETA``: every quantized parameter is found under its plain name."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import geta_nb as gt
from geta_nb.errors import CalibrationError
from geta_nb.quantizers.plain_state import read_plain_names


def net(scale: float = 1.0) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KINDS = [{}, {"granularity": "channel"}, {"activations": True}, {"weights": False, "activations": True}]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ", ".join(kind) or "default")
def test_it_fills_the_model_as_if_geta_had_come_after(kind):
    config, pretrained = gt.QuantConfig(**kind), net(3.0)
    late, early = net(), net()
    geta = gt.GETA(late, X, quantize=config)
    geta.calibrate([X])
    assert str(late.load_state_dict(pretrained.state_dict())) == "<All keys matched successfully>"
    early.load_state_dict(pretrained.state_dict())
    other = gt.GETA(early, X, quantize=config)
    if config.activations:
        with pytest.raises(CalibrationError, match=r"geta\.calibrate"):  # its ranges were those of other weights
            late(X)
        geta.calibrate([X])
        other.calibrate([X])
    for name, value in early.state_dict().items():
        assert torch.equal(late.state_dict()[name], value), name
    assert torch.equal(late(X), early(X))


def test_what_was_trained_down_starts_anew_and_keeps_its_parameters():
    geta = gt.GETA(net(), X)
    before = dict(geta.model.named_parameters())
    geta.quantizers.weights["0"].set_range(0.5, bits=3)
    geta.model.load_state_dict(net().state_dict())
    assert geta.bit_widths()["0"] == 16
    assert float(geta.quantizers.weights["0"].clip_max.detach()) == float(geta.model[0].weight.detach().abs().max())
    assert all(parameter is before[name] for name, parameter in geta.model.named_parameters())


def test_a_state_dict_with_some_of_the_quantizers_is_still_incomplete():
    geta = gt.GETA(net(), X, quantize=gt.QuantConfig(activations=True))
    whole = geta.model.state_dict()
    for left_out in ("step_size", "0.input_quantizer", "parametrizations.weight.0"):
        with pytest.raises(RuntimeError, match=r"Missing key"):
            geta.model.load_state_dict({name: value for name, value in whole.items() if left_out not in name})
    geta.model.load_state_dict(whole)


def test_a_wrong_shape_and_a_missing_weight_are_said_in_torchs_words():
    geta = gt.GETA(net(), X)
    with pytest.raises(RuntimeError, match=r"size mismatch for 4\.parametrizations\.weight\.original"):
        geta.model.load_state_dict(net().state_dict() | {"4.weight": torch.zeros(5, 288)})
    plain = net().state_dict()
    del plain["0.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        geta.model.load_state_dict(plain)
    assert geta.model.load_state_dict(plain, strict=False).missing_keys


def test_the_state_dict_itself_stays():
    state = net().state_dict()
    names = list(state)
    gt.GETA(net(), X).model.load_state_dict(state)
    gt.GETA(nn.Linear(4, 4), torch.randn(2, 4)).model.load_state_dict(nn.Linear(4, 4).state_dict())
    assert list(state) == names


def test_copies_read_plain_names_too_and_nothing_is_left_after_undo():
    geta = gt.GETA(net(), X, quantize=gt.QuantConfig(activations=True))
    twin = copy.deepcopy(geta.model)
    twin.load_state_dict(net(2.0).state_dict())
    assert not torch.equal(twin[0].weight, geta.model[0].weight)
    hooks = [len(module._load_state_dict_pre_hooks) for module in (geta.model[0], twin[0])]
    assert hooks == [1, 1]
    geta.quantizers.undo()
    assert all(not module._load_state_dict_pre_hooks for module in geta.model.modules())
    assert pickle.loads(pickle.dumps(read_plain_names)) is read_plain_names


def test_tied_weights_and_foreign_parametrizations():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight
            self.normed = weight_norm(nn.Linear(8, 8))

        def forward(self, tokens):
            return self.head(self.normed(self.embed(tokens)))

    model, pretrained, tokens = Tied(), Tied(), torch.arange(6).view(2, 3)
    gt.GETA(model, tokens)
    model.load_state_dict(pretrained.state_dict())
    torch.testing.assert_close(model(tokens), pretrained(tokens), rtol=1e-3, atol=1e-3)
    assert model.head.parametrizations.weight.original is model.embed.parametrizations.weight.original
