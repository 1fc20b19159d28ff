"""The norm that a layer norm is where the mean over its channels is zero. Under ``center``, which puts it in the place of one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class CenteredNorm(nn.LayerNorm):
    """A layer norm of an input whose mean over the channels is zero: x / sqrt(mean(x**2) + eps) * scale + shift.

    It is the layer norm where that mean is zero, as :func:`geta_nb.center` makes it, and a root-mean-square norm everywhere: channels that
    are zero go exactly. The parameters are those of the norm whose place it takes, under their own names.

    Args:
        channels: D, the number of channels.
        eps: added to the mean square.
        scale, shift: (name, parameter of D elements), or None.
        offset: added to the scale, as (1 + w).
        channels_first: whether channels are axis 1, [B, D, ...]; else the last, [..., D].

    Source: Ashkboos et al. 2024, arXiv:2401.15024 (the mean goes into what writes to the stream).

    >>> norm = CenteredNorm(4, 1e-5, None, None)
    >>> x = torch.tensor([[1.0, -2.0, 3.0, -2.0]])
    >>> torch.allclose(norm(x), nn.functional.layer_norm(x, [4]))
    True
    """

    def __init__(
        self,
        channels: int,
        eps: float,
        scale: tuple[str, nn.Parameter] | None,
        shift: tuple[str, nn.Parameter] | None,
        *,
        offset: float = 0.0,
        channels_first: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.normalized_shape, self.eps, self.elementwise_affine = (channels,), eps, scale is not None
        self.scale_name, self.shift_name = (item[0] if item is not None else "" for item in (scale, shift))
        self.offset, self.channels_first = offset, channels_first
        for name, parameter in (item for item in (scale, shift) if item is not None):
            self.register_parameter(name, parameter)
        for name in ("weight", "bias"):
            if name not in self._parameters:
                self.register_parameter(name, None)
        # Torch's fused encoder layer takes a norm's parameters and subtracts means: it leaves modules with hooks to their own forward.
        self.register_forward_pre_hook(_nothing)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, of the input's shape and type."""
        x = input.movedim(1, -1) if self.channels_first else input
        scale = self._vector(self.scale_name)
        scale = scale + self.offset if scale is not None and self.offset else scale
        x = nn.functional.rms_norm(x, self.normalized_shape, scale, self.eps)
        shift = self._vector(self.shift_name)
        x = x if shift is None else x + shift
        return x.movedim(-1, 1) if self.channels_first else x

    def _vector(self, name: str) -> Tensor | None:
        parameter: Tensor | None = self._parameters[name] if name else None
        return parameter.reshape(-1) if parameter is not None and parameter.dim() > 1 else parameter


def _nothing(module: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook that does nothing."""


def reference(x: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None, axis: int) -> Tensor:
    """Return the layer norm of ``x`` over one axis, written out; scale and shift have as many elements as the axis has indices."""
    centred = x - x.mean(axis, keepdim=True)
    out = centred / torch.sqrt(centred.square().mean(axis, keepdim=True) + eps)
    form = [1] * x.dim()
    form[axis] = -1
    out = out if scale is None else out * scale.reshape(form)
    return out if shift is None else out + shift.reshape(form)
