"""The trace: it computes what the model computes, names what it names, and leaves the model alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import InputError, TraceError
from geta_nb.graph.inputs import check_inputs
from geta_nb.graph.trace import Trace, eval_mode, trace_model
from tests.zoo.catalogue import ZOO


def operators(trace: Trace) -> list[str]:
    return [node.operator for node in trace.nodes]


@pytest.mark.parametrize("name", ["flatten_linear", "tied_linear", "attention", "many_inputs"])
def test_trace_computes_what_the_model_computes_for_any_batch(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    trace = trace_model(model, args, kwargs)
    assert trace.dynamic_batch
    for batch in (1, 2, 5):
        _, args, kwargs = ZOO[name].double(batch)
        torch.testing.assert_close(trace.module(*args, **kwargs), model(*args, **kwargs), rtol=1e-12, atol=1e-12)  # float64, same operators


def test_one_example_is_enough_for_a_dynamic_batch() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.rand(1, 4)
    trace = trace_model(model, (x,))
    assert trace.dynamic_batch
    assert trace.args[0] is x
    assert trace.module(torch.rand(7, 4)).shape == (7, 2)


def test_a_model_that_names_its_batch_is_traced_with_its_shapes() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(3, 4).relu()

    trace = trace_model(Fixed(), (torch.rand(3, 4),))
    assert not trace.dynamic_batch
    assert trace.nodes[-1].shape == (3, 4)


def test_tracing_changes_nothing_of_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 2))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    trace_model(model, (torch.rand(2, 3, 3, 3),))
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert not model[0].weight.requires_grad and model[4].weight.requires_grad
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(model[0]._forward_hooks) == 1


def test_dropout_and_batch_statistics_are_those_of_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.BatchNorm1d(4)).train()
    trace = trace_model(model, (torch.rand(3, 4),))
    x = torch.rand(3, 4)
    with eval_mode(model):
        torch.testing.assert_close(trace.module(x), model(x))


def test_nodes_say_operator_shape_module_and_line() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(self.fc(x))

    trace = trace_model(nn.Sequential(Inner(), nn.Linear(6, 2)), (torch.rand(3, 4),))
    found = {node.operator: node for node in trace.nodes}
    gelu = found["gelu"]
    assert (gelu.shape, gelu.dtype, gelu.module_path) == ((3, 6), "float32", "0")
    assert gelu.source.startswith("test_trace.py:")
    assert {node.module_path for node in trace.nodes if node.operator == "linear"} == {"0.fc", "1"}


def test_a_module_used_twice_has_one_path() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x).relu())

    assert [node.module_path for node in trace_model(Twice(), (torch.rand(3, 4),)).nodes if node.operator == "linear"] == ["fc", "fc"]


def test_parameters_keep_their_names_and_tied_ones_are_one_object() -> None:
    model, args, kwargs = ZOO["tied_linear"].double()
    trace = trace_model(model, args, kwargs)
    targets = {str(node.target) for node in trace.module.graph.nodes if node.op == "get_attr"}
    assert targets <= dict(model.named_parameters(remove_duplicate=False)).keys()
    assert all(trace.module.get_parameter(target) is model.get_parameter(target) for target in targets)


def test_regions_without_gradient_are_inlined() -> None:
    class Region(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = x.abs().sum(-1, keepdim=True)
            with torch.enable_grad():
                return x * scale

    trace = trace_model(Region(), (torch.rand(3, 4),))
    assert operators(trace) == ["placeholder", "abs", "sum", "mul"]
    x = torch.rand(3, 4)
    torch.testing.assert_close(trace.module(x), Region()(x))


def test_the_scale_of_attention_is_written_down() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    trace = trace_model(Attention(), (torch.rand(2, 3, 5, 16),))
    node = next(node for node in trace.module.graph.nodes if "scaled_dot" in str(node.target))
    assert math.isclose(node.kwargs["scale"], 0.25)  # 16 ** -0.5


def test_a_squeeze_says_which_axes_it_drops() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.unsqueeze(-1).unsqueeze(1).squeeze()

    trace = trace_model(Squeeze(), (torch.rand(2, 4),))
    assert trace.module(torch.rand(3, 4)).shape == (3, 4)
    assert [node.args[1] for node in trace.module.graph.nodes if "squeeze.dims" in str(node.target)] == [[1, 3]]


def test_control_flow_on_values_is_an_error_that_says_where() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(TraceError, match=r"(?s)at: +test_trace.py:\d+ in forward.*control flow.*torch.where"):
        trace_model(Branching(), (torch.rand(3, 4),))


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((torch.rand(2, 5),), r"shapes \[\(2, 5\)\]; RuntimeError"),
        ((), "TypeError"),
        ((torch.rand(2, 4), torch.rand(2)), r"\(2, 4\), \(2,\)"),
    ],
)
def test_inputs_the_model_rejects_are_an_error_with_their_shapes(args: tuple[Any, ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        check_inputs(nn.Linear(4, 3), args, {})


def test_inputs_the_model_takes_pass_and_cost_it_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = model[1].running_mean.clone()
    check_inputs(model, (torch.rand(2, 4),), {})
    assert model.training and torch.equal(model[1].running_mean, before)


def test_a_model_on_the_meta_device_is_traced() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).to("meta")
    assert operators(trace_model(model, (torch.rand(2, 4, device="meta"),))) == ["placeholder", "linear", "relu", "linear"]


def test_a_random_slope_is_its_mean_where_nothing_trains(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.RReLU(0.1, 0.3), nn.Linear(16, 4), nn.RReLU()).eval()
    inputs = torch.randn(3, 8)
    geta = gt.GETA(model, inputs, quantize=None)
    assert not any("rrelu" in str(node.target) for node in geta.trace.module.graph.nodes)
    geta.mask([0, 3])
    subnet = geta.construct_subnet()
    torch.testing.assert_close(subnet(inputs), model(inputs))
    torch.testing.assert_close(gt.load(gt.save(subnet, tmp_path / "net"))(inputs), subnet(inputs), rtol=0, atol=0)


def test_a_loaded_bag_of_embeddings_runs_and_trains(tmp_path) -> None:
    model = nn.Sequential(nn.EmbeddingBag(20, 12, mode="sum"), nn.Linear(12, 3)).eval()
    ids = torch.randint(0, 20, (3, 5))
    geta = gt.GETA(model, ids, quantize=gt.QuantConfig(initial_bits=8))
    geta.mask([0, 3])
    subnet = geta.construct_subnet()
    again = gt.load(gt.save(subnet, tmp_path / "net"))
    torch.testing.assert_close(again(ids), subnet(ids), rtol=0, atol=0)
    again(ids).sum().backward()
    assert all(parameter.grad is not None for parameter in again.parameters() if parameter.is_floating_point())


def test_a_layer_met_in_a_slice_of_its_list_has_its_own_path() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[1:]:
                x = layer(x)
            return x

    for quantize in (None, gt.QuantConfig(), gt.QuantConfig(activations=True)):
        geta = gt.GETA(Sliced(), torch.randn(2, 4), quantize=quantize)
        for qadg in (geta.qadg, geta.trace_quantized()):
            assert [v.module_path for v in qadg.vertices if v.operator == "linear"] == ["layers.1", "layers.2"]
