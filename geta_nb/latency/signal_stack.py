"""Give a thread its alternate signal stack back after a library has replaced it. Serves what loads OpenVINO.

OpenVINO's CPU plugin (seen in 2026.4) puts a stack of its own in place when it is loaded, one for each ``openvino.Core``, and puts
the one before back when it goes. Two that go in the order in which they came, or one that goes in another thread, leave the thread with the
address of memory that is gone: the next signal with a handler, an interrupt of a notebook's kernel for one, then ends the process, and
nothing is printed. A stack that is not the plugin's own when it goes is left alone, so it is put back at once.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux: address, flags, size in bytes."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's alternate signal stack back at the end; does nothing where the system is not Linux."""
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)  # refused, and as it was, where the processor's state has outgrown it


def signal_stack() -> tuple[int | None, int]:
    """Return address and size in bytes of this thread's alternate signal stack; (None, 0) without one, or where the system is not Linux."""
    now = _Stack()
    if sys.platform != "linux" or ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)) != 0:
        return None, 0
    return now.address, now.size
