"""The four gradients of the quantizer, and how they are computed fast: small blocks on a CPU, or one compiled loop.

In: x, the gradient to x^Q, and d, q_m, t. Out: the gradients to all four. With u = min(|x|, q_m)**t and c = sgn(x) u / d before rounding:

    to x      g where |x| <= q_m, else 0                to q_m    sum of g sgn(x) where |x| > q_m, times t q_m**(t-1)
    to d      sum of g (round(c) - c)                   to t      sum of g c d ln min(|x|, q_m)

Unsigned, all that is below 0 counts as 0 and takes no gradient: u = min(max(x, 0), q_m)**t. With one more code below zero the lower end
is -(q_m**t + d): below it -1 for d and -t q_m**(t-1) for q_m. Per channel, each sum runs over one channel.

Source: arXiv:2502.16638; the straight-through range is ours (arXiv:2007.10463).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import FunctionType
from typing import NamedTuple

import torch
from torch import Tensor

from geta_nb.errors import GetaWarning

HALF_TYPES = (torch.float16, torch.bfloat16)
"""Too coarse for the arithmetic: 16-bit codes need more than their 8 to 11 bits of mantissa."""
BLOCK = 1 << 16
"""Elements worked on at a time on a CPU: what lies between stays in a core's cache, and takes no memory."""
COMPILED_FROM = 1 << 15
"""Elements from which a compiled loop pays: below, finding it costs more than it saves (measured: docs/step_cost.md)."""
Needs = tuple[bool, ...]
Found = tuple[Tensor | None, ...]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which ``x`` is quantized: its own, float32 for the half types."""
    return torch.float32 if x.dtype in HALF_TYPES else x.dtype


def cast_to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``tensor`` in ``dtype``; not a bare ``.to()``: a trace would keep an operator for every conversion that converts nothing."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


class Codes(NamedTuple):
    """Which codes there are: with a sign or without, and as many below zero as above it or one more.

    Attributes:
        signed: codes may be negative; else what is below zero counts as zero.
        narrow_range: the lowest code is minus the largest, so that one of the 2**b is never used; it makes a difference where ``signed``.
    """

    signed: bool = True
    narrow_range: bool = True


NARROW = Codes()


def encode(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, uniform: bool, kind: Codes) -> Tensor:
    """Return sgn(x) u / d, the code before rounding, as a fresh tensor; ``uniform`` takes t for 1 and spares the power."""
    if not kind.signed:
        inside = torch.minimum(x.clamp(min=0), clip)
        return (inside if uniform else inside.pow(exponent)).div_(step)
    if uniform:
        return torch.clamp(x, -clip if kind.narrow_range else -(clip + step), clip).div_(step)
    if kind.narrow_range:
        return torch.minimum(x.abs(), clip).pow(exponent).copysign_(x).div_(step)
    top = clip.pow(exponent)
    return torch.clamp(x.abs().pow(exponent).copysign_(x), -(top + step), top).div_(step)


def _formulas(
    x: Tensor, g: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, *, uniform: bool, kind: Codes = NARROW, needs: Needs
) -> Found:
    """Return those of the four gradients that ``needs`` asks for, None for the others."""
    found: list[Tensor | None] = [None] * 4
    x, g = cast_to(x, step.dtype), cast_to(g, step.dtype)
    wide = kind.signed and not kind.narrow_range
    inside = _inside(x, step, clip, exponent, uniform, kind)
    passed = g * inside
    if needs[0]:
        found[0] = passed
    if not any(needs[1:]):
        return tuple(found)
    code = encode(x, step, clip, exponent, uniform, kind)
    if needs[2] or (needs[1] and wide):
        lost = g - passed
        both, apart = _sum_to(lost, clip), _sum_to(lost * x.sign(), clip)
        above, below = (both + apart) / 2, (both - apart) / 2
    if needs[1]:
        rounded = _sum_to((code.round() - code) * g, step)
        found[1] = rounded - below if wide else rounded
    if needs[2]:
        found[2] = (above - below if kind.signed else above) * (exponent * clip.pow(exponent) / clip)
    if needs[3]:
        # the limit of u ln u at 0 is 0, and the code is 0 there, whatever the smallest positive number's logarithm
        reach = torch.where(inside, x.abs(), clip).clamp(min=torch.finfo(x.dtype).tiny).log()
        code = torch.where(inside | (x > 0), code, code + 1) if wide else code
        terms = reach * code * g
        found[3] = terms.sum() * step if step.ndim == 0 else (_sum_to(terms, step) * step).sum()
    return tuple(found)


def _inside(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor, uniform: bool, kind: Codes) -> Tensor:
    """Return where x lies between the values of the lowest and the largest code, ends included."""
    if kind.signed and kind.narrow_range:
        return x.abs() <= clip
    if not kind.signed:
        return (x >= 0) & (x <= clip)
    low = clip + step if uniform else (clip.pow(exponent) + step).pow(1 / exponent)
    return (x >= -low) & (x <= clip)


def _sum_to(terms: Tensor, like: Tensor) -> Tensor:
    """Return the sums of ``terms`` in the shape of ``like``: one number, or one a channel."""
    return terms.sum() if like.ndim == 0 else terms.sum_to_size(like.shape)


def gradients(
    x: Tensor, grad: Tensor, numbers: Sequence[Tensor], *, uniform: bool, kind: Codes = NARROW, needs: Needs, compiled: bool = False
) -> Found:
    """Return the gradients to x, d, q_m and t.

    Args:
        x: what was quantized, any shape.
        grad: gradient to x^Q, shape of ``x``.
        numbers: d, q_m and t, 0-dim, in :func:`compute_dtype` of x; d and q_m of channels broadcast against ``x``.
        uniform: t is 1.
        kind: which codes there are.
        needs: which of the four are wanted.
        compiled: use a compiled loop where it pays and there is a compiler.
    """
    formulas = partial(_formulas, uniform=uniform, kind=kind, needs=needs)
    if numbers[0].ndim:
        return _by_channel(formulas, x, grad, numbers)
    layout = None if x.numel() <= min(BLOCK, COMPILED_FROM) else _memory_order(x)
    if layout is None or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack():
        return formulas(x, grad, *numbers)
    flat, flat_grad = (t.permute(layout).reshape(-1) for t in (x.detach(), grad))
    if compiled and x.numel() >= COMPILED_FROM and (loop := _compiled(uniform, kind, needs)) is not None:
        first, *sums = loop(flat, flat_grad, *numbers)
        if first is None:
            return (None, *sums)
        shape, back = [x.shape[axis] for axis in layout], sorted(range(x.ndim), key=lambda axis: layout[axis])
        return (first.view(shape).permute(back), *sums)
    if x.device.type != "cpu":
        return formulas(x, grad, *numbers)
    return _in_blocks(formulas, x, flat, flat_grad, layout, numbers)


def _by_channel(formulas: Callable[..., Found], x: Tensor, grad: Tensor, numbers: Sequence[Tensor]) -> Found:
    """Return the gradients where each channel of ``x`` has its own d and q_m; some channels at a time where these are rows of memory."""
    step, clip, exponent = numbers
    rows = step.shape[0]
    whole = x.device.type != "cpu" or x.numel() <= BLOCK or rows < 2 or _memory_order(x) != [*range(x.ndim)]
    if whole or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack():
        return formulas(x, grad, *numbers)
    size = max(1, BLOCK * rows // x.numel())
    parts = [formulas(*part, exponent) for part in zip(*(t.split(size) for t in (x.detach(), grad, step, clip)), strict=True)]
    columns = [[found for found in column if found is not None] for column in zip(*parts, strict=True)]
    first, d, q, t = columns
    found = tuple(torch.cat(column) if column else None for column in (first, d, q))
    return (*found, torch.stack(t).sum() if t else None)


def _in_blocks(
    formulas: Callable[..., Found], x: Tensor, flat: Tensor, grad: Tensor, layout: list[int], numbers: Sequence[Tensor]
) -> Found:
    result, columns = torch.empty_like(x, dtype=numbers[0].dtype), []
    for value, g, into in zip(flat.split(BLOCK), grad.split(BLOCK), result.permute(layout).view(-1).split(BLOCK), strict=True):
        part, *sums = formulas(value, g, *numbers)
        columns.append(sums)
        if part is not None:
            into.copy_(part)
    kept = [[s for s in column if s is not None] for column in zip(*columns, strict=True)]
    totals = [torch.stack(column).sum() if column else None for column in kept]
    return (None if part is None else result, *totals)


def _memory_order(x: Tensor) -> list[int] | None:
    """Return the axes from the slowest to the fastest; None where ``x`` is no single run of memory, or not an ordinary tensor."""
    if type(x) not in (Tensor, torch.nn.Parameter):
        return None
    strides = x.stride()
    order = sorted(range(x.ndim), key=lambda axis: (-strides[axis], axis))
    return order if x.detach().permute(order).is_contiguous() else None


@lru_cache(maxsize=64)
def _compiled(uniform: bool, kind: Codes, needs: Needs) -> Callable[..., Found] | None:
    """Return the formulas as one compiled loop over vectors of any length; None, and a warning, where there is no compiler."""
    # the compiler counts versions by code object and stops at a few: each of ours is a function of its own (a ``partial`` is not: all
    # of them are called through one function of torch)
    name = f"formulas_{uniform:d}_{'_'.join(map(str, (*kind, *needs)))}"
    formulas = FunctionType(_formulas.__code__.replace(co_name=name), globals(), name)
    formulas.__kwdefaults__ = {"uniform": uniform, "kind": kind, "needs": needs}
    loop: Callable[..., Found] = torch.compile(formulas, dynamic=True)
    try:
        with torch.no_grad():  # five tensors, not one five times: that would be another version
            loop(*(torch.ones(shape) for shape in (COMPILED_FROM, COMPILED_FROM, (), (), ())))
    except Exception as error:
        warnings.warn(
            GetaWarning(
                "QuantConfig(compile=True): the compiler does not work here, so nothing is compiled.",
                got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200],
                hint="install a C++ compiler, or leave compile=True out",
            ),
            stacklevel=2,
        )
        return None
    return loop
