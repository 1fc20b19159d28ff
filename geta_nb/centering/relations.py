"""Through which operators a mean over the channels passes: for each, of which inputs it is zero when that of the output is to be.

In: a node and the axis of its channels. Out: the inputs, each with the axis of its channels, or why there is no such thing. All are linear
in these inputs and do the same to every channel, so that subtracting the mean before them or after them is the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph import hint, operator_name, shape_of

Place = tuple[fx.Node, int]
"""A tensor, and which of its axes has the channels."""


class NotLinear(Exception):
    """An operator through which a mean over the channels does not pass; the message says which and why."""


def sources(node: fx.Node, axis: int) -> list[Place]:
    """Return the inputs over whose channels the mean must be zero for it to be zero over ``axis`` of ``node``.

    Raises:
        NotLinear: the mean of the output does not follow from means of inputs.
    """
    name = operator_name(node)
    rule = _RULES.get(name)
    if rule is None:
        raise NotLinear(f"written by {name}")
    if len(_shape(node)) <= axis:
        raise NotLinear(f"written by {name}")
    return rule(node, axis)


def _given(node: fx.Node) -> Any:
    """The arguments of a node by position."""
    return node.args


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a node; of one with several outputs that of the first."""
    if not isinstance(value, fx.Node):
        return ()
    found = value.meta.get("val")
    if isinstance(found, (list, tuple)) and found and isinstance(found[0], Tensor):
        return tuple(hint(size) for size in found[0].shape)
    return shape_of(value) or ()


def _aligned(node: fx.Node, operand: Any, axis: int) -> int | None:
    """Return the axis of an operand that broadcasts to ``axis`` of the output, None where it does not vary along it."""
    place = axis - len(_shape(node)) + len(_shape(operand))
    return place if place >= 0 and _shape(operand)[place] > 1 else None


def _same(node: fx.Node, axis: int) -> list[Place]:
    return [(_given(node)[0], axis)]


def _sum(node: fx.Node, axis: int) -> list[Place]:
    found = []
    for operand in _given(node)[:2]:
        place = _aligned(node, operand, axis)
        if place is None:
            raise NotLinear("the same number is added to every channel")
        found.append((operand, place))
    return found


def _product(node: fx.Node, axis: int) -> list[Place]:
    found = [(operand, place) for operand in _given(node)[:2] if (place := _aligned(node, operand, axis)) is not None]
    if len(found) != 1 or (operator_name(node) == "div" and found[0][0] is not _given(node)[0]):
        raise NotLinear("scaled channel by channel")
    return found


def _chosen(node: fx.Node, axis: int) -> list[Place]:
    """Either of two, by a mask that does not tell channels apart."""
    mask, *values = _given(node)
    if _aligned(node, mask, axis) is not None:
        raise NotLinear("channels are chosen one by one")
    places = [(value, place) for value in values if (place := _aligned(node, value, axis)) is not None]
    if len(places) < sum(not _is_zero(value) for value in values):
        raise NotLinear("the same number is put into every channel")
    return places


def _filled(node: fx.Node, axis: int) -> list[Place]:
    if _aligned(node, _given(node)[1], axis) is not None or not _is_zero(_given(node)[2]):
        raise NotLinear("numbers are put into its channels")
    return _same(node, axis)


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _reshaped(node: fx.Node, axis: int) -> list[Place]:
    """The channels keep their number, and there are as many places before them."""
    source, shape = _given(node)[0], _shape(node)
    before = _shape(source)
    for place, size in enumerate(before):
        if size == shape[axis] and prod(before[:place]) == prod(shape[:axis]):
            return [(source, place)]
    raise NotLinear("its channels are split or merged")


def _expanded(node: fx.Node, axis: int) -> list[Place]:
    place = _aligned(node, _given(node)[0], axis)
    if place is None:
        raise NotLinear("one number for every channel")
    return [(_given(node)[0], place)]


def _permuted(node: fx.Node, axis: int) -> list[Place]:
    count, name = len(_shape(node)), operator_name(node)
    order = list(range(count))
    if name == "permute":
        order = [place % count for place in _given(node)[1]]
    elif count > 1:
        first, second = (0, 1) if name == "t" else (item % count for item in _given(node)[1:3])
        order[first], order[second] = order[second], order[first]
    return [(_given(node)[0], order[axis])]


def _along_others(position: int, *, default: int | None = 0, gone: bool = False) -> Callable[[fx.Node, int], list[Place]]:
    """Operators that work along axes of their own, which must not be that of the channels; ``gone``: these axes are not in the output."""

    def rule(node: fx.Node, axis: int) -> list[Place]:
        source = _given(node)[0]
        count = len(_shape(source))
        given: Any = _given(node)[position] if len(_given(node)) > position else node.kwargs.get("dim", default)
        dims = range(count) if given is None or given == [] else [given] if isinstance(given, int) else given
        axes = sorted(item % count for item in dims)
        keeps = not gone or (operator_name(node) in {"mean", "sum"} and len(_shape(node)) == count)
        for place in axes if not keeps else ():
            axis += place <= axis
        if axis in axes:
            raise NotLinear(f"{operator_name(node)} over its channels")
        return [(source, axis)]

    return rule


def _inserted(node: fx.Node, axis: int) -> list[Place]:
    new = _given(node)[1] % len(_shape(node))
    if axis == new:
        raise NotLinear("an axis of one index")
    return [(_given(node)[0], axis - (new < axis))]


def _joined(node: fx.Node, axis: int) -> list[Place]:
    return [(item, axis) for item in _given(node)[0]]


def _padded(node: fx.Node, axis: int) -> list[Place]:
    widths: Any = _given(node)[1]
    place = 2 * (len(_shape(node)) - 1 - axis)
    fill = _given(node)[2] if len(_given(node)) > 2 else node.kwargs.get("value", 0)
    if any(widths[place : place + 2]) or not _is_zero(fill or 0):
        raise NotLinear("padded along its channels")
    return _same(node, axis)


def _spatial(node: fx.Node, axis: int) -> list[Place]:
    if axis != 1:
        raise NotLinear(f"{operator_name(node)} over its channels")
    return _same(node, axis)


def _indexed(node: fx.Node, axis: int) -> list[Place]:
    """Rows chosen by one tensor of numbers along an axis before the channels."""
    indices: Any = _given(node)[1]
    chosen = [place for place, item in enumerate(indices) if item is not None]
    if len(chosen) != 1:
        raise NotLinear("indexed along several axes")
    extra = len(_shape(indices[chosen[0]])) - 1
    dtype = indices[chosen[0]].meta["val"].dtype
    if dtype == torch.bool or not chosen[0] + extra < axis:
        raise NotLinear("indexed along its channels")
    return [(_given(node)[0], axis - extra)]


def _picked(node: fx.Node, axis: int) -> list[Place]:
    """One of several outputs; of a tuple of numbers there is no mean."""
    return [(_given(node)[0], axis)]


def _table(node: fx.Node, axis: int) -> list[Place]:
    if axis != len(_shape(node)) - 1:
        raise NotLinear("rows of a table are its channels")
    return [(_given(node)[0], 1)]


def _linear(node: fx.Node, axis: int) -> list[Place]:
    data, weight, *rest = _given(node)
    bias = rest[0] if rest else node.kwargs.get("bias")
    if axis == len(_shape(node)) - 1:
        return [(item, 0) for item in (weight, bias) if isinstance(item, fx.Node)]
    if bias is not None:
        raise NotLinear("a bias is added to every channel")
    return [(data, axis)]


def _matmul(node: fx.Node, axis: int) -> list[Place]:
    left, right = _given(node)[:2]
    if len(_shape(left)) < 2 or len(_shape(right)) < 2:
        raise NotLinear("a product of vectors")
    last = len(_shape(node)) - 1
    if axis == last:
        return [(right, len(_shape(right)) - 1)]
    if axis == last - 1:
        return [(left, len(_shape(left)) - 2)]
    raise NotLinear("a product for each channel")


def _addmm(node: fx.Node, axis: int) -> list[Place]:
    bias, left, right = _given(node)[:3]
    if node.kwargs:
        raise NotLinear("written by addmm")
    place = _aligned(node, bias, axis)
    if place is None:
        raise NotLinear("the same number is added to every channel")
    return [(bias, place), (right, 1) if axis == 1 else (left, 0)]


def _convolution(node: fx.Node, axis: int) -> list[Place]:
    transposed = "transpose" in operator_name(node)
    groups = _given(node)[6] if len(_given(node)) > 6 else node.kwargs.get("groups", 1)
    if axis != 1 or groups != 1:
        raise NotLinear("written by a convolution of each channel for itself" if axis == 1 else "image positions are its channels")
    bias = _given(node)[2] if len(_given(node)) > 2 else node.kwargs.get("bias")
    weights = [(_given(node)[1], int(transposed)), (bias, 0)]
    return [(item, place) for item, place in weights if isinstance(item, fx.Node)]


_RULES: dict[str, Callable[[fx.Node, int], list[Place]]] = {
    **dict.fromkeys(
        ("clone", "contiguous", "_to_copy", "to", "alias", "detach", "dropout", "neg", "type_as", "lift_fresh_copy", "positive"), _same
    ),
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("mul", "div"), _product),
    "where": _chosen,
    "masked_fill": _filled,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze"), _reshaped),
    "expand": _expanded,
    **dict.fromkeys(("permute", "transpose", "t"), _permuted),
    **dict.fromkeys(("slice", "narrow", "index_select", "flip"), _along_others(1)),
    "roll": _along_others(2),
    "select": _along_others(1, gone=True),
    "unbind": _along_others(1, gone=True),
    **dict.fromkeys(("split", "chunk", "split_with_sizes"), _along_others(2)),
    **dict.fromkeys(("mean", "sum"), _along_others(1, default=None, gone=True)),
    "unsqueeze": _inserted,
    "cat": _joined,
    **dict.fromkeys(("constant_pad_nd", "pad"), _padded),
    **dict.fromkeys(("zeros_like", "zeros", "new_zeros"), lambda node, axis: []),
    **dict.fromkeys((f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg") for n in (1, 2, 3)), _spatial),
    **dict.fromkeys((f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "linear1d", "bilinear2d", "bicubic2d")), _spatial),
    "index": _indexed,
    operator.getitem.__name__: _picked,
    "embedding": _table,
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "addmm": _addmm,
    **dict.fromkeys((f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), _convolution),
}
"""Operator -> its inputs whose means decide. All others write something of their own."""
