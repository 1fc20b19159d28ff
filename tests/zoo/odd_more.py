"""Odd nets of one trap each that blocks of image networks brought: strides, pools that keep a constant or count, maxima that skip zeros.

Comes in: nothing. Goes out: more entries of ``ODD``. Hidden layer ``a``, reader ``b``, as there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from tests.zoo.odd_nets import IMAGE, SEQUENCE, VECTOR, C, L, between, images, odd


def _in_turn(s: Any, h: Tensor) -> Tensor:
    """Written with a stride, twice: the second time over what the first left and over half of what it wrote."""
    y = torch.zeros_like(h)
    y[:, ::2] = h[:, :8].relu()
    y[:, 1::4] = h[:, 8:12]
    return y + h


def _unpooled(s: Any, x: Tensor) -> Tensor:
    pooled, where = F.max_pool2d(F.relu(s.a(x)), 2, return_indices=True)
    out: Tensor = s.b(F.max_unpool2d(s.c(pooled), where, 2))
    return out


def _places_of_maxima(s: Any, x: Tensor) -> Tensor:
    where = F.max_pool2d(F.relu(s.a(x)), 2, return_indices=True)[1]
    out: Tensor = s.b(where.to(x.dtype) / 9)
    return out


def _masked(s: Any, x: Tensor) -> Tensor:
    """Attention with a causal mask that is a function of two places, mapped over both."""
    place = torch.arange(x.shape[1])
    mask = vmap(vmap(lambda i, j: i >= j, (None, 0)), (0, None))(place, place)
    h = s.a(x)
    out: Tensor = s.b((h @ h.mT).masked_fill(~mask, -1e9).softmax(-1) @ s.c(x))
    return out


between("written_in_turn", 7, _in_turn)
between("axes_swapped_and_merged", 4, lambda s, h: h.unflatten(-1, (4, 4)).transpose(-1, -2).flatten(-2))
between("axes_swapped_and_back", 4, lambda s, h: h.unflatten(-1, (4, 4)).mT.flatten(1).relu().unflatten(-1, (4, 4)).mT.flatten(1) + h)
between("axes_moved", 16, lambda s, h: h.movedim(1, 2).swapaxes(1, 2).relu().moveaxis(0, 1).moveaxis(0, 1), shape=SEQUENCE)
between("maximum_of_no_negative_kept", 16, lambda s, h: h.relu() * h.relu().amax(-1, keepdim=True))
between("maximum_of_two_outputs_kept", 16, lambda s, h: h.relu() * h.relu().max(-1, keepdim=True)[0])
between("place_of_the_maximum_used", 0, lambda s, h: h.relu() * sum(h.relu().max(-1, keepdim=True)), blamed="max")
between("any_above_zero", 16, lambda s, h: h * (h > 0.5).any(-1, keepdim=True))
images("sigmoid_averaged", 8, lambda: C(3, 8, 3), nn.Sigmoid, lambda: nn.AvgPool2d(2), lambda: C(8, 4, 2))
images("sigmoid_averaged_with_padding", 0, lambda: C(3, 8, 3), nn.Sigmoid, lambda: nn.AvgPool2d(2, padding=1), lambda: C(8, 4, 2),
       blamed="sigmoid")  # fmt: skip
images("sigmoid_enlarged", 8, lambda: C(3, 8, 3), nn.Sigmoid, lambda: nn.Upsample(scale_factor=2, mode="bilinear"), lambda: C(8, 4, 3))
images("sigmoid_padded_by_copies", 8, lambda: C(3, 8, 3), nn.Sigmoid, lambda: nn.ReflectionPad2d(1), lambda: C(8, 4, 3))
images("sigmoid_to_depth", 8, lambda: C(3, 8, 3), nn.Sigmoid, lambda: nn.PixelUnshuffle(2), lambda: C(32, 4, 1))
odd("unpooled", IMAGE, 8, _unpooled, lambda: {"a": C(3, 8, 3), "c": C(8, 8, 1), "b": C(8, 4, 1)})
odd("places_of_maxima", IMAGE, 0, _places_of_maxima, lambda: {"a": C(3, 8, 3), "b": C(8, 4, 1)}, blamed="max_pool2d_with_indices")
odd("mask_mapped_over_places", SEQUENCE, 32, _masked, lambda: {"a": L(8, 16), "c": L(8, 16), "b": L(16, 4)})
odd("cells", VECTOR, 22, lambda s, x: s.b(s.e(s.a(x), (s.c(s.a(x)), s.c(s.a(x))))[0]),
    lambda: {"a": L(8, 16), "c": nn.GRUCell(16, 6), "e": nn.LSTMCell(16, 6), "b": L(6, 4)})
