"""An operator without a rule is broken up alone, and not by tracing the whole graph once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.graph import trace
from geta_nb.graph.trace import trace_model
from geta_nb.groups import understood
from tests.zoo.catalogue import ZOO


@pytest.fixture
def second_traces(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of torch's decomposition of a whole graph."""
    found: list[Any] = []
    kind = torch.export.ExportedProgram
    whole = kind.run_decompositions
    monkeypatch.setattr(kind, "run_decompositions", lambda self, *args, **options: found.append(args) or whole(self, *args, **options))
    return found


class Net(nn.Module):
    def __init__(self, body: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.bilinear, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Bilinear(8, 8, 5), nn.Linear(8, 3)
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


BODIES: dict[str, Callable[[Any, Tensor], Any]] = {
    "concatenate": lambda net, x: net.head(torch.concatenate([net.a(x), net.b(x)], 0)),
    "outer": lambda net, x: net.head(net.a(x) * torch.outer(torch.arange(x.shape[0]).float(), torch.ones(8))),
    "bilinear": lambda net, x: net.bilinear(net.a(x), net.b(x).relu()),
    "distance": lambda net, x: F.pairwise_distance(net.a(x), net.b(x)),
    "two of a kind": lambda net, x: net.head(torch.multiply(torch.multiply(net.a(x), 2.0), net.b(x))),
    "several results": lambda net, x: [net.head(part) for part in torch.atleast_2d(net.a(x), net.b(x))],
    "one after the other": lambda net, x: net.head(torch.subtract(torch.concatenate([net.a(x)], 0), net.b(x))),
    "a loss": lambda net, x: F.huber_loss(net.a(x), net.b(x)),
    "similarity": lambda net, x: F.cosine_similarity(net.a(x), net.b(x)),
    "a product of any axes": lambda net, x: torch.tensordot(net.a(x), net.head.weight, ([1], [1])),
}


@pytest.mark.parametrize("name", BODIES)
def test_one_operator_sends_no_graph_through_a_second_trace(name, second_traces):
    torch.manual_seed(0)
    model = Net(BODIES[name]).eval()
    found = trace_model(model, (torch.randn(4, 6),), understood=understood)
    assert not second_traces and found.dynamic_batch
    assert not trace._missing(found.module.graph, understood)
    for batch in (1, 4, 5):
        x = torch.randn(batch, 6)
        with torch.no_grad():
            torch.testing.assert_close(found.module(x), model(x), rtol=1e-6, atol=1e-6)  # float32, parts of one operator for it


@pytest.mark.parametrize("name", BODIES)
def test_the_groups_are_those_of_a_second_trace(name, second_traces, monkeypatch):
    def groups() -> tuple[Any, ...]:
        torch.manual_seed(0)
        geta = gt.GETA(Net(BODIES[name]).eval(), torch.randn(4, 6))
        assert geta.quantizers is not None
        sizes = sorted(len(family.groups) for family in geta.families)
        return sizes, sorted(geta.quantizers.weights), geta.cost.dense.macs, len(geta.protected)

    alone = groups()
    assert not second_traces
    monkeypatch.setattr(trace, "break_up", lambda module, table: False)
    assert groups() == alone
    assert second_traces, "torch's own way was taken"


class Cells(nn.Module):
    """A cell whose state goes round, from a state that is a number, with and without biases."""

    def __init__(self, kind: Any, bias: bool) -> None:
        super().__init__()
        self.cell, self.head = kind(6, 7, bias), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_full((x.shape[0], 7), 0.5)
        for _ in range(2):
            state = self.cell(x, (state, state.cos()))[0] if isinstance(self.cell, nn.LSTMCell) else self.cell(x, state)
        out: Tensor = self.head(state)
        return out


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_recurrent_cell_is_its_formula_for_any_batch(kind, bias, second_traces):
    torch.manual_seed(0)
    model = Cells(kind, bias).double().eval()
    found = trace_model(model, (torch.randn(4, 6, dtype=torch.float64),), understood=understood)
    assert not second_traces and found.sizes is not None and not found.sizes.bound[:-1]
    with torch.no_grad():
        for batch in (1, 4, 5):
            x = torch.randn(batch, 6, dtype=torch.float64)
            torch.testing.assert_close(found.module(x), model(x), rtol=1e-12, atol=1e-12)  # the same sums, some of them halved


def test_a_function_mapped_over_places_leaves_no_trace_of_the_mapping(second_traces):
    place = torch.arange(8)
    earlier = torch.func.vmap(torch.func.vmap(lambda i, j: i >= j, (None, 0)), (0, None))
    model, x = Net(lambda net, x: net.head(net.a(x).masked_fill(earlier(place, place)[2], 0.0))).eval(), torch.randn(4, 6)
    found = trace_model(model, (x,), understood=understood)
    assert not second_traces and all(node.op != "call_function" or "vmap" not in str(node.target) for node in found.module.graph.nodes)
    with torch.no_grad():
        assert torch.equal(found.module(x), model(x))


def test_parts_stand_in_the_module_and_at_the_line_of_the_operator():
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.outer(x[:, 0], x[0])

    found = trace_model(nn.Sequential(nn.Linear(6, 8), Inner()), (torch.randn(4, 6),), understood=understood)
    (product,) = [node for node in found.nodes if node.operator == "mul"]
    assert product.module_path == "1" and product.source.startswith("test_break_up.py:") and product.shape == (4, 8)


def test_a_write_that_another_name_may_show_is_still_made_functional_by_torch(second_traces):
    def written(net: Net, x: Tensor) -> Tensor:
        y = torch.zeros_like(net.a(x))
        rows = y.flatten()
        y[:, :4] = net.b(x)[:, :4]
        return net.head(torch.concatenate([y, rows.view(y.shape)], 0))

    model, x = Net(written).eval(), torch.randn(4, 6)
    found = trace_model(model, (x,), understood=understood)
    assert len(second_traces) == 1, "and what has no rule is broken up after it, alone"
    with torch.no_grad():
        assert torch.equal(found.module(x), model(x))


def test_what_cannot_be_traced_alone_goes_the_long_way(second_traces, monkeypatch):
    def fails(*args: Any, **options: Any) -> Any:
        raise RuntimeError("wants values")

    monkeypatch.setattr("geta_nb.graph.break_up.make_fx", fails)
    model, x = Net(BODIES["outer"]).eval(), torch.randn(4, 6)
    found = trace_model(model, (x,), understood=understood)
    assert second_traces
    with torch.no_grad():
        assert torch.equal(found.module(x), model(x))


@pytest.mark.parametrize("name", ["structured"])
def test_a_net_of_the_zoo_is_traced_once(name, second_traces):
    entry = ZOO[name]
    trace_model(entry.build(), entry.inputs(2), entry.kwargs(2), understood=understood)
    assert not second_traces
