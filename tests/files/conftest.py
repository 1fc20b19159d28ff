"""A small subnet, traced once, and its file: for the tests of files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from geta_nb.files.save_load import save
from geta_nb.subnet.graph_net import GraphNet
from tests.files.nets import (
    conv_net,
    graph_subnet,
    image,
)


@pytest.fixture(scope="module")
def traced() -> GraphNet:
    """Tracing takes most of a test's time: once, and a copy for each."""
    torch.manual_seed(0)
    return graph_subnet(conv_net(), (image(),))


@pytest.fixture
def subnet(traced: GraphNet) -> GraphNet:
    return copy.deepcopy(traced)


@pytest.fixture
def saved(subnet: GraphNet, tmp_path: Path) -> Path:
    return save(subnet, tmp_path / "net.safetensors")
