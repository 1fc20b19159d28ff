"""How the numbers of one tensor are coded, read off its quantizer and given to another. What the file and the ONNX export know of it.

In: a quantizer, and which channels stay. Out: a :class:`WeightFormat`: plain numbers that copy, pickle and compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geta_nb.quantizers import Quantizer
from geta_nb.views import Shown


@dataclass(frozen=True)
class WeightFormat(Shown):
    """How the values of one tensor are coded: value = step_size * integer, ``bits`` wide with its sign.

    Attributes:
        bits: bit width, sign included.
        step_size: d, in (units of the tensor)**t; with an ``axis`` one number for each of its indices.
        clip_max: q_m, in units of the tensor; the same.
        exponent: t.
        axis: of the channels that have a step of their own; None: one step for the whole tensor.
        signed: integers may be negative.
        narrow_range: where they may, the lowest is minus the largest; else one lower.
    """

    bits: int
    step_size: float | tuple[float, ...]
    clip_max: float | tuple[float, ...]
    exponent: float
    axis: int | None = None
    signed: bool = True
    narrow_range: bool = True

    @property
    def channels(self) -> int:
        """How many steps there are."""
        return len(self.step_size) if isinstance(self.step_size, tuple) else 1

    def steps(self, like: Tensor) -> Tensor:
        """Return the steps in the dtype of ``like``, on its device: 0-dim, or in a shape that broadcasts against it."""
        found = torch.tensor(self.step_size, dtype=like.dtype, device=like.device)
        return found if self.axis is None else found.view([-1 if at == self.axis else 1 for at in range(like.ndim)])


def weight_format(quantizer: Quantizer, keep: Callable[[Tensor], Tensor] = lambda number: number) -> WeightFormat:
    """Return the format of what a quantizer gives out; a bit width between integers is rounded up.

    Args:
        quantizer: with one range, or one a channel.
        keep: (numbers of all channels) -> those of the channels that stay, with as many axes.
    """
    bits = math.ceil(nearly_whole(float(quantizer.bit_width())))
    step, clip = (keep(number.detach()) for number in (quantizer.step_size, quantizer.clip_max))
    exponent = float(quantizer.exponent.detach())
    if step.numel() == 1:  # one channel is the whole tensor
        return WeightFormat(bits, float(step), float(clip), exponent, None, *quantizer.kind)
    axis = next(at for at, size in enumerate(step.shape) if size > 1)
    return WeightFormat(bits, tuple(step.flatten().tolist()), tuple(clip.flatten().tolist()), exponent, axis, *quantizer.kind)


def nearly_whole(bits: float) -> int | float:
    """Return bits within rounding error of a whole number as that number: float32 knows log2(q_m**t / d + 1) to about 1e-6."""
    return round(bits) if math.isfinite(bits) and abs(bits - round(bits)) < 1e-3 else bits


@torch.no_grad()
def set_format(quantizer: Quantizer, form: WeightFormat) -> bool:
    """Give a quantizer the numbers of a format; return False, with nothing changed, where it has no place for them.

    One number is given to all channels. Several need as many channels on the same axis. The codes are then those of the format, the
    lowest one too; whether they have a sign is the quantizer's own.
    """
    shape = quantizer.step_size.shape
    if form.axis is not None and [size for at, size in enumerate(shape) if at == form.axis or size != 1] != [form.channels]:
        return False
    like = quantizer.clip_max.detach()
    step, clip = (torch.tensor(numbers, dtype=like.dtype, device=like.device) for numbers in (form.step_size, form.clip_max))
    quantizer.narrow_range = form.narrow_range
    quantizer.set_range(clip.view(shape) if form.axis is not None else clip)
    quantizer.exponent.fill_(form.exponent)
    quantizer.step_size.copy_(step.view(shape) if form.axis is not None else step)
    return True
