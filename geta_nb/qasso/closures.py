"""What optimizers do with a closure: whether they call it once, a first call whose result is known already, and the way back from a later
one that fails.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def calls_once(inner: torch.optim.Optimizer) -> bool:
    """Whether the optimizer calls a closure once, before it moves: torch's own do, but for LBFGS; of others nobody knows."""
    return type(inner).__module__.startswith("torch.optim.") and not isinstance(inner, torch.optim.LBFGS)


def first_known(loss: Any, again: Callable[[], Any]) -> Callable[[], Any]:
    """Return a closure whose first call gives ``loss``, already computed, and whose later ones compute it again."""
    known = [loss]
    return lambda: known.pop() if known else again()


def whole(optimizer: torch.optim.Optimizer) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Any]]:
    """Return all that a step changes: each parameter with a copy of its values, and a copy of the state."""
    values = [(p.detach(), p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]
    return values, copy.deepcopy(optimizer.state_dict())


def go_back(optimizer: torch.optim.Optimizer, values: list[tuple[Tensor, Tensor]], state: dict[str, Any]) -> None:
    """Put :func:`whole` back, in place; without gradients."""
    for parameter, value in values:
        parameter.copy_(value)
    optimizer.state.clear()  # what the step made first
    optimizer.load_state_dict(state)
