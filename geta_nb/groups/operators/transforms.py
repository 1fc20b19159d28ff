"""Linear transforms along axes: every result is a sum over the whole axis, which is fixed; the other axes pass, and zero stays zero."""

from __future__ import annotations

from dataclasses import replace

from geta_nb.groups.labels import Labels
from geta_nb.groups.operators.registry import Call, rule


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> Labels:
    """A Fourier transform over the axes named."""
    return replace(call.fixed(call.argument(1, "dim"), call.args[0], "transformed over"), shape=call.shape)
