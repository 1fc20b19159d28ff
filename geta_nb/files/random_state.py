"""The global random numbers of a run, so that a resumed one draws what it would have drawn. In and out: plain values for a checkpoint.

Python's, numpy's legacy and torch's generators, on the CPU and on every CUDA device that the process has used.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def capture() -> dict[str, Any]:
    """Return the state of all global generators, with the rank whose they are."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - what augmentations draw from
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "rank": _rank(),
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if used else [],
    }


def restore(state: Mapping[str, Any]) -> None:
    """Put :func:`capture` back; on another rank than the one that saved nothing is touched, for ranks must not draw the same."""
    if state["rank"] != _rank():
        return
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() >= len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
