"""The plain model is traced once, and quantizers stand exactly where its graph asks for them: model and trace cannot disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

import geta_nb as gt
from geta_nb.errors import TraceError
from geta_nb.graph import is_mark
from geta_nb.quantizers import Quantizer
from tests.small_nets import IMAGES, ROWS, Literal, Residual, assert_same, cnn, evaluate, leaves
from tests.zoo import laws

BOTH = gt.QuantConfig(activations=True)
CHANNEL = gt.QuantConfig(activations=True, granularity="channel")
PAPER = gt.QuantConfig.paper(activations=True)


class Gated(nn.Module):
    """A residual branch behind a learned gate of one element."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.first, self.branch, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.gate = nn.Parameter(torch.full(shape, 0.3))

        self.end: nn.Module = nn.Identity()

    def with_end(self, end: nn.Module) -> Gated:
        self.end = end
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.end(self.last(y + self.gate * self.branch(y).relu()))


def ending(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1), last)


ONE_ELEMENT: dict[str, Callable[[], nn.Module]] = {
    "gate of two axes": lambda: Gated(1, 1),
    "gate of four axes": lambda: Gated(1, 1, 1, 1),
    "linear from one to one": lambda: ending(nn.Linear(1, 1)),
    "convolution from one to one": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3), nn.Conv2d(1, 1, 1)),
    "weight_norm of one channel": lambda: Gated(1, 1).with_end(parametrizations.weight_norm(nn.Conv2d(2, 1, 3))),
}


def check_trace(geta: gt.GETA) -> None:
    """The trace, branches and all, computes what the model computes now."""
    inputs = geta.example_inputs
    with torch.no_grad():
        laws.assert_same(evaluate(geta.model, *inputs), leaves(geta.trace.module(*inputs)), laws.RTOL_FLOAT32)


@pytest.mark.parametrize("config", [gt.QuantConfig(), BOTH], ids=["weights", "weights and inputs"])
@pytest.mark.parametrize("name", ONE_ELEMENT)
def test_a_parameter_of_one_element_trains_is_cut_saved_and_loaded(name: str, config: gt.QuantConfig, tmp_path: Any) -> None:
    model = ONE_ELEMENT[name]()
    geta = gt.GETA(model, IMAGES, quantize=config)
    geta.calibrate([IMAGES])
    check_trace(geta)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.05, budget=gt.Budget(0.5, bit_range=(4, 8)), schedule=gt.Schedule.for_steps(20))
    for _ in range(20):
        optimizer.zero_grad()
        (model(IMAGES) - 1).square().mean().backward()
        optimizer.step()
    check_trace(geta)
    subnet = geta.construct_subnet()
    rtol = laws.RTOL_CODES if geta.activation_bit_widths() else laws.RTOL_FLOAT32
    laws.assert_same(evaluate(model, IMAGES), evaluate(subnet, IMAGES), rtol)
    again = gt.load(gt.save(subnet, tmp_path / "net"))
    # torch makes weight_norm one kernel in the module and several operators in a graph, which round apart
    assert_same(evaluate(again, IMAGES), evaluate(subnet, IMAGES), atol=1e-6 if name.startswith("weight_norm") else 0.0)


def test_only_a_matrix_of_one_element_gets_a_quantizer() -> None:
    with pytest.warns(FutureWarning):
        old_style = weight_norm(nn.Conv2d(8, 1, 3))
    for model, wanted in ((Gated(1, 1, 1, 1), {"first", "branch", "last"}), (ending(nn.Linear(1, 1)), {"0", "4", "5"}),
                          (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), old_style), {"0"})):  # fmt: skip
        geta = gt.GETA(model, IMAGES)
        assert set(geta.bit_widths()) == wanted == {v.weight_quantizer for v in geta.qadg.vertices} - {None}


class Counting:
    """Counts how often torch's exporter runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs, export = 0, torch.export.export

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.runs += 1
            return export(*args, **kwargs)

        monkeypatch.setattr(torch.export, "export", counted)


@pytest.mark.parametrize("build", [cnn, Residual, lambda: Gated(1, 1)], ids=["cnn", "residual", "gate"])
def test_quantizers_cost_no_further_run_of_the_exporter(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Counting(monkeypatch)
    for config in (None, gt.QuantConfig(), BOTH):
        before = exporter.runs
        gt.GETA(build(), IMAGES, quantize=config)
        assert exporter.runs == before + 1


class Tokens(nn.Module):
    """A learned query is what a layer reads, and a table is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Parameter(torch.randn(1, 3, 6)), nn.Linear(6, 8)
        self.value, self.out = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.key(self.query) @ self.key(x.unsqueeze(1)).transpose(1, 2)
        return self.out(scores.softmax(-1) @ self.value(x.unsqueeze(1))) @ self.value.weight.t()


class Wrapped(nn.Module):
    """A layer under two names, and one whose input is a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two, self.last = self.one, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=F.relu(self.two(F.relu(self.one(x)))))


class Rounds(nn.Module):
    """Rounds what it computes by itself, for a sum, for a layer that rounds too, and for a sum again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(ROWS.shape[-1], 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.one(x))
        second = F.relu(self.two(self.rounded(first + self.rounded(first))))
        return self.last(second + self.rounded(second))

    def rounded(self, x: Tensor) -> Tensor:
        return (x / 0.05).round().clamp(-128, 127) * 0.05


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "cnn": (cnn, IMAGES),
    "residual": (Residual, IMAGES),
    "literal": (Literal, ROWS),
    "gate": (lambda: Gated(1, 1, 1, 1), IMAGES),
    "one to one": (ONE_ELEMENT["linear from one to one"], IMAGES),
    "tokens": (Tokens, ROWS),
    "wrapped": (Wrapped, ROWS),
    "rounds": (Rounds, ROWS),
}


@pytest.mark.parametrize("config", [gt.QuantConfig(), BOTH, PAPER, CHANNEL], ids=["weights", "weights and inputs", "paper", "channels"])
@pytest.mark.parametrize("name", NETS)
def test_folding_the_quantized_models_own_trace_gives_the_same_graph(name: str, config: gt.QuantConfig) -> None:
    build, inputs = NETS[name]
    geta = gt.GETA(build(), inputs, quantize=config)
    laws.check_same_graph(geta)
    again = gt.GETA(geta.model, inputs, quantize=config)
    laws.check_same_graph(again)
    names = [branch.name for branch in again.qadg.branches]
    assert len(set(names)) == len(names)
    assert again.qadg.summary() == geta.qadg.summary() and set(again.quantizers.taken_over) == set(geta.bit_widths())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_branches_of_channels_and_of_unsigned_inputs_are_found_and_noted_with_their_shapes(dtype: torch.dtype) -> None:
    """In half precision the numbers stay float32, and the tensor is cast to them and back."""
    geta = gt.GETA(Residual().to(dtype), IMAGES.to(dtype), quantize=CHANNEL)
    assert geta.quantizers is not None
    assert [q.signed for q in geta.quantizers.activations.values()] == [True, False, False]
    assert all(q.step_size.shape == (8 if layer != "head" else 2, 1, 1, 1) for layer, q in geta.quantizers.weights.items())
    if dtype is torch.float32:  # by structure alone, casts around a branch are not part of it
        laws.check_same_graph(geta)
    geta.calibrate([IMAGES.to(dtype)])
    check_trace(geta)
    for node in geta.trace.module.graph.nodes:  # shapes as torch's own trace has them
        if node.op == "get_attr" and str(node.target).endswith("0.step_size"):
            assert node.meta["val"].shape == (8 if "head" not in str(node.target) else 2, 1, 1, 1)
    seen = geta.trace_quantized()
    assert all(branch.keeps_zero for branch in seen.branches) and len(seen.branches) == len(geta.qadg.branches) == 6


def test_a_row_of_parameters_is_a_vertex_although_only_a_quantizer_reads_it() -> None:
    """Arithmetic on numbers folds away with the branch that it serves; what the branch quantizes does not, however small it is."""

    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.layer = nn.Parameter(torch.randn(1, 6)), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.query + 1) + x

    geta = gt.GETA(Query(), ROWS, quantize=CHANNEL)
    laws.check_same_graph(geta)
    assert [vertex.operator for vertex in geta.qadg.vertices] == ["placeholder", "add", "linear", "add", "output"]


class Ways(nn.Module):
    """One matrix for each way in which a graph multiplies with one."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (("linear", (5, 6)), ("mm", (5, 7)), ("turned", (4, 7)), ("both", (4, 4)), ("left", (3, 4)), ("column", (4, 1))):
            setattr(self, name, nn.Parameter(torch.randn(shape)))
        self.table, self.up = nn.Parameter(torch.randn(9, 4)), nn.ConvTranspose1d(1, 2, 3)
        self.grouped = nn.ConvTranspose1d(2, 4, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.linear(x, self.linear)) @ self.mm @ self.turned.t()
        x = x @ self.both + F.linear(x, self.both) + F.embedding(torch.zeros(1, dtype=torch.long), self.table)
        x = (self.left @ x.t()).t() @ self.left @ self.column
        return self.grouped(self.up(x.unsqueeze(1)))


def test_the_axis_of_the_output_channels_is_what_the_graph_multiplies_along() -> None:
    geta = gt.GETA(Ways(), ROWS, quantize=gt.QuantConfig(granularity="channel"))
    assert geta.quantizers is not None
    shapes = {layer: tuple(q.step_size.shape) for layer, q in geta.quantizers.weights.items()}
    assert shapes == {
        "linear": (5, 1), "mm": (1, 7), "turned": (4, 1), "both": (4, 1), "left": (3, 1), "column": (), "table": (),
        "up": (1, 2, 1), "grouped": (),
    }  # fmt: skip
    laws.check_same_graph(geta)


def test_a_parameter_that_is_an_input_gets_an_input_quantizer_alone() -> None:
    geta = gt.GETA(Tokens(), ROWS, quantize=BOTH)
    assert "query" not in geta.bit_widths() and "key" in geta.activation_bit_widths()
    weights = gt.GETA(Tokens(), ROWS)
    assert "query" in weights.bit_widths()


def test_nothing_of_the_marks_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    geta = gt.GETA(model, IMAGES, quantize=BOTH)
    assert not any(is_mark(node) for node in geta.trace.module.graph.nodes)
    assert all(len(module._forward_pre_hooks) == (path in geta.activation_bit_widths()) for path, module in model.named_modules())
    assert all(quantizer.stand_in is None for quantizer in model.modules() if isinstance(quantizer, Quantizer))
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: 1 / 0)
    plain = cnn()
    with pytest.raises(TraceError):
        gt.GETA(plain, IMAGES, quantize=BOTH)
    assert not any(module._forward_pre_hooks for module in plain.modules())


class PastTheAttribute(nn.Module):
    """Multiplies with its parameters as ``parameters()`` lists them: no attribute is read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for matrix in (p for p in self.parameters() if p.shape == (6, 6)):
            x = x @ matrix
        return self.last(x)


class Halfway(PastTheAttribute):
    """Reads one matrix in both ways: its quantizer runs, and yet half of the network does not see it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.last(x @ self.first)


@pytest.mark.parametrize("net", [PastTheAttribute, Halfway])
def test_a_forward_that_reads_past_its_quantizers_is_refused_and_left_as_it_was(net: type[nn.Module]) -> None:
    model = net()
    before, classes = evaluate(model, ROWS), [type(module) for module in model.modules()]
    with pytest.raises(TraceError, match=r"(?s)does not use its quantized parameters.*self\.weight.*skip="):
        gt.GETA(model, ROWS)
    assert [type(module) for module in model.modules()] == classes
    assert_same(evaluate(model, ROWS), before)
    assert set(gt.GETA(model, ROWS, quantize=gt.QuantConfig(skip=("first", "second"))).bit_widths()) == {"last"}


class Overwriting(nn.Module):
    """A layer that writes into its input before it multiplies: a quantizer before it would spare the other reader that."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2) @ self.weight

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 6), Overwriting.Layer(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.layer(x) + x)


def test_a_layer_that_overwrites_its_input_is_cut_exactly_or_refused_at_once() -> None:
    weights = gt.GETA(Overwriting(), ROWS)
    weights.mask(range(0, len(weights.groups), 2))
    laws.assert_same(evaluate(weights.model, ROWS), evaluate(weights.construct_subnet(), ROWS), laws.RTOL_FLOAT32)
    with pytest.raises(TraceError, match=r"(?s)inputs that a module does not overwrite.*skip="):
        gt.GETA(Overwriting(), ROWS, quantize=BOTH)
    assert set(gt.GETA(Overwriting(), ROWS, quantize=gt.QuantConfig(activations=True, skip=("layer*",))).bit_widths()) == {"first", "last"}


class Noisy(nn.Module):
    """Draws random numbers in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x + torch.randn_like(x))


def test_a_network_that_draws_random_numbers_agrees_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Counting(monkeypatch)
    state = torch.get_rng_state()
    gt.GETA(Noisy(), ROWS, quantize=BOTH)
    assert exporter.runs == 1
    torch.set_rng_state(state)


def test_the_quantized_models_own_trace_can_be_asked_for() -> None:
    geta = gt.GETA(Residual(), IMAGES, quantize=BOTH)
    seen = geta.trace_quantized()
    assert {branch.kind for branch in seen.branches} == {"attached", "inserted"} and seen.trace is not geta.trace
    geta.calibrate([IMAGES])
    with torch.no_grad():
        assert_same(leaves(seen.trace.module(IMAGES)), leaves(geta.trace.module(IMAGES)))


def test_a_root_that_is_itself_a_layer_is_cut_saved_and_taken_over(tmp_path: Any) -> None:
    model = nn.Linear(6, 4)
    geta = gt.GETA(model, ROWS, quantize=gt.QuantConfig(activations=True, initial_bits=5))
    geta.calibrate([ROWS])
    subnet = geta.construct_subnet()
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    for small in (subnet, loaded):
        assert_same(evaluate(small, ROWS), evaluate(model, ROWS))
    assert gt.GETA(loaded, ROWS, quantize=BOTH).activation_bit_widths() == {"weight": 5}
