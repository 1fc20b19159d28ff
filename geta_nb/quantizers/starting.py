"""Where weight quantizers start that were attached before their weights had values: on the meta device, and materialised since.

In: the quantizers of a model, and its parameters, which may be sharded. Out: the ranges that they would have got from these weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from geta_nb.errors import NonFiniteError
from geta_nb.quantizers.modules import or_default
from geta_nb.quantizers.prepare import Quantizers
from geta_nb.quantizers.refit import RangeSums
from geta_nb.sharding import local


@torch.no_grad()
def start_ranges(quantizers: Quantizers, parameters: Mapping[str, Tensor]) -> None:
    """Give each weight quantizer without a range q_m = max|W|, t = 1 and its initial bits; all ranks of a sharded model must ask.

    Args:
        quantizers: of the model.
        parameters: own name -> tensor.

    Raises:
        NonFiniteError: NaN or infinity in a weight; nothing was changed.
    """
    found: dict[str, Tensor] = {}
    tensors: Mapping[str, object] | None = None
    for layer, quantizer in quantizers.weights.items():
        clip = quantizer.clip_max
        if clip.is_meta or bool(clip.isfinite().all()):
            continue
        tensors = quantizers.quantized_tensors(parameters) if tensors is None else tensors
        given = tensors[layer]
        weight = given if isinstance(given, Tensor) else given()  # type: ignore[operator]
        if weight.is_meta:
            continue
        found[layer] = or_default(RangeSums(weight, clip).largest(local(weight).detach().abs().to(clip.dtype)), weight)
        if not bool(found[layer].isfinite().all()):
            raise NonFiniteError("GETA: a weight is not finite.", at=layer, got=f"max |W| = {float(found[layer].max())}")
    for layer, start in found.items():
        quantizers.weights[layer].set_range(start)
