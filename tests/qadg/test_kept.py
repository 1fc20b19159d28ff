"""The kept trace: used again where nothing has changed that a trace depends on, and never where something has."""

from __future__ import annotations

import copy
import gc
import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import LlamaConfig, LlamaForCausalLM

import geta_nb as gt
from geta_nb.errors import TraceError
from geta_nb.graph import agree_in_float64
from geta_nb.qadg import kept
from geta_nb.subnet import fingerprint

MODES = {"pruning": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True)}
ROWS = torch.randn(3, 6)
SCALE = 2


class Options:
    def __init__(self) -> None:
        self.gain, self.names = 3, ["a", "b"]


def squash(x: Tensor) -> Tensor:
    return torch.tanh(x)


class Net(nn.Module):
    """A forward that depends on attributes, an object, a class attribute, a global number, a global function and a plain input."""

    shift = 1

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.depth, self.options, self.table = 1, Options(), {"on": True}
        self.act: Callable[[Tensor], Tensor] = torch.relu

    def inside(self, x: Tensor) -> Tensor:
        return squash(x)

    def forward(self, x: Tensor, flag: bool = False) -> Tensor:
        x = self.act(self.first(x)) * SCALE
        for _ in range(self.depth):
            x = self.inside(self.second(x)) * self.options.gain
        x = self.last(x) + self.shift
        return -x if flag or not self.table["on"] else x


@pytest.fixture
def exports(monkeypatch) -> Iterator[list[int]]:
    """One entry for each run of the exporter."""
    runs, export = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: (runs.append(1), export(*args, **kwargs))[1])
    return runs


def nodes(geta: gt.GETA) -> list[tuple[str, str, Any]]:
    rows = [(node.op, str(node.target), str(node.meta.get("val"))) for node in geta.trace.module.graph.nodes]
    return [row for row in rows if row[0] != "get_attr"] + sorted(row for row in rows if row[0] == "get_attr")


@pytest.mark.parametrize("second", MODES)
@pytest.mark.parametrize("first", MODES)
def test_a_second_analysis_is_what_it_would_be_without_the_first(first, second, exports, monkeypatch):
    model = Net()
    gt.GETA(model, ROWS, quantize=MODES[first])
    again = gt.GETA(model, ROWS, quantize=MODES[second])
    assert len(exports) == (2 if second == "both" != first else 1), "marks that were never put want a trace of their own"
    monkeypatch.setattr(kept, "_STORE", weakref.WeakKeyDictionary())
    fresh = gt.GETA(model, ROWS, quantize=MODES[second])
    assert nodes(again) == nodes(fresh) and fingerprint(again.groups.table) == fingerprint(fresh.groups.table)
    assert again.cost.dense.figures() == fresh.cost.dense.figures() and again.qadg.summary() == fresh.qadg.summary()
    assert list(again.protected) == list(fresh.protected)


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_after_another_one_is_of_the_weights_as_they_are(mode):
    model = Net().double()
    x = ROWS.double()
    for round_ in range(2):
        geta = gt.GETA(model, x, quantize=MODES[mode])
        geta.calibrate([x])
        geta.mask([round_, round_ + 3])
        assert agree_in_float64(geta.construct_subnet(), model, (x,), {})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.25)


def test_graphs_that_are_handed_out_share_no_node():
    model = Net()
    one, two = gt.GETA(model, ROWS), gt.GETA(model, ROWS)
    held = next(iter(kept._STORE[model].values())).trace
    graphs = [set(trace.module.graph.nodes) for trace in (one.trace, two.trace, held)]
    assert graphs[0].isdisjoint(graphs[1]) and graphs[1].isdisjoint(graphs[2])
    assert held.args == () and torch.equal(two.trace.module(ROWS), two.trace.module(ROWS))


def _patch_method(net: Net) -> None:
    net.inside = types.MethodType(lambda self, x: torch.sin(x), net)


def _patch_table(net: Net) -> None:
    net.table["on"] = False


def _patch_forward(net: Net) -> None:
    net.second.forward = lambda x: torch.zeros_like(x)


def _new_parameter(net: Net) -> None:
    net.second.bias = nn.Parameter(torch.randn(12))


def _parametrize(net: Net) -> None:
    parametrize.register_parametrization(net.second, "weight", nn.Tanh())


CHANGES: dict[str, Callable[[Net], Any]] = {
    "a number": lambda net: setattr(net, "depth", 2),
    "a number in an object": lambda net: setattr(net.options, "gain", 5),
    "a list in an object": lambda net: net.options.names.append("c"),
    "a new attribute": lambda net: setattr(net, "other", 1),
    "a value in a dict": _patch_table,
    "a function": lambda net: setattr(net, "act", torch.sigmoid),
    "a method": _patch_method,
    "a forward of an instance": _patch_forward,
    "a hook": lambda net: net.second.register_forward_hook(lambda module, args, out: out * 2),
    "a hook before": lambda net: net.second.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
    "another module": lambda net: setattr(net, "second", nn.Linear(12, 12)),
    "a module of another kind": lambda net: setattr(net, "second", nn.Identity()),
    "another parameter": _new_parameter,
    "a parameter without gradient": lambda net: net.second.bias.requires_grad_(False),
    "a parametrization": _parametrize,
    "a buffer": lambda net: net.register_buffer("mean", torch.zeros(3)),
    "a plain tensor": lambda net: setattr(net, "loose", torch.zeros(3)),
    "no bias": lambda net: setattr(net.second, "bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("quantize", [None, gt.QuantConfig()], ids=["plain", "quantized"])
def test_a_model_that_changed_is_traced_anew(change, quantize, exports):
    model = Net()
    gt.GETA(model, ROWS, quantize=quantize)
    CHANGES[change](model)
    gt.GETA(model, ROWS, quantize=quantize)
    assert len(exports) == 2


def test_a_model_that_was_cast_is_traced_anew(exports):
    model = Net()
    gt.GETA(model, ROWS)
    geta = gt.GETA(model.double(), ROWS.double())
    assert len(exports) == 2 and geta.trace.module(ROWS.double()).dtype == torch.float64


@pytest.mark.parametrize("name", ["forward", "inside"])
def test_a_class_that_was_patched_is_traced_anew(name, monkeypatch, exports):
    model = Net()
    gt.GETA(model, ROWS, quantize=None)
    monkeypatch.setattr(Net, name, lambda self, x: torch.sin(self.first(x)) if name == "forward" else torch.sin(x))
    geta = gt.GETA(model, ROWS, quantize=None)
    assert len(exports) == 2 and torch.allclose(geta.trace.module(ROWS), model(ROWS), atol=1e-6)


def test_what_the_forward_reads_elsewhere_counts(monkeypatch, exports):
    model = Net()
    for name, value in (("SCALE", 7), ("squash", torch.sigmoid)):
        gt.GETA(model, ROWS, quantize=None)
        before = len(exports)
        monkeypatch.setitem(Net.forward.__globals__, name, value)
        geta = gt.GETA(model, ROWS, quantize=None)
        assert len(exports) == before + 1 and torch.allclose(geta.trace.module(ROWS), model(ROWS), atol=1e-6)
    monkeypatch.setattr(Net, "shift", 9)
    gt.GETA(model, ROWS, quantize=None)
    assert len(exports) == 4


@pytest.mark.parametrize("inputs", [
    ((torch.randn(3, 6), True), {}), ((torch.randn(3, 6),), {"flag": True}), ((torch.randn(2, 6),), {}), ((torch.randn(3, 2, 6),), {}),
], ids=["a value", "by keyword", "a size", "an axis"])  # fmt: skip
def test_other_inputs_are_traced_anew(inputs, exports):
    model = Net()
    gt.GETA(model, (torch.randn(3, 6), False), quantize=None)
    gt.GETA(model, inputs[0], example_kwargs=inputs[1], quantize=None)
    assert len(exports) == 2


def test_other_values_of_the_same_shape_are_not(exports):
    model = Net()
    gt.GETA(model, ROWS, quantize=None)
    other = ROWS + 1
    geta = gt.GETA(model, other, quantize=None)
    assert len(exports) == 1 and geta.trace.args[0] is other


def test_a_rule_that_was_added_counts(exports, monkeypatch):
    model = Net()
    gt.GETA(model, ROWS, quantize=None)
    monkeypatch.setitem(kept.RULES, "tests::new", None)
    gt.GETA(model, ROWS, quantize=None)
    assert len(exports) == 2


def test_a_trace_goes_with_its_model_and_is_no_part_of_it(exports):
    model = Net()
    before = set(model.__dict__)
    gt.GETA(model, ROWS, quantize=None)
    assert set(model.__dict__) == before and len(pickle.dumps(model)) < 20_000
    twin = copy.deepcopy(model)
    assert model in kept._STORE and twin not in kept._STORE
    gt.GETA(twin, ROWS, quantize=None)
    assert len(exports) == 2
    gone, tensor = weakref.ref(model), weakref.ref(model.first.weight)
    del model
    gc.collect()  # the model, and with it the entry
    gc.collect()  # its trace, whose graph and module hold one another
    assert gone() is None and tensor() is None


class Overwrites(nn.Module):
    """Owns a matrix, and writes into what it is given, which the network reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return x @ self.weight


class ReadsAgain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(6, 6), Overwrites()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.inner(x) + x


def test_a_mark_that_is_written_into_is_not_taken_out(exports):
    model = ReadsAgain()
    with pytest.raises(TraceError, match="does not overwrite"):
        gt.GETA(model, ROWS, quantize=gt.QuantConfig(weights=False, activations=True))
    assert kept._STORE[model]["batch"].trace.bound_marks
    count = len(exports)
    geta = gt.GETA(model, ROWS, quantize=None)
    assert len(exports) == count + 1 and torch.allclose(geta.trace.module(ROWS), model(ROWS), atol=1e-6)


class Past(nn.Module):
    """Reads its weight past the attribute, so that a quantizer there would do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = next(parameter for parameter in self.a.parameters() if parameter.dim() == 2)
        return self.b(x @ weight.T)


def test_a_forward_that_reads_past_its_quantizers_is_refused_each_time():
    model = Past()
    gt.GETA(model, ROWS, quantize=None)
    for _ in range(2):
        with pytest.raises(TraceError, match="does not use its quantized parameters"):
            gt.GETA(model, ROWS)


def test_a_language_model_is_traced_once(exports):
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, vocab_size=20,
    )  # fmt: skip
    model, tokens = LlamaForCausalLM(config), torch.randint(0, 20, (2, 5))
    gt.GETA(model, tokens, quantize=None)
    gt.GETA(model, tokens)
    assert len(exports) == 1
    model.config.use_cache = False
    gt.GETA(model, tokens)
    assert len(exports) == 2
