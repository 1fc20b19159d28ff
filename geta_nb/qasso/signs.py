"""Inputs whose codes have no sign, and turn out to need one. In: what a run counted. Out: quantizers with a sign, and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geta_nb.errors import GetaWarning
from geta_nb.quantizers import ActivationQuantizer

if TYPE_CHECKING:
    from geta_nb.qasso.projection import QuantizerBank


def give_signs_back(bank: QuantizerBank, moved: Sequence[int]) -> None:
    """Let the codes of inputs be negative again where training showed some that calibration had not; of ``moved`` quantizers."""
    first = len(bank) - len(bank.histograms)
    for i in moved:
        quantizer = bank.quantizers[i]
        if i < first or quantizer.signed or float(bank.histograms[i - first].extremes[1]) >= 0:
            continue
        assert isinstance(quantizer, ActivationQuantizer)
        quantizer.set_signed(True)
        what = "QASSO: inputs of a layer are negative in training that never were in calibration; its codes get a sign."
        hint = 'geta.calibrate(batches that look like those of training), or QuantConfig(signed=True)'
        warnings.warn(GetaWarning(what, at=bank.keys[i][1], hint=hint), stacklevel=3)
