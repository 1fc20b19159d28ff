"""What optimizers do with a closure: whether they call it once, and a first call whose result is known already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def calls_once(inner: torch.optim.Optimizer) -> bool:
    """Whether the optimizer calls a closure once, before it moves: torch's own do, but for LBFGS; of others nobody knows."""
    return type(inner).__module__.startswith("torch.optim.") and not isinstance(inner, torch.optim.LBFGS)


def first_known(loss: Any, again: Callable[[], Any]) -> Callable[[], Any]:
    """Return a closure whose first call gives ``loss``, already computed, and whose later ones compute it again."""
    known = [loss]
    return lambda: known.pop() if known else again()
