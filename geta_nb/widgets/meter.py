"""Small instruments of a run: what a step returned, averaged without waiting for the device, and how long the rest will take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from geta_nb.errors import InputError


class Meter:
    """Means of what the steps returned since the last :meth:`read`; tensors are summed where they are and read once."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: object) -> None:
        """Add what one step returned: a mapping of names to numbers or one-element tensors, a bare loss, or None.

        Raises:
            InputError: anything else.
        """
        if values is None:
            return
        if not isinstance(values, Mapping):
            values = {"loss": values}
        for name, value in values.items():
            if not isinstance(name, str):
                raise InputError("LiveRun: a measured value has a name.", at="step(i)", expected="a string", got=repr(name))
            number = _number(name, value)
            self._sums[name] = self._sums[name] + number if name in self._sums else number
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means by name and begin anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def _number(name: str, value: object) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.detach().reshape(())
    if isinstance(value, (int, float)) or (hasattr(value, "__float__") and not isinstance(value, torch.Tensor)):
        return float(value)
    raise InputError(
        "LiveRun: a measured value is one number.", at=name, expected='{"loss": number or one-element tensor}', got=type(value).__name__,
        hint='return {"loss": loss}',
    )


def numbers(values: object, where: str) -> dict[str, float]:
    """Return what ``evaluate`` returned as plain numbers: a mapping, or one bare number as ``"metric"``.

    Raises:
        InputError: anything else.
    """
    if not isinstance(values, Mapping):
        values = {"metric": values}
    try:
        return {str(name): float(value) for name, value in dict[Any, Any](values).items()}
    except (TypeError, ValueError):
        raise InputError("LiveRun: a metric is a number.", at=where, expected='{"accuracy": 0.98}', got=repr(values)[:120]) from None


class Clock:
    """Times of the work itself, pauses left out."""

    def __init__(self) -> None:
        self.active = 0.0
        self._marks: deque[tuple[float, int]] = deque(maxlen=64)
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Work goes on from here."""
        self._since = time.perf_counter()

    def tick(self, step: int) -> None:
        """Step ``step`` is done."""
        now = time.perf_counter()
        self.active += now - self._since
        self._since = now
        if not self._marks or self.active - self._marks[-1][0] >= 0.2:
            self._marks.append((self.active, step))

    def seconds_left(self, step: int, total: int) -> float | None:
        """Seconds that ``total - step`` steps take at the speed of late; None before that is known."""
        if not self._marks or self._marks[0][1] >= step:
            return None
        first, at = self._marks[0]
        left = (self.active - first) / (step - at) * (total - step)
        return left if math.isfinite(left) else None
