"""A model that is cast after ``GETA`` (what ``.half()``, ``.double()``, a trainer or a move to another device do) is cut as it is then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt


class Net(nn.Module):
    """A graph subnet with a constant, a cast, a buffer and the limit of a type in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.one, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(8, 8, 1), nn.Linear(16, 4)
        self.register_buffer("scale", torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(self.stem(x)).relu().chunk(2, 1)
        y = torch.cat([a, self.one(b)], 1).mean((2, 3))
        y = self.head(y) * self.scale + torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=x.dtype)
        return y.float().masked_fill(y.float() < -1e4, torch.finfo(torch.float32).min).to(x.dtype)


class Llama(nn.Module):
    """Classes that can be cut; a norm that is float32 whatever the net is, and back in its type; a constant and a limit of the type."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.up(x).relu())
        wide = y.to(torch.float32)
        y = self.head((wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(y.dtype))
        y = y + torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=x.dtype)
        return y.masked_fill(y > 1e4, torch.finfo(x.dtype).min)


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    return {"native": plain.eval(), "graph": Net().eval()}


@pytest.mark.parametrize("kind", ["native", "graph"])
@pytest.mark.parametrize(
    ("dtype", "close", "config"),
    [
        (torch.float64, 1e-6, None), (torch.float64, 1e-6, gt.QuantConfig()), (torch.float64, 1e-6, gt.QuantConfig(activations=True)),
        (torch.bfloat16, 5e-2, None),  # which has too few digits for codes of 16 bits
    ],
)  # fmt: skip
def test_a_model_that_was_cast_is_cut_as_it_is_now(
    kind: str, dtype: torch.dtype, close: float, config: gt.QuantConfig | None, tmp_path: Path
) -> None:
    model, x = nets()[kind], torch.randn(4, 3, 8, 8)
    geta = gt.GETA(model, x, quantize=config)
    geta.calibrate([x])
    model.to(dtype)
    geta.mask([2, 7])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == kind and {p.dtype for n, p in subnet.named_parameters() if "quantizer" not in n} == {dtype}
    other = torch.randn(3, 3, 12, 6, dtype=dtype)
    with torch.no_grad():
        expected = model(other)
        found = subnet(other)
        loaded = gt.load(gt.save(subnet, tmp_path / "net"))(other)
    assert found.dtype == expected.dtype == dtype
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=close * scale)
    torch.testing.assert_close(loaded, found, rtol=0, atol=0 if dtype is torch.float64 else close * scale)
    assert geta.example_inputs[0] is x and x.dtype is torch.float32


def test_training_in_another_type_goes_on_to_the_subnet() -> None:
    model, x = nets()["native"], torch.randn(4, 3, 8, 8)
    geta = gt.GETA(model, x)
    model.double()
    optimizer = geta.qasso(torch.optim.SGD, lr=0.05, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(20))
    for _ in range(20):
        optimizer.zero_grad()
        model(x.double()).square().mean().backward()
        optimizer.step()
    subnet = geta.construct_subnet()
    assert geta.group_sparsity() == 0.5 and subnet[0].out_channels == 8
    torch.testing.assert_close(subnet(x.double()), model(x.double()))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("kind", ["native", "graph"])
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=["narrower", "wider"])
def test_a_subnet_that_is_cast_after_the_cut_runs_and_is_saved_as_it_is_then(
    kind: str, dtypes: tuple[torch.dtype, torch.dtype], dynamic: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before, after = dtypes
    model, x = (Llama().eval(), torch.randn(4, 6)) if kind == "native" else (Net().eval(), torch.randn(4, 3, 8, 8))
    geta = gt.GETA(model.to(before), x.to(before), quantize=None)
    geta.mask([2, 7])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == kind
    loaded = gt.load(gt.save(subnet, tmp_path / "before", dynamic=dynamic)).to(after)
    cast = subnet.to(after)
    again = gt.load(gt.save(cast, tmp_path / "after", dynamic=dynamic))
    and_back = gt.load(gt.save(cast.to(before), tmp_path / "back", dynamic=dynamic)).to(after)
    with torch.no_grad():
        expected = model.to(after)(x.to(after))
        for net in (loaded, again, and_back, cast.to(after)):
            found = net(x.to(after))
            assert found.dtype == after
            # float32 on one of the ways: eps 1.2e-7, sums of some hundred products
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
