"""The quantizers as modules: each holds the three numbers d, q_m and t of one tensor.

In: a weight, or the inputs of a layer. Out: the tensor a b-bit device would use, by the formula of ``fake_quant``. ``prepare`` attaches
them to a network, ``calibration`` sets the range of the ones on activations, QASSO moves d, q_m and t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from geta_nb.errors import CalibrationError, NonFiniteError
from geta_nb.quantizers.fake_quant import bit_width, codes, fake_quantize, step_size
from geta_nb.quantizers.gradients import HALF_TYPES, Codes, compute_dtype
from geta_nb.quantizers.whole import keep_whole
from geta_nb.views import Shown

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

__all__ = ["ActivationQuantizer", "Quantizer", "WeightQuantizer", "bit_width", "codes", "fake_quantize", "quantize_input", "step_size"]


class Quantizer(Shown, nn.Module):
    """Holds ``step_size`` d, ``clip_max`` q_m and ``exponent`` t as parameters and applies :func:`fake_quantize`.

    t is 0-dim; d and q_m are too, or have one entry a channel, in a shape that broadcasts against what is quantized. There is one bit
    width whatever their number.

    Args:
        clip_max: the first q_m, > 0; its shape, dtype (float32 at least) and device become those of the parameters.
        initial_bits: bit width to start with, in bits, sign included; t starts at 1.
        learn_exponent: let t train; else it is a parameter without gradient, and its power is spared while it is 1.
        layer: the dotted name that messages show.
        signed: codes may be negative, and a bit is the sign's.
        narrow_range: where they may, the lowest is minus the largest (the paper); else one lower.

    Attributes:
        compiled: let a compiler build the backward pass of large tensors, see ``gradients``.
        stand_in: while it is set, it is called in place of the quantizer.
    """

    compiled = False
    stand_in: Callable[[Tensor], Tensor] | None = None
    step_size: nn.Parameter
    clip_max: nn.Parameter
    exponent: nn.Parameter

    def __init__(
        self, clip_max: Tensor, *, initial_bits: float = 16, learn_exponent: bool = True, layer: str = "", signed: bool = True,
        narrow_range: bool = True,
    ) -> None:
        super().__init__()
        self.narrow_range = narrow_range
        clip = clip_max.detach().to(compute_dtype(clip_max), copy=True)
        one = clip.new_ones(())
        self.signed = signed
        self.step_size = nn.Parameter(step_size(initial_bits, clip, one, signed=signed))
        self.clip_max = nn.Parameter(clip)
        self.exponent = nn.Parameter(one, requires_grad=learn_exponent)
        self.initial_bits, self.layer = initial_bits, layer
        self._exponent_seen, self._exponent_is_one = (id(self.exponent), self.exponent._version), True

    def forward(self, x: Tensor) -> Tensor:
        """Return x^Q, shape and dtype of ``x``."""
        if self.stand_in is not None:
            return self.stand_in(x)
        numbers = (self.step_size, self.clip_max, self.exponent)
        options: dict[str, bool] = {"uniform": self._is_uniform(), "compiled": self.compiled, **self.kind._asdict()}
        return fake_quantize(x, numbers[0], numbers[1], numbers[2], **options)

    @property
    def kind(self) -> Codes:
        """Which codes there are."""
        return Codes(self.signed, self.narrow_range)

    @torch.no_grad()
    def bit_width(self) -> Tensor:
        """Return the present bit width, 0-dim, in bits, without gradient; ``float(q.bit_width())`` waits for the device.

        Of several channels, whose widths differ by rounding at most, the largest.
        """
        return bit_width(self.step_size, self.clip_max, self.exponent, signed=self.signed).amax()

    def codes(self, x: Tensor) -> Tensor:
        """Return the integer codes of ``x``, int64: see :func:`codes`."""
        return codes(x, self.step_size, self.clip_max, self.exponent, signed=self.signed, narrow_range=self.narrow_range)

    @torch.no_grad()
    def set_range(self, clip_max: Tensor | float, bits: float | None = None) -> None:
        """Set q_m, t = 1 and the d of ``bits`` (default: the initial bits), in place."""
        self.clip_max.copy_(torch.as_tensor(clip_max, device=self.clip_max.device))
        self.exponent.fill_(1)
        width = self.initial_bits if bits is None else bits
        self.step_size.copy_(step_size(width, self.clip_max, self.exponent, signed=self.signed))

    def _is_uniform(self) -> bool:
        """Whether t is fixed at 1, or simply is 1 where no gradient is asked for and reading it costs nothing.

        Its value is read again only after an in-place change, so an ordinary call never waits.

        A write through ``.data`` goes unseen by autograd's version counter and so by this one: write under ``torch.no_grad()``.
        """
        t = self.exponent
        if torch.compiler.is_compiling():
            return False  # a compiled graph cannot ask for a version; the power gives the same numbers
        if t.requires_grad and (torch.is_grad_enabled() or t.device.type != "cpu"):
            return False
        if type(t) is not nn.Parameter or t.is_meta or t.is_inference():
            return False
        if self._exponent_seen != (id(t), t._version):
            self._exponent_seen, self._exponent_is_one = (id(t), t._version), bool(t == 1)
        return self._exponent_is_one

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        # model.half() must not round d: a 16-bit step in bfloat16 is off by 0.4 %, which is no longer 16 bits
        before = [p.data for p in self.parameters()]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.clip_max.device.type != "meta" and before[0].is_meta:
            self.forget_range()
        for parameter, old in zip(self.parameters(), before, strict=True):
            if parameter.dtype in HALF_TYPES:
                parameter.data = old.to(parameter.device, compute_dtype(old))
                parameter.grad = None if parameter.grad is None else parameter.grad.to(parameter.dtype)
        return self

    @torch.no_grad()
    def forget_range(self) -> None:
        """Have no range: memory that was just taken (``to_empty``) holds anything."""
        self.exponent.fill_(1)
        self.clip_max.fill_(math.nan)
        self.step_size.fill_(math.nan)

    def extra_repr(self) -> str:
        """Return the layer: values would wait for the device."""
        return repr(self.layer)


keep_whole(Quantizer)


def weight_range(weight: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """Return the first q_m of a weight: max|W| over ``axes``, which stay with one element, or over all, 0-dim; of a half type in float32.

    Where that is 0 it is 1/sqrt(fan_in); where a weight is not finite, neither is it.
    """
    wide = weight.detach()
    # read without a copy of it: max|W| is the larger of max W and -min W, to the bit, and not finite where an element is not
    low, high = wide.aminmax() if axes is None else (wide.amin(axes, keepdim=True), wide.amax(axes, keepdim=True))
    return or_default(torch.maximum(low.abs(), high.abs()).to(compute_dtype(wide)), weight)


def or_default(largest: Tensor, weight: Tensor) -> Tensor:
    """Return max|W| as a range: where it is 0, 1/sqrt(fan_in)."""
    fallback = (weight.shape[0] / weight.numel()) ** 0.5
    # below `tiny` the step of 16 bits would be subnormal, or 0
    tiny = torch.finfo(largest.dtype).tiny * 2.0**20
    return torch.where((largest > tiny) | ~largest.isfinite(), largest, fallback)


class WeightQuantizer(Quantizer):
    """Quantizer of one weight (several tied names share it), attached as a parametrization."""

    @classmethod
    def for_weight(
        cls, weight: Tensor, *, initial_bits: float = 16, learn_exponent: bool = True, layer: str = "", axis: int | None = None,
        narrow_range: bool = True,
    ) -> Self:
        """Return the quantizer with q_m = max|W|, t = 1 and the d of ``initial_bits``.

        An all-zero weight, [C_out, ...], has no range of its own: it gets 1/sqrt(fan_in), where fan_in is the number of elements of one
        row. That is the bound of PyTorch's own initialisation, so that a zero-initialised layer can train. The same goes for channels.

        Args:
            axis: of the output channels, each of which gets a q_m and d of its own; None: one for all.

        Raises:
            NonFiniteError: NaN or infinity in ``weight``.
        """
        others = tuple(at for at in range(weight.ndim) if at != axis)
        clip = weight_range(weight, None if axis is None else others)
        if not clip.is_meta and not bool(clip.isfinite().all()):
            raise NonFiniteError("attach_quantizers: a weight is not finite.", at=layer, got=f"max |W| = {float(clip.max())}")
        return cls(clip, initial_bits=initial_bits, learn_exponent=learn_exponent, layer=layer, narrow_range=narrow_range)

    @torch.no_grad()
    def fresh_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the state of a quantizer that starts on ``weight``, at the initial bits; on one of another shape, this one's own."""
        clip, own = self.clip_max, {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        axes = tuple(axis for axis in range(clip.ndim) if clip.shape[axis] == 1)
        if clip.ndim not in (0, weight.ndim) or not weight.is_floating_point():
            return own
        start = weight_range(weight, axes if clip.ndim else None).to(clip)
        if start.shape != clip.shape:
            return own
        one = clip.new_ones(())
        return own | {"clip_max": start, "exponent": one, "step_size": step_size(self.initial_bits, start, one, signed=self.signed)}


class ActivationQuantizer(Quantizer):
    """Quantizer of a layer's input, one range for all of it, signed or not. The range comes from data, see ``calibration``.

    Before that ``clip_max`` is 0 and a call raises :class:`CalibrationError`, except while ``torch.export`` traces. ``calibrated`` is a
    plain bool, read back from ``clip_max`` when a state dict is loaded, as ``signed`` is from the buffer ``has_sign``. While ``observer``
    is set, inputs go to it and pass unchanged; what ``watcher`` is set to sees those of training steps on the way.

    Args:
        like: a tensor whose dtype (float32 at least) and device the parameters take.
        initial_bits, learn_exponent, layer, signed, narrow_range: as for :class:`Quantizer`.
    """

    has_sign: Tensor

    def __init__(
        self, like: Tensor, *, initial_bits: float = 16, learn_exponent: bool = False, layer: str = "", signed: bool = True,
        narrow_range: bool = True,
    ) -> None:
        kind: dict[str, bool] = {"signed": signed, "narrow_range": narrow_range}
        super().__init__(like.new_zeros(()), initial_bits=initial_bits, learn_exponent=learn_exponent, layer=layer, **kind)
        self.register_buffer("has_sign", torch.tensor(signed, device=like.device))
        self.calibrated = False
        self.observer: Callable[[Tensor], None] | None = None
        self.watcher: Callable[[Tensor], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # a copy is not watched: what watches belongs to one training run
        return {**self.__dict__, "observer": None, "watcher": None}

    @torch.no_grad()
    def set_signed(self, signed: bool) -> None:
        """Say whether codes may be negative, in place; q_m stays, and d becomes that of the present bits."""
        if signed != self.signed:
            bits = float(self.bit_width())
            self.signed = signed
            self.has_sign.fill_(signed)
            if self.calibrated:
                self.step_size.copy_(step_size(bits, self.clip_max, self.exponent, signed=signed))

    def forward(self, x: Tensor) -> Tensor:
        """Return x^Q, shape and dtype of ``x``.

        Raises:
            CalibrationError: no range was set yet.
        """
        if self.observer is not None:
            self.observer(x)
            return x
        if not self.calibrated and self.stand_in is None and not torch.compiler.is_exporting():
            raise CalibrationError(
                "ActivationQuantizer: called before its range was set.",
                at=self.layer,
                expected="a calibrated quantizer",
                got="clip_max = 0",
                hint="geta.calibrate(batches)",
            )
        if self.watcher is not None and torch.is_grad_enabled() and self.stand_in is None:
            self.watcher(x)
        return super().forward(x)

    def bit_width(self) -> Tensor:
        """Return the present bit width, 0-dim, in bits: the initial one before calibration."""
        return super().bit_width() if self.calibrated else torch.full_like(self.clip_max, self.initial_bits)

    def forget_range(self) -> None:
        """Have no range, until one is calibrated."""
        super().forget_range()
        with torch.no_grad():
            self.clip_max.zero_()
            self.has_sign.fill_(self.signed)
        self.calibrated = False

    def set_range(self, clip_max: Tensor | float, bits: float | None = None) -> None:
        """Set q_m, t = 1 and d as :meth:`Quantizer.set_range` does; from then on the quantizer is calibrated if q_m > 0."""
        super().set_range(clip_max, bits)
        self._read_calibrated()

    def _read_calibrated(self) -> None:
        clip, step = self.clip_max.detach(), self.step_size.detach()
        usable = (clip > 0) & clip.isfinite() & (step > 0) & step.isfinite()
        self.calibrated = not usable.is_meta and bool(usable)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # states from before there were unsigned quantizers say nothing of a sign
        state_dict.setdefault(f"{prefix}has_sign", torch.tensor(True, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.signed = self.has_sign.is_meta or bool(self.has_sign)
        self._read_calibrated()


def quantize_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs | None:
    """Forward pre-hook: quantize the first tensor input of ``module``, if it is floating, by ``module.input_quantizer``."""
    return with_first_tensor(args, kwargs, cast(ActivationQuantizer, module.input_quantizer))


def with_first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[Tensor], Tensor]) -> Inputs | None:
    """Return the inputs of a module with the first tensor changed, None where that is not floating."""
    for position, value in enumerate(args):
        if isinstance(value, Tensor):
            return ((*args[:position], change(value), *args[position + 1 :]), kwargs) if value.is_floating_point() else None
    for key, value in kwargs.items():
        if isinstance(value, Tensor):
            return (args, {**kwargs, key: change(value)}) if value.is_floating_point() else None
    return None
