"""Norms, softmax, pooling and reductions: axes that are averaged, normalised or compared are fixed; the others pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geta_nb.labels import LabelArray, Labels, reshape
from geta_nb.operators.registry import Call, SizeArgument, drop_axes, rule, source_of, spoiled

_KEEPS_ZERO = {"mean", "amax", "amin", "max", "min", "sum", "prod", "var", "std", "var_mean", "linalg_vector_norm", "norm", "cumsum"}


def _channelwise(labels: Labels | None, ndim: int, axis: int = 1) -> Labels | None:
    """A per-channel vector as a tensor of ``ndim`` axes."""
    if labels is None:
        return None
    form = [1] * ndim
    form[axis] = labels.shape[0]
    return Labels(tuple(form), tuple(a.map(lambda v: v.reshape(form)) for a in labels.arrays), labels.source)


def _affine(call: Call, data: Labels, weight: Labels | None, bias: Labels | None, others: list[Labels], zero_kept: bool) -> Labels:
    """Align a normalised value with its scale, shift and statistics; zero when scale and shift are, or when a zero input passes unshifted."""
    operands = [data, *[item for item in (weight, bias, *others) if item is not None]]
    aligned = call.space.align(operands, call.reason("aligned with a fixed axis"))
    call.produce(aligned[1:], "data")
    named = dict(zip(["data", *["weight"] * (weight is not None), *["bias"] * (bias is not None)], aligned, strict=False))
    arrays = []
    for array in aligned[0].arrays:
        marks = {name: _marks(labels, array) for name, labels in named.items()}
        zero = (marks["weight"] == 0) if weight is not None else np.zeros(array.labels.shape, bool)
        if zero_kept:
            zero = zero | (marks["data"] == 0)
        if bias is not None:
            zero = zero & (marks["bias"] == 0)
        text = "normalised without a scale that can be zeroed" if weight is None else "normalised"
        arrays.append(LabelArray(array.labels, np.where(zero, 0, call.reason(text)), array.origin))
    return replace(aligned[0], arrays=tuple(arrays))


def _marks(labels: Labels, like: LabelArray) -> Any:
    found = next((a for a in labels.arrays if a.cover == like.cover), None)
    return found.spoilers if found is not None else np.ones(like.labels.shape, dtype=np.int64)


@rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "_batch_norm_no_update", "_batch_norm_with_update")
def batch_norm(call: Call) -> Any:
    """Per-channel statistics: channels pass; they end at zero when scale and shift do."""
    data = call.args[0]
    weight, bias, mean, var = (_channelwise(item, len(data.shape)) if isinstance(item, Labels) else None for item in call.args[1:5])
    out = _affine(call, data, weight, bias, [item for item in (mean, var) if item is not None], False)
    return out if call.node.meta["val"].__class__ is not tuple and not isinstance(call.node.meta["val"], (list, tuple)) else (out,) + (None,) * 4


@rule("instance_norm")
def instance_norm(call: Call) -> Labels:
    """Statistics per image and channel: a zero channel stays at its shift."""
    data = call.args[0]
    weight, bias, mean, var = (_channelwise(item, len(data.shape)) if isinstance(item, Labels) else None for item in call.args[1:5])
    data = call.fixed(range(2, len(data.shape)), data, "normalised over")
    others = [item for item in (mean, var) if item is not None]
    return _affine(call, data, weight, bias, others, zero_kept=not others)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Any:
    """Statistics over the channels of a norm group: only whole norm groups may go."""
    native = "native" in str(call.node.target)
    data = call.args[0]
    position = 6 if native else 1
    groups = int(call.args[position])
    weight, bias = (call.argument(1, "weight"), call.argument(2, "bias")) if native else (call.argument(2, "weight"), call.argument(3, "bias"))
    shape, reason = data.shape, call.reason("normalised over")
    width = shape[1] // groups
    data = call.fixed(range(2, len(shape)), data, "normalised over")
    split = reshape(call.space, data, (shape[0], groups, width, *shape[2:]), reason)
    split = call.space.fix_axes(split, [2], reason)
    call.findings.sizes.append(SizeArgument(call.node, position, split, 1))
    if native:
        call.findings.sizes.append(SizeArgument(call.node, 4, data, 1))
    whole = reshape(call.space, split, shape, reason)
    out = _affine(call, whole, _channelwise(weight, len(shape)), _channelwise(bias, len(shape)), [], True)
    out = call.settle(_united(call, out, groups, width, reason))
    return (out, None, None) if native else out


def _united(call: Call, labels: Labels, groups: int, width: int, reason: int) -> Labels:
    """Unite again along a norm group what scale and shift brought in."""
    shape = labels.shape
    split = call.space.fix_axes(reshape(call.space, labels, (shape[0], groups, width, *shape[2:]), reason), [2], reason)
    return reshape(call.space, split, shape, reason)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Any:
    """Normalised over the last axes: they are fixed; scale and shift with them. A zero elsewhere becomes the shift."""
    data, dims = call.args[0], len(call.args[1])
    rms = "rms" in str(call.node.target)
    weight, bias = call.argument(2, "weight"), None if rms else call.argument(3, "bias")
    axes = range(len(data.shape) - dims, len(data.shape))
    out = call.fixed(axes, data, "normalised over")
    for item in (weight, bias):
        if isinstance(item, Labels):
            call.space.fix_all(item, call.reason("normalised over"))
    if isinstance(bias, Labels):
        out = spoiled(out, call.reason("adds a bias"))
    several = isinstance(call.node.meta["val"], (list, tuple))
    return (out, *[None] * (len(call.node.meta["val"]) - 1)) if several else out


@rule("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax")
def softmax(call: Call) -> Labels:
    """Sums to one along its axis: fixed there, zero nowhere."""
    labels = call.args[0]
    return spoiled(call.fixed([call.argument(1, "dim", -1)], labels, "softmax"), call.reason("softmax"))


@rule("sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "linalg_vector_norm", "norm", "argmax", "argmin", "any", "all", "logsumexp")
def reduce_axes(call: Call) -> Any:
    """Reduce axes: a sum skips zeros, so its axes stay removable; everything else fixes them."""
    labels = call.args[0]
    name = str(call.node.target).split(".")[1]
    position = 2 if name in {"linalg_vector_norm", "norm"} else 1
    dims = call.argument(position, "dim")
    if (isinstance(dims, Labels)) or name in {"max", "min"} and isinstance(dims, Labels):
        from geta_nb.operators.pointwise import pointwise

        return pointwise(call)
    ndim = len(labels.shape)
    axes = list(range(ndim)) if dims is None or dims == [] else [d % max(ndim, 1) for d in ([dims] if isinstance(dims, int) else dims)]
    if name == "sum":
        for array in labels.arrays:
            if set(array.cover) <= set(axes):
                call.space.require_zero(array)
        inner = tuple(array for array in labels.arrays if not set(array.cover) <= set(axes))
        labels = call.space.fix_axes(replace(labels, arrays=inner), axes, call.reason("summed over together with a removable axis"))
    else:
        labels = call.fixed(axes, labels, f"reduced over by {name}")
    if name not in _KEEPS_ZERO:
        labels = spoiled(labels, call.reason("does not keep zero"))
    several = isinstance(call.node.meta["val"], (list, tuple))
    shape = call.shapes[0] if several else call.shape
    assert shape is not None
    out = replace(labels, shape=tuple(1 if i in axes else s for i, s in enumerate(labels.shape))) if len(shape) == ndim else drop_axes(labels, axes)
    return (out,) * len(call.shapes) if several else out


@rule("cumsum", "cumprod", "sort", "topk", "diff", "triu", "tril", "argsort", "bucketize", "logcumsumexp")
def scan(call: Call) -> Any:
    """Order along an axis matters: fixed there (in all axes, where several are meant)."""
    labels = call.args[0]
    name = str(call.node.target).split(".")[1]
    position = {"cumsum": 1, "cumprod": 1, "sort": 1, "topk": 2, "diff": 2, "argsort": 1, "logcumsumexp": 1}.get(name)
    axes = list(range(len(labels.shape))) if position is None else [call.argument(position, "dim", -1)]
    if not isinstance(axes[0] if axes else 0, int):
        axes = list(range(len(labels.shape)))
    for other in call.all_tensors()[1:]:
        call.space.fix_all(other, call.reason("order along an axis"))
    out = call.fixed(axes, labels, "order along an axis")
    if name not in {"cumsum", "triu", "tril"}:
        out = spoiled(out, call.reason("does not keep zero"))
    if isinstance(call.node.meta["val"], (list, tuple)):
        return tuple(replace(out, shape=shape or ()) for shape in call.shapes)
    return replace(out, shape=call.shape)


@rule(
    *[f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp", "_adaptive_avg") for n in (1, 2, 3)],
    *[f"max_pool{n}d_with_indices" for n in (2, 3)],
    *["_adaptive_avg_pool2d", "_adaptive_avg_pool3d"],
    *[f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d", "linear1d", "trilinear3d", "bicubic2d")],
    *["_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"],
    *["replication_pad3d", "grid_sampler_2d", "grid_sampler", "im2col"][:3],
)
def spatial(call: Call) -> Any:
    """Pooling and resampling work on image positions; channels pass, and a zero channel stays zero."""
    labels = call.args[0]
    count = int(next(c for c in str(call.node.target).split(".")[1] if c.isdigit())) if any(c.isdigit() for c in str(call.node.target).split(".")[1]) else 2
    for other in call.all_tensors()[1:]:
        call.space.fix_all(other, call.reason("sampled by data"))
    ndim = len(labels.shape)
    out = call.fixed(range(ndim - count, ndim), labels, "image position")
    if isinstance(call.node.meta["val"], (list, tuple)):
        return tuple(replace(out, shape=shape or ()) for shape in call.shapes)
    return replace(out, shape=call.shape, source=source_of(call.all_tensors()))
