"""OpenVINO in the side by side: train further in fp32, hand over by ONNX, quantize to 8 bits after training with nncf, run in OpenVINO."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.bench.peers import Given, Made, optional, price
from geta_nb.latency import kept_signal_stack


def user_code(given: Given) -> Any:
    """Train, export, quantize, save."""
    nncf, ov = optional("nncf"), optional("openvino")
    given.train(given.model)
    onnx = given.file.with_suffix(".onnx")
    batch = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(given.model.eval(), (given.images[:2],), onnx, dynamic_shapes=(batch,), external_data=False, verbose=False)
    calibration = nncf.Dataset([part.numpy() for part in given.images[:256].split(32)])
    quantized = nncf.quantize(ov.Core().read_model(onnx), calibration)
    file = given.file.with_suffix(".xml")
    ov.save_model(quantized, file)
    return file


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out."""
    model = optional("openvino").Core().read_model(product)
    files = [product, product.with_suffix(".bin")]
    return Made(in_openvino(model), price(dense, dense, operand_bits(model)), files, "OpenVINO")


def in_openvino(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a model's forward on one CPU thread."""
    with kept_signal_stack():
        compiled = optional("openvino").Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda images: torch.from_numpy(compiled(images.numpy())[0].copy())


def operand_bits(model: Any) -> list[tuple[float, float]]:
    """Return (weight, input) bits of every convolution and matrix product, in order."""
    kinds = ("Convolution", "MatMul", "GroupConvolution")
    operators = [op for op in model.get_ordered_ops() if op.get_type_name() in kinds]
    return [(_bits(op.input_value(1)), _bits(op.input_value(0))) for op in operators]


def _bits(output: Any) -> float:
    """Walk up from an operand to its FakeQuantize or its integer constant; 32 when there is neither."""
    through = ("MaxPool", "Reshape", "Multiply", "Subtract", "Convert", "Squeeze", "Unsqueeze", "Transpose")
    node = output.get_node()
    while node.get_type_name() in through:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        return math.log2(node.get_attributes()["levels"])
    kind = str(node.get_output_element_type(0).get_type_name())
    return float(kind[1:]) if kind[:1] in "iu" and kind[1:].isdigit() else 32.0
