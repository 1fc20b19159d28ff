"""Arrays of bytes in IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped: read with every claim checked, and written.

A file is two zero bytes, the type of the elements (8: unsigned bytes, the only one here), the number of axes, each axis's size as a
big-endian 32-bit integer, and the elements, last axis first.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geta_nb.errors import InputError

UNSIGNED_BYTE = 8


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the file of this name in ``folder``, plain or with ``.gz``; None where there is neither."""
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def read_idx(file: Path, *, axes: int) -> Tensor:
    """Return the array of a file, uint8, with ``axes`` axes.

    Raises:
        InputError: it cannot be unpacked, is no IDX file of unsigned bytes with so many axes, or has another length than it says.
    """
    data = _bytes_of(file)
    wanted = f"an IDX file: unsigned bytes, {axes} ax{'e' if axes > 1 else 'i'}s"
    head = 4 + 4 * axes
    if len(data) < head or data[:2] != b"\0\0" or data[2] != UNSIGNED_BYTE or data[3] != axes:
        got = f"{len(data)} bytes, first {data[:4].hex(' ') or 'none'}"
        raise InputError("read_idx: not such a file.", at=file, expected=wanted, got=got)
    shape = struct.unpack(f">{axes}I", data[4:head])
    if len(data) != head + math.prod(shape):
        expected = f"{head} + {' x '.join(map(str, shape))} bytes, as its head says"
        raise InputError("read_idx: the file is cut short or too long.", at=file, expected=expected, got=f"{len(data)} bytes")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy())


def _bytes_of(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("read_idx: cannot be unpacked.", at=file, expected="a whole gzip file", got=str(error)[:200]) from None


def write_idx(file: Path, values: Tensor) -> None:
    """Write uint8 ``values`` of any shape; gzipped where the name ends in ``.gz``."""
    head = bytes((0, 0, UNSIGNED_BYTE, values.dim())) + struct.pack(f">{values.dim()}I", *values.shape)
    data = head + values.contiguous().numpy().tobytes()
    file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)
