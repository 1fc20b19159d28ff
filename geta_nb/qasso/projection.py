"""Keeping bit widths where they belong: all quantizers of a network as vectors, their steps clipped to a bit range or frozen at integers.

Comes in: quantizers and the bit range of each. Goes out: the same, with d moved in place. d alone is projected; q_m and t train freely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from geta_nb.config import MAX_BITS, MIN_BITS
from geta_nb.qasso.ranks import agreed
from geta_nb.quantizers import bit_width

if TYPE_CHECKING:
    from geta_nb.quantizers import Quantizer

CLIP_FLOOR = 1e-6
EXPONENT_RANGE = (0.1, 10.0)
"""Outside these no bit width is defined (q_m <= 0) or d under- or overflows. A gradient step may jump there; it is put back."""


def levels(bits: Sequence[int] | Tensor, like: Tensor) -> Tensor:
    """Return 2**(b-1) - 1, the largest code of ``b`` bits, [L], in the dtype and on the device of ``like``."""
    wide = torch.as_tensor(bits, dtype=torch.float64)
    return (torch.exp2(wide - 1) - 1).to(like.device, like.dtype)


def project_step_size(step: Tensor, clip: Tensor, exponent: Tensor, few: Tensor, many: Tensor) -> Tensor:
    """Return the step nearest to ``step`` whose bit width lies in the range.

        d <- clip(d, q_m**t / (2**(b_u-1) - 1), q_m**t / (2**(b_l-1) - 1))

    Args:
        step, clip, exponent: d, q_m, t, [L].
        few, many: :func:`levels` of b_l and of b_u, [L].

    Returns:
        d, [L]; projecting it again changes nothing.

    Source: arXiv:2502.16638 (PPSG).
    """
    top = clip**exponent
    return torch.minimum(torch.maximum(step, top / many), top / few)


class Vectors(NamedTuple):
    """d, q_m and t of all quantizers, [L] each, detached."""

    step: Tensor
    clip: Tensor
    exponent: Tensor


class QuantizerBank:
    """All quantizers of a network in one fixed order: weights, then activations.

    Args:
        weights, activations: layer -> quantizer.
        ranges: (b_l, b_u) of each, in that order.

    Attributes:
        keys: ("weight" | "activation", layer) of each quantizer.
        lower, upper: the bit ranges, lists of L integers; ``lower`` may be raised on the way to a cost target.
        bound: the upper bound reached so far, [L integers].
        frozen: the final bits, [L integers], or None while they still move.
    """

    def __init__(
        self, weights: Mapping[str, Quantizer], activations: Mapping[str, Quantizer], ranges: Sequence[tuple[int, int]]
    ) -> None:
        quantizers = [*weights.values(), *activations.values()]
        self.keys = [("weight", layer) for layer in weights] + [("activation", layer) for layer in activations]
        self.step_sizes = [q.step_size for q in quantizers]
        self.clip_maxes = [q.clip_max for q in quantizers]
        self.exponents = [q.exponent for q in quantizers]
        self.lower = [low for low, _ in ranges]
        self.upper = [high for _, high in ranges]
        self.bound = list(self.upper)
        self.frozen: list[int] | None = None
        self._levels: tuple[object, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def parameters(self) -> list[torch.nn.Parameter]:
        """All d, q_m and t that train."""
        return [p for p in (*self.step_sizes, *self.clip_maxes, *self.exponents) if p.requires_grad]

    @property
    def n_trained(self) -> int:
        """Length of :meth:`parameters`."""
        return 2 * len(self) + sum(t.requires_grad for t in self.exponents)

    def vectors(self) -> Vectors:
        """Return d, q_m and t as vectors on the first quantizer's device."""
        device = self.step_sizes[0].device
        return Vectors(*(torch.stack([p.detach().to(device) for p in ps]) for ps in (self.step_sizes, self.clip_maxes, self.exponents)))

    def settle(self, flat: Tensor, *, anywhere: bool = False) -> None:
        """Do :meth:`keep_positive` and :meth:`constrain` in place on one vector that holds all of :meth:`parameters`, in their order."""
        step, clip, free = flat.detach().split([len(self), len(self), len(flat) - 2 * len(self)])
        clip.clamp_(min=CLIP_FLOOR)
        free.clamp_(*EXPONENT_RANGE)
        exponent = free
        if len(free) < len(self):
            parts = iter(free.unbind())
            exponent = torch.stack([next(parts) if t.requires_grad else t.detach() for t in self.exponents])
        few, many = self.range_levels(step, anywhere=anywhere)
        step.copy_(project_step_size(step, clip, exponent, few, many))

    def keep_positive(self) -> None:
        """Put q_m and t back into the range where a bit width exists, in place; only those that just took a step."""
        clips = [p.detach() for p in self.clip_maxes if p.grad is not None]
        exponents = [p.detach() for p in self.exponents if p.grad is not None]
        if clips:
            torch._foreach_clamp_min_(clips, CLIP_FLOOR)
        if exponents:
            torch._foreach_clamp_min_(exponents, EXPONENT_RANGE[0])
            torch._foreach_clamp_max_(exponents, EXPONENT_RANGE[1])

    def constrain(self, *, anywhere: bool = False) -> None:
        """Project every d to its bit range, or set it by the frozen bits, in place.

        Args:
            anywhere: only keep a width between 2 and 32 bits: at 16 bits d is smaller than a usual ``lr_quant``, and one step of Adam
                can make it negative.
        """
        if not self.keys:
            return
        v = self.vectors()
        few, many = self.range_levels(v.step, anywhere=anywhere)
        self.write(project_step_size(v.step, v.clip, v.exponent, few, many))

    def reduce_bound(self, reduction: int) -> None:
        """Lower the upper bounds to ``reduction`` bits below their start, never below the lower ones."""
        self.bound = self.reduced_bound(reduction)

    def reduced_bound(self, reduction: int) -> list[int]:
        """Return what :meth:`reduce_bound` would set, [L integers]."""
        return [max(low, high - reduction) for low, high in zip(self.lower, self.upper, strict=True)]

    def range_levels(self, like: Tensor, *, anywhere: bool = False) -> tuple[Tensor, Tensor]:
        """Return :func:`levels` of the present lower and upper bit bound, [L] each; made anew only when a bound moved."""
        low, high = (self.lower, self.bound) if self.frozen is None else (self.frozen, self.frozen)
        if anywhere:
            low, high = [MIN_BITS] * len(self), [MAX_BITS] * len(self)
        key = (tuple(low), tuple(high), like.device, like.dtype)
        if self._levels is None or self._levels[0] != key:
            self._levels = (key, levels(low, like), levels(high, like))
        return self._levels[1], self._levels[2]

    def write(self, steps: Tensor) -> None:
        """Set every d, in place, from ``steps`` [L]."""
        torch._foreach_copy_([p.detach() for p in self.step_sizes], list(steps.unbind()))

    def bits(self) -> list[float]:
        """Return the present bit widths, in bits; waits for the device. One without a range (not yet calibrated) counts its upper bound."""
        if not self.keys:
            return []
        widths = bit_width(*(x.double() for x in self.vectors())).tolist()
        return [float(high if math.isnan(b) else b) for b, high in zip(widths, self.upper, strict=True)]

    def rounded_bits(self, bounds: Sequence[int]) -> list[int]:
        """Return the present bits rounded to integers inside [lower, bounds]; of rank 0 in a distributed run, where all ranks must ask."""
        rounded = [int(min(max(round(b), low), high)) for b, low, high in zip(self.bits(), self.lower, bounds, strict=True)]
        return agreed(rounded, self.step_sizes[0].device) if rounded else rounded

    def freeze(self, bits: Sequence[int]) -> None:
        """Fix all bit widths; from now on :meth:`constrain` sets d from q_m, t and these."""
        self.frozen = list(bits)
        self.constrain()

    def by_layer(self, kind: str, values: Sequence[float]) -> dict[str, float]:
        """Return the values of the ``"weight"`` or ``"activation"`` quantizers by layer."""
        return {layer: value for (k, layer), value in zip(self.keys, values, strict=True) if k == kind}
