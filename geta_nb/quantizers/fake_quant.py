"""The maths of the quantizer: one formula, its four gradients, its codes, and bits from steps and back.

In: a tensor x and its step size d, clip value q_m and exponent t. Out: the tensor a b-bit device would use. ``modules`` holds the three
numbers; nothing here has state.

    signed      u = min(|x|, q_m)**t              x^Q = sgn(x) d round(u / d)      b = log2(q_m**t / d + 1) + 1
    unsigned    u = min(max(x, 0), q_m)**t        x^Q = d round(u / d)             b = log2(q_m**t / d + 1)

The sign is counted in b; a tensor that is never negative spends no bit on it. The paper's range is symmetric (``narrow_range``): of the
2**b codes one is never used. Else there is one more below zero, for which u reaches to q_m**t + d: at 2 bits -2, -1, 0, 1. One d and
q_m for all of x, 0-dim, or one for each channel, in a shape that broadcasts against x ([C, 1, 1, 1]). x^Q is d times an integer for
every t. Source: Qu et al. 2025, arXiv:2502.16638 (the quantizer is that of arXiv:2007.10463); the other codes and the channels are as in
arXiv:1902.08153 and usual practice.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from geta_nb.errors import BitWidthError
from geta_nb.quantizers.gradients import HALF_TYPES, NARROW, Codes, cast_to, compute_dtype, encode, gradients

__all__ = ["HALF_TYPES", "bit_width", "codes", "compute_dtype", "fake_quantize", "fake_quantize_aten", "step_size"]


class _FakeQuantize(torch.autograd.Function):
    """x^Q with the four gradients of the module's docstring; the code is computed again in backward, so only x is kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, uniform: bool, kind: Codes, compiled: bool) -> Tensor:
        dtype = compute_dtype(x)
        step, clip, exponent = cast_to(step, dtype), cast_to(clip, dtype), cast_to(exponent, dtype)
        return cast_to(encode(cast_to(x, dtype), step, clip, exponent, uniform, kind).round_().mul_(step), x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.uniform, ctx.kind, ctx.compiled = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        # an embedding's sparse gradient: the sums read every element
        grad = grad.to_dense() if grad.is_sparse else grad
        dtype = compute_dtype(x)
        numbers = [cast_to(p, dtype) for p in parameters]
        needs = tuple(ctx.needs_input_grad[:4])
        found = gradients(x, grad, numbers, uniform=ctx.uniform, kind=ctx.kind, needs=needs, compiled=ctx.compiled)
        ends = (x, *parameters)
        return (*(d if d is None else cast_to(d, end.dtype) for d, end in zip(found, ends, strict=True)), None, None, None)


def fake_quantize_aten(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, kind: Codes = NARROW) -> Tensor:
    """Return the same numbers by plain operators, which a trace can show and a runtime can run."""
    dtype = compute_dtype(x)
    value, step, clip, exponent = (cast_to(tensor, dtype) for tensor in (x, step, clip, exponent))
    if not kind.signed:
        bent = torch.pow(torch.minimum(torch.clamp(value, min=0.0), clip), exponent)
        return cast_to(torch.round(bent / step) * step, x.dtype)
    if kind.narrow_range:
        bent = torch.pow(torch.minimum(torch.abs(value), clip), exponent)
        return cast_to(torch.sign(value) * (torch.round(bent / step) * step), x.dtype)
    top = torch.pow(clip, exponent)
    bent = torch.sign(value) * torch.pow(torch.abs(value), exponent)
    kept = torch.maximum(torch.minimum(bent, top), torch.neg(top + step))
    return cast_to(torch.round(kept / step) * step, x.dtype)


def fake_quantize(
    x: Tensor, step_size: Tensor, clip_max: Tensor, exponent: Tensor, *, uniform: bool = False, signed: bool = True,
    narrow_range: bool = True, compiled: bool = False,
) -> Tensor:
    """Return x^Q, the nearest representable tensor.

        x^Q = sgn(x) d round(min(|x|, q_m)**t / d)            unsigned: d round(min(max(x, 0), q_m)**t / d)

    Gradients, with u = min(|x|, q_m)**t: to x, 1 inside |x| <= q_m and 0 outside; to d, sgn(x) (round(u/d) - u/d); to q_m, 0 inside and
    sgn(x) t q_m**(t-1) outside; to t, sgn(x) u ln min(|x|, q_m), 0 at x = 0; unsigned, none at x < 0. No operation waits for the device.

    Args:
        x: any shape, floating; half types are computed in float32.
        step_size: d, 0-dim or a shape that broadcasts against x (one a channel), > 0, in (units of x)**t.
        clip_max: q_m, shape of ``step_size``, > 0, in units of x.
        exponent: t, 0-dim, > 0, dimensionless.
        uniform: the caller knows that t is 1: same numbers without the power.
        signed: x^Q may be negative.
        narrow_range: where it may, not below the lowest code of the paper, -(2**(b-1) - 1); else one lower.
        compiled: let a compiler build the backward pass of large tensors; its sums add up in another order.

    Returns:
        x^Q, shape and dtype of ``x``. While ``torch.export`` traces, plain ATen operators compute it.

    Source: arXiv:2502.16638; the straight-through range is ours (arXiv:2007.10463), not a fixed +-2.

    >>> fake_quantize(torch.tensor([-9.0, 0.0, 0.6]), torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)).tolist()
    [-1.5, 0.0, 0.5]
    """
    if torch.compiler.is_exporting():
        return fake_quantize_aten(x, step_size, clip_max, exponent, Codes(signed, narrow_range))
    kind = Codes(signed, narrow_range)
    return cast(Tensor, _FakeQuantize.apply(x, step_size, clip_max, exponent, uniform, kind, compiled))  # type: ignore[no-untyped-call]


def codes(
    x: Tensor, step_size: Tensor, clip_max: Tensor, exponent: Tensor, *, signed: bool = True, narrow_range: bool = True
) -> Tensor:
    """Return the integers of which x^Q is d times: ``(step_size * codes).to(x.dtype)`` equals :func:`fake_quantize` exactly.

    Args: as for :func:`fake_quantize`.

    Returns:
        Codes, shape of ``x``, int64, -(2**(b-1) - 1) (without ``narrow_range`` -2**(b-1)) to 2**(b-1) - 1, unsigned 0 to 2**b - 1, up to
        the rounding of d.

    >>> codes(torch.tensor([-9.0, 0.0, 0.6]), torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)).tolist()
    [-3, 0, 1]
    """
    dtype = compute_dtype(x)
    with torch.no_grad():
        value, step, clip, bend = (cast_to(tensor, dtype) for tensor in (x, step_size, clip_max, exponent))
        return encode(value, step, clip, bend, False, Codes(signed, narrow_range)).round_().long()


def bit_width(step_size: Tensor, clip_max: Tensor, exponent: Tensor, *, signed: bool | Tensor = True) -> Tensor:
    """Return the bits that the range [-clip_max, clip_max] needs in steps of ``step_size``; unsigned, those of [0, clip_max].

        b = log2(clip_max**t / d + 1) + 1            unsigned: log2(clip_max**t / d + 1)

    Args:
        step_size: d, [L], > 0.
        clip_max: q_m, [L], > 0.
        exponent: t, [L].
        signed: a bool, or 0 and 1, [L].

    Returns:
        b, [L], in bits, sign included; not an integer in general. Differentiable.

    Source: arXiv:2502.16638. Inverse of :func:`step_size`.

    >>> float(bit_width(torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)))
    3.0
    """
    return torch.log2(clip_max**exponent / step_size + 1) + signed


def step_size(bits: Tensor | float, clip_max: Tensor, exponent: Tensor, *, signed: bool = True) -> Tensor:
    """Return the step that spends exactly ``bits`` bits on [-clip_max, clip_max]; unsigned, on [0, clip_max].

        d = clip_max**t / (2**(bits - 1) - 1)            unsigned: clip_max**t / (2**bits - 1)

    Args:
        bits: bit width including the sign, a number or [L], in bits, >= 2; unsigned: >= 1.
        clip_max: clip value q_m, [L], > 0.
        exponent: non-linearity t, [L], dimensionless; 1 is uniform.
        signed: a bit is the sign's.

    Returns:
        Step d, [L], in (units of clip_max)**t.

    Raises:
        BitWidthError: any ``bits`` too small (tensors on an accelerator are not read: that would wait for the device).

    Source: arXiv:2502.16638. Inverse of :func:`bit_width`.

    >>> float(step_size(torch.tensor(3.0), torch.tensor(1.5), torch.tensor(1.0)))
    0.5
    """
    least = 1 + int(signed)
    if isinstance(bits, Tensor):
        too_few = bits.device.type == "cpu" and bits.numel() > 0 and not bool((bits >= least).all())
        levels: Tensor | float = torch.exp2(bits - int(signed)) - 1
    else:
        too_few, levels = not bits >= least, 2.0 ** (bits - signed) - 1
    if too_few:
        lowest = float(bits.min()) if isinstance(bits, Tensor) else bits
        needs = "a signed quantizer needs a sign bit and" if signed else "an unsigned quantizer needs"
        what = f"step_size: {needs} at least one level bit."
        raise BitWidthError(what, expected=f"bits >= {least}", got=f"bits = {lowest}", hint="bit_range=(2, 16)")
    return clip_max**exponent / levels
