"""Random numbers of runs that nobody asked for: what they draw is not missing afterwards, on the CPU and on every accelerator in use.

In: nothing. Out: a context. Everything of the package that runs a model of the user's for its own purposes does so inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def own_draws(seed: int | None = None) -> Iterator[None]:
    """Let all of torch's global generators stand afterwards where they stand now.

    Args:
        seed: where they start inside; None: where they are. An accelerator that the process has not used yet is left alone:
            ``torch.manual_seed`` would let it begin with this seed whenever it is used, long after.
    """
    module, places = _in_use()
    before = torch.default_generator.get_state(), [module.get_rng_state(*place) for place in places]
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if places:
                (getattr(module, "manual_seed_all", None) or module.manual_seed)(seed)
        yield
    finally:
        torch.default_generator.set_state(before[0])
        for place, state in zip(places, before[1], strict=True):
            module.set_rng_state(state, *place)


def _in_use() -> tuple[Any, list[tuple[Any, ...]]]:
    """Return torch's module of the accelerator, and how its generators are named there; none where nothing has used it."""
    if not torch.accelerator.is_available() or (kind := torch.accelerator.current_accelerator()) is None:
        return None, []
    module = torch.get_device_module(kind)
    if not getattr(module, "is_initialized", lambda: True)():
        return module, []
    return module, [()] if kind.type == "mps" else [(torch.device(kind.type, index),) for index in range(module.device_count())]
