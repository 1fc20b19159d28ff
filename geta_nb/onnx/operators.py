"""The operators that stand in a graph on its way to ONNX: what is quantized, said in one node each, and computed as the file will.

Comes in: nothing. Goes out: ``torch.ops.geta_nb.*`` with kernels, so that a lowered graph runs in torch, and traces. ``lowering``
puts them into a graph, ``file`` writes each as standard ONNX operators. First step of stage 11.

    quantize_input(x, step, lowest, levels)             step * clamp(round(x / step), lowest, levels)
    bend_input(x, step, exponent, low, high)            step * round(clamp(sgn(x) |x|**exponent, low, high) / step)
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
    "quantize_input(Tensor x, float step, int lowest, int levels) -> Tensor",
    "bend_input(Tensor x, float step, float exponent, float low, float high) -> Tensor",
    "dequantize(Tensor codes, Tensor scale, int axis, float bound) -> Tensor",
    "matmul(Tensor x, Tensor codes, Tensor scale, Tensor? bias, float bound, bool turned, int axis) -> Tensor",
    "rows(Tensor codes, Tensor scale, Tensor indices, float bound) -> Tensor",
)


def quantize_input(x: Tensor, step: float, lowest: int, levels: int) -> Tensor:
    """Return x^Q of an input with exponent 1, whose codes are ``lowest`` to ``levels``."""
    return (x / step).round().clamp(lowest, levels) * step


def bend_input(x: Tensor, step: float, exponent: float, low: float, high: float) -> Tensor:
    """Return x^Q of an input with any exponent; ``low`` and ``high`` are ends of what is rounded, after the power."""
    return ((x.sign() * x.abs().pow(exponent)).clamp(low, high) / step).round() * step


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
