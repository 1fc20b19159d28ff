"""Set the range of every activation quantizer from data, and whether it needs a sign.

In: the prepared model and a few batches. Out: ``clip_max`` and ``step_size`` of the input quantizers. Runs once, before training (before
DDP wraps the model, so that all ranks start from the same ranges).

Rule: over all elements seen, q_m is the clip with the least squared error *at the bits the quantizer starts with* (``refit``). At 16 bits
that gives max|x| or a hair below, so that no outlier is cut; only a quantizer that starts at few bits gives up outliers. Where no element
was below zero, and signs are found out (``QuantConfig(signed="auto")``), codes spend no bit on a sign; should training show one later, the
quantizer takes its sign back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.errors import GetaError, InputError, NonFiniteError
from geta_nb.quantizers.prepare import Quantizers
from geta_nb.quantizers.refit import Histogram, largest_code
from geta_nb.sharding import shards_of


class Observer:
    """A histogram of one layer's inputs that refuses what is not finite.

    Args:
        layer: the dotted name that messages show.
        device: of the inputs.
    """

    def __init__(self, layer: str, device: torch.device) -> None:
        self.layer, self.histogram = layer, Histogram(device)

    def __call__(self, x: Tensor) -> None:
        """Count the elements of ``x``, any shape.

        Raises:
            NonFiniteError: NaN or infinity in ``x``.
        """
        largest = float(x.detach().abs().amax()) if x.numel() else 0.0
        if not math.isfinite(largest):
            raise NonFiniteError("calibrate: an input of this layer is not finite.", at=self.layer, got=f"max |x| = {largest}")
        self.histogram(x)


def calibrate(
    model: nn.Module,
    quantizers: Quantizers,
    batches: Iterable[Any],
    example_kwargs: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Run ``batches`` through ``model`` and set the ranges of ``quantizers.activations`` at their initial bits, and who needs a sign.

    The model runs in eval mode without gradients, its activations unquantized; every module's own mode is restored, and after an error
    no range has changed. Of a sharded model each rank runs batches of its own, equally many; ranges are those of all.

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
    observers = {layer: Observer(layer, quantizer.clip_max.device) for layer, quantizer in quantizers.activations.items()}
    count = 0
    try:
        for layer, quantizer in quantizers.activations.items():
            quantizer.observer = observers[layer]
        with eval_mode(model), torch.no_grad():
            for batch in batches:
                _run(model, batch, dict(example_kwargs or {}), count)
                count += 1
    finally:
        for quantizer in quantizers.activations.values():
            quantizer.observer = None
    if count == 0:
        raise InputError("calibrate: there are no batches.", expected="at least one", got="none", hint="geta.calibrate([example_inputs])")
    shards = shards_of(model.parameters())
    if shards is not None:
        for observer in observers.values():
            observer.histogram.add_up(shards)
    for layer, quantizer in quantizers.activations.items():
        histogram = observers[layer].histogram
        if histogram.called:
            if quantizers.finds_signs and quantizer.signed and histogram.never_negative():
                quantizer.set_signed(False)
            quantizer.set_range(histogram.fitted_clip(largest_code(quantizer.initial_bits, signed=quantizer.signed)))
    return tuple(layer for layer, quantizer in quantizers.activations.items() if not quantizer.calibrated)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Let all modules be in eval mode while inside; each is in its own again afterwards."""
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
