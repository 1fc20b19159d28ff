"""A file takes every size of its inputs that the network takes, and says which."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import nn

import geta_nb as gt
from tests.onnx.checks import both_close, compressed
from tests.subnet.test_any_size import Pixels, Text


@pytest.mark.parametrize(
    ("model", "x", "others"),
    [
        (Text, torch.randint(0, 50, (4, 10)), [torch.randint(0, 50, (4, 20)), torch.randint(0, 50, (1, 3))]),
        (Pixels, torch.randn(2, 3, 32, 32), [torch.randn(2, 3, 48, 64), torch.randn(1, 3, 17, 5)]),
    ],
)
def test_a_file_takes_every_size_that_the_network_takes(model, x, others, tmp_path):
    torch.manual_seed(0)
    subnet = compressed(model(), x)  # whose inputs are not rounded: no sum lies in the middle between two codes
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    for other in (x, *others):
        both_close(subnet, path, other)


def test_without_dynamic_a_file_is_for_the_batch_alone(tmp_path):
    subnet = compressed(Pixels(), torch.randn(2, 3, 32, 32))
    shapes = {}
    for dynamic in (False, True):
        path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 3, 32, 32), dynamic=dynamic)
        facts = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert facts["dynamic"] == str(dynamic).lower() and facts["dynamic_batch"] == "true"
        shapes[dynamic] = json.loads(facts["sizes"])["inputs"][0][1]
    assert shapes == {False: ["n0", 3, 32, 32], True: ["n0", 3, "n1", "n2"]}


def test_sizes_are_divided_as_python_does_below_zero_too(tmp_path):
    """Half of an odd size, rounded up: minus the floor of minus a half."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(3, 4, 1)

        def forward(self, x):
            return self.layer(x)[..., : -(-x.shape[-1] // 2)]

    subnet = compressed(Halves(), torch.randn(2, 3, 8))
    path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 3, 8))
    for length in (8, 9, 15):
        both_close(subnet, path, torch.randn(2, 3, length))
