"""Save a compressed network as packed integers in one file, and load it back without its class.

Comes in: a subnet, a module with ``geta_info``. Goes out: a safetensors file of bit-packed codes with the traced graph in its
metadata; and from such a file the same network: equal outputs, equal codes. Stage 8. Nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import replace
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from geta_nb.errors import ArtifactError, ConfigError
from geta_nb.files import container
from geta_nb.files.formats import decode_formats, encode_formats
from geta_nb.files.narrow import decode_shapes, decode_widths, encode_widths, make_narrow
from geta_nb.files.tensor_table import decode_tensors, encode_tensors
from geta_nb.graph import decode_program, decode_sizes, encode_program, encode_sizes
from geta_nb.quantizers import ActivationQuantizer
from geta_nb.subnet import (
    BUFFER,
    SCRATCH,
    Entry,
    GraphNet,
    SubnetInfo,
    fitted,
    input_sizes,
    list_entries,
    modes_of,
    note_modes,
    suited,
    what_differs,
)

_LARGEST_PROGRAM = 64_000_000


def save(subnet: nn.Module, path: str | PathLike[str], *, dynamic: bool | None = None) -> Path:
    """Write ``subnet`` to one file: the weights as integer codes of their bit width, packed without gaps, and everything else as it is.

    The file takes sum(numel * bits) / 8 bytes for the weights of up to 16 bits (wider ones are stored in their own dtype), two numbers
    for each channel that has a step of its own, the bytes of the other tensors, and a compressed header. It appears whole or not at
    all, and replaces what was there.

    Args:
        subnet: what ``construct_subnet`` or :func:`load` returned; its quantized weights must lie on their grid, step_size * integer.
        path: the file; ``.safetensors`` is the usual ending.
        dynamic: let the network in the file take every size of its inputs that ``subnet`` takes, which is traced anew for it; an axis
            that is bound to its size is written down, and another size is refused. False: the batch axis alone, as it was traced first.
            None: as ``gt.GETA`` was told, which is True unless it was.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: no subnet, a weight that has moved off its grid, an operator that a file cannot carry, or no such folder.
    """
    net, info = own_graph(subnet, "save", dynamic=dynamic)
    if info.example is not None:
        note_modes(net, what_differs(subnet, *suited(subnet, *info.example)))
    quantizers = _quantizers(net)
    signs = {f"{path}.has_sign" for path in quantizers}  # one bit each: it stands in the header
    blocks, table = encode_tensors([entry for entry in list_entries(net) if entry.name not in signs], info.formats)
    (weights, inputs), numbers = encode_formats(info.formats, info.activation_formats)
    header = {
        "program": encode_program(net.graph),
        "quantizers": {path: [float(q.initial_bits).hex(), q.layer, *map(int, q.kind)] for path, q in quantizers.items()},
        "tensors": table,
        "formats": weights,
        "activations": inputs,
        "sizes": encode_sizes(input_sizes(net)),
        "widths": encode_widths(info.widths),
        "differs": modes_of(net),
        "whole": {name: list(shape) for name, shape in info.whole.items()},
    }
    text = base64.b64encode(zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)).decode()
    container.write(Path(path), blocks | numbers, {"geta_nb": _version(), "torch": torch.__version__, "network": text})
    return Path(path)


def own_graph(subnet: nn.Module, who: str, *, dynamic: bool | None = False) -> tuple[GraphNet, SubnetInfo]:
    """Return the graph of a subnet with its present values, which it shares, and what it knows of itself.

    Args:
        subnet: what ``construct_subnet`` or :func:`load` returned.
        who: the caller's public name, for the message.
        dynamic: trace a subnet of the model's own classes anew, for every size that it takes; None: as the subnet says.

    Raises:
        ArtifactError: no subnet.
    """
    info = getattr(subnet, "geta_info", None)
    graph = subnet if isinstance(subnet, fx.GraphModule) else getattr(info, "graph", None)
    if info is None or not isinstance(graph, fx.GraphModule):
        hint = f"gt.{who}(geta.construct_subnet(), path)"
        raise ArtifactError(f"{who}: this module is no subnet.", expected="a module with geta_info", got=type(subnet).__name__, hint=hint)
    if graph is subnet:
        return GraphNet.of(graph), info
    net = GraphNet.of(graph, subnet)
    if info.example is not None:
        wanted = info.dynamic if dynamic is None else dynamic
        found = fitted(subnet, net, *suited(subnet, *info.example), dynamic=wanted)
        net = found if found is net else GraphNet.of(found, subnet)
    return net, info


def load(path: str | PathLike[str], *, into: nn.Module | None = None, model: nn.Module | None = None) -> nn.Module:
    """Return the network in a file: the same outputs as the graph that was saved, bit for bit, and the same codes.

    Args:
        path: a file that :func:`save` wrote.
        into: fill this module instead, by parameter name; it must have the names, shapes and dtypes of the saved network. Nothing of
            it is changed when they do not fit.
        model: make this one as narrow as the saved network, and fill it: a model built as the dense one was (same class, same
            configuration, any weights), of a file that a native subnet was saved to. It keeps all that its class can do
            (``generate`` of a language model), in its own mode and on its device. Nothing of it is changed when it does not fit.

    Returns:
        A module that runs the saved graph and needs no original class, on the CPU, in eval mode; or ``into``, or ``model``. All carry
        ``geta_info``.

    Raises:
        ConfigError: both ``into`` and ``model``, or one that is no module.
        ArtifactError: a file that is missing, not ours, of another version, truncated or changed, or that calls an unknown operator.
    """
    if into is not None and model is not None:
        raise ConfigError("load: into and model.", expected="one of them, or none", got="both", hint="gt.load(path, model=model)")
    target = Path(path)
    texts, blocks = container.read(target)
    header = _decode_header(texts, target)
    try:
        graph = decode_program(header["program"])
        formats, activations = decode_formats(blocks, header["formats"], header["activations"])
        entries = list(decode_tensors(header["tensors"], formats, blocks))
        quantizers = _decode_quantizers(header["quantizers"], entries)
        entries += [Entry(f"{path}.has_sign", BUFFER, quantizer.has_sign) for path, quantizer in quantizers.items()]
        net = GraphNet.build(graph, entries, quantizers, decode_sizes(header.get("sizes")))
        note_modes(net, str(header.get("differs", ""))[:400])
        widths, whole = decode_widths(header.get("widths")), decode_shapes(header.get("whole", {}))
    except ArtifactError:
        raise
    except Exception as error:
        # whatever torch says of a header that someone made up: the caller sees one kind of error
        raise ArtifactError("load: the header is malformed.", at=target, got=f"{type(error).__name__}: {error}"[:200]) from None
    info = SubnetInfo(
        kind="graph", formats=formats, activation_formats=activations, graph=None, sizes=input_sizes(net), widths=widths, whole=whole
    )
    setattr(net, "geta_info", info)  # noqa: B010 - torch types every attribute as a tensor or a module
    if model is not None:
        return _narrowed(model, replace(info, kind="native", graph=net), net, entries, quantizers)
    if into is None:
        return net
    if not isinstance(into, nn.Module):
        raise ConfigError("load: into is no module.", expected="a torch.nn.Module", got=type(into).__name__, hint="gt.load(path)")
    _fill(into, entries)
    for path, quantizer in quantizers.items():  # no state dict says which codes there are
        setattr(into.get_submodule(path), "narrow_range", quantizer.narrow_range)  # noqa: B010
    setattr(into, "geta_info", replace(info, kind="native", graph=net))  # noqa: B010
    return into


def _narrowed(
    model: nn.Module, info: SubnetInfo, net: GraphNet, entries: list[Entry], quantizers: dict[str, ActivationQuantizer]
) -> nn.Module:
    if info.widths is None:
        hint = "gt.load(path), which needs no class; or gt.save(subnet, path) of a subnet whose geta_info.kind is native"
        got = "a graph, or a file from before widths were written"
        raise ArtifactError("load: the file has no widths of modules.", expected="a native subnet", got=got, hint=hint)
    make_narrow(model, entries, info.widths, info.whole, quantizers, net, info.formats)
    setattr(model, "geta_info", replace(info, sizes=None))  # noqa: B010
    return model


def _quantizers(net: GraphNet) -> dict[str, ActivationQuantizer]:
    return {name: module for name, module in net.named_modules() if isinstance(module, ActivationQuantizer)}


def _decode_quantizers(rows: dict[str, Any], entries: list[Entry]) -> dict[str, ActivationQuantizer]:
    tensors = {entry.name: entry.tensor for entry in entries}
    quantizers = {}
    for path, (bits, layer, *given) in rows.items():
        values = {key: tensors[f"{path}.{key}"] for key in ("step_size", "clip_max", "exponent")}
        plain = isinstance(layer, str) and len(given) <= 2 and all(type(usual) is int and usual in (0, 1) for usual in given)
        if not plain or any(value.ndim or value.dtype not in (torch.float32, torch.float64) for value in values.values()):
            raise ArtifactError("load: an activation quantizer is malformed.", at=path)
        # files of the first version say nothing, those of the second whether there is a sign: signed codes were symmetric
        kind = dict(zip(("signed", "narrow_range"), map(bool, [*given, *[1, 1][len(given) :]]), strict=True))
        quantizer = ActivationQuantizer(values["clip_max"].detach(), initial_bits=float.fromhex(bits), layer=layer, **kind)
        quantizer.load_state_dict({**values, "has_sign": quantizer.has_sign})
        for key, parameter in quantizer.named_parameters():
            parameter.requires_grad_(values[key].requires_grad)
        quantizers[path] = quantizer
    return quantizers


def _decode_header(texts: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(base64.b64decode(texts["network"], validate=True), _LARGEST_PROGRAM)
        header = json.loads(text) if inflate.eof and not inflate.unused_data else None
    except (KeyError, ValueError, binascii.Error, zlib.error, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ArtifactError("load: the header is damaged, or too large.", at=path, expected=f"at most {_LARGEST_PROGRAM} bytes of JSON")
    return header


def _fill(module: nn.Module, entries: list[Entry]) -> None:
    """Copy values by name; every name, shape and dtype is checked before the first value moves."""
    saved = {entry.name: entry for entry in entries}
    own = {entry.name: entry for entry in list_entries(module)}
    needed = {name for name, entry in saved.items() if entry.kind != SCRATCH}
    present = {name for name, entry in own.items() if entry.kind != SCRATCH}
    hint = "into= wants the subnet's own module: same class, same widths, no parametrizations; or leave into= out"
    if needed != present:
        expected, got = f"also {sorted(needed - present)[:3]}", f"also {sorted(present - needed)[:3]}"
        raise ArtifactError("load: the module has other parameters than the file.", expected=expected, got=got, hint=hint)
    for name in own.keys() & saved.keys():
        old, new = own[name].tensor, saved[name].tensor
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            expected, got = f"{tuple(new.shape)} {new.dtype}", f"{tuple(old.shape)} {old.dtype}"
            raise ArtifactError("load: a tensor of the module has another shape or dtype.", at=name, expected=expected, got=got, hint=hint)
    # quantizers learn from load_state_dict that they have a range; it leaves buffers outside the state dict alone
    module.load_state_dict({name: saved[name].tensor for name in needed}, strict=False)
    with torch.no_grad():
        for name in own.keys() & saved.keys() - needed:
            own[name].tensor.copy_(saved[name].tensor)


def _version() -> str:
    try:
        return metadata.version("geta-nb")
    except metadata.PackageNotFoundError:
        return "0"
