"""What it costs in loss to round a layer to so many bits, from gradients that are there anyway.

In: weights and quantizers after a backward pass. Out: for each quantizer and bit width a rise of the loss, in the unit of <x, g>^2.

To second order, and with F the empirical Fisher information of batches, rounding changes the loss by half the mean of <delta, g>^2 over
batches, as removing a group does with delta = -x. Errors of rounding vary independently of each other, so that mean is mse * E, for mse the
mean squared error at the bits in question and E = sum of g^2 over the tensor. Of a weight, E is read off its gradient. The gradient of an
input is gone by the time of the step, but what matters of it is in the gradient of the step size: each element adds its g times the part of
a step that rounding took from it, which is uniform in -1/2 .. 1/2, so that E = 12 * mean of (dL/dd)^2, whatever the present width (tried on
weights, where both are there). So one number a step and quantizer says what all widths would cost, under autocast, accumulation and over
processes as gradients are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from geta_nb.qasso import ranks
from geta_nb.qasso.projection import SIGNS, QuantizerBank
from geta_nb.quantizers import Histogram, Quantizer, largest_code
from geta_nb.sharding import is_sharded, local, share_of

COUNTED = 1 << 16
"""Elements of a weight that its error is taken from."""
FITTED = (2, 3, 4, 5, 6)
"""Bits of which the error is fitted; each further bit quarters it."""


class Rises:
    """The running mean of E, the sum of g^2 over what each quantizer quantizes.

    Args:
        bank: all quantizers.
    """

    def __init__(self, bank: QuantizerBank) -> None:
        self._bank, self._first = bank, len(bank) - len(bank.histograms)
        self.average = torch.zeros(len(bank), device=bank.step_sizes[0].device)
        self._factors: tuple[tuple[bool, ...], Tensor] | None = None  # made anew where a weight is frozen, or let go

    def read(self) -> Tensor:
        """Return E of each quantizer now, [L]; 0 where no gradient is. Over the ranks of a sharded model these add up to the whole."""
        # of a frozen weight no gradient is there, but that of its step size is
        weights = [self._bank.weight(i).grad for i in range(self._first)]
        sources = [_dense(w) if w is not None else step.grad for w, step in itertools.zip_longest(weights, self._bank.step_sizes)]
        norms = torch._foreach_norm([self.average[:1] * 0 if source is None else source for source in sources])
        found = torch.stack([norm.to(self.average) for norm in norms]).square()
        if self._bank.shards is not None:
            first = self._bank.shards.first  # of what every rank has whole, one counts it
            counts = [first or (weight is not None and is_sharded(weight)) for weight, _ in itertools.zip_longest(weights, sources)]
            found = torch.where(torch.tensor(counts, device="cpu").to(found.device), found, 0)
        own = tuple(weight is not None for weight, _ in itertools.zip_longest(weights, sources))
        if self._factors is None or self._factors[0] != own:
            factors = torch.tensor([1.0 if there else 12.0 for there in own], dtype=found.dtype, device="cpu")
            self._factors = own, factors.to(found.device)
        return found * self._factors[1]

    def follow(self) -> None:
        """Go where the quantizers are, which may have moved."""
        self.average, self._factors = self.average.to(self._bank.step_sizes[0].device), None

    def take_in(self, seen: Tensor, decay: float) -> None:
        """Let the mean move towards what was read."""
        self.average.lerp_(seen, 1 - decay)

    def at(self, widths: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """Return bits -> mean of <Q_b(x) - x, g>^2 of each quantizer; the same on all ranks, which must all ask. Waits for the device.

        Args:
            widths: bits that are asked for, of each quantizer.
        """
        self._bank.share_histograms()
        histograms = [*self._of_weights(), *self._bank.histograms]
        errors = [self._errors(*found) for found in zip(self._bank.quantizers, histograms, strict=True)]
        energies = ranks.mean(self.average.double()).tolist()
        return [{b: energy * _at(row, b) for b in asked} for asked, row, energy in zip(widths, errors, energies, strict=True)]

    def _of_weights(self) -> list[Histogram]:
        """Count some elements of each weight, of a sharded one on all ranks together."""
        found, whole, bank = [], [], self._bank
        for i in range(self._first):
            weight = bank.weight(i).detach()  # others may have to compute it
            whole.append(not is_sharded(weight))
            found.append(Histogram(weight.device))
            found[-1](evenly_spaced(weight, COUNTED))
        if bank.shards is not None and found:
            counts = bank.shards.sum(torch.stack([h.counts for h in found]))
            signs = SIGNS.to(counts)
            extremes = bank.shards.largest(torch.stack([h.extremes * signs for h in found])) * signs
            for histogram, own, count, ends in zip(found, whole, counts, extremes, strict=True):
                if not own:
                    histogram.counts.copy_(count)
                    histogram.extremes.copy_(ends)
        return found

    def _errors(self, quantizer: Quantizer, histogram: Histogram) -> list[float]:
        """Return the mean squared error of a quantizer at each of :data:`FITTED`."""
        exponent = float(quantizer.exponent.detach())
        return [histogram.fit(largest_code(bits, signed=quantizer.signed), exponent)[1] for bits in FITTED]


def evenly_spaced(tensor: Tensor, most: int) -> Tensor:
    """Return at most so many elements of a tensor, a vector: those at multiples of one stride; of a sharded one those of them here."""
    flat, share = local(tensor).detach().reshape(-1), share_of(tensor)
    stride = max(1, -(-tensor.numel() // most))
    first = 0 if share is None or share.axis else share.start * (tensor.numel() // max(len(tensor), 1))
    return flat[-first % stride :: stride]


def _at(errors: Sequence[float], bits: int) -> float:
    """Return the error at any bits from those at :data:`FITTED`: each bit more quarters it, each bit less makes it four times as large."""
    nearest = min(max(bits, FITTED[0]), FITTED[-1])
    return errors[FITTED.index(nearest)] * 4.0 ** (nearest - bits)


def _dense(gradient: Tensor) -> Tensor:
    """Return the numbers of a gradient that are here, and not zero for being left out."""
    gradient = local(gradient)
    return gradient.coalesce().values() if gradient.is_sparse else gradient
