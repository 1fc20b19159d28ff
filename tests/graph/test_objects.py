"""Outputs that are objects: the trace and every comparison see all their tensors, in one order, and no class is registered for it."""

from __future__ import annotations

from collections import UserDict, deque
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import LlamaConfig, LlamaForCausalLM

import geta_nb as gt
from geta_nb.errors import TraceError
from geta_nb.graph import agree_in_float64, outputs_of, trace_model
from geta_nb.graph.objects import opened, opened_outputs
from geta_nb.graph.records import Record

ROWS = (torch.randn(3, 4),)


@dataclass
class Fields:
    logits: Tensor
    hidden: Any = None
    count: int = 3
    setting: Any = field(default_factory=lambda: torch.float32)


@dataclass(slots=True)
class Slots:
    left: Tensor
    right: Tensor


class Layer:
    def __init__(self, keys: Tensor) -> None:
        self.values, self.keys, self.length, self.dtype = keys + 1, keys, 7, keys.dtype


class Store:
    """Layers in a list, a way back to itself, and a network that is no output."""

    def __init__(self, *keys: Tensor) -> None:
        self.layers, self.owner, self.maker, self.net = [Layer(key) for key in keys], self, Layer, nn.Linear(2, 2)


class Hidden:
    __slots__ = ("__inside", "other")

    def __init__(self, inside: Tensor, other: Tensor) -> None:
        self.__inside, self.other = inside, other


class Words(dict):
    pass


def shapes(out: Any) -> list[Any]:
    return [leaf.numel() if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves(opened(out))]


def ones(count: int) -> Tensor:
    return torch.ones(count)


OBJECTS = {
    "a dataclass": (lambda: Fields(ones(1), [ones(2)]), [1, 2, 3]),
    "one with slots": (lambda: Slots(ones(1), ones(2)), [1, 2]),
    "attributes by name": (lambda: Layer(ones(2)), [2, 2]),
    "deeper, with a way back": (lambda: Store(ones(1), ones(2)), [1, 1, 2, 2]),
    "private slots": (lambda: Hidden(ones(1), ones(2)), [1, 2]),
    "a kind of dict": (lambda: Words(b=ones(1), a=ones(2)), [1, 2]),
    "another mapping": (lambda: UserDict(x=ones(1)), [1]),
    "a queue": (lambda: Fields(ones(1), deque([ones(2), ones(3)])), [1, 2, 3, 3]),
    "in a tuple": (lambda: (ones(1), Layer(ones(2)), {"more": Slots(ones(3), ones(4))}), [1, 2, 2, 3, 4]),
    "known": (lambda: (ones(1), 5, "text", None), [1, 5, "text", None]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_tensors_come_out_in_one_order(name):
    build, expected = OBJECTS[name]
    assert shapes(build()) == expected == shapes(build())


def test_what_torch_knows_is_not_touched():
    out = (ones(1), {"a": [ones(2)]})
    assert opened(out) is out
    record = opened(Fields(ones(1)))
    assert type(record) is Record and record.logits.numel() == 1 and record.count == 3 and record.hidden is None


@pytest.mark.parametrize("value", [{torch.ones(1)}, (item for item in [torch.ones(1)]), torch.float32, nn.Linear(2, 2)], ids=type)
def test_what_shows_no_tensors_stays(value):
    assert opened((ones(1), value))[1] is value


class Net(nn.Module):
    """Two layers, and outputs made of what is between and what is behind them."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.a, self.b, self.make = nn.Linear(4, 8), nn.Linear(8, 2), make

    def forward(self, x: Tensor) -> Any:
        inside = torch.relu(self.a(x))
        return self.make(self.b(inside), inside)


MAKERS = {
    "a dataclass": lambda out, inside: Fields(out, inside[:, :1]),
    "slots": lambda out, inside: Slots(out, out * 2),
    "objects in a list": lambda out, inside: (out, Store(out, out * 2)),
    "a kind of dict": lambda out, inside: Words(out=out),
}


@pytest.mark.parametrize("name", MAKERS)
def test_trace_and_model_give_the_same_tensors_and_the_model_is_as_it_was(name):
    model, known = Net(MAKERS[name]).eval(), dict(pytree.SUPPORTED_NODES)
    trace = trace_model(model, ROWS)
    expected, found = outputs_of(model, *(ROWS, {})), outputs_of(trace.module, ROWS, {})
    assert len(expected) == len(found) and all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert not model._forward_hooks and known == pytree.SUPPORTED_NODES


def test_the_hook_goes_also_after_an_error():
    model = Net(lambda out, inside: out * float(out.sum()))
    with pytest.raises(TraceError):
        trace_model(model, ROWS)
    with pytest.raises(KeyError), opened_outputs(model):
        raise KeyError
    assert not model._forward_hooks


def test_the_user_s_own_hooks_see_the_object():
    model, seen = Net(MAKERS["a dataclass"]), []
    model.register_forward_hook(lambda module, args, out: seen.append(type(out)))
    trace_model(model, ROWS)
    assert set(seen) == {Fields}


@pytest.mark.parametrize("quantize", [None, gt.QuantConfig()], ids=["pruning", "quantized"])
def test_a_native_subnet_gives_the_object_and_a_file_its_fields(quantize, tmp_path):
    geta = gt.GETA(Net(MAKERS["a dataclass"]), ROWS, quantize=quantize)
    assert len(geta.groups) == 7, "the channel that is given out stays"
    geta.mask([0, 3])
    reference = outputs_of(geta.model, ROWS, {})
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native" and type(subnet(*ROWS)) is Fields
    loaded = gt.load(gt.save(subnet, tmp_path / "net.safetensors"))
    out = loaded(*ROWS)
    assert type(out) is Record and list(out) == ["logits", "hidden", "count", "setting"] and out.setting is None
    assert torch.allclose(out.logits, reference[0], atol=1e-6) and torch.allclose(out.hidden, reference[1], atol=1e-6)


def test_a_cut_that_the_object_alone_shows_is_compared():
    geta = gt.GETA(Net(MAKERS["objects in a list"]).double(), (ROWS[0].double(),), quantize=None)
    geta.mask([1])
    args = (ROWS[0].double(),)
    subnet = geta.construct_subnet()
    assert len(outputs_of(subnet, args, {})) == 5 and agree_in_float64(subnet, geta.model, args, {})
    subnet.make = lambda out, inside: (out, Store(out, out * 3))
    assert not agree_in_float64(subnet, geta.model, args, {})


def test_a_language_model_as_it_comes_gives_its_cache_and_keeps_its_heads(tmp_path):
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=20,
        max_position_embeddings=32,
    )  # fmt: skip
    tokens, longer = torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (3, 9))
    model = LlamaForCausalLM(config).double().eval()  # in float32 the scales of its norms would be rounded when they change
    geta = gt.GETA(model, tokens, quantize=None)
    assert any(entry.path.startswith("model.layers.0.self_attn.k_proj") and entry.operator == "output" for entry in geta.protected)
    geta.mask(range(0, len(geta.groups), 2))
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native" and agree_in_float64(subnet, model, (tokens,), {})
    assert len(outputs_of(subnet, (tokens,), {})) == 5, "logits, keys and values"

    given = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    written = subnet.generate(tokens, **given)
    assert torch.equal(written, model.generate(tokens, **given))
    path = gt.save(subnet, tmp_path / "lm.safetensors")
    again = gt.load(path, model=LlamaForCausalLM(config).double())
    assert torch.equal(again.generate(tokens, **given), subnet.generate(tokens, **given))
    out, expected = gt.load(path)(longer), again(longer)
    assert torch.allclose(out.logits, expected.logits, atol=1e-5)
    assert torch.allclose(out.past_key_values["layers"][1]["keys"], expected.past_key_values.layers[1].keys, atol=1e-5)


def test_a_model_that_also_gives_a_cache_takes_a_file_that_was_traced_without(tmp_path):
    def config(**more: Any) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=20, **more
        )

    tokens = torch.randint(0, 20, (2, 5))
    geta = gt.GETA(LlamaForCausalLM(config(use_cache=False)), tokens, quantize=None)
    geta.mask([0])
    path = gt.save(geta.construct_subnet(), tmp_path / "lm.safetensors")
    again = gt.load(path, model=LlamaForCausalLM(config()))
    assert again(tokens).past_key_values is not None
