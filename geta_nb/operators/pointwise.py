"""Element-wise operators: what stands at the same place lives and dies together; whether zero stays zero is measured, not listed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import fx

from geta_nb.labels import LabelArray, Labels
from geta_nb.operators.registry import Call, pad_left, rule, source_of, with_shape

_UNTAGGED = """hardswish silu gelu mish leaky_relu elu hardtanh relu6 relu softplus hardsigmoid celu selu threshold log_sigmoid clamp clone
_to_copy to contiguous alias detach detach_ dropout dropout_ feature_dropout alpha_dropout lift_fresh_copy lift_fresh positive
masked_fill where lerp addcmul addcdiv fill zeros_like ones_like full_like empty_like type_as rsub __and__ __or__ __xor__ __lshift__
__rshift__ nan_to_num logical_and logical_or logical_not logical_xor prims_convert_element_type convert_element_type softshrink hardshrink
tanhshrink softsign floor_divide true_divide float_power square isnan isinf _conj view_as_real bitwise_and bitwise_or bitwise_not""".split()


def is_pointwise(node: fx.Node) -> bool:
    """Whether torch calls the operator of this node element-wise, or it stands in the short list of those that torch forgot to tag."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or target._schema.name.split("::")[-1] in _UNTAGGED


@rule(*_UNTAGGED)
def pointwise(call: Call) -> Labels:
    """Align all tensor operands; a removed index is zero afterwards exactly when the operator makes it so."""
    shape = call.shape
    operands = [pad_left(labels, len(shape)) for labels in call.all_tensors()]
    if not operands:
        return Labels(shape, (), "const")
    aligned = call.space.align(operands, call.reason("aligned with a fixed axis"))
    source = source_of(aligned)
    call.produce(aligned, source)
    table = zero_table(call)
    covers = dict.fromkeys(array.cover for labels in aligned for array in labels.arrays)
    arrays = tuple(_combine(call, aligned, cover, table) for cover in covers)
    return with_shape(Labels(shape, arrays, source), shape)


def _combine(call: Call, operands: list[Labels], cover: tuple[int, ...], table: list[bool]) -> LabelArray:
    """Merge the arrays of one cover: labels of the first, zero where the table says that this combination of zeros gives zero."""
    found = [next((array for array in labels.arrays if array.cover == cover), None) for labels in operands]
    first = next(array for array in found if array is not None)
    pattern = np.zeros(first.labels.shape, dtype=np.int64)
    blame = np.zeros(first.labels.shape, dtype=np.int64)
    for bit, array in enumerate(found):
        if array is not None:
            pattern |= (array.spoilers == 0).astype(np.int64) << bit
            blame = np.where(blame == 0, array.spoilers, blame)
    blame = np.where(blame == 0, call.reason("does not keep zero"), blame)
    zero = np.asarray(table)[pattern]
    return LabelArray(first.labels, np.where(zero, 0, blame), min(array.origin for array in found if array is not None))


def zero_table(call: Call) -> list[bool]:
    """Return, for each subset of operands that are zero (bit i: operand i), whether the result is zero whatever the others are."""
    tensors: list[torch.dtype] = []
    node = call.node

    def visit(value: Any) -> Any:
        if isinstance(value, fx.Node):
            meta = value.meta.get("val")
            if isinstance(meta, torch.Tensor):
                tensors.append(meta.dtype)
                return _Slot(len(tensors) - 1)
            return 2 if meta is None else int(getattr(getattr(meta, "node", None), "hint", None) or meta)
        return value

    args = fx.map_arg(node.args, visit) if False else _map(node.args, visit)
    kwargs = _map({key: value for key, value in node.kwargs.items() if key not in {"device", "layout", "pin_memory"}}, visit)
    return [_gives_zero(node, args, kwargs, tensors, subset) for subset in range(1 << len(tensors))]


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


def _gives_zero(node: fx.Node, args: Any, kwargs: Any, dtypes: list[torch.dtype], subset: int) -> bool:
    if subset == 0 and dtypes and not str(node.target).endswith("zeros_like.default"):
        return False
    values = [torch.zeros(64, dtype=dtype) if subset >> i & 1 else _random(dtype) for i, dtype in enumerate(dtypes)]

    def fill(value: Any) -> Any:
        return values[value.index] if isinstance(value, _Slot) else value

    try:
        result = node.target(*_map(args, fill), **_map(kwargs, fill))  # type: ignore[operator]
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return False
    return isinstance(result, torch.Tensor) and bool((result == 0).all())


@lru_cache(maxsize=32)
def _random(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, generator=generator, dtype=torch.float64)
    if dtype == torch.bool:
        return normal > 0
    return (normal * 3 + torch.sign(normal)).to(dtype)


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> Labels:
    """PReLU: one slope per channel, axis 1; zero stays zero."""
    data, slope = call.args[0], call.args[1]
    if len(slope.shape) == 1 and len(data.shape) > 1:
        form = tuple(-1 if axis == 1 else 1 for axis in range(len(data.shape)))
        arrays = tuple(array.map(lambda values: values.reshape(form)) for array in slope.arrays)
        slope = Labels(tuple(slope.shape[0] if size == -1 else 1 for size in form), arrays, slope.source)
    aligned = call.space.align([data, slope], call.reason("aligned with a fixed axis"))
    call.produce(aligned, "data")
    return aligned[0]
