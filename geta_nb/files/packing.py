"""Integer codes to a dense stream of bits and back: what makes a saved subnet really small.

Comes in: signed integer codes of one tensor and their width. Goes out: ``ceil(n * bits / 8)`` bytes. First step of
stage 8; :mod:`geta_nb.files.save_load` puts the bytes into a file.

Layout: code ``i`` is the ``bits`` lowest bits of its two's complement, least significant bit first, and takes the bits
``i * bits ... (i + 1) * bits - 1`` of the stream; bit ``k`` of the stream is bit ``k % 8`` of byte ``k // 8``. Padding bits are 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geta_nb.errors import ArtifactError, BitWidthError

MAX_BITS = 16
# Work goes through blocks of this many codes: a block's bits take at most 16 bytes a code, so memory beyond input and output is
# constant. A multiple of 8 codes fills whole bytes at every width, so blocks never share a byte.
_BLOCK = 1 << 18


def largest_code(bits: int) -> int:
    """Return the largest signed code of ``bits`` bits, sign included; the lowest is minus that, or one lower.

    Raises:
        BitWidthError: ``bits`` is outside 1..16.

    >>> [largest_code(b) for b in (2, 4, 8)]
    [1, 7, 127]
    """
    _check_width(bits)
    return (1 << (bits - 1)) - 1


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` codes of ``bits`` bits take.

    >>> packed_bytes(10, 3)
    4
    """
    _check_width(bits)
    return (count * bits + 7) // 8


def pack(codes: npt.ArrayLike, bits: int) -> npt.NDArray[np.uint8]:
    """Pack signed integer codes densely.

    Args:
        codes: integers of any shape, taken in C order, each in [-2**(bits-1), 2**(bits-1) - 1].
        bits: width of a code, sign included, 1..16.

    Returns:
        The stream, uint8 [ceil(n * bits / 8)].

    Raises:
        BitWidthError: ``bits`` is outside 1..16.
        ArtifactError: codes are no integers, or one does not fit.

    >>> pack([-1, 1, 0, -1], 2).tolist()
    [199]
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    out = np.empty(packed_bytes(flat.size, bits), dtype=np.uint8)
    if flat.size == 0:
        return out
    if flat.dtype.kind not in "iu":
        raise ArtifactError("pack: codes must be integers.", expected="an integer dtype", got=flat.dtype)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    smallest, largest = int(flat.min()), int(flat.max())
    if smallest < low or largest > high:
        span = f"[{smallest}, {largest}]"
        raise ArtifactError("pack: a code does not fit its width.", expected=f"[{low}, {high}] for {bits} bits", got=span)
    shifts = np.arange(bits, dtype=np.uint16)
    for start in range(0, flat.size, _BLOCK):
        words = flat[start : start + _BLOCK].astype(np.int16).view(np.uint16)
        planes = ((words[:, None] >> shifts) & 1).astype(np.uint8)
        stream = np.packbits(planes.reshape(-1), bitorder="little")
        offset = start * bits // 8
        out[offset : offset + stream.size] = stream
    return out


def unpack(stream: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.int16]:
    """Return the ``count`` codes in ``stream``: the inverse of :func:`pack`.

    Args:
        stream: uint8 [ceil(count * bits / 8)].
        bits: width of a code, sign included, 1..16.
        count: number of codes.

    Returns:
        Codes, int16 [count].

    Raises:
        BitWidthError: ``bits`` is outside 1..16.
        ArtifactError: the stream has another length, or its padding bits are not 0.

    >>> unpack(np.array([199], dtype=np.uint8), 2, 4).tolist()
    [-1, 1, 0, -1]
    """
    if count < 0 or stream.size != packed_bytes(count, bits):
        want = f"{count} codes of {bits} bits"
        raise ArtifactError("unpack: the stream has the wrong length.", expected=want, got=f"{stream.size} bytes")
    spare = stream.size * 8 - count * bits
    if spare and int(stream[-1]) >> (8 - spare):
        raise ArtifactError("unpack: bits after the last code are set.", expected="zero padding", got=f"last byte {int(stream[-1])}")
    out = np.empty(count, dtype=np.int16)
    drop = np.uint16(16 - bits)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        part = stream[start * bits // 8 : (start * bits + size * bits + 7) // 8]
        planes = np.unpackbits(part, count=size * bits, bitorder="little").reshape(size, bits)
        words = np.zeros(size, dtype=np.uint16)
        for bit in range(bits):
            words |= planes[:, bit].astype(np.uint16) << np.uint16(bit)
        # Up to the top and back down: the arithmetic shift spreads the sign bit.
        out[start : start + size] = (words << drop).view(np.int16) >> np.int16(drop)
    return out


def _check_width(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise BitWidthError("packing: no such width of an integer code.", expected=f"1 <= bits <= {MAX_BITS}", got=f"bits = {bits}")
