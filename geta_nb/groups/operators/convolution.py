"""Convolutions of every kind as one contraction over groups, output and input channels."""

from __future__ import annotations

from math import prod

from geta_nb.groups.labels import Labels
from geta_nb.groups.operators.axes import drop_axes, insert_axis, permute
from geta_nb.groups.operators.contraction import add_bias, contract, has_own_bias
from geta_nb.groups.operators.registry import Call, SizeArgument, rule
from geta_nb.groups.reshaping import reshape


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(call: Call) -> Labels:
    """Grouped convolution as a product over [N, groups, C_out/groups, C_in/groups]; kernel and image positions are fixed axes."""
    data, weight, bias = call.args[0], call.args[1], call.argument(2, "bias")
    if len(data.shape) != len(weight.shape):
        unbatched: Labels = call.unlabelled("convolution without a batch axis")
        return unbatched
    general = call.name == "convolution"
    transposed = bool(call.args[6]) if general else "transpose" in call.name
    position = 8 if general else 6
    groups = int(call.argument(position, "groups", 1))
    spatial = list(range(2, len(call.shape)))
    taps = prod(weight.shape[2:]) * prod((data if transposed else call).shape[2:])
    batch, channels, out_channels = data.shape[0], data.shape[1], call.shape[1]
    data = drop_axes(call.fixed(spatial, data, "image position"), spatial)
    weight = drop_axes(call.fixed(spatial, weight, "kernel position"), spatial)
    reason = call.reason("grouped convolution")
    data = reshape(call.space, data, (batch, groups, channels // groups), reason)
    if transposed:
        weight = permute(reshape(call.space, weight, (groups, channels // groups, out_channels // groups), reason), [0, 2, 1])
    else:
        weight = reshape(call.space, weight, (groups, out_channels // groups, channels // groups), reason)
    folds = not transposed and not general and _is_unpadded(call) and has_own_bias(call, weight)
    out = contract(call, insert_axis(data, 2), insert_axis(weight, 0), [3], macs=taps, folds=folds)
    if not isinstance(call.node.args[position] if position < len(call.node.args) else groups, int):
        out = call.fixed([1], out, "as many groups as there are images")
    elif groups > 1:
        call.findings.sizes.append(SizeArgument(call.node, position, out, 1))
    out = reshape(call.space, out, (batch, out_channels), reason)
    arrays = tuple(array.map(lambda values: values.reshape(values.shape + (1,) * len(spatial))) for array in out.arrays)
    return add_bias(call, Labels(call.shape, arrays, out.source), bias, 1)


def _is_unpadded(call: Call) -> bool:
    """Whether every output sees real pixels only, so that a constant channel adds a constant."""
    padding = call.argument(4, "padding", 0)
    return padding == "valid" if isinstance(padding, str) else not any(padding if isinstance(padding, (list, tuple)) else [padding])
