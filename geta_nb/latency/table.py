"""What a latency measurement is: rows that show themselves as a table, and the clock that lets systems take turns.

Comes in: calls. Goes out: seconds, and rows of milliseconds. ``runs`` fills them; nothing here wants an optional package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from geta_nb.views import Shown

_SHORTEST = 0.004  # seconds of one measurement: a faster call is repeated
Call = Callable[[], Any]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class LatencyRow:
    """One backend at one batch size.

    Attributes:
        backend: "torch" (eager; quantizers are simulated in float32), "onnxruntime" or "openvino".
        batch: samples of one call.
        dense_ms: milliseconds of a call of the dense float32 network, median; None where there is none to compare with.
        subnet_ms: the same of the subnet.
        speedup: how many times faster the subnet is than the dense network in the same backend, median of pairs.
        speedup_eager: than the dense network in eager torch.
        difference: largest difference of the subnet's output to torch's, over the largest output.
    """

    backend: str
    batch: int
    dense_ms: float | None
    subnet_ms: float
    speedup: float | None
    speedup_eager: float | None
    difference: float


@dataclass(frozen=True, repr=False)
class LatencyTable(Shown):
    """What ``benchmark_latency`` measured; ``rows`` by batch size and backend.

    Attributes:
        rows: the measurements.
        threads: threads of every system.
        rounds: pairs behind each median.
        clock: "wall", or "processor": time of this process's threads, which other programs do not lengthen.
        file_bytes: size of the ONNX files, "subnet" and, where there is one, "dense".
        versions: package -> version.
    """

    rows: tuple[LatencyRow, ...]
    threads: int
    rounds: int
    clock: str
    file_bytes: dict[str, int]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self)


def take_turns(
    systems: Mapping[tuple[str, str], Call], rounds: int, clock: Clock = time.perf_counter
) -> dict[tuple[str, str], list[float]]:
    """Return seconds of one call of every system, ``rounds`` times each, after two warm-up rounds; the order turns by one each round."""
    repeats: dict[tuple[str, str], int] = {}
    for key, call in systems.items():
        call()
        repeats[key] = max(1, round(_SHORTEST / max(_seconds(call, 1, clock), 1e-6)))
        _seconds(call, repeats[key], clock)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in systems}
    order = list(systems)
    for _ in range(rounds):
        for key in order:
            times[key].append(_seconds(systems[key], repeats[key], clock))
        order = order[1:] + order[:1]
    return times


def _seconds(call: Call, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def ratio_of(slow: list[float] | None, fast: list[float]) -> float | None:
    """Return the median of the ratios of neighbours in time; None where there is nothing to compare with."""
    return None if slow is None else median(a / b for a, b in zip(slow, fast, strict=True))
