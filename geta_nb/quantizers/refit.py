"""The range that rounds least wrongly at so many levels: where a quantizer starts, and starts again whenever it has fewer bits.

In: a weight, or a histogram of inputs, and the levels that its codes may take. Out: q_m. With m = |x|**t (unsigned: max(x, 0)**t), L the
largest code and d = q / L, the error of a range is

    E(q) = sum of (m - d min(round(m / d), L))**2

A quantizer gives out d * code for the tensor bent by t, so that is what error is measured against, and q_m = q**(1/t). A range fitted at
16 bits reaches to the largest value; at 3 bits most of its levels would lie where nothing is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geta_nb.sharding import Shards, local, shards_of, share_of

COARSE, FINE, DESCENTS = 24, 8, 4
"""Candidates between a sixteenth of the largest value and all of it; more around the best of them; and steps downhill from there."""
MANY = 2.0**12
"""Codes from which nothing is gained by giving up the largest value: a clipped one costs more than finer steps save."""
OCTAVES, PER_OCTAVE = 256, 16
"""Bins of a histogram: from 2**-128 to 2**128, each 4.4 % wide, whatever the scale of the data: no limit has to move while it fills."""
BINS = OCTAVES * PER_OCTAVE


def largest_code(bits: float, *, signed: bool) -> float:
    """Return the largest code of ``bits`` bits, sign included where there is one.

    >>> largest_code(4, signed=True), largest_code(4, signed=False)
    (7.0, 15.0)
    """
    return float(2.0 ** (bits - signed) - 1)


def fitted_clip(weight: Tensor, levels: float, clip: Tensor, exponent: Tensor, *, narrow_range: bool = True) -> Tensor:
    """Return the q_m of least squared error over all elements of a weight.

    Args:
        weight: any shape, floating; of a sharded one all ranks must ask, and sums are added up over them, a few numbers at a time.
        levels: L, the largest code, >= 1.
        clip: the present q_m, 0-dim or a shape that broadcasts against ``weight`` (one range a channel); kept where all is zero.
        exponent: t, 0-dim.
        narrow_range: the lowest code is -L; else -(L + 1).

    Returns:
        q_m, shape and dtype of ``clip``. Never waits for the device.

    >>> fitted_clip(torch.tensor([1.0, -1.0, 1.0, 0.0, 1.2]), 1.0, torch.tensor(9.0), torch.tensor(1.0))
    tensor(1.0500)
    """
    sums = RangeSums(weight, clip)
    here = local(weight).detach()
    magnitude = here.abs().to(clip.dtype).pow(exponent.detach())
    most = levels if narrow_range else (here < 0).to(clip.dtype).add_(levels)

    def code_of(step: Tensor) -> Tensor:
        codes = (magnitude / step).round_()
        return codes.clamp_(max=most) if isinstance(most, float) else torch.minimum(codes, most)

    def error(top: Tensor) -> Tensor:
        step = sums.here(top / levels)
        return sums.own((magnitude - code_of(step).mul_(step)).square_())

    def better(tops: list[Tensor], best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        for top, found in zip(tops, sums.over_ranks([error(top) for top in tops]), strict=True):
            best, least = torch.where(found < least, top, best), torch.minimum(found, least)
        return best, least

    largest = sums.largest(magnitude)
    empty = largest <= 0
    largest = torch.where(empty, 1, largest)
    ratio = 2 ** (4 / (COARSE - 1))
    best, least = better([largest / ratio**number for number in range(COARSE)], largest, torch.full_like(largest, math.inf))
    fine = [ratio ** (2 * number / (FINE + 2)) for number in range(-FINE // 2, FINE // 2 + 1)]
    best, least = better([torch.minimum(best * factor, largest) for factor in fine], best, least)
    for _ in range(DESCENTS):
        codes = code_of(sums.here(best / levels))
        # the best step for these codes; theirs are then the best codes for that step, and so on downhill
        norm, product = sums.over_ranks([sums.own(codes * codes), sums.own(codes * magnitude)])
        best, least = better([torch.where(norm > 0, product / norm * levels, best)], best, least)
    return torch.where(empty, clip, best.pow(1 / exponent))


class RangeSums:
    """Sums over the elements that share a range, in the shape of the ranges: over what is here, and over all ranks of a sharded weight."""

    def __init__(self, weight: Tensor, clip: Tensor) -> None:
        self._shape, self._shards, share = clip.shape, shards_of([weight]), share_of(weight)
        by_channel = share is not None and clip.ndim > 0 and clip.shape[share.axis] > 1
        self._share = share if by_channel else None
        self._axes = [axis for axis in range(weight.ndim) if clip.ndim and clip.shape[axis] == 1]

    def here(self, values: Tensor) -> Tensor:
        """Return those of one number a range that the elements here have."""
        return values if self._share is None else values.narrow(self._share.axis, self._share.start, self._share.stop - self._share.start)

    def _everywhere(self, values: Tensor) -> Tensor:
        if self._share is None:
            return values
        whole = values.new_zeros(self._shape)
        self.here(whole).copy_(values)
        return whole

    def own(self, terms: Tensor) -> Tensor:
        """Return the sums over what is here, in the shape of the ranges."""
        if not self._shape:
            return terms.sum()
        return self._everywhere(terms.sum(self._axes, keepdim=True) if self._axes else terms)

    def over_ranks(self, values: list[Tensor]) -> list[Tensor]:
        """Return each added up over all ranks; one message for all."""
        return values if self._shards is None else list(self._shards.sum(torch.stack(values)).unbind())

    def largest(self, magnitude: Tensor) -> Tensor:
        """Return the largest of what shares a range, over all ranks."""
        if not magnitude.numel():
            found = magnitude.new_zeros(self._shape)
        elif not self._shape:
            found = magnitude.amax()
        else:
            found = self._everywhere(magnitude.amax(self._axes, keepdim=True) if self._axes else magnitude)
        return found if self._shards is None else self._shards.largest(found)


class Histogram:
    """Counts the magnitudes of a layer's inputs in bins of equal ratio; a few vector operations for a batch, and no wait for the device.

    Args:
        device: of what will be counted; it follows what it is given.
        most: of a larger tensor only about so many elements, evenly spaced, are looked at; 0: all.

    Attributes:
        counts: [:data:`BINS`], float64.
        extremes: [largest |x|, smallest x], float64.
        called: whether a tensor was counted, be it an empty one.

    Raises nothing: NaN counts as zero, infinity into the last bin.
    """

    def __init__(self, device: torch.device | None = None, *, most: int = 0) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64, device=device)
        self.extremes = torch.zeros(2, dtype=torch.float64, device=device)
        self.called, self.most = False, most

    @torch.no_grad()
    def __call__(self, x: Tensor) -> None:
        """Count the elements of ``x``, any shape; exact zeros are left out: they cost no error."""
        flat = x.detach().reshape(-1)
        if self.most and flat.numel() > self.most:
            flat = flat[:: -(-flat.numel() // self.most)]
        flat = flat.to(torch.float32 if flat.dtype != torch.float64 else flat.dtype).nan_to_num()
        self.called = True  # written, never read: a compiled forward that counted its calls would be compiled anew for each
        if flat.numel() == 0:
            return
        if self.counts.device != flat.device:  # the model moved
            self.to(flat.device)
        magnitude = flat.abs()
        bins = (magnitude.log2() + OCTAVES // 2).mul_(PER_OCTAVE).floor_().clamp_(0, BINS - 1).long()
        # in whatever order an accelerator adds: all that a bin gets is ones
        self.counts.index_add_(0, bins, (magnitude > 0).double())
        largest = torch.maximum(self.extremes[0], magnitude.amax())
        self.extremes.copy_(torch.stack([largest, torch.minimum(self.extremes[1], flat.amin())]))

    def add_up(self, shards: Shards) -> None:
        """Count what all ranks counted; all must call it."""
        signs = torch.tensor([1.0, -1.0], dtype=self.extremes.dtype, device="cpu").to(self.extremes.device)
        self.counts.copy_(shards.sum_of_all(self.counts))
        self.extremes.copy_(shards.largest_of_all(self.extremes * signs) * signs)

    def to(self, device: torch.device) -> None:
        """Bring the counts to a device."""
        self.counts, self.extremes = self.counts.to(device), self.extremes.to(device)

    def never_negative(self) -> bool:
        """Whether something was counted and nothing was below 0. Waits for the device."""
        largest, smallest = self.extremes.tolist()
        return bool(largest > 0 and smallest >= 0)

    def fitted_clip(self, levels: float, exponent: float = 1.0) -> float:
        """Return the q_m of least squared error; 1 if every element was zero. Waits for the device.

        Args:
            levels: L, the largest code.
            exponent: t.
        """
        return self.fit(levels, exponent)[0]

    def fit(self, levels: float, exponent: float = 1.0) -> tuple[float, float]:
        """Return the q_m of least squared error, and that error: the mean over the elements that are not zero; (1, 0) if none is.

        From :data:`MANY` codes on nothing is clipped, and the error is d**2 / 12. Waits for the device.
        """
        largest, _ = self.extremes.tolist()
        if not largest > 0:
            return 1.0, 0.0
        if levels >= MANY:
            return float(largest), (largest**exponent / levels) ** 2 / 12
        edges = torch.arange(1, BINS + 1, dtype=torch.float64, device="cpu").div_(PER_OCTAVE).sub_(OCTAVES // 2).exp2_()
        counts = self.counts.cpu()
        used = counts.nonzero()[:, 0]
        counts, upper = counts[used], edges[used].clamp(max=largest)
        lower = edges[used] * 2 ** (-1 / PER_OCTAVE)
        upper, lower = upper.pow(exponent), lower.pow(exponent)
        centres, widths = (upper + lower) / 2, upper - lower
        top = largest**exponent
        clips = top * torch.logspace(-12, 0, 12 * 24 + 1, base=2.0, dtype=torch.float64, device="cpu")[:, None]
        steps = clips / levels
        coarse = (centres - steps * (centres / steps).round()) ** 2 + widths**2 / 12
        rounded = torch.where(steps < 2 * widths, steps**2 / 12, coarse)
        # an outlier is taken to stand at the upper edge of its bin, so that it is never underrated
        errors = torch.where(upper > clips, (upper - clips) ** 2, rounded) @ counts
        # from the top down: of equal errors the widest range wins
        place = len(clips) - 1 - int(errors.flip(0).argmin())
        best, error = float(clips[place, 0]), float(errors[place] / counts.sum().clamp(min=1e-300))
        return (float(min(best, top) ** (1 / exponent)) if math.isfinite(best) else float(largest)), error
