"""Operators that torch's exporter has no ONNX form for, and the parts that it has one for. Used by ``file``, before the translation.

In: an exported program. Out: the same network without them. A trace is broken up as far as the rules of groups need it, and torch's
exporter knows some operators only by the name they had before; others it does not know at all.

    _trilinear                         a sum of products by letters (einsum)
    _cdist_forward                     differences of all pairs, and their norm
    _adaptive_avg_pool3d               means of stretches, one axis after the other
    grid_sampler_3d                    the sampler of any number of axes
    _linalg_det, _linalg_slogdet       the determinant alone, without the factors that its gradient wants
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def in_parts(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program with every operator of this table broken up; the program itself where it has none."""
    table = {node.target: PARTS[node.target] for node in program.graph.nodes if node.op == "call_function" and node.target in PARTS}
    return program.run_decompositions(table) if table else program


def _trilinear(
    first: Tensor, second: Tensor, third: Tensor, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int],
    sumdim: Sequence[int], unroll_dim: int = 1,
) -> Tensor:
    """Axes by letters: an operand lacks those that it was to be expanded along, the result those that are summed over."""
    letters = string.ascii_letters[: first.ndim + len(expand1)]
    terms = ["".join(letter for axis, letter in enumerate(letters) if axis not in absent) for absent in (expand1, expand2, expand3, sumdim)]
    return torch.einsum(f"{','.join(terms[:3])}->{terms[3]}", first, second, third)


def _cdist(left: Tensor, right: Tensor, p: float = 2, compute_mode: int | None = None) -> Tensor:
    apart = (left.unsqueeze(-2) - right.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(apart.dtype).sum(-1)
    if p == 1:
        return apart.sum(-1)
    if p == 2:
        return (apart * apart).sum(-1).sqrt()
    return apart.amax(-1) if p == float("inf") else apart.pow(p).sum(-1).pow(1 / p)


def _pool3d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    for axis, count in zip((-3, -2, -1), output_size, strict=True):
        size = x.shape[axis]
        ends = [(cell * size // count, -(-(cell + 1) * size // count)) for cell in range(count)]
        x = torch.cat([x.narrow(axis, start, stop - start).mean(axis, keepdim=True) for start, stop in ends], axis)
    return x


def _sampler3d(x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    result: Tensor = aten.grid_sampler.default(x, grid, interpolation_mode, padding_mode, align_corners)
    return result


def _determinant(matrix: Tensor) -> tuple[Tensor, ...]:
    return torch.linalg.det(matrix), matrix, matrix  # nothing reads the factors where nothing trains


def _log_determinant(matrix: Tensor) -> tuple[Tensor, ...]:
    determinant = torch.linalg.det(matrix)
    return determinant.sign(), determinant.abs().log(), matrix, matrix


PARTS: dict[Any, Callable[..., Any]] = {
    aten._trilinear.default: _trilinear,
    **dict.fromkeys((aten.cdist.default, aten._cdist_forward.default), _cdist),
    **dict.fromkeys((aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default), _pool3d),
    aten.grid_sampler_3d.default: _sampler3d,
    aten._linalg_det.default: _determinant,
    aten._linalg_slogdet.default: _log_determinant,
}
"""Operator -> the function of the same arguments that it is broken up into."""
