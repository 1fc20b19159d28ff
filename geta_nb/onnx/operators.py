"""The operators that stand in a graph on its way to ONNX: what is quantized, said in one node each, and computed as the file will.

Comes in: nothing. Goes out: ``torch.ops.geta_nb.*`` with kernels, so that a lowered graph runs in torch, and traces. ``lowering``
puts them into a graph, ``file`` writes each as standard ONNX operators. First step of stage 9.

    quantize_input(x, step, levels, nonnegative)        step * clamp(round(x / step), -levels, levels), from 0 on where nonnegative
    bend_input(x, step, clip, exponent, signed)         sgn(x) step round(min(|x|, clip)**exponent / step), from 0 on where not signed
    dequantize(codes, scale, axis, bound)               scale * codes, scale per tensor or along ``axis``
    matmul(x, codes, scale, bias, bound, turned, axis)  x @ (scale * codes) + bias
    rows(codes, scale, indices, bound)                  scale * codes[indices]

``bound`` is 0, or the largest magnitude of a weight: then the file clips to it, which changes nothing and keeps a runtime from
quantizing the other operand of the product on its own authority. ``turned``: codes are [C_out, C_in]; ``axis`` is that of the scale in
[C_in, C_out] all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIBRARY = torch.library.Library("geta_nb", "DEF")
_SCHEMAS = (
    "quantize_input(Tensor x, float step, int levels, bool nonnegative) -> Tensor",
    "bend_input(Tensor x, float step, float clip, float exponent, bool signed) -> Tensor",
    "dequantize(Tensor codes, Tensor scale, int axis, float bound) -> Tensor",
    "matmul(Tensor x, Tensor codes, Tensor scale, Tensor? bias, float bound, bool turned, int axis) -> Tensor",
    "rows(Tensor codes, Tensor scale, Tensor indices, float bound) -> Tensor",
)


def quantize_input(x: Tensor, step: float, levels: int, nonnegative: bool) -> Tensor:
    """Return x^Q of an input with exponent 1; ``nonnegative``: what is below 0, if there is any, counts as 0."""
    return (x / step).round().clamp(0 if nonnegative else -levels, levels) * step


def bend_input(x: Tensor, step: float, clip: float, exponent: float, signed: bool) -> Tensor:
    """Return x^Q of an input with any exponent; not ``signed``: what is below 0 counts as 0."""
    if not signed:
        return (x.clamp(0, clip).pow(exponent) / step).round() * step
    return x.sign() * ((x.abs().clamp(max=clip).pow(exponent) / step).round() * step)


def dequantize(codes: Tensor, scale: Tensor, axis: int, bound: float) -> Tensor:
    """Return a weight from its codes; ``scale`` is 0-dim, or [codes.shape[axis]]."""
    return codes * (scale.view([-1 if at == axis else 1 for at in range(codes.ndim)]) if scale.ndim else scale)


def matmul(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None, bound: float, turned: bool, axis: int) -> Tensor:
    """Return the product of ``x``, [..., C_in], with codes, [C_in, C_out] or turned, and the bias added, [..., C_out]."""
    product = torch.matmul(x, dequantize(codes.t() if turned else codes, scale, axis, bound))
    return product if bias is None else product + bias


def rows(codes: Tensor, scale: Tensor, indices: Tensor, bound: float) -> Tensor:
    """Return rows of a table, [*indices.shape, C]."""
    return codes[indices] * scale


for _schema in _SCHEMAS:
    LIBRARY.define(_schema)
for _function in (quantize_input, bend_input, dequantize, matmul, rows):
    # one kernel for values and for shapes: an export must see the operator, not what it is made of
    LIBRARY.impl(_function.__name__, _function, "CompositeExplicitAutograd")
