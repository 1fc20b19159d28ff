"""The tensors of a network as blocks of a file and back: quantized weights as packed codes, all others as they are.

Comes in: named tensors and the formats of the quantized weights. Goes out: blocks and a table of names; and from those the same
tensors, bit for bit. Part of stage 8, used by :mod:`geta_nb.files.save_load`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from geta_nb.errors import ArtifactError
from geta_nb.files import container
from geta_nb.files.container import Block
from geta_nb.files.formats import NUMBERS
from geta_nb.files.packing import MAX_BITS, largest_code, pack, packed_bytes, unpack
from geta_nb.subnet import BUFFER, PARAMETER, SCRATCH, Entry, WeightFormat

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.uint16: "U16",
    torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_NAMED = {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES}
_KINDS = (PARAMETER, BUFFER, SCRATCH)



def weight_codes(weight: Tensor, form: WeightFormat, *, name: str = "weight") -> Tensor:
    """Return the integers k of a weight on its grid, weight == step_size * k exactly.

    Args:
        weight: any floating tensor.
        form: its bits, 1..16, its step_size, one or one for each index of an axis, and whether its codes are symmetric.
        name: what messages call it.

    Returns:
        Codes, int32, shape of ``weight``, on the CPU.

    Raises:
        ArtifactError: the weight is not on its grid, or needs more bits than it has.
    """
    values = weight.detach().cpu()
    wide = values.to(_grid_dtype(values.dtype))
    _check_axis(form, tuple(values.shape), "save", name)
    step = form.steps(wide)
    codes = torch.round(wide / step)
    off = ~(codes * step).to(values.dtype).eq(values)
    if bool(off.any()):
        hint = "a weight changed after construct_subnet(): save the subnet as it was built, or construct it again"
        steps = f"{form.step_size:g}" if isinstance(form.step_size, float) else f"the step of its channel (axis {form.axis})"
        grid, got = f"{steps} * integer", f"{int(off.sum())} of {off.numel()} values elsewhere"
        raise ArtifactError("save: a quantized weight is not on its grid.", at=name, expected=grid, got=got, hint=hint)
    low, high = _code_range(form.bits, form)
    ends = (float(codes.min()), float(codes.max())) if codes.numel() else (0.0, 0.0)
    if not low <= ends[0] <= ends[1] <= high:
        expected, got = f"{low} to {high} for {form.bits} bits", f"{ends[0]:.0f} to {ends[1]:.0f}"
        raise ArtifactError("save: a code is too large.", at=name, expected=expected, got=got)
    return codes.to(torch.int32)


def _code_range(bits: int, form: WeightFormat | None) -> tuple[int, int]:
    """Return the lowest and the largest code of so many bits."""
    most = largest_code(bits)
    return -most - int(form is not None and not form.narrow_range), most


def _check_axis(form: WeightFormat, shape: tuple[int, ...], who: str, name: str) -> None:
    """Check that a format with steps of channels has one for each index of an axis."""
    if form.axis is not None and (not 0 <= form.axis < len(shape) or shape[form.axis] != form.channels):
        got = f"{form.channels} steps on axis {form.axis}"
        raise ArtifactError(f"{who}: a weight has another number of steps than channels.", at=name, expected=f"shape {shape}", got=got)


def _grid_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half types are exact products in float32, rounded once: what fake_quantize computes too."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def encode_tensors(entries: list[Entry], formats: Mapping[str, WeightFormat]) -> tuple[dict[str, Block], list[Any]]:
    """Return the blocks of a file and the table of names: [name, kind, dtype, shape, options], or [name, kind, name of the tied tensor].

    Options of packed codes are their ``bits`` and ``step``, or ``bits`` and the name of the ``format`` that holds the steps of channels;
    that name stands there, too, where codes are not symmetric and the format is that of another of tied tensors.
    """
    names: dict[object, list[str]] = {}
    for entry in entries:
        names.setdefault(_identity(entry.tensor), []).append(entry.name)
    if missing := formats.keys() - {entry.name for entry in entries}:
        raise ArtifactError("save: a weight that has a format is not in the network.", at=min(missing))
    blocks: dict[str, Block] = {}
    table: list[Any] = []
    for name, kind, tensor in entries:
        tied = names[_identity(tensor)]
        if name != tied[0]:
            table.append([name, kind, tied[0]])
            continue
        coded = [other for other in tied if other in formats]
        forms = [formats[other] for other in coded]
        if len({(form.bits, form.step_size, form.axis, form.narrow_range) for form in forms}) > 1:
            raise ArtifactError("save: tied weights have different formats.", at=", ".join(tied), got=forms)
        options: dict[str, Any] = {"grad": 1} if tensor.requires_grad else {}
        order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
        if not tensor.is_contiguous() and tensor.permute(order).is_contiguous():
            options["order"] = order  # kernels, and so the last bits of a result, depend on the layout
        blocks[name] = _raw_block(tensor, name)
        if forms and forms[0].bits <= MAX_BITS:
            step = forms[0].step_size
            options |= {"bits": forms[0].bits} | ({} if isinstance(step, tuple) else {"step": float(step).hex()})
            if isinstance(step, tuple) or not (forms[0].narrow_range or coded[0] == name):
                options["format"] = coded[0]
            blocks[name] = _packed_block(pack(weight_codes(tensor, forms[0], name=name).numpy(), forms[0].bits))
        table.append([name, kind, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), options])
    return blocks, table


def _identity(tensor: Tensor) -> object:
    if tensor.numel() == 0:
        return id(tensor)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _raw_block(tensor: Tensor, name: str) -> Block:
    if tensor.dtype not in _DTYPES or tensor.layout is not torch.strided or tensor.is_meta:
        got = f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
        raise ArtifactError("save: a tensor of a kind that a file cannot carry.", at=name, expected="a dense tensor with values", got=got)

    def data() -> npt.NDArray[np.uint8]:
        flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return np.asarray(flat.view(torch.uint8).numpy()) if flat.numel() else np.empty(0, dtype=np.uint8)

    return Block(_DTYPES[tensor.dtype], tuple(tensor.shape), tensor.numel() * tensor.itemsize, data)


def _packed_block(stream: npt.NDArray[np.uint8]) -> Block:
    return Block("U8", stream.shape, stream.size, lambda: stream)


def decode_tensors(table: list[Any], formats: Mapping[str, WeightFormat], blocks: dict[str, Block]) -> Iterator[Entry]:
    """Yield every named tensor; sizes are checked against the blocks, which exist, before anything is allocated."""
    blocks = {name: block for name, block in blocks.items() if name != NUMBERS}
    done: dict[str, Tensor] = {}
    seen: set[str] = set()
    for name, kind, *rest in table:
        if kind not in _KINDS or name in seen:
            raise ArtifactError("load: the table of tensors is malformed.", at=name)
        seen.add(name)
        if len(rest) == 1:
            tied = done[rest[0]]
            if name in formats:
                _check_axis(formats[name], tuple(tied.shape), "load", name)
            yield Entry(name, kind, tied if isinstance(tied, nn.Parameter) == (kind == PARAMETER) else tied.detach())
            continue
        dtype, shape, options = _NAMED[rest[0]], container.check_shape(rest[1]), rest[2]
        block, form = blocks[name], formats.get(options.get("format", name))
        if form is not None:
            _check_axis(form, shape, "load", name)
        tensor = _decode_packed(name, dtype, shape, options, form, block) if "bits" in options else _decode_raw(name, dtype, shape, block)
        if "order" in options:
            order = list(options["order"])
            tensor = tensor.permute(order).contiguous().permute([order.index(axis) for axis in range(len(order))])
        done[name] = nn.Parameter(tensor, requires_grad=bool(options.get("grad"))) if kind == PARAMETER else tensor
        yield Entry(name, kind, done[name])
    if done.keys() != blocks.keys() or not formats.keys() <= seen:
        others = sorted(done.keys() ^ blocks.keys())[:3]
        raise ArtifactError("load: the table of tensors does not name the tensors of the file.", got=others)


def _decode_raw(name: str, dtype: torch.dtype, shape: tuple[int, ...], block: Block) -> Tensor:
    if (block.dtype, block.shape) != (_DTYPES[dtype], shape):
        got = f"{block.dtype} {block.shape}"
        raise ArtifactError("load: a tensor is not what the header says.", at=name, expected=f"{dtype} {shape}", got=got)
    if block.size == 0:
        return torch.empty(shape, dtype=dtype, device="cpu")
    # a tensor of torch's own memory: its alignment decides which kernels run
    return torch.from_numpy(block.data().copy()).view(dtype).reshape(shape).clone()


def _decode_packed(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], options: dict[str, Any], form: WeightFormat | None, block: Block
) -> Tensor:
    bits, size = options["bits"], container.count(shape)
    by_channel = form is not None and form.axis is not None
    step = math.nan if by_channel else float.fromhex(options["step"])
    fits = type(bits) is int and dtype.is_floating_point and (by_channel or (math.isfinite(step) and step > 0))
    fits = fits and ("step" not in options and form.bits == bits if by_channel and form is not None else "step" in options)
    if not fits or block.dtype != "U8" or block.size != packed_bytes(size, bits):
        got = f"{block.size} bytes"
        raise ArtifactError("load: packed codes are not what the header says.", at=name, expected=f"{shape} of {bits} bits", got=got)
    codes = unpack(block.data(), bits, size)
    least, _ = _code_range(bits, form)
    if size and int(codes.min()) < least:
        raise ArtifactError("load: a code outside the symmetric range.", at=name, expected=f"at least {least}", got=int(codes.min()))
    wide = torch.from_numpy(codes).to(_grid_dtype(dtype)).reshape(shape)
    return (wide * (form.steps(wide) if by_channel and form is not None else torch.tensor(step, dtype=wide.dtype, device="cpu"))).to(dtype)
