"""Set the range of every activation quantizer from data.

In: the prepared model and a few batches. Out: ``clip_max`` and ``step_size`` of the input quantizers. Runs once, before training (before
DDP wraps the model, so that all ranks start from the same ranges).

Rule: over all elements seen, q_m is the clip with the least squared error *at the bits the quantizer starts with*,

    E(q) = sum_{|x| <= q} (|x| - d round(|x| / d))**2 + sum_{|x| > q} (|x| - q)**2,       d = q / (2**(bits - 1) - 1)

read off a histogram of |x| with a fixed number of bins; where a bin is wider than half a step, the first term is its mean, d**2 / 12.
At 16 bits that gives max|x| or a hair below, so that no outlier is cut; only a quantizer that starts at few bits gives up outliers. q_m
is learned from there on, when QASSO takes bits away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.errors import GetaError, InputError, NonFiniteError
from geta_nb.quantizers.gradients import compute_dtype
from geta_nb.quantizers.prepare import Quantizers

BINS = 2048
"""Memory of a layer's observer: this many float64 counts (16 KiB), however much data passes."""


class Histogram:
    """Counts |x| in :data:`BINS` equal bins of [0, limit]; the limit doubles when a larger value comes, and bins merge in pairs.

    Args:
        layer: the dotted name that messages show.
    """

    def __init__(self, layer: str) -> None:
        self.layer, self.calls, self.limit, self.largest = layer, 0, 0.0, 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def __call__(self, x: Tensor) -> None:
        """Count the elements of ``x``, any shape; exact zeros are left out: they cost no error.

        Raises:
            NonFiniteError: NaN or infinity in ``x``.
        """
        self.calls += 1
        magnitude = x.detach().abs().to(compute_dtype(x)).flatten()
        magnitude = magnitude[magnitude != 0]
        if magnitude.numel() == 0:
            return
        largest = float(magnitude.amax())
        if not math.isfinite(largest):
            raise NonFiniteError("calibrate: an input of this layer is not finite.", at=self.layer, got=f"max |x| = {largest}")
        self.limit = self.limit or largest
        while largest > self.limit:
            self.counts = torch.cat([self.counts.view(-1, 2).sum(1), self.counts.new_zeros(BINS // 2)])
            self.limit *= 2
        bins = (magnitude.double() * (BINS / self.limit)).long().clamp_(max=BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS).cpu()
        self.largest = max(self.largest, largest)

    def clip_max(self, bits: float) -> float:
        """Return the q_m of least expected squared error at ``bits`` bits; 1 if every element was zero."""
        if self.largest == 0:
            return 1.0
        edges = torch.arange(1, BINS + 1, dtype=torch.float64) * (self.limit / BINS)
        # few and evenly spaced near the maximum, where many bits look; ever denser towards 0, where two bits may look past an outlier
        chosen = torch.cat([torch.linspace(1, BINS, 128), torch.logspace(0, math.log2(BINS), 128, base=2.0)]).round().long().unique()
        clips = edges[chosen - 1].clamp(max=self.largest)
        errors = self._errors(edges, clips[:, None], bits)
        # from the top down: of equal errors the widest range wins
        return float(clips[len(clips) - 1 - int(errors.flip(0).argmin())])

    def _errors(self, edges: Tensor, clips: Tensor, bits: float) -> Tensor:
        """Return the summed squared error, [candidates], of ``clips``, [candidates, 1], over bins with upper ``edges``, [BINS]."""
        width = self.limit / BINS
        steps, centres = clips / (2.0 ** (bits - 1) - 1), edges - width / 2
        coarse = (centres - steps * (centres / steps).round()) ** 2 + width**2 / 12
        rounded = torch.where(steps < 2 * width, steps**2 / 12, coarse)
        # an outlier is taken to stand at the upper edge of its bin, so that it is never underrated
        upper = edges.clamp(max=self.largest)
        return torch.where(upper > clips, (upper - clips) ** 2, rounded) @ self.counts


def calibrate(
    model: nn.Module,
    quantizers: Quantizers,
    batches: Iterable[Any],
    example_kwargs: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Run ``batches`` through ``model`` and set the ranges of ``quantizers.activations`` at their initial bits.

    The model runs in eval mode without gradients, its activations unquantized; every module's own mode is restored, and after an error
    no range has changed.

    Args:
        model: the model that ``attach_quantizers`` prepared.
        quantizers: what it returned.
        batches: each a tensor, a tuple or list of positional arguments, or a dict of keyword arguments, on the model's device.
        example_kwargs: keyword arguments passed along with every batch.

    Returns:
        Layers still without a range, because nothing called them through their module.

    Raises:
        InputError: no batches, a batch the model cannot run, NaN in a batch.
        NonFiniteError: NaN or infinity at a layer's input.
    """
    if isinstance(batches, Tensor | Mapping | str):
        got = type(batches).__name__
        raise InputError("calibrate: batches is one batch.", expected="an iterable of batches", got=got, hint="calibrate([batch])")
    if not hasattr(batches, "__iter__"):
        got = type(batches).__name__
        raise InputError("calibrate: these are no batches.", expected="an iterable of batches", got=got, hint="calibrate([batch])")
    histograms = {layer: Histogram(layer) for layer in quantizers.activations}
    count = 0
    try:
        for layer, quantizer in quantizers.activations.items():
            quantizer.observer = histograms[layer]
        with _eval_mode(model), torch.no_grad():
            for batch in batches:
                _run(model, batch, dict(example_kwargs or {}), count)
                count += 1
    finally:
        for quantizer in quantizers.activations.values():
            quantizer.observer = None
    if count == 0:
        raise InputError("calibrate: there are no batches.", expected="at least one", got="none", hint="geta.calibrate([example_inputs])")
    for layer, quantizer in quantizers.activations.items():
        if histograms[layer].calls:
            quantizer.set_range(histograms[layer].clip_max(quantizer.initial_bits))
    return tuple(layer for layer, quantizer in quantizers.activations.items() if not quantizer.calibrated)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    # flags one by one: model.train(was) would also wake the modules that were frozen in eval mode
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


def _run(model: nn.Module, batch: Any, kwargs: dict[str, Any], number: int) -> None:
    keywords = {**kwargs, **batch} if isinstance(batch, Mapping) else kwargs
    args = () if isinstance(batch, Mapping) else tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    for tensor in (value for value in (*args, *keywords.values()) if isinstance(value, Tensor)):
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise InputError("calibrate: NaN in a batch.", at=f"batch {number}", expected="numbers", got="NaN")
    try:
        model(*args, **keywords)
    except GetaError:
        raise
    except Exception as error:
        raise InputError(
            "calibrate: the model cannot run a batch.",
            at=f"batch {number}",
            expected="a batch of the form of example_inputs, on the model's device",
            got=f"{type(error).__name__}: {error}",
        ) from error
