"""Learning rates as functions of the step alone: share of the first rate at each step. A run that goes on needs no scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from geta_nb.errors import ConfigError

Decay = Callable[[int, int], float]


def cosine(step: int, total: int) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(step, total) / total)) / 2


def linear(step: int, total: int) -> float:
    """From 1 to 0 in a straight line."""
    return 1 - min(step, total) / total


def thirds(step: int, total: int) -> float:
    """A tenth of the rate after each third of the run: torch's ``StepLR`` with gamma 0.1.

    The paper's settings name StepLR; its step and factor are not among what was transcribed, so these are ours.
    """
    return float(0.1 ** min(2, 3 * step // total))


DECAYS: dict[str, Decay] = {"cosine": cosine, "linear": linear, "thirds": thirds}


def find_decay(name: str) -> Decay:
    """Return a decay by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in DECAYS:
        raise ConfigError("decay: no such decay of the learning rate.", expected=" or ".join(map(repr, DECAYS)), got=repr(name))
    return DECAYS[name]


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to a share of the one it began with, which the group remembers (``initial_lr``)."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * share
