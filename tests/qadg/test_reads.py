"""One run shows that a forward reads what is quantized through its quantizers; where it does not, it says so, and both are run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import TraceError
from geta_nb.qadg import agreement
from geta_nb.qadg.reads import _Watch

ROWS = torch.randn(3, 6)


class Net(nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.table, self.a, self.b, self.rnn = nn.Embedding(40, 6), nn.Linear(6, 8), nn.Linear(8, 8), nn.GRU(6, 8, batch_first=True)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    return net.b(torch.relu(net.a(x)))


def tied(net: Net, x: Tensor) -> Tensor:
    return net.b(torch.relu(net.a(x @ net.a.weight.T @ net.a.weight))) + net.b(net.a(x))


def rows(net: Net, x: Tensor) -> Tensor:
    return net.a(net.table((x > 0).long()).sum(1))


def by_parameters(net: Net, x: Tensor) -> Tensor:
    return net.b(x @ next(net.a.parameters()).T) if len(list(net.a.parameters())) == 2 else net.b(x @ _raw(net.a).T)


def _raw(module: nn.Module) -> Tensor:
    return next(parameter for parameter in module.parameters() if parameter.shape == (8, 6))


def past_the_attribute(net: Net, x: Tensor) -> Tensor:
    return net.b(x @ _raw(net.a).T)


def by_data(net: Net, x: Tensor) -> Tensor:
    return net.b(x @ _raw(net.a).detach().T)


def by_class(net: Net, x: Tensor) -> Tensor:
    return net.b(net.a(x)) * (1 if type(net.a) is nn.Linear else 2)


def at_random(net: Net, x: Tensor) -> Tensor:
    return net.b(net.a(x)) + torch.rand(3, 8)


@pytest.fixture
def shown(monkeypatch) -> list[bool]:
    """What the one run said."""
    said, ask = [], agreement.reads_through
    monkeypatch.setattr(agreement, "reads_through", lambda *given: (said.append(ask(*given)), said[-1])[1])
    return said


@pytest.mark.parametrize("body", [plain, tied, rows])
@pytest.mark.parametrize("config", [gt.QuantConfig(), gt.QuantConfig(activations=True), gt.QuantConfig(granularity="channel")])
def test_a_forward_that_reads_attributes_is_seen_to(body, config, shown):
    geta = gt.GETA(Net(body), ROWS, quantize=config)
    assert shown == [True] and geta.quantizers.weights


@pytest.mark.parametrize("body", [past_the_attribute, by_parameters])
def test_a_forward_that_reads_past_an_attribute_is_refused_as_before(body, shown):
    with pytest.raises(TraceError, match="does not use its quantized parameters"):
        gt.GETA(Net(body), ROWS)
    assert shown == [False]


def test_outputs_of_another_class_are_seen(shown):
    gt.GETA(Net(by_class), ROWS)  # the exporter has the last word, and finds no other graph
    assert shown == [False]


def test_what_gets_no_quantizer_may_be_read_in_any_way(shown):
    geta = gt.GETA(Net(by_data), ROWS)
    assert shown == [True] and "a" not in geta.quantizers.weights


@pytest.mark.parametrize(("read", "clean"), [
    (lambda watch, weight: watch.hand_on(weight).T @ torch.ones(8, 2), True),
    (lambda watch, weight: weight.data.T, False), (lambda watch, weight: weight[1:], False),
    (lambda watch, weight: watch.hand_on(weight).data.T, True), (lambda watch, weight: watch.hand_on(weight * 2), False),
], ids=["handed on", "its data", "a part", "data of what was handed on", "not itself"])  # fmt: skip
def test_memory_under_another_name_is_seen(read, clean):
    weight = nn.Parameter(torch.randn(8, 6))
    watch = _Watch([weight])
    with torch.no_grad(), watch:
        read(watch, weight)
    assert watch.clean == clean


def test_where_outputs_are_drawn_both_runs_draw_the_same(shown):
    gt.GETA(Net(at_random), ROWS)
    assert shown == [True]


def test_the_run_leaves_no_trace_on_the_model(shown):
    net = Net(plain)
    geta = gt.GETA(net, ROWS, quantize=gt.QuantConfig(activations=True))
    parts = [*geta.quantizers.weights.values(), *geta.quantizers.activations.values()]
    assert shown == [True] and not [part for part in parts if part.stand_in is not None]
