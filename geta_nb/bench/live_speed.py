"""How soon a live run stops: ``make bench-live`` prints milliseconds from the request to the end, beside what is wanted.

In: nothing. Out: a line for a run of short steps, one for a paused run, one for a notebook's cell that waits and is interrupted.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import geta_nb as gt

WANTED = {"a running one": 500.0, "a paused one": 500.0, "a waiting cell, interrupted": 1000.0}
"""Milliseconds; the last one is half a second more, for the kernel's own way."""
STEP = 0.005
"""Seconds of a step."""


def short_run() -> gt.LiveRun:
    """Return a run of short steps that would go on for an hour."""
    torch.manual_seed(0)
    geta = gt.GETA(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.ones(2, 6),))
    optimizer = geta.qasso(torch.optim.SGD, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(100), lr=0.05)
    return gt.LiveRun(lambda i: time.sleep(STEP), geta, optimizer, total_steps=1_000_000)


def stop_time(*, paused: bool) -> float:
    """Return the seconds that ``stop()`` takes while the run is going on, or holds."""
    run = short_run().start()
    run.wait(0.1)
    if paused:
        run.pause()
    begin = time.perf_counter()
    run.stop()
    return time.perf_counter() - begin


def interrupt_times(times: int) -> list[float]:
    """Return the seconds from a kernel's interrupt to the end of the cell that waits for a run."""
    from jupyter_client.manager import start_new_kernel

    found = []
    manager, client = start_new_kernel(kernel_name="python3", extra_arguments=["--log-level=CRITICAL"])
    try:
        code = "from geta_nb.bench.live_speed import short_run\nrun = short_run()"
        client.execute_interactive(code, timeout=300, output_hook=lambda message: None)
        for _ in range(times):
            number = client.execute("run.start().wait();")
            time.sleep(1.0)
            begin = time.perf_counter()
            manager.interrupt_kernel()
            while client.get_shell_msg(timeout=300)["parent_header"].get("msg_id") != number:
                pass
            found.append(time.perf_counter() - begin)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return found


def line(name: str, seconds: Sequence[float], wanted: float) -> str:
    """Return what was measured beside what is wanted, both in milliseconds."""
    median, slowest = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"{name}: median {median:.0f} ms, slowest {slowest:.0f} ms, wanted {wanted:.0f} ms ({median / wanted:.2f} of it)\n"


def main(write: Callable[[str], object] = sys.stdout.write, *, times: int = 20) -> int:
    """Print one line each."""
    torch.set_num_threads(1)
    measured: dict[str, Any] = {
        "a running one": [stop_time(paused=False) for _ in range(times)],
        "a paused one": [stop_time(paused=True) for _ in range(times)],
        "a waiting cell, interrupted": interrupt_times(max(1, times // 4)),
    }
    for name, seconds in measured.items():
        write(line(f"stop {name}", seconds, WANTED[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
