"""What the tests of the ONNX door and its table share: subnets of the zoo, and how far a runtime is from the torch model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import geta_nb as gt
from geta_nb.files.save_load import own_graph
from geta_nb.graph import InputSizes, decode_sizes, value_of
from geta_nb.latency.runtimes import Run, open_onnxruntime, open_openvino
from geta_nb.quantizers.fake_quant import step_size
from tests.zoo.catalogue import ZOO

OPENERS = {"ONNX Runtime": open_onnxruntime, "OpenVINO": open_openvino}
WIDTHS = (2, 3, 4, 5, 6, 7, 8, 12)
# sums in another order: n eps of the largest output, here 500 summands at most, and a margin of ten
CLOSE = 1e-5


WIDER = {"phi_sdpa": 1.01}
"""Nets whose ranges are a hair wider than calibrated, where a sum lies in the middle between two codes (docs/onnx.md)."""


def half_cut(name: str, *, inputs: bool, granularity: str = "tensor") -> nn.Module:
    """Return a net of the zoo with every second group gone: weights of 2 to 12 bits, or weights and inputs of 8."""
    entry = ZOO[name]
    args, kwargs = entry.inputs(2), entry.kwargs(2)
    config = gt.QuantConfig(activations=inputs, initial_bits=8, granularity=granularity)
    geta = gt.GETA(entry.build(), args, example_kwargs=kwargs, quantize=config)
    if inputs:
        geta.calibrate([args])
        assert geta.quantizers is not None
        for quantizer in geta.quantizers.activations.values():
            quantizer.set_range(WIDER.get(name, 1.0) * quantizer.clip_max.detach())
    elif geta.quantizers is not None:
        set_widths(geta.quantizers.weights)
    geta.mask(range(0, len(geta.groups), 2))
    return geta.construct_subnet()


def compressed(
    model: nn.Module,
    *args: Any,
    inputs: float | None = None,
    widths: tuple[int, ...] = (8,),
    exponent: float = 1.0,
    unsigned: bool = False,
    reach: float = 1.0,
    **options: Any,
) -> nn.Module:
    """Quantize a net, without training: weights of these widths in turn, inputs of so many bits; ``unsigned``: whatever they are.

    ``reach``: the part of its weights' range that a tensor keeps; below 1 some take the lowest code.
    """
    geta = gt.GETA(model.eval(), args, quantize=gt.QuantConfig(activations=inputs is not None, initial_bits=8, **options))
    assert geta.quantizers is not None
    with torch.no_grad():
        for weight in geta.quantizers.weights.values():
            weight.clip_max.mul_(reach)
    set_widths(geta.quantizers.weights, widths)
    if inputs is not None:
        geta.calibrate([args])
        with torch.no_grad():
            for quantizer in geta.quantizers.activations.values():
                quantizer.set_signed(quantizer.signed and not unsigned)
                quantizer.exponent.fill_(exponent)
                quantizer.step_size.copy_(step_size(inputs, quantizer.clip_max, quantizer.exponent, signed=quantizer.signed))
    return geta.construct_subnet()


def errors(subnet: nn.Module, path: Path, *args: Any) -> dict[str, float]:
    """Return the relative error of each runtime on some inputs."""
    expected, feed = reference(subnet, args, {}), feed_of(path, args, {})
    return {name: relative_error(opener(path)(feed), expected) for name, opener in OPENERS.items()}


def both_close(subnet: nn.Module, path: Path, *args: Any, limit: float = CLOSE) -> None:
    """Assert that both runtimes compute what the subnet computes."""
    found = errors(subnet, path, *args)
    assert max(found.values()) <= limit, found


def kinds(path: Path) -> list[str]:
    """Return the operators of a file."""
    return [node.op_type for node in onnx.load(path).graph.node]


@torch.no_grad()
def set_widths(quantizers: Mapping[str, Any], widths: tuple[int, ...] = WIDTHS) -> None:
    """Give quantizers bit widths in turn."""
    for index, quantizer in enumerate(quantizers.values()):
        quantizer.step_size.copy_(step_size(float(widths[index % len(widths)]), quantizer.clip_max, quantizer.exponent))


def feed_of(path: Path, args: Any, kwargs: Any) -> dict[str, np.ndarray]:
    """Return example inputs by the names that the file gives them."""
    names = [item.name for item in onnx.load(path).graph.input]
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return {name: leaf.numpy() for name, leaf in zip(names, leaves, strict=True)}


def reference(module: nn.Module, args: Any, kwargs: Any) -> list[np.ndarray]:
    """Return the torch outputs."""
    with torch.no_grad():
        return [leaf.numpy() for leaf in tree_leaves(module(*args, **kwargs)) if isinstance(leaf, Tensor)]


def relative_error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest difference over the largest magnitude, the worst of all outputs."""
    assert [a.shape for a in found] == [b.shape for b in expected]
    errors = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in zip(found, expected, strict=True) if b.size]
    return float(max(errors))


def worst(run: Run, subnet: nn.Module, path: Path, name: str, batches: tuple[int, ...]) -> float:
    """Return the relative error of a runtime over several batch sizes."""
    entry = ZOO[name]
    pairs = [(entry.inputs(batch), entry.kwargs(batch)) for batch in batches]
    return max(relative_error(run(feed_of(path, *pair)), reference(subnet, *pair)) for pair in pairs)


def worst_of_other_sizes(run: Run, subnet: nn.Module, path: Path, name: str) -> float:
    """Return the relative error of a runtime at two other sizes of every axis that is free, where the file and the network take them."""
    entry, sizes = ZOO[name], sizes_in(path)
    inputs = entry.inputs(2), entry.kwargs(2)
    example, found = sizes.read(tree_leaves(inputs)), [0.0]
    for other in ({key: size + 1 for key, size in example.items()}, {key: 2 * size for key, size in example.items()}):
        if all(value_of(condition, other) for condition in sizes.conditions):
            args, kwargs = sizes.resized(inputs, other)
            found.append(relative_error(run(feed_of(path, args, kwargs)), reference(subnet, args, kwargs)))
    return max(found)


def sizes_in(path: Path) -> InputSizes:
    """Return which sizes a file says it takes."""
    sizes = decode_sizes(json.loads(next(item.value for item in onnx.load(path).metadata_props if item.key == "sizes")))
    assert sizes is not None
    return sizes


def noise(subnet: nn.Module, name: str, batches: tuple[int, ...]) -> float:
    """Return how far the torch model in float32 is from itself in float64: what rounding alone does to a quantized network."""
    net, _ = own_graph(subnet, "save")
    wide, entry = copy.deepcopy(net).double(), ZOO[name]
    errors = []
    for batch in batches:
        pair = (entry.inputs(batch), entry.kwargs(batch))
        widened = tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, pair)
        errors.append(relative_error(reference(net, *pair), reference(wide, *widened)))
    return max(errors)
