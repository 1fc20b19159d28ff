"""What this machine's processor does with sums of 8-bit products. Comes in: nothing. Goes out: a yes or no for ``export``."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
LARGEST_PAIR = 32767


@cache
def adds_bytes_exactly(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether runtimes here add 8-bit products in 32 bits.

    On x86 without VNNI (Intel before Cascade Lake and Ice Lake, AMD before Zen 4) their kernels add two products at a time in 16 bits,
    and what does not fit saturates in silence. Where the processor does not say what it is, the answer is no.

    Args:
        cpuinfo: the file that Linux describes the processor in.
    """
    if platform.machine().lower() not in _X86:
        return True
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not _DOT_PRODUCTS.isdisjoint(flags)
