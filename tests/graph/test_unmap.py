"""Mapped regions are written out in place: no second trace, the same numbers at every size, and channels beside them stay removable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.graph.unmap import is_mapping
from tests.zoo import laws

Function = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function, self.a, self.b = function, nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self, self.a(x)))


def masked(net: nn.Module, x: Tensor) -> Tensor:
    """A mask over positions, as language models make it: a function of two numbers, mapped twice."""
    rows, columns = torch.arange(x.shape[1]), torch.arange(x.shape[1])
    seen = torch.vmap(lambda i: torch.vmap(lambda j: (i >= j) & (i - j < 3))(columns))(rows)
    return torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype).masked_fill(~seen, -1e9).softmax(-1) @ x


def of_data(net: nn.Module, x: Tensor) -> Tensor:
    """What goes in depends on the input, and two results come out."""
    left, right = torch.vmap(lambda row: (row * 2, row.cumsum(0)))(x.pow(2).sum(-1))
    return x * left.unsqueeze(-1) + x * right.unsqueeze(-1)


def twice(net: nn.Module, x: Tensor) -> Tensor:
    return x * torch.vmap(lambda i: i * 2)(torch.arange(x.shape[1])).unsqueeze(-1) + masked(net, x)


@pytest.fixture
def second_traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    original = torch.export.ExportedProgram.run_decompositions

    def counted(self: torch.export.ExportedProgram, *args: object, **kwargs: object) -> torch.export.ExportedProgram:
        seen.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    return seen


@pytest.mark.parametrize("function", [masked, of_data, twice])
def test_a_mapped_region_is_written_out_without_a_second_trace(function: Function, second_traces: list[int]) -> None:
    torch.manual_seed(0)
    model, x = Net(function).double().eval(), torch.randn(2, 5, 6, dtype=torch.float64)
    geta = gt.GETA(model, x, quantize=None)
    assert not second_traces
    assert not any(is_mapping(node) for node in geta.trace.module.graph.nodes)
    assert len(geta.groups) == 16
    for other in (x, torch.randn(3, 5, 6, dtype=torch.float64)):
        torch.testing.assert_close(geta.trace.module(other), model(other), rtol=0, atol=1e-14)
    laws.check_exact_removal(geta, [0, 3, 4, 9])


def test_a_region_that_writes_is_left_to_torch(second_traces: list[int]) -> None:
    def writing(net: nn.Module, x: Tensor) -> Tensor:
        return x * torch.vmap(lambda row: row.clone().add_(1))(x[:, :, 0].detach()).unsqueeze(-1)

    model, x = Net(writing).double().eval(), torch.randn(2, 5, 6, dtype=torch.float64)
    geta = gt.GETA(model, x, quantize=None)
    assert second_traces
    torch.testing.assert_close(geta.trace.module(x), model(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_conversion_that_asks_for_an_order_in_memory_is_lowered(dtype: torch.dtype, second_traces: list[int]) -> None:
    class Contiguous(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            turned = self.a(x).transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)
            return self.b(turned.view(x.shape[0], 4, 4, -1).flatten(1, 2).transpose(1, 2).to(x.dtype))

    model, x = Contiguous().double().eval(), torch.randn(2, 5, 6, dtype=torch.float64)
    geta = gt.GETA(model, x, quantize=None)
    assert not second_traces
    torch.testing.assert_close(geta.trace.module(x), model(x), rtol=0, atol=1e-14)
