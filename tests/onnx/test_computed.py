"""Weights that parametrizations compute in the network are integers in its subnet's ONNX file, of the bits that they were trained at."""

from __future__ import annotations

from math import prod

import onnx
import pytest
from onnx import TensorProto

import geta_nb as gt
from tests.onnx.checks import CLOSE, OPENERS, half_cut, worst
from tests.zoo.catalogue import ZOO


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("inputs", [False, True])
def test_a_computed_weight_is_written_as_codes_and_runs_alike_in_both_runtimes(name, inputs, tmp_path):
    entry, subnet = ZOO[name], half_cut(name, inputs=inputs)
    path = gt.export_onnx(subnet, tmp_path / "net.onnx", entry.inputs(2))
    smallest = min(subnet.get_parameter(key).numel() for key in subnet.geta_info.formats)
    assert len(subnet.geta_info.formats) == 5
    tensors = onnx.load(path).graph.initializer
    assert not [item.name for item in tensors if item.data_type == TensorProto.FLOAT and prod(item.dims) >= smallest]
    assert sum(prod(item.dims) >= smallest for item in tensors) >= 5
    limit = 1e-3 if inputs else CLOSE  # with quantized inputs a rounding error may move one by a code, as for the others of the zoo
    for opener in OPENERS.values():
        assert worst(opener(path), subnet, path, name, (2, 5)) <= limit
