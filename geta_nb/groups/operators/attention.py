"""Scaled dot-product attention: two contractions with a softmax between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from geta_nb.groups.labels import Labels
from geta_nb.groups.operators.axes import insert_axis, pad_left, permute, spoiled
from geta_nb.groups.operators.contraction import contract
from geta_nb.groups.operators.registry import Call, rule


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Labels:
    """softmax(q k^T) v: heads are aligned, their dimension and the key axis are summed over, the softmax keeps no zero."""
    query, key, value = call.args[:3]
    mask = call.argument(3, "attn_mask")
    if len(query.shape) == 4 and key.shape[1] not in (1, query.shape[1]):
        key, value = (_repeat_heads(item, query.shape[1] // key.shape[1]) for item in (key, value))
    scores = contract(call, insert_axis(query, -2), insert_axis(key, -3), [-1], macs=1)
    ndim = len(scores.shape)
    softmaxed = [ndim - 1, ndim - 2] if call.argument(5, "is_causal", False) else [ndim - 1]
    scores = call.fixed(softmaxed, scores, "softmax")
    if mask is not None:
        aligned = call.space.align([scores, pad_left(mask, ndim)], call.reason("aligned with an attention mask"))
        call.produce(aligned, "data")
        scores = aligned[0]
    weights = spoiled(scores, call.reason("softmax"))
    value = call.fixed([ndim - 2], value, "softmax")
    value = permute(value, [*range(ndim - 2), ndim - 1, ndim - 2])
    out = contract(call, insert_axis(weights, -2), insert_axis(value, -3), [-1], macs=1, operands=(_node(call, 0), _node(call, 2)))
    return replace(out, shape=call.shape)


def _node(call: Call, position: int) -> fx.Node | None:
    value: Any = call.node.args[position]
    return value if isinstance(value, fx.Node) else None


def _repeat_heads(labels: Labels, times: int) -> Labels:
    """Grouped-query attention: each key and value head serves ``times`` query heads."""
    arrays = tuple(array.map(lambda v: np.repeat(v, times, axis=1) if v.shape[1] > 1 else v) for array in labels.arrays)
    return Labels((labels.shape[0], labels.shape[1] * times, *labels.shape[2:]), arrays, labels.source)
