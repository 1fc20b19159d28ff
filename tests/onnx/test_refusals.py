"""What no ONNX file can hold is refused by name, and what was there stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, CalibrationError, InputError
from tests.files.nets import conv_net, graph_subnet, image
from tests.onnx.checks import compressed


def test_a_module_that_is_no_subnet_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"(?s)export_onnx.*no subnet.*ConvNet.*gt\.export_onnx\(geta\.construct_subnet\(\)"):
        gt.export_onnx(conv_net(), tmp_path / "net", image())


def test_another_float_type_is_refused(tmp_path):
    subnet = graph_subnet(conv_net().double(), (image().double(),))
    with pytest.raises(ArtifactError, match=r"(?s)float32.*torch\.float64.*model\.float\(\)"):
        gt.export_onnx(subnet, tmp_path / "net", image().double())


def test_a_weight_that_moved_is_refused_and_the_old_file_stays(tmp_path):
    subnet = compressed(conv_net(), image())
    path = gt.export_onnx(subnet, tmp_path / "net", image())
    before = path.read_bytes()
    with torch.no_grad():
        subnet.get_parameter("stem.weight").view(-1)[0] += 1e-6
    with pytest.raises(ArtifactError, match=r"(?s)not on its grid.*stem\.weight"):
        gt.export_onnx(subnet, path, image())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_input_without_a_range_is_refused(tmp_path):
    subnet = compressed(conv_net(), image(), inputs=8)
    subnet.get_submodule("head.input_quantizer").set_range(0.0)
    with pytest.raises((CalibrationError, InputError), match="head"):
        gt.export_onnx(subnet, tmp_path / "net", image())


def test_wrong_inputs_and_a_missing_folder_say_so(tmp_path):
    subnet = compressed(conv_net(), image())
    with pytest.raises(InputError, match="rejects"):
        gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 5))
    with pytest.raises(ArtifactError, match=r"(?s)cannot be written.*FileNotFoundError"):
        gt.export_onnx(subnet, tmp_path / "no" / "net", image())


def test_an_operator_without_an_onnx_form_is_named(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0e(self.layer(x))

    subnet = graph_subnet(Odd().eval(), (torch.randn(2, 4),))
    with pytest.raises(ArtifactError, match=r"(?s)exporter cannot write.*i0e.*gt\.save"):
        gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 4))
    assert list(tmp_path.iterdir()) == []
