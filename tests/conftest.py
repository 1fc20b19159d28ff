"""What holds for every test: one thread a worker, fixed seeds, and no network."""

from __future__ import annotations

import os

# Two pytest workers on two cores: more threads than one each only fight over them. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gc
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
# tracing makes objects by the million and hardly any rubbish: a seventh of the processor's time went into looking for some
gc.set_threshold(100_000, 20, 50)

pytest_plugins = ("tests.schedule", "tests.reporting")
ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their number: a time inside (as gzip writes one) would be another name in each worker, and nothing would run."""
    return f"{argname}: {len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this machine fails the test that made it. Kernels on loopback and unix sockets work."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test asked the network for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's top folder."""
    return ROOT


@pytest.fixture
def importable_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels and subprocesses import the package of this checkout, installed or not, with one thread."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
