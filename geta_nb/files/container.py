"""One safetensors file with a seal: what :mod:`geta_nb.files.save_load` writes networks into.

Comes in: named blocks of bytes and text metadata. Goes out: a file that any safetensors reader opens, and that this one opens only if
every byte is as it was written: the metadata holds the SHA-256 of the whole file, taken with zeros in the place of the digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geta_nb.errors import ArtifactError

FORMAT, VERSION = "geta-nb", "3"
READABLE = ("1", "2", VERSION)
"""Version 1 has no unsigned inputs and no steps of channels; in both, signed codes are symmetric."""
# bytes an element takes, by the name of its type in a safetensors file
ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_ZEROS = "0" * 64
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_LARGEST_HEADER = 100_000_000
_LARGEST_COUNT = 1 << 48


class Block(NamedTuple):
    """One tensor of a file: safetensors type, shape, size in bytes, and its bytes when asked for."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    data: Callable[[], npt.NDArray[np.uint8]]


def write(path: Path, blocks: dict[str, Block], metadata: dict[str, str]) -> None:
    """Write the file, whole or not at all: it takes its place only when it is complete; what was there is replaced.

    Raises:
        ArtifactError: the folder is missing or cannot be written.
    """
    # large elements first: then every tensor starts at a multiple of its element
    order = sorted(blocks, key=lambda name: (-ITEM_BYTES[blocks[name].dtype], name))
    header = _header(order, blocks, {"format": FORMAT, "version": VERSION, "sha256": _ZEROS} | metadata)
    digest = hashlib.sha256(header)
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(6)}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(header)
                for name in order:
                    data = blocks[name].data().tobytes()
                    assert len(data) == blocks[name].size
                    digest.update(data)
                    file.write(data)
                match = _SEAL.search(header)
                assert match is not None
                file.seek(match.start(1))
                file.write(digest.hexdigest().encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    except OSError as error:
        raise ArtifactError("save: the file cannot be written.", at=path, got=f"{type(error).__name__}: {error.strerror}") from None


def _header(order: list[str], blocks: dict[str, Block], metadata: dict[str, str]) -> bytes:
    rows: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name in order:
        block = blocks[name]
        rows[name] = {"dtype": block.dtype, "shape": list(block.shape), "data_offsets": [offset, offset + block.size]}
        offset += block.size
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: Path) -> tuple[dict[str, str], dict[str, Block]]:
    """Return metadata and tensors of a file whose every byte is as it was written.

    Memory is the size of the file and no more; nothing is parsed beyond the file's own table.

    Raises:
        ArtifactError: missing, not a safetensors file, not one of ours, another version, truncated or changed.
    """
    content = _content(path)
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= min(len(content), _LARGEST_HEADER):
        raise _broken(path, "not a safetensors file, or a truncated one")
    metadata, rows = _table(path, content[8:start])
    if metadata.get("format") != FORMAT:
        raise _broken(path, "a safetensors file, but not one that geta-nb saved")
    if metadata.get("version") not in READABLE:
        got = f"format version {metadata.get('version')!r}"[:80]
        raise _broken(path, got, expected=f"format version {' or '.join(map(repr, READABLE))}", hint="pip install -U geta-nb")
    seals = list(_SEAL.finditer(content, 0, start))
    if len(seals) != 1 or _digest(content, seals[0].start(1)) != seals[0][1].decode():
        raise _broken(path, "the file's bytes are not those that were written", expected="an intact file", hint="copy or save it again")
    view = np.frombuffer(content, dtype=np.uint8)[start:]
    blocks = dict(_blocks(path, rows, view))
    if sum(block.size for block in blocks.values()) != len(view):
        raise _broken(path, "bytes that belong to no tensor")
    return metadata, blocks


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError("load: the file cannot be read.", at=path, got=f"{type(error).__name__}: {error.strerror}") from None


def _digest(content: bytes, seal: int) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[:seal])
    digest.update(_ZEROS.encode())
    digest.update(view[seal + 64 :])
    return digest.hexdigest()


def _table(path: Path, text: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    try:
        rows = json.loads(text)
        metadata = rows.pop("__metadata__", {})
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise _broken(path, "not a safetensors file, or a damaged one") from None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "a table that is not of the safetensors format")
    return metadata, rows


def _blocks(path: Path, rows: dict[str, Any], view: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Block]]:
    end = 0
    for name, row in rows.items():
        try:
            dtype, shape, (begin, stop) = str(row["dtype"]), check_shape(row["shape"]), row["data_offsets"]
            fits = begin == end <= stop <= len(view) and stop - begin == ITEM_BYTES[dtype] * count(shape)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise _broken(path, f"tensor {name!r}"[:200] + " whose size does not fit its shape")
        end, part = stop, view[begin:stop]
        yield name, Block(dtype, shape, stop - begin, partial(np.asarray, part))


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of sizes that torch can hold.

    Raises:
        ValueError: no list of sizes, or an absurd one.
    """
    if not isinstance(shape, list) or len(shape) > 64 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("no list of sizes")
    if count(tuple(max(size, 1) for size in shape)) > _LARGEST_COUNT:
        raise ValueError("an absurd shape")
    return tuple(shape)


def count(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a tensor of ``shape``.

    >>> count((2, 3)), count(())
    (6, 1)
    """
    total = 1
    for size in shape:
        total *= size
    return total


def _broken(path: Path, got: str, *, expected: str = "a file written by geta_nb.save", hint: str | None = None) -> ArtifactError:
    return ArtifactError("load: this file cannot be used.", at=path, expected=expected, got=got, hint=hint)
