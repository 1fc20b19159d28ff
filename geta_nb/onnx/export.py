"""``gt.export_onnx``: a subnet as one QDQ file that ONNX Runtime and OpenVINO open, for every size of inputs where
that can be.

Comes in: a subnet and example inputs. Goes out: the file, checked by ``onnx.checker``. Its steps are ``lowering`` (fx) and
``file`` (ONNX). Wants the extra ``export``.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from geta_nb.errors import ArtifactError
from geta_nb.files import own_graph
from geta_nb.graph import (
    InputSizes,
    agree_in_float64,
    are_close,
    check_inputs,
    encode_sizes,
    example_arguments,
    export_program,
    max_difference,
    on_cpu,
    outputs_of,
    sizes_of,
)
from geta_nb.onnx.batch import note_fixed, why_traced, why_untranslated
from geta_nb.onnx.file import expand, translate
from geta_nb.onnx.lowering import lower_for_onnx
from geta_nb.onnx.processor import adds_bytes_exactly
from geta_nb.onnx.sizes import open_program
from geta_nb.subnet import GraphNet, WeightFormat, input_sizes


def export_onnx(
    subnet: nn.Module,
    path: str | PathLike[str],
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    integer_biases: bool = False,
    any_processor: bool | None = None,
    dynamic: bool | None = None,
) -> Path:
    """Write ``subnet`` as one ONNX file (opset 21): integer codes as initializers, QuantizeLinear and DequantizeLinear around them.

    Weights of 2 to 4 bits are INT4 in the file, of 5 to 8 INT8, of 9 to 16 INT16; a batch norm after a convolution is part of its scales,
    and a step a channel is a scale a channel. Quantized inputs of up to 8 bits, with a sign or without, are uint8, exactly as they were
    learned, so OpenVINO computes those layers in integers, and
    ONNX Runtime the linear ones; wider ones, and those with an exponent other than 1, are exact too, and such a layer runs in
    float32. What is not quantized is float32.

    Args:
        subnet: what ``construct_subnet`` or :func:`geta_nb.load` returned, in float32.
        path: the file; ``.onnx`` is the usual ending. It appears whole or not at all.
        example_inputs: a tensor or a tuple of positional inputs, batch axis first. The batch axis of the file is dynamic where the
            network and ONNX allow it; else the file is for this size alone, a warning names inputs, axis and reason, and so does
            ``metadata_props["fixed_batch"]`` (``["dynamic_batch"]`` is "true" or "false"). So do other axes where they can;
            ``metadata_props["sizes"]`` (JSON) says what the file takes: for each input its axes, numbers or free sizes, and conditions on
            these, which no runtime checks.
        example_kwargs: keyword inputs; they become inputs of the file too.
        integer_biases: let ONNX Runtime, too, run convolutions in integers (OpenVINO does anyway): faster there, and no longer
            exact, because it rounds each bias to a multiple of input step times weight step; a class may change now and then.
        any_processor: write a file that is exact on every processor. On x86 without VNNI both runtimes add 8-bit products two at a time
            in 16 bits, and saturate in silence: such layers, of 8-bit weights mostly, are then written so that they run in float32,
            which costs the others their integers. None: as this processor needs; ``metadata_props["any_processor"]`` says what it was.
        dynamic: let the file take every size of its inputs that the subnet takes. False: the batch axis alone, the others as in the
            example, for a runtime that is faster so (``metadata_props["dynamic"]`` says which). None: as ``gt.GETA`` was told, which is
            True unless it was.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: no subnet, a weight off its grid, another type than float32, an operator without an ONNX form, no such folder.
        InputError: the subnet rejects the example inputs.
        CalibrationError: an input quantizer has no range yet.

    Warns with a :class:`~geta_nb.errors.GetaWarning` where the batch of the file is fixed.

    OpenVINO computes in bfloat16 and quantizes what was never quantized, unless told otherwise: open the file with
    ``EXECUTION_MODE_HINT="ACCURACY"`` (see ``geta_nb.latency.runtimes``).
    """
    args, kwargs = example_arguments(example_inputs, example_kwargs)
    net, info = own_graph(subnet, "export_onnx", dynamic=dynamic)
    dynamic = info.dynamic if dynamic is None else dynamic
    net, args, kwargs = on_cpu(net, args, kwargs)
    check_inputs(net, args, kwargs)
    return write_graph(
        net, info.formats, Path(path), args, kwargs, integer_biases=integer_biases, any_processor=any_processor, dynamic=dynamic
    )


def write_graph(
    net: GraphNet,
    formats: Mapping[str, WeightFormat],
    path: Path,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    integer_biases: bool = False,
    any_processor: bool | None = None,
    dynamic: bool = True,
    finish: Callable[[onnx.ModelProto], None] = lambda proto: None,
) -> Path:
    """Write a graph whose weights lie on grids; see :func:`export_onnx`, whose last steps these are.

    Args:
        net: the graph with its values.
        formats: own parameter name -> format of its codes.
        path: the file.
        args, kwargs: example inputs.
        integer_biases, any_processor, dynamic: as there.
        finish: changes the file before it is written: names, metadata.
    """
    wary = not adds_bytes_exactly() if any_processor is None else bool(any_processor)
    facts = {"any_processor": str(wary).lower(), "dynamic": str(dynamic).lower()}
    with torch.device("cpu"):  # whatever device is the default
        lowered, bits = lower_for_onnx(net, formats, integer_biases=integer_biases, any_processor=wary)
        _check_same(lowered, net, args, kwargs)
        sizes = input_sizes(net) if dynamic else None
        model = expand(*_translated(lowered, args, kwargs, bits, sizes=sizes, facts=facts), exact=not integer_biases)
    finish(model)
    return write_model(model, path)


def dense_onnx(model: nn.Module, path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    """Write a plain float32 model as torch's exporter does: the other side of a comparison."""
    model, args, kwargs = on_cpu(model, args, kwargs)
    with torch.device("cpu"):  # whatever device is the default
        return write_model(expand(*_translated(model, args, kwargs, {}, sizes=None, facts={})), path)


def _translated(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bits: dict[str, int],
    *,
    sizes: InputSizes | None,
    facts: dict[str, str],
) -> tuple[onnx.ModelProto, dict[str, int]]:
    found = open_program(model, args, kwargs, sizes) if sizes is not None else None
    if found is not None:
        program, batch = found
        with contextlib.suppress(ArtifactError):  # what ONNX cannot say of every size it may say of every batch
            return _described(translate(program), program, batch, "", facts), bits
    program, batch = export_program(model, args, kwargs)
    why = "" if batch else why_traced(args, kwargs)
    try:
        proto = translate(program)
    except ArtifactError as error:
        if not batch:
            raise
        why, batch = why_untranslated(program, error), False
        program, _ = export_program(model, args, kwargs, sizes="fixed")
        proto = translate(program)
    return _described(proto, program, batch, why, facts), bits


def _described(
    proto: onnx.ModelProto, program: torch.export.ExportedProgram, batch: bool, why: str, facts: dict[str, str]
) -> onnx.ModelProto:
    """Write into the file what it takes; warn where its batch is fixed."""
    if not batch:
        facts["fixed_batch"] = note_fixed(proto, why or "the network computes with this size")
    facts["sizes"] = json.dumps(encode_sizes(sizes_of(program)))
    onnx.helper.set_model_props(proto, {"dynamic_batch": str(batch).lower(), "producer": "geta-nb", **facts})
    return proto


def _check_same(lowered: nn.Module, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Compare the lowered graph with the subnet: what differs is a defect of this package, and no file is written."""
    found, reference = outputs_of(lowered, args, kwargs), outputs_of(net, args, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx copies a graph's signature by way of classes that torch deprecates
        # norms are folded into weights, in float32: no sum in float64 takes that rounding back
        same = are_close(found, reference) or agree_in_float64(lowered, net, args, kwargs, inside=(torch.float32,))
    if not same:
        raise ArtifactError(
            "export_onnx: the lowered graph does not compute what the subnet computes.", expected="equal outputs on the example inputs",
            got=f"a difference of {max_difference(found, reference):.3g}", hint="please report the model; nothing was written",
        )


def write_model(model: onnx.ModelProto, path: Path) -> Path:
    """Write a file, whole or not at all.

    Raises:
        ArtifactError: the folder is missing or cannot be written.
    """
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(6)}.part")
    try:
        try:
            part.write_bytes(model.SerializeToString())
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    except OSError as error:
        raise ArtifactError("export_onnx: the file cannot be written.", at=path, got=f"{type(error).__name__}: {error.strerror}") from None
    return path
