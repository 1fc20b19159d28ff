"""Reductions, scans and pooling: axes that are averaged, compared or ordered are fixed; the others pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import numpy as np

from geta_nb.groups.labels import Labels, sources_of
from geta_nb.groups.operators.axes import drop_axes, insert_axis, spoiled
from geta_nb.groups.operators.pointwise import pointwise
from geta_nb.groups.operators.registry import Call, rule
from geta_nb.groups.reshaping import reshape

_KEEPS_ZERO = frozenset([
    "mean", "amax", "amin", "max", "min", "sum", "prod", "var", "std", "var_mean", "linalg_vector_norm", "norm", "cumsum", "triu",
    "tril", "sort", "topk", "cumprod", "diff", "cummax", "cummin", "kthvalue", "median", "nanmedian",
])  # fmt: skip
_SCAN_DIM = {"cumsum": 1, "cumprod": 1, "cummax": 1, "cummin": 1, "sort": 1, "argsort": 1, "logcumsumexp": 1, "topk": 2, "diff": 2}
_DEFAULT_DIM = {"kthvalue": -1, "mode": -1}
_NUMBERED = frozenset([
    "max", "min", "sort", "topk", "cummax", "cummin", "kthvalue", "median", "nanmedian", "mode", "max_pool1d_with_indices",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
])  # fmt: skip
"""Operators whose second output says where the values of the first stood."""


@rule("sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "linalg_vector_norm", "norm", "argmax", "argmin",
      "any", "all", "logsumexp", "median", "nanmedian", "kthvalue", "mode")  # fmt: skip
def reduce_axes(call: Call) -> Any:
    """Reduce axes: a sum skips zeros, and so does a mean but for what it divides by; everything else fixes its axes."""
    labels = call.args[0]
    dims = call.argument(2 if call.name in {"linalg_vector_norm", "norm", "kthvalue"} else 1, "dim", _DEFAULT_DIM.get(call.name))
    if isinstance(dims, Labels):  # max and min of two tensors
        return pointwise(call)
    ndim = len(labels.shape)
    axes = list(range(ndim)) if dims is None or dims == [] else [d % max(ndim, 1) for d in ([dims] if isinstance(dims, int) else dims)]
    labels = _summed(call, labels, axes) if _skips_zeros(call, labels, axes) else call.fixed(axes, labels, f"reduced over by {call.name}")
    if call.name not in _KEEPS_ZERO:
        labels = spoiled(labels, call.reason("does not keep zero"))
    if len(call.shape) == ndim:
        out = replace(labels, shape=call.shape)
    else:
        out = drop_axes(labels, axes)
    return _numbered(call, (out,) * len(call.shapes)) if call.several else out


def _numbered(call: Call, outputs: tuple[Labels, ...]) -> tuple[Labels, ...]:
    """Places of values are numbers of their own: of a zero channel too."""
    if call.name not in _NUMBERED:
        return outputs
    return (outputs[0], *(spoiled(item, call.reason("does not keep zero")) for item in outputs[1:]))


def _skips_zeros(call: Call, labels: Labels, axes: Sequence[int]) -> bool:
    """Whether indices that are zero change nothing, but for what a mean divides by: that is written down."""
    if call.name in {"linalg_vector_norm", "norm"}:
        order = call.argument(1, "ord" if "vector" in call.name else "p", 2)
        return order is None or (isinstance(order, (int, float)) and order > 0)
    if call.name in {"amax", "max"}:  # of what is never negative
        value_alone = not call.several or all(user.target is getitem and user.args[1] == 0 for user in call.node.users)
        return value_alone and call.node.args[0] in call.findings.nonnegative
    return call.name in {"sum", "any"} or (call.name == "mean" and call.average(labels, axes))


def _summed(call: Call, labels: Labels, axes: Sequence[int]) -> Labels:
    """Arrays that are summed over entirely may go where they are zero; of joint ones the axes that stay are left."""
    for array in labels.arrays:
        if set(array.cover) <= set(axes):
            call.space.require_zero(array)
            if labels.source == "param":  # the length of a row: columns that are only read elsewhere count here, so they are zeroed
                call.findings.lengths.append(array.labels.ravel())
    rest = tuple(array for array in labels.arrays if not set(array.cover) <= set(axes))
    return call.space.fix_axes(replace(labels, arrays=rest), axes, call.reason("summed over together with a removable axis"))


@rule(*_SCAN_DIM, "triu", "tril", "bucketize")
def scan(call: Call) -> Any:
    """Order along an axis matters: fixed there (in all axes, where several are meant)."""
    labels = call.args[0]
    position = _SCAN_DIM.get(call.name)
    axis = call.argument(position, "dim", -1) if position is not None else None
    others = call.all_tensors()[1:]
    for other in others:
        call.space.fix_all(other, call.reason("order along an axis"))
    out = call.fixed([axis] if isinstance(axis, int) else range(len(labels.shape)), labels, "order along an axis")
    result = _like_outputs(call, out if call.name in _KEEPS_ZERO and not others else spoiled(out, call.reason("does not keep zero")))
    return _numbered(call, result) if call.several else result


@rule("unfold")
def windows(call: Call) -> Labels:
    """Windows along an axis, the places within one as a last axis: both are fixed, the others pass."""
    labels = call.args[0]
    axis = call.axis(1, "dimension", 0, labels)
    return replace(insert_axis(call.fixed([axis], labels, "windows along an axis"), -1), shape=call.shape)


@rule(
    *[f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp", "_adaptive_avg") for n in (1, 2, 3)],
    *[f"max_pool{n}d_with_indices" for n in (2, 3)],
    *[f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d", "linear1d", "trilinear3d", "bicubic2d")],
    *[f"_upsample_{kind}" for kind in ("nearest_exact1d", "nearest_exact2d", "nearest_exact3d", "bilinear2d_aa", "bicubic2d_aa")],
    *[f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)],
)
def spatial(call: Call) -> Any:
    """Pooling and resampling work on image positions; channels pass, and a zero channel stays zero."""
    labels = call.args[0]
    digits = re.search(r"(\d)d", call.name)
    count = int(digits.group(1)) if digits else len(labels.shape) - 2
    out = call.fixed(range(len(labels.shape) - count, len(labels.shape)), labels, "image position")
    result = _like_outputs(call, replace(out, source=sources_of(call.all_tensors())))
    return _numbered(call, result) if call.several else result


@rule("max_unpool2d", "max_unpool3d")
def unpooled(call: Call) -> Labels:
    """Values go back to where the maxima stood: channels pass, and a zero one stays zero."""
    places = range(len(call.shape) - (2 if call.name == "max_unpool2d" else 3), len(call.shape))
    values, index = (call.fixed(places, labels, "image position") for labels in call.args[:2])
    aligned = call.space.align([values, index], call.reason("aligned with a fixed axis"))
    return Labels(call.shape, tuple(array.unsteady() for array in aligned[0].arrays), sources_of(aligned))


@rule("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sampler(call: Call) -> Labels:
    """Sample images at positions of a grid: channels pass and zero stays zero; an image and its grid go together."""
    data, grid = call.args[0], call.args[1]
    places = range(2, len(data.shape))
    data = drop_axes(call.fixed(places, data, "image position"), places)
    grid = drop_axes(call.fixed(range(1, len(grid.shape)), grid, "a position to sample"), range(1, len(grid.shape)))
    data, grid = call.space.align([data, insert_axis(grid, 1)], call.reason("aligned with a fixed axis"))
    source = sources_of([data, grid])
    call.produce([data, grid], source)
    arrays = tuple(array.unsteady().map(lambda values: values.reshape(values.shape + (1,) * len(places))) for array in data.arrays)
    return Labels(call.shape, arrays, source)


@rule("im2col")
def unfold(call: Call) -> Labels:
    """Every position's patch becomes a column: the places of one channel's kernel go with it."""
    labels = call.args[0]
    taps = call.shape[-2] // labels.shape[-3]
    labels = drop_axes(call.fixed([-1, -2], labels, "image position"), [-1])
    arrays = tuple(array.unsteady().map(lambda v: np.repeat(v, taps, -2) if v.shape[-2] > 1 else v) for array in labels.arrays)
    return Labels(call.shape, arrays, labels.source)


@rule("col2im")
def fold(call: Call) -> Labels:
    """Columns are added up as patches of an image: the places of one channel's kernel go together."""
    labels = call.fixed([-1], call.args[0], "image position")
    channels, reason = call.shape[-3], call.reason("image positions of one channel")
    *lead, rows, columns = labels.shape
    labels = reshape(call.space, labels, (*lead, channels, rows // channels, columns), reason)
    labels = call.space.fix_axes(labels, [len(lead) + 1], reason)
    return Labels(call.shape, tuple(array.unsteady() for array in labels.arrays), labels.source)


def _like_outputs(call: Call, labels: Labels) -> Any:
    """The same labels for every output, in its own shape."""
    if call.several:
        return tuple(replace(labels, shape=shape or ()) for shape in call.shapes)
    return replace(labels, shape=call.shape)
