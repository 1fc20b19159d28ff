"""Networks are written as ONNX many times here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.onnx.torchlib import torchlib_kept


@pytest.fixture(autouse=True, scope="package")
def _torchlib() -> Iterator[None]:
    with torchlib_kept():
        yield
