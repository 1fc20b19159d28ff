"""What torch's exporter has no form for is broken up into what it has one for, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx._internal.exporter import _decomp, _registration

import geta_nb as gt
from geta_nb.groups import RULES
from geta_nb.onnx.parts import PARTS
from tests.onnx.checks import CLOSE, OPENERS, both_close, compressed, feed_of, half_cut, reference, relative_error, worst
from tests.zoo.catalogue import ZOO

aten = torch.ops.aten


class Net(nn.Module):
    """A forward given as a function, with layers at hand."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.bilinear, self.volume = nn.Linear(8, 10), nn.Linear(8, 9), nn.Bilinear(10, 9, 6), nn.Conv3d(3, 5, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def rows(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    return net.a(x)[..., :9], net.b(x)


BODIES = {
    "bilinear": lambda net, x: net.bilinear(net.a(x).relu(), net.b(x)),
    **{f"distance {p}": lambda net, x, p=p: torch.cdist(*rows(net, x), p=p) for p in (0.0, 1.0, 2.0, 3.0, float("inf"))},
}


@pytest.mark.parametrize("inputs", [None, 8])
@pytest.mark.parametrize("name", BODIES)
def test_an_operator_in_parts_computes_the_same_at_any_batch_size(name, inputs, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8)
    subnet = compressed(Net(BODIES[name]), x, inputs=inputs)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    for batch in (1, 2, 5):
        both_close(subnet, path, torch.randn(batch, 6, 8))


def test_a_pool_of_three_axes_is_a_mean_of_stretches(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 7, 5)
    subnet = compressed(Net(lambda net, x: F.adaptive_avg_pool3d(net.volume(x), (2, 3, 4))), x)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    both_close(subnet, path, torch.randn(4, 3, 6, 7, 5))


@pytest.mark.parametrize("log", [False, True])
def test_a_determinant_needs_no_factors(log, tmp_path):
    """In ONNX Runtime: OpenVINO knows no determinant."""
    torch.manual_seed(0)

    def body(net: Net, x: Tensor) -> Tensor:
        matrix = torch.eye(3) + 0.1 * net.a(x)[:, :3, :3]
        return torch.logdet(matrix) if log else torch.linalg.det(matrix)

    x = torch.randn(2, 6, 8)
    subnet = compressed(Net(body), x)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    found = OPENERS["ONNX Runtime"](path)(feed_of(path, (x,), {}))
    assert relative_error(found, reference(subnet, (x,), {})) <= CLOSE


def parts(name: str) -> tuple[Any, Callable[..., Any]]:
    target = getattr(aten, name).default
    return target, PARTS[target]


def test_products_of_three_are_those_of_torch():
    target, mine = parts("_trilinear")
    x, weight, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(6, 3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    call = (x, weight, y, [1, 3], [0], [1, 2], [2, 3])
    torch.testing.assert_close(mine(*call), target(*call), rtol=1e-12, atol=1e-12)  # float64, sums in another order
    call = (x, weight[:, :, :3], x, [1, 3], [0], [1, 2], [3])  # an axis is kept that the layer sums over
    torch.testing.assert_close(mine(*call), target(*call), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [0, 1])
def test_a_sampler_of_volumes_is_the_sampler_of_any_number_of_axes(mode):
    target, mine = parts("grid_sampler_3d")
    call = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 2, 3, 4, 3) * 2 - 1, mode, 0, False
    assert torch.equal(mine(*call), target(*call))


def test_determinants_are_those_of_torch():
    matrix = torch.randn(7, 4, 4, dtype=torch.float64)
    for name, used in (("_linalg_det", 1), ("_linalg_slogdet", 2)):
        target, mine = parts(name)
        for found, wanted in zip(mine(matrix)[:used], target(matrix)[:used], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


UNKNOWN = frozenset({"cummax", "cummin", "kthvalue", "median", "mode", "nanmedian", "put", "searchsorted"})
"""Operators with a rule that torch's exporter cannot write under any name."""
COPIES = frozenset({"detach_", "select_copy", "slice_copy", "split_copy"})  # no trace has them: the lowering writes them as others


def test_every_operator_with_a_rule_has_an_onnx_form_or_is_known_to_have_none():
    """A new rule keeps its operator whole in the trace: torch's exporter must know it under that name, or it needs parts."""
    known = set(_decomp.get_onnx_implemented_overloads(_registration.ONNXRegistry.from_torchlib()))
    known |= _decomp.create_onnx_friendly_decomposition_table(known).keys() | PARTS.keys()

    def written(target: Any) -> bool:
        composite = torch._C._dispatch_has_kernel(target.name()) and torch._C._dispatch_has_kernel_for_dispatch_key(
            target.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        )
        return target in known or composite

    packets = {name: getattr(aten, name, None) for name in RULES if "::" not in name}
    missing = {
        name for name, packet in packets.items()
        if packet is not None and not any(written(getattr(packet, overload)) for overload in packet.overloads() if "out" not in overload)
    }
    assert missing == UNKNOWN | COPIES


@pytest.mark.parametrize("name", ["beit", "beit_shared_bias"])
def test_attention_with_a_mask_that_is_learned_is_written(name, tmp_path):
    entry = ZOO[name]
    for inputs in (False, True):
        subnet = half_cut(name, inputs=inputs)
        path = gt.export_onnx(subnet, tmp_path / "net", entry.inputs(2), example_kwargs=entry.kwargs(2))
        for opener in OPENERS.values():
            assert worst(opener(path), subnet, path, name, (2, 5)) <= 1e-3  # as for the others of the zoo
