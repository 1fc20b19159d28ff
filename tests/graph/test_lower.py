"""A graph that is lowered in place computes what torch's own decomposition computes, and holds no operator that writes or aliases."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geta_nb.graph import trace
from geta_nb.graph.lower import is_lowerable
from geta_nb.graph.trace import eval_mode, trace_model
from geta_nb.groups.propagation import understood
from tests.zoo.catalogue import ZOO


class Net(nn.Module):
    """A forward given as a function, with a convolution, a norm and a matrix at hand."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(4))
        self.body = forward

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def overwritten_twice(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    before = y * 2
    y.relu_().add_(1)
    return y + before


def overwritten_by_name(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    z = torch.relu_(y)
    return z + y  # y is z now


def overwritten_after_dropout(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    same = F.dropout(y, 0.5, net.training)  # in eval mode the same tensor
    y.mul_(2)
    return same + y


def overwritten_through_a_view(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    y[:, 0].zero_()
    return y


def overwritten_under_a_view(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    rows = y.flatten(2)
    y.relu_()
    return rows.sum(-1)


def overwritten_input(net: Net, x: Tensor) -> Tensor:
    return net.conv(x.mul_(2))


def reshaped(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    rows = y.flatten(2).transpose(1, 2).reshape(len(x), -1)  # a copy: memory does not allow a view
    return rows.unflatten(1, (-1, 4)).flatten(1) + y.permute(0, 2, 3, 1).contiguous().view(len(x), -1)


def cast(net: Net, x: Tensor) -> Tensor:
    return net.conv(x).to(torch.float64).to(torch.float32).to(torch.float32).type_as(x).float()


def chunked(net: Net, x: Tensor) -> Tensor:
    first, second = net.conv(x).chunk(2, 1)
    odd = net.conv(x).chunk(3, dim=-1)
    return first * second + odd[0].sum() + odd[-1].sum()


LIGHT = {
    "twice": overwritten_twice, "by name": overwritten_by_name, "reshaped": reshaped, "cast": cast, "chunked": chunked,
}  # fmt: skip
FULL = {
    "under a view": overwritten_under_a_view,
}
LEFT_TO_TORCH = {"after dropout": overwritten_after_dropout, "input": overwritten_input}


def exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with eval_mode(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, args, kwargs, strict=False)


def is_functional(target: Any) -> bool:
    return not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable


@pytest.mark.parametrize("name", [*LIGHT, *FULL])
def test_a_forward_that_writes_casts_or_reshapes_is_traced_as_it_computes(name: str):
    model, x = Net((LIGHT | FULL)[name]).eval(), torch.randn(2, 3, 5, 6)
    assert is_lowerable(exported(model, (x.clone(),), {}).graph_module) == (name in LIGHT)
    found = trace_model(model, (x.clone(),), understood=understood).module
    assert all(is_functional(node.target) for node in found.graph.nodes)
    with torch.no_grad():
        assert torch.equal(found(x.clone()), model(x.clone()))


@pytest.mark.parametrize("name", LEFT_TO_TORCH)
def test_what_may_be_seen_under_another_name_is_not_lowered_here(name: str):
    """An input, and what a dropout gives out in eval mode: whether that is its own input torch alone knows."""
    model = Net(LEFT_TO_TORCH[name]).eval()
    assert not is_lowerable(exported(model, (torch.randn(2, 3, 5, 6),), {}).graph_module)


def test_a_batch_norm_on_statistics_of_the_batch_is_left_to_torch():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert not is_lowerable(exported(model, (torch.rand(2, 3, 5, 5),), {}).graph_module)


@pytest.mark.parametrize("name", ["resnet_basic", "mobilenet_v2", "encoder_layer", "bert_sdpa", "llama_eager", "phi_sdpa", "glu_chunk"])
def test_the_graph_is_that_of_torch_s_own_decomposition(name: str, monkeypatch: pytest.MonkeyPatch):
    """The same shapes in the same modules, up to copies that compute nothing."""
    entry = ZOO[name]
    light = trace_model(entry.build(), entry.inputs(2), entry.kwargs(2), understood=understood)
    monkeypatch.setattr(trace, "is_lowerable", lambda module: False)
    full = trace_model(entry.build(), entry.inputs(2), entry.kwargs(2), understood=understood)
    assert facts(light) == facts(full)


def facts(found: trace.Trace) -> list[Any]:
    same = {"_unsafe_view": "view", "reshape": "view"}
    rows = [(same.get(n.operator, n.operator), n.shape, n.dtype, n.module_path) for n in found.nodes]
    return [row for row in rows if row[0] not in {"clone", "sym_size", "getitem"}]


def flattened_over_open_axes(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    tokens = y.flatten(2).transpose(1, 2)
    return net.linear(tokens).flatten() + y.flatten(start_dim=1, end_dim=2).flatten(0, 1).flatten(0)


def unflattened_over_open_axes(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    rows = y.unflatten(1, (2, -1)).flatten(3)
    return rows * rows.amax(1, keepdim=True).expand_as(rows) + y[:, :1, :1, :1].expand_as(y).unflatten(1, (2, 2)).flatten(3)


def moved_over_open_axes(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    rows = y.movedim(1, -1).swapaxes(0, 1).moveaxis((0, 1), (1, 0)).mT.swapdims(-1, -2).movedim((3, 1), (1, 3)).mT
    return rows.reshape(y.shape).view_as(y) + net.linear.weight.T.sum() + y.flatten(0, 2).T.T.sum()


@pytest.mark.parametrize("body", [flattened_over_open_axes, unflattened_over_open_axes, moved_over_open_axes])
def test_axes_that_are_open_are_merged_and_split_without_a_second_trace(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", lambda *_: pytest.fail("a second trace"))
    net = Net(body).eval()
    found = trace_model(net, (torch.randn(2, 3, 6, 8),), understood=understood, sizes="any")
    assert found.sizes is not None and found.sizes.inputs[0].axes == ("n0", 3, "n1", "n2")
    with torch.no_grad():
        for shape in ((2, 3, 6, 8), (1, 3, 5, 9), (4, 3, 1, 1)):
            x = torch.randn(shape)
            torch.testing.assert_close(found.module(x), net(x))
