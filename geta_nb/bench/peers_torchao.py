"""torchao in the side by side: quantization-aware training of the exported graph (PT2E), 8 bits for weights and inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from geta_nb.bench.peers import Given, Made, optional, price


def user_code(given: Given) -> Any:
    """Export, insert fake quantizers, train, convert to integers, save."""
    pt2e = optional("torchao.quantization.pt2e")
    steps = optional("torchao.quantization.pt2e.quantize_pt2e")
    x86 = optional("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    batch = {0: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(given.model.train(), (given.images[:2],), dynamic_shapes=(batch,)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = steps.prepare_qat_pt2e(exported, quantizer)
    pt2e.move_exported_model_to_train(prepared)
    given.train(prepared)
    pt2e.move_exported_model_to_eval(prepared)
    if given.quick:
        return prepared, None
    converted = steps.convert_pt2e(prepared)
    file = given.file.with_suffix(".pt2")
    torch.export.save(torch.export.export(converted, (given.images[:2],), dynamic_shapes=(batch,)), file)
    return converted, file


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out."""
    graph, file = product

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = graph(images)
        return result

    return Made(predict, price(dense, dense, operand_bits(graph)), [file] if file else [], "torch, integers emulated")


def operand_bits(graph: Any) -> list[tuple[float, float]]:
    """Return (weight, input) bits of every convolution and linear, in order: of the quantizer that each operand comes from."""
    targets = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    return [(_bits(graph, node.args[1]), _bits(graph, node.args[0])) for node in graph.graph.nodes if node.target in targets]


def _bits(graph: Any, node: Any) -> float:
    """Walk up from an operand, through what changes no value, to its quantizer; 32 when there is none."""
    through = ("view", "flatten", "pool", "detach", "clone", "alias", "reshape")
    while node.op == "call_function" and any(word in str(node.target) for word in through):
        node = node.args[0]
    if node.op == "call_module":
        quantizer = graph.get_submodule(node.target)
        return math.log2(quantizer.quant_max - quantizer.quant_min + 1)
    if "dequantize" not in str(node.target):
        return 32.0
    low, high = (int(value) for value in [a for a in node.args if isinstance(a, int)][-2:])
    return float(math.ceil(math.log2(high - low + 1)))
