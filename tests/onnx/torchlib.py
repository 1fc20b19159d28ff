"""The table of torch's ONNX exporter is made anew for every export, which takes as long as the export: here once, and a copy for each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from torch.onnx._internal.exporter import _registration


@contextmanager
def torchlib_kept() -> Iterator[None]:
    """Give every export its own copy of one table, as long as the block lasts."""
    made = cache(_registration.ONNXRegistry.from_torchlib)

    def from_torchlib(*args: Any, **options: Any) -> _registration.ONNXRegistry:
        registry = copy.copy(made(*args, **options))
        registry.functions = {target: list(functions) for target, functions in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        yield
