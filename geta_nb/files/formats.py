"""The formats of a network's numbers as rows of a file's header and one block for those of channels, and back.

Comes in: name -> :class:`WeightFormat`. Goes out: name -> [bits, step, clip, exponent], floats as hexadecimal text: exact; a fifth
entry says what differs from a symmetric code with a sign: ``{"signed": 0}``, ``{"narrow": 0}``. With steps of channels a row is [bits,
offset, channels, exponent, {"axis": axis}]: from that element of the block on stand the steps, and after them the clip values. Part of
stage 8, used by :mod:`geta_nb.files.save_load`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from geta_nb.errors import ArtifactError
from geta_nb.files.container import Block
from geta_nb.subnet import WeightFormat

NUMBERS = ".numbers"
"""Name of the block; no tensor of a network has a name that begins with a dot."""
Formats = Mapping[str, WeightFormat]
Floats = npt.NDArray[np.float64]
Ranges = dict[tuple[int, int], tuple[tuple[float, ...], tuple[float, ...]]]


def encode_formats(*tables: Formats) -> tuple[list[dict[str, Any]], dict[str, Block]]:
    """Return the rows of each table, and the block of their channels' numbers if there are any; tied tensors share theirs."""
    places: dict[tuple[Any, Any], int] = {}
    numbers: list[float] = []
    rows = []
    for table in tables:
        rows.append({name: _encode(form, places, numbers) for name, form in table.items()})
    if not numbers:
        return rows, {}
    exact = np.array(numbers, dtype=np.float64)
    narrow = exact.astype(np.float32)
    kept, kind = (narrow, "F32") if bool((narrow == exact).all()) else (exact, "F64")
    return rows, {NUMBERS: Block(kind, kept.shape, kept.nbytes, lambda: kept.view(np.uint8))}


def _encode(form: WeightFormat, places: dict[tuple[Any, Any], int], numbers: list[float]) -> list[Any]:
    unusual = {key: 0 for key, usual in (("signed", form.signed), ("narrow", form.narrow_range)) if not usual}
    exponent = float(form.exponent).hex()
    if isinstance(form.step_size, tuple) and isinstance(form.clip_max, tuple) and form.axis is not None:
        key = form.step_size, form.clip_max
        if key not in places:
            places[key] = len(numbers)
            numbers += [*form.step_size, *form.clip_max]
        return [form.bits, places[key], form.channels, exponent, {"axis": form.axis, **unusual}]
    step, clip = (float(number).hex() for number in (form.step_size, form.clip_max) if not isinstance(number, tuple))
    return [form.bits, step, clip, exponent, *([unusual] if unusual else [])]


def decode_formats(blocks: Mapping[str, Block], *tables: Mapping[str, Any]) -> list[dict[str, WeightFormat]]:
    """Return the formats of each table.

    Raises:
        ArtifactError: a bit width or a step that makes no sense, or numbers that are not in the file.
    """
    numbers = _read_numbers(blocks.get(NUMBERS))
    ranges = _ranges(numbers, (row for table in tables for row in table.values()))
    return [{name: _decode(name, row, ranges) for name, row in table.items()} for table in tables]


def _read_numbers(block: Block | None) -> Floats:
    if block is None:
        return np.empty(0)
    if block.dtype not in ("F32", "F64") or len(block.shape) != 1:
        raise ArtifactError("load: the numbers of channels are malformed.", got=f"{block.dtype} {block.shape}")
    numbers = block.data().copy().view(np.float32 if block.dtype == "F32" else np.float64).astype(np.float64)
    if not bool((np.isfinite(numbers) & (numbers > 0)).all()):
        raise ArtifactError("load: a step or clip value of a channel makes no sense.", expected="finite numbers > 0")
    return numbers


def _ranges(numbers: Floats, rows: Iterable[list[Any]]) -> Ranges:
    """Return the steps and clip values that rows name, each range once: no header makes more of a file's numbers than there are.

    Raises:
        ArtifactError: ranges overlap, leave something out, or go past the end.
    """
    named = sorted({(row[1], row[2]) for row in rows if type(row[1]) is int and type(row[2]) is int})
    end = 0
    for start, channels in named:
        if start != end or channels < 1 or start + 2 * channels > len(numbers):
            break
        end += 2 * channels
    if end != len(numbers) or (named and end != named[-1][0] + 2 * named[-1][1]):
        raise ArtifactError("load: the formats do not name the numbers of the file.", got=f"{len(numbers)} numbers of channels")
    values = numbers.tolist()
    return {
        (start, channels): (tuple(values[start : start + channels]), tuple(values[start + channels : start + 2 * channels]))
        for start, channels in named
    }


def _decode(name: str, row: list[Any], ranges: Ranges) -> WeightFormat:
    bits, first, second, exponent, *rest = row
    unusual: dict[str, Any] = rest[0] if rest else {}
    if type(bits) is not int or not 1 <= bits <= 64:
        raise ArtifactError("load: a bit width that makes no sense.", at=name, got=reprlib.repr(bits))
    kind, axis = [unusual.get(key, 1) for key in ("signed", "narrow")], unusual.get("axis")
    if not all(type(usual) is int and usual in (0, 1) for usual in kind) or len(rest) > 1 or unusual.keys() - {"signed", "narrow", "axis"}:
        raise ArtifactError("load: a format is malformed.", at=name, got=reprlib.repr(row))
    bend, codes = float.fromhex(exponent), map(bool, kind)
    if axis is None:
        return WeightFormat(bits, float.fromhex(first), float.fromhex(second), bend, None, *codes)
    if type(axis) is not int or axis < 0 or (first, second) not in ranges or not math.isfinite(bend):
        raise ArtifactError("load: a format names numbers that are not there.", at=name, got=reprlib.repr(row))
    return WeightFormat(bits, *ranges[first, second], bend, axis, *codes)
