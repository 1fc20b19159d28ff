"""Element-wise operators: what stands at the same place lives and dies together; whether zero stays zero is measured, not listed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from geta_nb.graph import hint, operator_name, overload_name
from geta_nb.groups.labels import NOT_FINITE, UNSTEADY, LabelArray, Labels, sources_of
from geta_nb.groups.operators.axes import along, pad_left
from geta_nb.groups.operators.buffers import blamed_first, curable, note_divisors, note_pointwise
from geta_nb.groups.operators.registry import Call, rule

ZERO, OTHER, UNDEFINED = 0, 1, 2

_UNTAGGED = [
    "hardswish", "silu", "gelu", "mish", "leaky_relu", "elu", "hardtanh", "relu6", "relu", "softplus", "hardsigmoid", "celu",
    "selu", "threshold", "log_sigmoid", "clamp", "clone", "_to_copy", "to", "contiguous", "alias", "detach", "detach_", "dropout",
    "dropout_", "feature_dropout", "alpha_dropout", "lift_fresh_copy", "lift_fresh", "positive", "masked_fill", "where", "lerp",
    "addcmul", "addcdiv", "fill", "zeros_like", "ones_like", "full_like", "empty_like", "type_as", "rsub", "__and__", "__or__",
    "__xor__", "__lshift__", "__rshift__", "nan_to_num", "logical_and", "logical_or", "logical_not", "logical_xor",
    "prims_convert_element_type", "convert_element_type", "softshrink", "hardshrink", "tanhshrink", "softsign", "floor_divide",
    "true_divide", "float_power", "square", "isnan", "isinf", "_conj", "real", "imag", "bitwise_and", "bitwise_or", "bitwise_not",
    "polar", "complex",
]  # fmt: skip


def is_pointwise(node: fx.Node) -> bool:
    """Whether torch calls the operator of this node element-wise, or it stands in the short list of those that torch forgot to tag."""
    return isinstance(node.target, torch._ops.OpOverload) and tagged_pointwise(node.target)


def tagged_pointwise(target: torch._ops.OpOverload) -> bool:
    """Whether an ATen operator works element by element."""
    return torch.Tag.pointwise in target.tags or overload_name(target) in _UNTAGGED


@rule(*_UNTAGGED)
def pointwise(call: Call) -> Labels:
    """Align all tensor operands; a removed index is zero afterwards exactly when the operator makes it so."""
    shape = call.shape
    tensors = call.all_tensors()[:1] if call.name == "type_as" else call.all_tensors()  # of the second only the dtype is read
    operands = [pad_left(labels, len(shape)) for labels in tensors]
    if not operands:
        return Labels(shape, (), "const")
    aligned = call.space.align(operands, call.reason("aligned with a fixed axis"))
    source = sources_of(aligned)
    call.produce(aligned, source)
    table = np.asarray(zero_table(call.node))
    covers = dict.fromkeys(array.cover for labels in aligned for array in labels.arrays)
    return Labels(shape, tuple(_combine(call, aligned, cover, table) for cover in covers), source)


def _combine(call: Call, operands: list[Labels], cover: tuple[int, ...], table: NDArray[np.int64]) -> LabelArray:
    """Merge the arrays of one cover: labels of the first, zero where the table says that this combination of zeros gives zero."""
    found = [next((array for array in labels.arrays if array.cover == cover), None) for labels in operands]
    present = [array for array in found if array is not None]
    pattern, blame, worst = (np.zeros(present[0].labels.shape, dtype=np.int64) for _ in range(3))
    for bit, array in enumerate(found):
        if array is not None:
            pattern |= (array.spoilers == 0).astype(np.int64) << bit
            worst = np.maximum(worst, array.spoilers)
    for array in blamed_first(call, found, table[1 << np.arange(len(found))] == ZERO):
        blame = np.where(blame == 0, array.spoilers, blame)
    result = table[pattern]
    if not (table == ZERO).any():  # zeros of whatever comes in would not help
        blame = np.where(curable(call, blame), 0, blame)
    blame = np.where(blame == 0, call.reason("does not keep zero"), blame % UNSTEADY)
    note_pointwise(call, operands, found, result == OTHER, pattern, table)
    if (result == UNDEFINED).any():
        note_divisors(call, operands, found, result == UNDEFINED, pattern, table == UNDEFINED)
    # constants of constants; an operand without labels here brings its own numbers, which one number alone does not
    loose = any(array is None and (item.source == "data" or prod(item.shape) > 1) for array, item in zip(found, operands, strict=True))
    blame = np.where((worst >= UNSTEADY) | loose, UNSTEADY + blame, blame)
    blame = np.where(result == UNDEFINED, NOT_FINITE + call.reason("is no number at zero"), np.where(result == ZERO, 0, blame))
    return LabelArray(present[0].labels, np.where(worst >= NOT_FINITE, worst, blame), min(array.origin for array in present))


def zero_table(node: fx.Node) -> list[int]:
    """Return ZERO, OTHER or UNDEFINED for each subset of tensor operands that are zero (bit i: operand i), whatever the others are."""
    dtypes: list[torch.dtype] = []

    def visit(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        meta = value.meta.get("val")
        if isinstance(meta, torch.Tensor):
            dtypes.append(meta.dtype)
            return _Slot(len(dtypes) - 1)
        return hint(meta) if isinstance(meta, (int, torch.SymInt)) else meta

    args = _map(node.args, visit)
    kwargs = _map({key: value for key, value in node.kwargs.items() if key not in {"device", "layout", "pin_memory"}}, visit)

    def run(values: list[torch.Tensor]) -> torch.Tensor:
        def fill(value: Any) -> Any:
            return values[value.index] if isinstance(value, _Slot) else value

        return node.target(*_map(args, fill), **_map(kwargs, fill))  # type: ignore[operator, no-any-return]

    if operator_name(node) in {"zeros_like", "empty_like"}:  # nobody reads what was never written
        return [ZERO, ZERO]
    return [_at_zero(run, dtypes, subset) if subset else OTHER for subset in range(1 << len(dtypes))]


def _at_zero(run: Callable[[list[torch.Tensor]], torch.Tensor], dtypes: list[torch.dtype], subset: int) -> int:
    """Measure one row of the table on samples; a result is undefined where positive operands give a number and the zeros do not."""

    def some_zero(sample: Callable[[torch.dtype], torch.Tensor]) -> list[torch.Tensor]:
        return [torch.zeros(64, dtype=d) if subset >> i & 1 else sample(d) for i, d in enumerate(dtypes)]

    try:
        result = run(some_zero(_sample))
        if bool((result == 0).all()):  # an equality is false for any sample, but not for zeros
            return OTHER if result.dtype == torch.bool and bool(run(some_zero(_zeros)).any()) else ZERO
        usual = torch.isfinite(run([_positive(dtype) for dtype in dtypes]))
        here = torch.isfinite(run(some_zero(_positive)))
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return OTHER
    return UNDEFINED if bool((usual & ~here).any()) else OTHER


class _Slot:
    """Place of a tensor among the arguments."""

    def __init__(self, index: int) -> None:
        self.index = index


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_map(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return change(value)


@lru_cache(maxsize=32)
def _sample(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of both signs, none of them zero."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, generator=generator, dtype=torch.float64)
    if dtype == torch.bool:
        return normal > 0
    return (normal * 3 + torch.sign(normal)).to(dtype)


def _zeros(dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(64, dtype=dtype)


@lru_cache(maxsize=32)
def _positive(dtype: torch.dtype) -> torch.Tensor:
    sample = _sample(dtype)
    return sample if dtype == torch.bool else sample.abs().to(dtype)


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> Labels:
    """PReLU: one slope per channel, axis 1; zero stays zero."""
    data, slope = call.args[0], call.args[1]
    if len(slope.shape) == 1 and len(data.shape) > 1:
        slope = along(slope, len(data.shape), 1)
    aligned = call.space.align([data, slope], call.reason("aligned with a fixed axis"))
    call.produce(aligned, "data")
    return aligned[0]


@rule("native_dropout")
def native_dropout(call: Call) -> tuple[Labels, Labels]:
    """Dropout as training has it, and which numbers stayed; zero stays zero."""
    return call.args[0], Labels(call.args[0].shape, (), "const")
