"""The histogram of a weight and the grid of its quantizer, small enough to be sent at a click and to be kept in a page.

In: a tensor, its quantizer. Out: plain JSON-able values; counts as one byte a bin. Read without gradients and changed nowhere; a
training step that runs in another thread meanwhile goes on, and what is read is then a mixture of before and after that step.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geta_nb.quantizers import ActivationQuantizer, Quantizer

BINS = 64
CHUNK = 1 << 24
"""Elements that are worked on at once: a copy of a whole embedding may not fit beside the training."""
MOST, MOST_ON_CPU = 1 << 28, 1 << 22
"""Elements that are counted; of more, a sample: a click is to be answered at once."""


def packed(values: NDArray[Any]) -> str:
    """Return numbers in [0, 1] as one byte each, in base64; the byte holds the root, so that small ones are not lost."""
    roots = np.sqrt(np.clip(np.nan_to_num(values), 0, 1))
    codes = np.where(values > 0, np.maximum(np.rint(255 * roots), 1), 0)  # what there is, however little, is seen
    return base64.b64encode(codes.astype(np.uint8).tobytes()).decode()


@torch.no_grad()
def histogram(tensor: Tensor, clip: Tensor | None = None) -> dict[str, Any] | None:
    """Return counts of the values that are not 0, and how many are; None where there are no real numbers to count.

    Keys: ``n``, ``zero`` and ``beyond`` (shares: exactly 0, and outside of ``clip``), ``low``, ``high``, ``peak`` (values in the
    fullest bin), ``bins`` (:data:`BINS` bytes, see :func:`packed`); ``bad`` (count) where values are not finite; ``every`` where only
    each so many-th value was counted. Works on the tensor's device, by parts, and waits for it once.

    Args:
        tensor: any shape.
        clip: q_m of its quantizer, broadcasts against ``tensor``.
    """
    if tensor.is_meta or not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.numel() == 0:
        return None
    every = _stride(tensor)
    whole = tensor.detach().reshape(-1)
    flat = whole[::every]
    ranges = torch.stack([_range(part) for part in whole.split(CHUNK)])
    low, high = ranges[:, 0].amin(), ranges[:, 1].amax()
    counts = torch.stack([_counts(part, low, high) for part in flat.split(CHUNK)]).sum(0)
    counted = tensor.detach() if every == 1 else flat
    known = clip is not None and (every == 1 or clip.numel() == 1)  # a sample has no channels
    beyond = _beyond(counted, clip).to(counts).reshape(1) if clip is not None and known else counts.new_zeros(1)
    figures = torch.cat([counts, beyond, torch.stack([low, high]).to(counts)]).cpu().numpy()  # the only wait
    return {"n": tensor.numel(), **_figures(figures, flat.numel(), every)}


def _stride(tensor: Tensor) -> int:
    """How many elements lie between two that are counted; no row is so long that always the same columns would be."""
    every = -(-tensor.numel() // (MOST_ON_CPU if tensor.device.type == "cpu" else MOST))
    while every > 1 and math.gcd(every, tensor.shape[-1]) > 1:
        every += 1
    return every


def _range(part: Tensor) -> Tensor:
    """Smallest and largest finite value, [2]; infinities of the wrong sign where there is none."""
    ends = torch.stack(torch.aminmax(part)).to(_wide(part))
    if part.device.type == "cpu" and bool(ends.isfinite().all()):  # a look costs nothing there, and is the rule
        return ends
    wide = part.to(_wide(part))
    fine = wide.isfinite()
    return torch.stack([torch.where(fine, wide, math.inf).amin(), torch.where(fine, wide, -math.inf).amax()])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _counts(part: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Counts of each bin, of zeros, and of what is not finite, [BINS + 2], float64 where the device has it."""
    wide = part.to(low.dtype)
    zeros = wide.numel() - wide.count_nonzero()
    fine = wide.isfinite()
    span = (high / 2 - low / 2).clamp(min=torch.finfo(low.dtype).tiny) * 2  # halves: the span of large values may overflow
    # what lies outside of 0 .. 1 is not counted
    places = ((wide - low) / span).masked_fill_(~fine | (wide == 0), 2.0)
    bins = torch.histc(places.float(), BINS, 0.0, 1.0)
    return torch.cat([bins, zeros.reshape(1).to(bins), (fine.numel() - fine.count_nonzero()).reshape(1).to(bins)]).to(_widest(part))


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _beyond(tensor: Tensor, clip: Tensor) -> Tensor:
    bound = clip.detach().to(tensor.device)
    rows = tensor.split(max(1, CHUNK // max(tensor[0].numel(), 1))) if tensor.ndim else (tensor,)
    bounds = bound.split([len(row) for row in rows]) if bound.ndim and bound.shape[0] == tensor.shape[0] > 1 else [bound] * len(rows)
    return torch.stack([(row.abs() > limit).sum() for row, limit in zip(rows, bounds, strict=True)]).sum()


def _figures(figures: NDArray[Any], n: int, every: int) -> dict[str, Any]:
    counts, (zero, bad, beyond, low, high) = figures[:BINS], figures[BINS:].tolist()
    fine = math.isfinite(low) and math.isfinite(high)
    found = {
        "zero": _short(zero / n), "beyond": _short(beyond / n), "peak": int(counts.max()),
        "low": _short(low) if fine else 0.0, "high": _short(high) if fine else 0.0, "bins": packed(counts / max(counts.max(), 1)),
    }  # fmt: skip
    return found | ({"bad": int(bad)} if bad else {}) | ({"every": every} if every > 1 else {})


@torch.no_grad()
def grid(quantizer: Quantizer) -> dict[str, Any] | None:
    """Return what draws the levels of a quantizer; None before it has a range.

    Keys: ``step``, ``clip`` and ``exponent`` (of several channels: those of the channel with the widest range), ``bits``, ``signed``,
    ``narrow`` (no code more below zero than above), and for several channels ``channels`` and ``narrowest`` (the least clip).
    """
    clip, step, exponent = (t.detach() for t in (quantizer.clip_max, quantizer.step_size, quantizer.exponent))
    if clip.is_meta or (isinstance(quantizer, ActivationQuantizer) and not quantizer.calibrated):
        return None
    flat, bits = clip.reshape(-1), quantizer.bit_width()
    widest = flat.argmax()
    parts = [flat[widest], step.reshape(-1).expand_as(flat)[widest], exponent, bits, flat.amin()]
    top, d, t, width, least = torch.stack([part.reshape(()).to(flat) for part in parts]).cpu().tolist()
    if not all(math.isfinite(value) and value > 0 for value in (top, d, t)):
        return None
    found = {"step": _short(d), "clip": _short(top), "exponent": _short(t), "bits": round(width, 3), "signed": quantizer.signed}
    several = {"channels": flat.numel(), "narrowest": _short(least)} if flat.numel() > 1 else {}
    return {**found, "narrow": quantizer.narrow_range, **several}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
