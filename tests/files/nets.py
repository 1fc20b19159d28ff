"""Small subnets for the tests of the artifact stage, made by hand: traced, weights on a grid, formats noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from geta_nb.graph.trace import trace_model
from geta_nb.quantizers.modules import ActivationQuantizer
from geta_nb.subnet.build import SubnetInfo, WeightFormat
from geta_nb.subnet.graph_net import GraphNet, list_entries


def quantize(
    model: nn.Module, bits: int | Mapping[str, int] = 4, keep: tuple[str, ...] = (), *, axis: int | None = None, narrow_range: bool = True
) -> dict[str, WeightFormat]:
    """Put every floating matrix of ``model`` on a grid in place and return the formats by parameter name, one per tied tensor.

    With an ``axis`` each of its indices has a step of its own. Without ``narrow_range`` all 2**b codes occur: a third is clipped.
    """
    formats = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or name in keep or not parameter.is_floating_point():
            continue
        width = bits if isinstance(bits, int) else bits.get(name, 4)
        levels = 2 ** (width - 1) - 1
        wide = parameter.detach().to(torch.float64 if parameter.dtype is torch.float64 else torch.float32)
        others = [at for at in range(wide.ndim) if at != axis]
        clip = wide.abs().amax() if axis is None else wide.abs().amax(others, keepdim=True).clamp(min=0.01)
        step = clip / levels if narrow_range else clip / (levels + 0.5) * 0.67
        with torch.no_grad():
            parameter.copy_(torch.round(wide / step).clamp(-levels - (not narrow_range), levels) * step)
        numbers = (float(step), float(clip)) if axis is None else (tuple(step.flatten().tolist()), tuple(clip.flatten().tolist()))
        formats[name] = WeightFormat(width, *numbers, exponent=1.0, axis=axis, narrow_range=narrow_range)
    return formats


def graph_subnet(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    bits: int | Mapping[str, int] = 4,
    *,
    axis: int | None = None,
    narrow_range: bool = True,
) -> GraphNet:
    """Return ``model`` quantized and traced: a subnet of kind "graph"."""
    formats = quantize(model, bits, axis=axis, narrow_range=narrow_range)
    net = GraphNet.of(trace_model(model, args, kwargs).module)
    net.geta_info = SubnetInfo(kind="graph", formats=formats, activation_formats={}, graph=None)
    return net


def native_subnet(model: nn.Module, args: tuple[Any, ...], bits: int = 4) -> nn.Module:
    """Return ``model`` itself, quantized, with its graph set aside: a subnet of kind "native"."""
    formats = quantize(model, bits)
    graph = trace_model(model, args).module
    model.geta_info = SubnetInfo(kind="native", formats=formats, activation_formats={}, graph=graph)  # type: ignore[assignment]
    return model


def add_activation_quantizers(net: GraphNet, bits: int = 8, *, signed: bool = True, narrow_range: bool = True) -> None:
    """Quantize the input of every linear layer: call_module nodes to ``<layer>.input_quantizer``, as a cut network has them."""
    for node in list(net.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.linear.default:
            layer = node.args[1].target.rpartition(".")[0]
            kind = {"signed": signed, "narrow_range": narrow_range}
            quantizer = ActivationQuantizer(torch.zeros(()), initial_bits=bits, layer=layer, **kind)
            quantizer.set_range(2.0, bits)
            net.add_submodule(f"{layer}.input_quantizer", quantizer)
            with net.graph.inserting_before(node):
                node.update_arg(0, net.graph.call_module(f"{layer}.input_quantizer", (node.args[0],)))
            step = float(quantizer.step_size.detach())
            net.geta_info.activation_formats[layer] = WeightFormat(bits, step, clip_max=2.0, exponent=1.0, **kind)
    net.recompile()


def assert_same_outputs(a: nn.Module, b: nn.Module, *args: Any, **kwargs: Any) -> None:
    """The same numbers, exactly, in the same places."""
    first, second = (tree_leaves(module(*args, **kwargs)) for module in (a, b))
    assert len(first) == len(second) > 0
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(y, x, rtol=0, atol=0)


def assert_same_tensors(a: nn.Module, b: nn.Module) -> None:
    """The same names in the same order, kinds, values, dtypes and gradients wanted; and the same ties."""
    first, second = list(list_entries(a)), list(list_entries(b))
    assert [(e.name, e.kind) for e in first] == [(e.name, e.kind) for e in second]
    assert list(a.state_dict()) == list(b.state_dict())
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(y.tensor, x.tensor, rtol=0, atol=0)
        assert x.tensor.requires_grad == y.tensor.requires_grad
        assert x.tensor.stride() == y.tensor.stride()
    assert ties(first) == ties(second)


def ties(entries: list[Any]) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for entry in entries:
        groups.setdefault(entry.tensor.data_ptr(), set()).add(entry.name)
    return {frozenset(names) for names in groups.values()}


def by_hand(build: Any, *, inputs: int = 1) -> fx.GraphModule:
    """Return a GraphModule whose nodes ``build(graph, *placeholders)`` makes; its result is the output."""
    graph = fx.Graph()
    graph.output(build(graph, *[graph.placeholder(f"x{i}") for i in range(inputs)]))
    return fx.GraphModule(nn.Module(), graph)


class ConvNet(nn.Module):
    """Conv, batch norm, residual add, pooling, linear; one bias-free layer, one grouped."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head((x + self.body(x)).mean((2, 3)))


def conv_net(width: int = 8) -> ConvNet:
    net = ConvNet(width).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return net


def image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(batch))
