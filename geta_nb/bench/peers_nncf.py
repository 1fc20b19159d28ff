"""nncf in the side by side: quantization-aware training of the torch network at 8 bits, then OpenVINO."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from geta_nb.bench.peers import Given, Made, optional, price
from geta_nb.bench.peers_openvino import in_openvino, operand_bits


def prepare() -> None:
    """Use nncf's quantizers in plain torch: the same numbers, more slowly, and nothing is compiled on the user's machine."""
    optional("torchao")  # nncf's own quantization imports it, and no requirement of nncf's says so
    optional("nncf").set_log_level(40)
    extensions = optional("nncf.torch.quantization.extensions")
    extensions.QuantizedFunctionsCPU._loaded_namespace = extensions.ReferenceQuantizedFunctions


class Wrapped(nn.Module):
    """A network inside a module: nncf adds a child to what it quantizes, and a Sequential would call it as a layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's scores."""
        result: Tensor = self.network(images)
        return result


def user_code(given: Given) -> Any:
    """Insert quantizers, train, convert, save."""
    nncf, ov = optional("nncf"), optional("openvino")
    calibration = nncf.Dataset(list(given.images[:256].split(32)))
    quantized = nncf.quantize(Wrapped(given.model).eval(), calibration)
    given.train(quantized)
    stripped = nncf.strip(quantized.eval(), example_input=given.images[:2])
    file = given.file.with_suffix(".xml")
    ov.save_model(ov.convert_model(stripped, example_input=given.images[:2]), file)
    return file


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out."""
    model = optional("openvino").Core().read_model(product)
    return Made(in_openvino(model), price(dense, dense, operand_bits(model)), [product, product.with_suffix(".bin")], "OpenVINO")
