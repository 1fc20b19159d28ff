"""Inputs whose codes have no sign, and turn out to need one. In: what a run counted. Out: quantizers with a sign, and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from geta_nb.errors import GetaWarning
from geta_nb.quantizers import ActivationQuantizer, Histogram, Quantizer


def give_signs_back(layers: Sequence[str], quantizers: Sequence[Quantizer], histograms: Sequence[Histogram], moved: Sequence[int]) -> None:
    """Let the codes of inputs be negative again where training showed some that calibration had not.

    Args:
        layers, quantizers: of weights, then of inputs.
        histograms: of inputs.
        moved: quantizers that are looked at.
    """
    first = len(quantizers) - len(histograms)
    for i in moved:
        quantizer = quantizers[i]
        if i < first or quantizer.signed or float(histograms[i - first].extremes[1]) >= 0:
            continue
        assert isinstance(quantizer, ActivationQuantizer)
        quantizer.set_signed(True)
        what = "QASSO: inputs of a layer are negative in training that never were in calibration; its codes get a sign."
        hint = 'geta.calibrate(batches that look like those of training), or QuantConfig(signed=True)'
        warnings.warn(GetaWarning(what, at=layers[i], hint=hint), stacklevel=3)
