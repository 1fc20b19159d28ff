"""A lowered graph as an ONNX file: torch's exporter for what is not quantized, and our operators written as standard ones.

Comes in: what ``lowering`` made, as an exported program. Goes out: a checked ``ModelProto`` of opset 21: QuantizeLinear, Clip and
DequantizeLinear around uint8 on inputs; codes as initializers of the narrowest type that both runtimes read, with DequantizeLinear.

    weight bits   initializer                              why
    2 .. 4        INT4, and a Cast to INT8 after it        the file shrinks; runtimes fold the cast when they open it, and run in int8
    5 .. 8        INT8
    9 .. 16       INT16

A weight with a step a channel has as many scales along that axis. An input of b bits is quantized to uint8 around 128 and clipped as
integers to its lowest and largest code; where nothing is negative, or its codes have no sign, around 0. That is exact for every b. Wider
inputs are rounded in float32 (Div, Round, Clip, Mul): no kernel takes 16-bit inputs, and OpenVINO's QuantizeLinear is off by a code at
that width now and then.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import floordiv
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxscript
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from geta_nb.errors import ArtifactError
from geta_nb.onnx.lowering import is_byte
from geta_nb.onnx.parts import in_parts

OPSET, IR_VERSION = 21, 10
NAMESPACE = "geta_nb"
_STANDARD: Any = onnxscript.opset21
_OWN = onnxscript.values.Opset(NAMESPACE, 1)
_LARGEST_FILE = 2**31 - 1  # what one protobuf message can hold


_TYPES = {"F": ["tensor(float)"], "C": ["tensor(int8)", "tensor(int16)"], "I": ["tensor(int32)", "tensor(int64)"]}
# operator -> (inputs, whether the last may be absent, integer attributes, float attributes)
_OPERATORS: dict[str, tuple[tuple[str, ...], bool, tuple[str, ...], tuple[str, ...]]] = {
    "quantize_input": (("x",), False, ("lowest", "levels"), ("step",)),
    "bend_input": (("x",), False, (), ("step", "exponent", "low", "high")),
    "dequantize": (("codes", "scale"), False, ("axis",), ("bound",)),
    "matmul": (("x", "codes", "scale", "bias"), True, ("turned", "axis"), ("bound",)),
    "rows": (("codes", "scale", "indices"), False, (), ("bound",)),
}


def _kind(name: str) -> str:
    """Name of the type constraint of an input."""
    return {"codes": "C", "indices": "I"}.get(name, "F")


def _register(name: str) -> None:
    """Tell onnx of one of our operators: torch's exporter writes nothing that has no schema."""
    inputs, optional, integers, floats = _OPERATORS[name]
    schema = onnx.defs.OpSchema
    parameter, attribute, kinds = schema.FormalParameter, schema.Attribute, schema.AttrType
    one = schema.FormalParameterOption.Single
    last = schema.FormalParameterOption.Optional if optional else one
    onnx.defs.register_schema(
        schema(
            name, NAMESPACE, 1,
            inputs=[parameter(item, _kind(item), param_option=last if item == inputs[-1] else one) for item in inputs],
            outputs=[parameter("out", "F")],
            type_constraints=[(kind, _TYPES[kind], "") for kind in sorted({"F", *map(_kind, inputs)})],
            attributes=[attribute(item, kind, "") for names, kind in ((integers, kinds.INT), (floats, kinds.FLOAT)) for item in names],
        )
    )


def _translation(name: str) -> Callable[..., Any]:
    """Return what torch's exporter calls for one of our operators: tensors become inputs, numbers attributes."""
    inputs, _, integers, floats = _OPERATORS[name]

    def call(*arguments: Any) -> Any:
        tensors = [item for item in arguments[: len(inputs)] if item is not None]
        order = [argument.name for argument in getattr(torch.ops.geta_nb, name).default._schema.arguments]
        given = dict(zip(order, arguments, strict=True))
        attributes = {key: int(given[key]) for key in integers} | {key: float(given[key]) for key in floats}
        return getattr(_OWN, name)(*tensors, **attributes)

    return call


def _floor_divide(left: Any, right: Any) -> Any:
    """Divide sizes as Python does: ONNX cuts off towards zero, and torch's own translation is for positive numbers alone."""
    rest = _STANDARD.Mod(left, right)  # has the sign of the divisor
    return _STANDARD.Div(_STANDARD.Sub(left, rest), right)


for _name in _OPERATORS:
    if not onnx.defs.has(_name, NAMESPACE):
        _register(_name)


def translate(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """Return the program as ONNX, our operators still in a domain of their own, where no optimizer folds them.

    Raises:
        ArtifactError: torch's exporter knows no ONNX form of an operator, which the message names.
    """
    table: dict[Any, Any] = {getattr(torch.ops.geta_nb, name).default: _translation(name) for name in _OPERATORS}
    table[floordiv] = _floor_divide
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        # no gradients: with them the exporter lays attention with a mask that is learned out in another way than the trace
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's remarks on its own future
            exported: Any = torch.onnx.export(
                in_parts(program), (), dynamo=True, opset_version=OPSET, custom_translation_table=table, verbose=False, external_data=False
            )
            proto: onnx.ModelProto = exported.model_proto
            return proto
    except Exception as error:
        raise ArtifactError(
            "export_onnx: torch's ONNX exporter cannot write this network.", expected="operators with an ONNX form",
            got=_reason(error), hint="gt.save(subnet, path) writes any subnet",
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the innermost cause's first line: the exporter wraps what happened several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next((line for line in str(error).splitlines() if line.strip()), '')}"[:300]


def expand(model: onnx.ModelProto, bits: Mapping[str, int], *, exact: bool = True) -> onnx.ModelProto:
    """Write our operators as standard ones and codes as narrow initializers, in place.

    Args:
        model: what :func:`translate` returned.
        bits: name of a code buffer -> bits of its weight.
        exact: write the biases of plain products so that ONNX Runtime does not make them part of an integer operator, which rounds them.

    Raises:
        ArtifactError: the result is no valid ONNX, or larger than one file can be.
    """
    graph, writer = model.graph, _Writer(list(model.graph.initializer))
    shaped = [item for item in (*model.graph.value_info, *model.graph.output) if item.type.tensor_type.HasField("shape")]
    writer.planes = {item.name for item in shaped if exact and len(item.type.tensor_type.shape.dim) == 2}
    nodes = [new for node in graph.node for new in (writer.expand(node) if node.domain == NAMESPACE else [node])]
    del graph.node[:]
    graph.node.extend([*_narrow(graph, bits, nodes), *nodes])
    graph.initializer.extend(writer.constants)
    kept = [item for item in model.opset_import if item.domain != NAMESPACE]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = max(model.ir_version, IR_VERSION)
    del graph.value_info[:]
    if model.ByteSize() > _LARGEST_FILE:
        raise ArtifactError("export_onnx: the file would be too large.", expected="under 2 GiB", got=f"{model.ByteSize()} bytes")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ArtifactError("export_onnx: the result is no valid ONNX.", got=_reason(error), hint="please report the model") from error
    return model


def _narrow(graph: onnx.GraphProto, bits: Mapping[str, int], nodes: list[NodeProto]) -> Iterator[NodeProto]:
    """Store codes of four bits or less as INT4; yield the casts that widen them."""
    for item in list(graph.initializer):
        if bits.get(item.name, 16) > 4:
            continue
        nibbles = np.append(numpy_helper.to_array(item).reshape(-1).view(np.uint8) & 15, np.zeros(1, dtype=np.uint8))
        pairs = nibbles[: 2 * (len(nibbles) // 2)].reshape(-1, 2)  # the first of two in the low bits; an odd one is filled up
        content = (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
        packed = helper.make_tensor(f"{item.name}_int4", TensorProto.INT4, list(item.dims), content, raw=True)
        name = item.name
        graph.initializer.remove(item)
        graph.initializer.append(packed)
        yield helper.make_node("Cast", [packed.name], [name], name=f"{name}_widen", to=TensorProto.INT8)


class _Writer:
    """Writes our operators as standard ones; collects the constants that they need, each once."""

    def __init__(self, initializers: Iterable[TensorProto]) -> None:
        self.constants: list[TensorProto] = []
        self.shapes = {item.name: tuple(item.dims) for item in initializers}
        self.types = {item.name: item.data_type for item in initializers}
        self.planes: set[str] = set()  # values of two axes
        self._initializers = {item.name: item for item in initializers}
        self._names: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def expand(self, node: NodeProto) -> list[NodeProto]:
        """Return the standard nodes of one of ours."""
        values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        return list(_FORMS[node.op_type](self, node, values))

    def constant(self, value: Any, dtype: Any) -> str:
        """Return the name of a 0-dim initializer."""
        array = np.array(value, dtype=dtype)
        return self._named(array, f"{array.dtype.name}_{array.item():g}")

    def negated(self, name: str) -> str | None:
        """Return the name of an initializer of the opposite sign; None where ``name`` is no initializer."""
        if name not in self._initializers:
            return None
        return self._named(-numpy_helper.to_array(self._initializers[name]), f"{name}_negated")

    def zeros(self, name: str, shape: tuple[int, ...], data_type: int) -> str:
        """Return the name of an initializer of zeros of an ONNX type; the same name again is the same tensor."""
        if name not in self.shapes:
            self.shapes[name] = shape
            self.constants.append(numpy_helper.from_array(np.zeros(shape, dtype=helper.tensor_dtype_to_np_dtype(data_type)), name))
        return name

    def _named(self, array: npt.NDArray[Any], name: str) -> str:
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._names:
            while name in self.shapes:
                name += "_"
            self.shapes[name] = array.shape
            self._names[key] = name
            self.constants.append(numpy_helper.from_array(array, name))
        return self._names[key]


def _chain(node: NodeProto, steps: list[tuple[str, list[str], dict[str, Any]]], start: str) -> Iterator[NodeProto]:
    """Yield nodes that each read the one before as their first input; the last has the node's own output."""
    value = start
    for number, (operator, others, attributes) in enumerate(steps):
        output = node.output[0] if number == len(steps) - 1 else f"{node.output[0]}_{number}_{operator}"
        yield helper.make_node(operator, [value, *others], [output], name=f"{node.name}_{number}_{operator}", **attributes)
        value = output


def _write_quantize(writer: _Writer, node: NodeProto, values: dict[str, Any]) -> Iterator[NodeProto]:
    codes, scale = (values["lowest"], values["levels"]), writer.constant(values["step"], np.float32)
    if is_byte(*codes):
        zero = 128 if codes[0] < 0 else 0
        ends = [writer.constant(zero + end, np.uint8) for end in codes]
        around = [scale, writer.constant(zero, np.uint8)]
        steps: list[Any] = [("QuantizeLinear", around, {}), ("Clip", ends, {}), ("DequantizeLinear", around, {})]
    else:
        ends = [writer.constant(end, np.float32) for end in codes]
        steps = [("Div", [scale], {}), ("Round", [], {}), ("Clip", ends, {}), ("Mul", [scale], {})]
    yield from _chain(node, steps, node.input[0])


def _write_bend(writer: _Writer, node: NodeProto, values: dict[str, Any]) -> Iterator[NodeProto]:
    x, sign = node.input[0], f"{node.output[0]}_sign"
    step, exponent, low, high = (writer.constant(values[key], np.float32) for key in ("step", "exponent", "low", "high"))
    steps: list[Any] = [("Clip", [low, high], {}), ("Div", [step], {}), ("Round", [], {}), ("Mul", [step], {})]
    if values["exponent"] != 1 and values["low"] < 0:
        yield helper.make_node("Sign", [x], [sign], name=f"{node.name}_sign")
        steps = [("Abs", [], {}), ("Pow", [exponent], {}), ("Mul", [sign], {}), *steps]
    elif values["exponent"] != 1:
        steps = [("Relu", [], {}), ("Pow", [exponent], {}), *steps]
    yield from _chain(node, steps, x)


def _weight_steps(writer: _Writer, codes: str, scale: str, bound: float, axis: int = 0) -> list[Any]:
    """Return the steps from codes to a weight; ``bound`` > 0 clips to it."""
    shape = writer.shapes[scale]
    # zero points that are all 0, one tensor for each weight: ONNX Runtime's ``session.x64quantprecision`` rewrites them
    zeros = writer.zeros(f"{scale}_zero", shape, writer.types[codes])
    steps: list[Any] = [("DequantizeLinear", [scale, zeros], {"axis": axis} if shape else {})]
    if bound > 0 and math.isfinite(bound):
        steps.append(("Clip", [writer.constant(-bound, np.float32), writer.constant(bound, np.float32)], {}))
    return steps


def _write_dequantize(writer: _Writer, node: NodeProto, values: dict[str, Any]) -> Iterator[NodeProto]:
    codes, scale = node.input
    yield from _chain(node, _weight_steps(writer, codes, scale, values["bound"], values["axis"]), codes)


def _write_matmul(writer: _Writer, node: NodeProto, values: dict[str, Any]) -> Iterator[NodeProto]:
    x, codes, scale, *bias = node.input
    weight = NodeProto(name=f"{node.name}_weight", output=[f"{node.output[0]}_weight"])
    turn: list[Any] = [("Transpose", [], {"perm": [1, 0]})] if values["turned"] else []
    yield from _chain(weight, [*turn, *_weight_steps(writer, codes, scale, values["bound"], values["axis"])], codes)
    added: list[Any] = [("Add", bias, {})] if bias else []
    # a product of two axes with an Add becomes a Gemm, and that a QGemm with a rounded bias; with a Sub it stays what it is
    if bias and node.output[0] in writer.planes and (negated := writer.negated(bias[0])) is not None:
        added = [("Sub", [negated], {})]
    yield from _chain(node, [("MatMul", [weight.output[0]], {}), *added], x)


def _write_rows(writer: _Writer, node: NodeProto, values: dict[str, Any]) -> Iterator[NodeProto]:
    codes, scale, indices = node.input
    # the Max changes nothing: it keeps OpenVINO from moving the scale past a layer norm, whose eps would then mean something else
    lowest = writer.constant(-values["bound"], np.float32)
    yield from _chain(node, [("Gather", [indices], {"axis": 0}), ("DequantizeLinear", [scale], {}), ("Max", [lowest], {})], codes)


_FORMS: dict[str, Callable[[_Writer, NodeProto, dict[str, Any]], Iterator[NodeProto]]] = {
    "quantize_input": _write_quantize, "bend_input": _write_bend, "dequantize": _write_dequantize, "matmul": _write_matmul,
    "rows": _write_rows,
}  # fmt: skip
