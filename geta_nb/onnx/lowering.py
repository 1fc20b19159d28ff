"""Lower a subnet's graph for export: batch norms folded into the convolutions before them, weights as codes, inputs as one node each.

Comes in: a :class:`GraphNet` and the formats of its weights. Goes out: a module of the same signature on ``torch.ops.geta_nb.*``, whose
codes are int8 or int16 buffers; nothing of what came in is changed. Second step of stage 11, before ``file``.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from geta_nb.errors import ArtifactError, CalibrationError
from geta_nb.files import MAX_BITS, weight_codes
from geta_nb.graph import nonnegative_nodes, operator_name, overload_name
from geta_nb.onnx import operators as _onnx_ops  # noqa: F401 - defines torch.ops.geta_nb
from geta_nb.onnx.processor import LARGEST_PAIR
from geta_nb.quantizers import ActivationQuantizer
from geta_nb.subnet import GraphNet, WeightFormat, copy_graph, find_module

aten, ours = torch.ops.aten, torch.ops.geta_nb
LARGEST_LEVELS = {True: 32767, False: 65535}
"""Signed or not -> codes of inputs up to 16 bits, which are rounded without bending."""
_NORM = "_native_batch_norm_legit_no_training"
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


def lower_for_onnx(
    net: GraphNet, formats: Mapping[str, WeightFormat], *, integer_biases: bool = False, any_processor: bool = False
) -> tuple[fx.GraphModule, dict[str, int]]:
    """Return the lowered network and the bits that the codes in each of its code buffers need.

    Args:
        net: the cut graph with its values, float32, on any device.
        formats: own parameter name -> format; weights wider than 16 bits stay as they are.
        integer_biases: leave biases inside convolutions, where a runtime may round them.
        any_processor: keep out of integer kernels what they may compute wrong on a processor without dot products of bytes.

    Raises:
        ArtifactError: a weight that left its grid, or a network that is not float32.
        CalibrationError: an input quantizer has no range.
    """
    twin = copy.deepcopy(net).cpu()
    _check_float32(twin)
    module = fx.GraphModule(twin, copy_graph(twin.graph))  # plain: a name of a code buffer is no name of a file
    _drop_idle(module)
    folds = _fold_norms(module)
    _lower_inputs(module)
    bits = _lower_weights(module, formats, folds, any_processor)
    if not integer_biases:
        _move_biases(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module, bits


def _check_float32(net: nn.Module) -> None:
    wrong = sorted({str(p.dtype) for p in net.parameters() if p.is_floating_point() and p.dtype is not torch.float32})
    if wrong:
        hint = "model.float() before gt.GETA(model, ...)"
        raise ArtifactError("export_onnx: the runtimes compute in float32.", expected="torch.float32", got=", ".join(wrong), hint=hint)


def _tensor(module: nn.Module, node: object) -> Tensor | None:
    """Return the tensor that a get_attr node names."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    path, _, name = str(node.target).rpartition(".")
    found = getattr(find_module(module, path) if path else module, name, None)
    return found.detach() if isinstance(found, Tensor) else None


def _add_tensor(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """Register a buffer and return a node that reads it, at the insertion point."""
    if not hasattr(module, name):
        module.register_buffer(name, value)
    return module.graph.get_attr(name)


def _drop_idle(module: fx.GraphModule) -> None:
    """Leave out slices of everything and pads by nothing, which runtimes do not all see through."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not node.args:
            continue
        arguments: Any = node.args
        slices = node.target is aten.slice.Tensor and arguments[2:] in ((), (0,), (0, 2**63 - 1), (None, None))
        pads = node.target in (aten.pad.default, aten.constant_pad_nd.default) and not any(arguments[1])
        if slices or pads:
            node.replace_all_uses_with(arguments[0])
            module.graph.erase_node(node)


# Batch norms


def _fold_norms(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Give each convolution that a batch norm alone reads the norm's shift as its bias; return its factor per channel, [C_out]."""
    folds: dict[fx.Node, Tensor] = {}
    for number, norm in enumerate([node for node in module.graph.nodes if operator_name(node) == _NORM]):
        arguments: Any = norm.args
        conv, eps = arguments[0], arguments[6]
        readers = list(norm.users)
        alone = isinstance(conv, fx.Node) and operator_name(conv) in _CONVOLUTIONS and len(conv.users) == 1
        if not alone or not all(user.target is operator.getitem and user.args[1] == 0 for user in readers):
            continue
        weight, old_bias, *statistics = (_tensor(module, item) for item in (conv.args[1], _argument(conv, 2), *arguments[1:5]))
        unknown_bias = _argument(conv, 2) is not None and old_bias is None
        if weight is None or len(conv.args[1].users) > 1 or unknown_bias or any(item is None for item in statistics[2:]):
            continue
        factor, shift = _affine(weight.shape[0], old_bias, statistics, eps)
        with module.graph.inserting_before(conv):
            bias = _add_tensor(module, f"folded_bias_{number}", shift)
        conv.args = (*conv.args[:2], bias, *conv.args[3:])
        folds[conv] = factor
        for user in readers:
            user.replace_all_uses_with(conv)
            module.graph.erase_node(user)
        module.graph.erase_node(norm)
    return folds


def _argument(node: fx.Node, position: int) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get("bias")


def _affine(channels: int, bias: Tensor | None, statistics: list[Tensor | None], eps: float) -> tuple[Tensor, Tensor]:
    """Return factor and shift of convolution and norm together, computed in float64."""
    gamma, beta, mean, var = (None if item is None else item.double() for item in statistics)
    assert mean is not None and var is not None
    factor = (torch.ones(channels, dtype=torch.float64) if gamma is None else gamma) / (var + eps).sqrt()
    shift = ((0 if bias is None else bias.double()) - mean) * factor + (0 if beta is None else beta)
    return factor, shift.float()


def _move_biases(module: fx.GraphModule) -> None:
    """Add the bias of each convolution in integers after it: inside, ONNX Runtime would round it to a product of two steps."""
    for number, conv in enumerate([node for node in module.graph.nodes if operator_name(node) in _CONVOLUTIONS]):
        bias = _tensor(module, _argument(conv, 2))
        if bias is None or not _is_byte_input(conv.args[0]):
            continue
        dimensions = int(operator_name(conv).removeprefix("conv").removesuffix("d"))
        with module.graph.inserting_after(conv):
            shape = (-1, *[1] * dimensions)
            added = module.graph.call_function(aten.add.Tensor, (conv, conv))
        with module.graph.inserting_before(added):
            values = _add_tensor(module, f"moved_bias_{number}", bias.view(shape).contiguous())
        added.meta = dict(conv.meta)
        conv.replace_all_uses_with(added)
        added.args = (conv, values)
        conv.args = (*conv.args[:2], None, *conv.args[3:])
        conv.kwargs = {key: value for key, value in conv.kwargs.items() if key != "bias"}


# Inputs


def _lower_inputs(module: fx.GraphModule) -> None:
    never_negative = nonnegative_nodes(module.graph)
    for node in [node for node in module.graph.nodes if node.op == "call_module"]:
        quantizer: Any = module.get_submodule(str(node.target))
        assert isinstance(quantizer, ActivationQuantizer)
        if not quantizer.calibrated:
            raise CalibrationError(
                "export_onnx: an input quantizer has no range.", at=quantizer.layer, expected="a calibrated subnet", got="clip_max = 0",
                hint="geta.calibrate(batches)",
            )
        step, exponent = float(quantizer.step_size.detach()), float(quantizer.exponent.detach())
        source: Any = node.args[0]
        lowest, levels = _code_ends(quantizer)
        with module.graph.inserting_before(node):
            if exponent == 1 and levels <= LARGEST_LEVELS[quantizer.signed]:
                lowest = 0 if source in never_negative else lowest
                new = module.graph.call_function(ours.quantize_input.default, (source, step, lowest, levels))
            else:
                new = module.graph.call_function(ours.bend_input.default, (source, step, exponent, *_bent_ends(quantizer)))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)


def _code_ends(quantizer: ActivationQuantizer) -> tuple[int, int]:
    """Return the lowest and the largest code that an input quantizer gives."""
    far = torch.full_like(quantizer.clip_max.detach(), torch.finfo(quantizer.clip_max.dtype).max)
    return int(quantizer.codes(-far)), int(quantizer.codes(quantizer.clip_max.detach()))


def _bent_ends(quantizer: ActivationQuantizer) -> tuple[float, float]:
    """Return the ends of what an input quantizer rounds, sgn(x) |x|**t, as it computes them."""
    step, clip, exponent = (number.detach() for number in (quantizer.step_size, quantizer.clip_max, quantizer.exponent))
    top = clip.pow(exponent)
    lowest = -top if quantizer.narrow_range else -(top + step)
    return (float(lowest) if quantizer.signed else 0.0), float(top)


def is_byte(lowest: int, levels: int) -> bool:
    """Whether the codes of an input fit into uint8 with a zero point: at 0, or at 128 where some are negative."""
    return levels <= 255 if lowest == 0 else lowest >= -128 and levels <= 127


# Weights


def _lower_weights(
    module: fx.GraphModule, formats: Mapping[str, WeightFormat], folds: Mapping[fx.Node, Tensor], any_processor: bool
) -> dict[str, int]:
    by_tensor = {id(module.get_parameter(name)): form for name, form in formats.items() if _has_parameter(module, name)}
    bits: dict[str, int] = {}
    for number, node in enumerate([node for node in module.graph.nodes if node.op == "get_attr"]):
        path, _, name = str(node.target).rpartition(".")
        form = by_tensor.get(id(getattr(module.get_submodule(path), name, None)))
        value = _tensor(module, node)
        across = form is not None and form.axis not in (None, 0) and any(user in folds for user in node.users)
        if form is None or value is None or form.bits > MAX_BITS or not node.users or across:
            _scale_plain(module, node, value, folds)
            continue
        codes = weight_codes(value, form, name=str(node.target))
        lone = len(node.users) == 1
        for user in list(node.users):
            with module.graph.inserting_before(user):
                weight = _Weight(f"weight_{number}", codes, form, lone, any_processor)
                _lower_use(module, node, user, weight, folds.get(user), bits)
    return bits


def _has_parameter(module: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    owner = find_module(module, path) if path else module
    return owner is not None and owner._parameters.get(leaf) is not None


def _scale_plain(module: fx.GraphModule, node: fx.Node, value: Tensor | None, folds: Mapping[fx.Node, Tensor]) -> None:
    """Multiply a convolution's unquantized weight by the norm that was folded into it."""
    for user in [user for user in node.users if user in folds and user.args[1] is node and value is not None]:
        assert value is not None
        factor = folds[user].view(-1, *[1] * (value.ndim - 1))
        with module.graph.inserting_before(user):
            user.update_arg(1, _add_tensor(module, f"{user.name}_folded_weight", (value.double() * factor).float()))


@dataclass(frozen=True)
class _Weight:
    """A weight on its grid: the stem of its buffers' names, codes, format, and whether one operator alone reads it.

    ``any_processor``: whether sums of two products must fit into 16 bits where the weight meets an input of bytes.
    """

    name: str
    codes: Tensor
    form: WeightFormat
    lone: bool
    any_processor: bool

    @property
    def scale(self) -> Tensor:
        """The step, 0-dim, or the steps of all channels, [C], float32."""
        return torch.tensor(self.form.step_size, dtype=torch.float32)

    @property
    def axis(self) -> int:
        """The axis of the channels; 0 where there is one step."""
        return self.form.axis or 0

    @property
    def bound(self) -> float:
        """Largest magnitude of a weight, nudged up so that a clip to it changes nothing."""
        values = self.codes.abs().double()
        return float((values * self.form.steps(values)).max()) * (1 + 2**-20) if self.codes.numel() else 0.0

    def bound_beside(self, x: Any, *, channel_axis: int, integers_only: bool) -> float:
        """Return what the file must clip to beside an operand ``x``: 0 where a runtime may, and may rightly, compute in integers.

        Args:
            x: the other operand's node.
            channel_axis: of the output channels in the codes.
            integers_only: a runtime leaves the operator in float32 by itself where ``x`` is no input of bytes.
        """
        if not _is_byte_input(x) or self.bits > 8:
            return 0.0 if integers_only else self.bound
        return self.bound if self.any_processor and not _pairs_fit(self.codes, x, channel_axis) else 0.0

    @property
    def bits(self) -> int:
        """Bits that hold the codes: those of the format, or one more where the sign of the lowest one was turned."""
        highest = int(self.codes.max()) if self.codes.numel() else 0
        return self.form.bits + (highest >= 1 << (self.form.bits - 1))

    def scaled(self, factor: Tensor, name: str) -> tuple[_Weight, Tensor]:
        """Return the weight times a factor for each output channel, [C_out], and its scales, which are positive: signs go into codes.

        Only where 16 bits do not hold the lowest code with its sign turned, signs go into scales; no kernel adds up such codes anyway.
        """
        signs = factor.sign()
        turned = self._times(signs, name)
        if turned.bits > MAX_BITS:
            turned = self._times(signs.abs(), name)
            return turned, (factor * self.scale.double()).float()
        scale = (factor.abs() * self.scale.double()).clamp(min=torch.finfo(torch.float32).tiny).float()
        return turned, scale  # a factor of 0: codes of 0, any scale

    def _times(self, signs: Tensor, name: str) -> _Weight:
        return replace(self, name=name, codes=self.codes * signs.to(self.codes.dtype).view(-1, *[1] * (self.codes.ndim - 1)))


def _lower_use(
    module: fx.GraphModule, node: fx.Node, user: fx.Node, weight: _Weight, factor: Tensor | None, bits: dict[str, int]
) -> None:
    """Let one reader of a weight read its codes instead."""

    def buffers(codes: Tensor, scale: Tensor) -> tuple[fx.Node, fx.Node]:
        bits[weight.name] = weight.bits
        integers = codes.to(torch.int8 if weight.bits <= 8 else torch.int16).contiguous()
        return _add_tensor(module, weight.name, integers), _add_tensor(module, f"{weight.name}_scale", scale)

    name = overload_name(user.target) if isinstance(user.target, torch._ops.OpOverload) else ""
    if name in ("linear", "addmm", "mm", "matmul") and (found := _PRODUCTS[name](node, user)) is not None and weight.codes.ndim == 2:
        x, bias, turned = found
        codes = weight.codes.t() if turned and weight.lone else weight.codes
        bound = weight.bound_beside(x, channel_axis=0 if turned else 1, integers_only=False)
        axis = 1 - weight.axis if turned else weight.axis
        if axis == 0 and weight.form.axis is not None:
            bound = weight.bound  # no kernel takes a step for each term of a sum
        user_args = (x, *buffers(codes, weight.scale), bias, bound, turned and not weight.lone, axis)
        user.target, user.args, user.kwargs = ours.matmul.default, user_args, {}
    elif name == "embedding" and user.args[0] is node and weight.form.axis is None:
        indices: Any = user.args[1]
        user.target, user.kwargs = ours.rows.default, {}
        user.args = (*buffers(weight.codes, weight.scale), indices, weight.bound)
    elif factor is not None:
        weight, scale = weight.scaled(factor, f"{weight.name}_{user.name}")
        bound = weight.bound_beside(user.args[0], channel_axis=0, integers_only=True) * float(factor.abs().max())
        user.update_arg(1, module.graph.call_function(ours.dequantize.default, (*buffers(weight.codes, scale), 0, bound)))
    else:
        convolution = name in _CONVOLUTIONS
        bound = weight.bound_beside(user.args[0], channel_axis=0, integers_only=True) if convolution else weight.bound
        plain = module.graph.call_function(ours.dequantize.default, (*buffers(weight.codes, weight.scale), weight.axis, bound))
        user.replace_input_with(node, plain)


def _is_byte_input(x: Any) -> bool:
    return isinstance(x, fx.Node) and x.target is ours.quantize_input.default and is_byte(*x.args[2:4])  # type: ignore[arg-type]


def _pairs_fit(codes: Tensor, x: fx.Node, channel_axis: int) -> bool:
    """Whether two products of an input's bytes and codes of one channel always add up in 16 bits, whichever two a kernel takes."""
    arguments: Any = x.args
    lowest, levels = arguments[2:4]
    byte = int(levels) if lowest == 0 else 128 + int(levels)
    largest = codes.abs().movedim(channel_axis, 0).flatten(1).sort(dim=1, descending=True).values[:, :2].sum(1)
    return largest.numel() == 0 or int(largest.max()) * byte <= LARGEST_PAIR


def _linear(node: fx.Node, user: fx.Node) -> tuple[Any, Any, bool] | None:
    return (user.args[0], _argument(user, 2), True) if user.args[1] is node and user.args[0] is not node else None


def _addmm(node: fx.Node, user: fx.Node) -> tuple[Any, Any, bool] | None:
    plain = not any(value != 1 for value in user.kwargs.values())
    return (user.args[1], user.args[0], False) if plain and user.args[2] is node and node not in user.args[:2] else None


def _matmul(node: fx.Node, user: fx.Node) -> tuple[Any, Any, bool] | None:
    return (user.args[0], None, False) if user.args[1] is node and user.args[0] is not node else None


_PRODUCTS: dict[str, Callable[[fx.Node, fx.Node], tuple[Any, Any, bool] | None]] = {
    "linear": _linear, "addmm": _addmm, "mm": _matmul, "matmul": _matmul,
}  # fmt: skip
"""Operator -> (operand, bias, whether the weight is [C_out, C_in]) of a product whose second operand is the weight, or None."""
