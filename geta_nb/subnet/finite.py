"""Nothing is cut from numbers that are none. Before the cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from geta_nb.errors import NonFiniteError
from geta_nb.groups import no_values
from geta_nb.quantizers import Quantizer


def check_finite(parameters: Mapping[str, Tensor], quantizers: Mapping[str, Quantizer]) -> None:
    """Check that no weight is NaN or infinite, and that every quantizer has a bit width.

    Raises:
        NonFiniteError: one is; the message names its parameter or layer.
        InputError: the parameters have no values.
    """
    for name, tensor in parameters.items():
        if tensor.is_meta:
            raise no_values(name)
        if tensor.is_floating_point() and not _is_finite(tensor.detach()):
            raise NonFiniteError("construct_subnet: a weight is not finite.", at=name, expected="finite numbers", got="NaN or infinity")
    for layer, quantizer in quantizers.items():
        if not math.isfinite(float(quantizer.bit_width())):
            raise NonFiniteError(
                "construct_subnet: a quantizer has no bit width.", at=layer, expected="step size and clip value > 0",
                got=f"step_size={_least(quantizer.step_size):.3g}, clip_max={_least(quantizer.clip_max):.3g}",
                hint="train with geta.qasso(...), which keeps them positive",
            )


def _least(number: Tensor) -> float:
    """Smallest entry of several channels, NaN where one is."""
    return float(number.detach().amin())


def _is_finite(tensor: Tensor) -> bool:
    # one pass without a second tensor: a sum is finite only of finite numbers; one that overflows proves nothing
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())
