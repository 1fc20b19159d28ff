"""Where no file can leave the batch open, the file is for the size of the example, and says so: which inputs, which axis, and why."""

from __future__ import annotations

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import GetaWarning
from tests.onnx.checks import both_close, compressed


class Modulated(nn.Module):
    """A kernel for each sample, scaled by its style: all of them in one convolution with as many groups as samples (StyleGAN2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.style, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(3, 8), nn.Conv2d(16, 4, 1)
        self.weight = nn.Parameter(torch.randn(1, 16, 8, 3, 3) * 0.1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y = self.stem(x).relu()
        batch, channels, height, width = y.shape
        kernels = self.weight * self.style(z).view(batch, 1, channels, 1, 1)
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        y = F.conv2d(y.reshape(1, -1, height, width), kernels.reshape(-1, channels, 3, 3), padding=1, groups=batch)
        return self.head(y.view(batch, -1, height, width).relu())


class Mixed(nn.Module):
    """A kernel for each sample, mixed from experts (CondConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.route, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4), nn.Conv2d(6, 4, 1)
        self.experts = nn.Parameter(torch.randn(4, 6 * 8 * 9) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        kernels = torch.sigmoid(self.route(y.mean((2, 3)))) @ self.experts
        y = F.conv2d(y.reshape(1, -1, *y.shape[2:]), kernels.view(-1, 8, 3, 3), padding=1, groups=y.shape[0])
        return self.head(y.view(x.shape[0], -1, *y.shape[2:]).relu())


INPUTS = {"modulated": (torch.randn(2, 3, 8, 8), torch.randn(2, 3)), "mixed": (torch.randn(2, 3, 8, 8),)}


def facts(path) -> dict[str, str]:
    return {item.key: item.value for item in onnx.load(path).metadata_props}


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize(("name", "model"), [("modulated", Modulated), ("mixed", Mixed)])
def test_kernels_of_each_sample_are_written_for_the_batch_of_the_example(name, model, bits, tmp_path):
    torch.manual_seed(0)
    args = INPUTS[name]
    subnet = compressed(model(), *args, inputs=bits)
    said = r"(?s)batch of this file is fixed.*x: axis 0 is 2.*conv2d takes groups from the batch size"
    with pytest.warns(GetaWarning, match=said) as seen:
        path = gt.export_onnx(subnet, tmp_path / "net", args)
    assert len(seen) == 1 and seen[0].filename == __file__
    assert facts(path)["dynamic_batch"] == "false" and "x: axis 0 is 2" in facts(path)["fixed_batch"]
    assert ("z: axis 0 is 2" in facts(path)["fixed_batch"]) == (name == "modulated") and "groups" in facts(path)["fixed_batch"]
    both_close(subnet, path, *(torch.randn_like(item) for item in args))


def test_groups_that_went_are_not_in_the_file(tmp_path):
    torch.manual_seed(0)
    args = INPUTS["modulated"]
    geta = gt.GETA(Modulated().eval(), args)
    geta.mask(range(0, len(geta.groups), 2))
    subnet = geta.construct_subnet()
    with pytest.warns(GetaWarning, match="fixed"):
        path = gt.export_onnx(subnet, tmp_path / "net", args)
    both_close(subnet, path, *(torch.randn_like(item) for item in args))


class Viewed(nn.Module):
    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.layer = batch, nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(self.batch, 4)).relu()


def test_a_network_that_names_its_batch_says_so(tmp_path):
    subnet = compressed(Viewed(3), torch.randn(3, 4))
    with pytest.warns(GetaWarning, match=r"(?s)x: axis 0 is 3.*the network computes with this size"):
        path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(3, 4))
    assert facts(path)["dynamic_batch"] == "false" and "x: axis 0 is 3" in facts(path)["fixed_batch"]
    both_close(subnet, path, torch.randn(3, 4))


def test_inputs_of_several_first_sizes_say_so(tmp_path):
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.layer(x) @ table

    args = torch.randn(2, 4), torch.randn(6, 5)
    subnet = compressed(Pair(), *args)
    with pytest.warns(GetaWarning, match=r"(?s)x: axis 0 is 2, table: axis 0 is 6.*different sizes there, 2 and 6"):
        path = gt.export_onnx(subnet, tmp_path / "net", args, dynamic=False)
    both_close(subnet, path, *args)
    path = gt.export_onnx(subnet, tmp_path / "net", args)  # with every axis free there is no batch of all to look for
    both_close(subnet, path, torch.randn(3, 4), torch.randn(6, 7))


def test_an_open_batch_is_not_spoken_of(tmp_path):
    subnet = compressed(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), torch.randn(2, 4))
    said = facts(gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 4)))  # warnings are errors
    assert said["dynamic_batch"] == "true" and "fixed_batch" not in said
