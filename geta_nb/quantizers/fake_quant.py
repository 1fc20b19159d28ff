"""The maths of the quantizer: one formula, its four gradients, its codes, and bits from steps and back.

In: a tensor x and the 0-dim step size d, clip value q_m and exponent t. Out: the tensor a b-bit device would use. ``modules`` holds
the three numbers; nothing here has state.

    u = min(|x|, q_m)**t        x^Q = sgn(x) d round(u / d)        b = log2(q_m**t / d + 1) + 1

Per tensor, symmetric, the sign counted in b. x^Q is d times an integer for every t. Source: Qu et al. 2025, arXiv:2502.16638 (the
quantizer is that of arXiv:2007.10463).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from geta_nb.errors import BitWidthError
from geta_nb.quantizers.gradients import HALF_TYPES, cast_to, compute_dtype, encode, gradients

__all__ = ["HALF_TYPES", "bit_width", "codes", "compute_dtype", "fake_quantize", "fake_quantize_aten", "step_size"]


class _FakeQuantize(torch.autograd.Function):
    """x^Q with the four gradients of the module's docstring; the code is computed again in backward, so only x is kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, uniform: bool, compiled: bool) -> Tensor:
        dtype = compute_dtype(x)
        step, clip, exponent = cast_to(step, dtype), cast_to(clip, dtype), cast_to(exponent, dtype)
        return cast_to(encode(cast_to(x, dtype), step, clip, exponent, uniform).round_().mul_(step), x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.uniform, ctx.compiled = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        # an embedding's sparse gradient: the sums read every element
        grad = grad.to_dense() if grad.is_sparse else grad
        dtype = compute_dtype(x)
        numbers = [cast_to(p, dtype) for p in parameters]
        found = gradients(x, grad, numbers, uniform=ctx.uniform, needs=tuple(ctx.needs_input_grad[:4]), compiled=ctx.compiled)
        ends = (x, *parameters)
        return (*(d if d is None else cast_to(d, end.dtype) for d, end in zip(found, ends, strict=True)), None, None)


def fake_quantize_aten(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor) -> Tensor:
    """Return the same numbers by plain operators, which a trace can show and a runtime can run."""
    dtype = compute_dtype(x)
    value, step, clip, exponent = (cast_to(tensor, dtype) for tensor in (x, step, clip, exponent))
    bent = torch.pow(torch.minimum(torch.abs(value), clip), exponent)
    return cast_to(torch.sign(value) * (torch.round(bent / step) * step), x.dtype)


def fake_quantize(
    x: Tensor, step_size: Tensor, clip_max: Tensor, exponent: Tensor, *, uniform: bool = False, compiled: bool = False
) -> Tensor:
    """Return x^Q, the nearest representable tensor.

        x^Q = sgn(x) d round(min(|x|, q_m)**t / d)

    Gradients, with u = min(|x|, q_m)**t: to x, 1 inside |x| <= q_m and 0 outside; to d, sgn(x) (round(u/d) - u/d); to q_m, 0 inside and
    sgn(x) t q_m**(t-1) outside; to t, sgn(x) u ln min(|x|, q_m), 0 at x = 0. No operation waits for the device.

    Args:
        x: any shape, floating; half types are computed in float32.
        step_size: d, 0-dim, > 0, in (units of x)**t.
        clip_max: q_m, 0-dim, > 0, in units of x.
        exponent: t, 0-dim, > 0, dimensionless.
        uniform: the caller knows that t is 1: same numbers without the power.
        compiled: let a compiler build the backward pass of large tensors; its sums add up in another order.

    Returns:
        x^Q, shape and dtype of ``x``. While ``torch.export`` traces, plain ATen operators compute it.

    Source: arXiv:2502.16638; the straight-through range is ours (arXiv:2007.10463), not a fixed +-2.

    >>> fake_quantize(torch.tensor([-9.0, 0.0, 0.6]), torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)).tolist()
    [-1.5, 0.0, 0.5]
    """
    if torch.compiler.is_exporting():
        return fake_quantize_aten(x, step_size, clip_max, exponent)
    return cast(Tensor, _FakeQuantize.apply(x, step_size, clip_max, exponent, uniform, compiled))  # type: ignore[no-untyped-call]


def codes(x: Tensor, step_size: Tensor, clip_max: Tensor, exponent: Tensor) -> Tensor:
    """Return the integers of which x^Q is d times: ``(step_size * codes).to(x.dtype)`` equals :func:`fake_quantize` exactly.

    Args: as for :func:`fake_quantize`.

    Returns:
        Codes, shape of ``x``, int64, |code| <= 2**(b-1) - 1 up to the rounding of d.

    >>> codes(torch.tensor([-9.0, 0.0, 0.6]), torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)).tolist()
    [-3, 0, 1]
    """
    dtype = compute_dtype(x)
    with torch.no_grad():
        value, step, clip, bend = (cast_to(tensor, dtype) for tensor in (x, step_size, clip_max, exponent))
        return encode(value, step, clip, bend, False).round_().long()


def bit_width(step_size: Tensor, clip_max: Tensor, exponent: Tensor) -> Tensor:
    """Return the bits that the range [-clip_max, clip_max] needs in steps of ``step_size``.

        b = log2(clip_max**t / d + 1) + 1

    Args:
        step_size: d, [L], > 0.
        clip_max: q_m, [L], > 0.
        exponent: t, [L].

    Returns:
        b, [L], in bits, sign included; not an integer in general. Differentiable.

    Source: arXiv:2502.16638. Inverse of :func:`step_size`.

    >>> float(bit_width(torch.tensor(0.5), torch.tensor(1.5), torch.tensor(1.0)))
    3.0
    """
    return torch.log2(clip_max**exponent / step_size + 1) + 1


def step_size(bits: Tensor | float, clip_max: Tensor, exponent: Tensor) -> Tensor:
    """Return the step that spends exactly ``bits`` bits on [-clip_max, clip_max].

        d = clip_max**t / (2**(bits - 1) - 1)

    Args:
        bits: bit width including the sign, a number or [L], in bits, >= 2.
        clip_max: clip value q_m, [L], > 0.
        exponent: non-linearity t, [L], dimensionless; 1 is uniform.

    Returns:
        Step d, [L], in (units of clip_max)**t.

    Raises:
        BitWidthError: any ``bits`` < 2 (tensors on an accelerator are not read: that would wait for the device).

    Source: arXiv:2502.16638. Inverse of :func:`bit_width`.

    >>> float(step_size(torch.tensor(3.0), torch.tensor(1.5), torch.tensor(1.0)))
    0.5
    """
    if isinstance(bits, Tensor):
        too_few = bits.device.type == "cpu" and bits.numel() > 0 and not bool((bits >= 2).all())
        levels: Tensor | float = torch.exp2(bits - 1) - 1
    else:
        too_few, levels = not bits >= 2, 2.0 ** (bits - 1) - 1
    if too_few:
        lowest = float(bits.min()) if isinstance(bits, Tensor) else bits
        what = "step_size: a signed quantizer needs a sign bit and at least one level bit."
        raise BitWidthError(what, expected="bits >= 2", got=f"bits = {lowest}", hint="bit_range=(2, 16)")
    return clip_max**exponent / levels
