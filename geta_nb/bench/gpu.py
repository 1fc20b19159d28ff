"""Measure a GPU: ``python -m geta_nb.bench.gpu --output runs/bench_gpu`` (or ``make bench-gpu``).

Without a GPU it says so in one line and ends well. On one it takes eight minutes at most: each part has its seconds and a process of its
own, which is ended when they are over; what was not reached is named. Results are JSON, a file a cell, written the moment they are there;
``table.json`` and the table in docs/gpu.md are made of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geta_nb.bench.gpu_cells import Setting, cells
from geta_nb.bench.gpu_table import markdown, put_into
from geta_nb.bench.jobs import PACKAGE, write_json, write_text

SECONDS = {"tests": 90, "throughput": 40, "memory": 80, "steps": 110, "passes": 140}
"""What each part may take, in the order in which they are measured; together less than eight minutes."""
TESTS = ("tests/qasso/test_device.py", "tests/graph/test_draws.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; 1 where a test of the device paths failed or nothing could be measured."""
    parser = argparse.ArgumentParser(description="What training costs on a GPU beside the plain one; eight minutes at most.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_gpu"), help="folder of results and tables")
    parser.add_argument("--page", type=Path, default=None, help="a page whose table is made anew, such as docs/gpu.md")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="the CPU is for trying this out")
    parser.add_argument("--rounds", type=int, default=30, help="pairs of calls that are timed")
    parser.add_argument("--small", action="store_true", help="little networks, for trying this out")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    parser.add_argument("--parts", nargs="*", default=list(SECONDS), choices=list(SECONDS), help="some of the parts")
    parser.add_argument("--only", default=None, choices=list(SECONDS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stdout.write("bench-gpu: there is no GPU here (torch.cuda.is_available() is False), so nothing was measured.\n")
        return 0
    setting = Setting(options.device, options.rounds, options.small, options.compiler)
    if options.only:
        measure(options.only, setting, options.output / "cells" / options.only)
        return 0
    return _all_parts(options, setting)


def _all_parts(options: argparse.Namespace, setting: Setting) -> int:
    folder = options.output / "cells"
    shutil.rmtree(folder, ignore_errors=True)
    for part in options.parts:
        sys.stderr.write(f"{part}: {SECONDS[part]} s at most\n")
        if part == "tests":
            write_json(folder / part / "0.json", {"cell": "device paths", "found": run_tests(SECONDS[part])})
            continue
        command = [sys.executable, "-m", "geta_nb.bench.gpu", "--only", part, "--output", str(options.output), "--device", setting.device]
        command += ["--rounds", str(setting.rounds), "--compiler", setting.compiler, *(["--small"] if setting.small else [])]
        _within(command, SECONDS[part], options.output)
    results = read_results(folder, options.parts)
    measured = [part for part in options.parts if part != "tests"]
    left_out = [f"{part}: {cell}" for part in measured for cell in cells(part, setting) if cell not in results[part]]
    place = machine(setting.device)
    write_json(options.output / "table.json", {"machine": place, "results": results, "left_out": left_out, "small": setting.small})
    text = markdown(results, place, left_out)
    write_text(options.output / "table.md", text)
    if options.page is not None:
        put_into(options.page, text)
    sys.stdout.write(text)
    rows = [row for found in results.values() for row in found.values()]
    return int(not rows or any(row.get("code") for row in rows))


def measure(part: str, setting: Setting, folder: Path, *, until: float | None = None) -> None:
    """Run the cells of a part one after the other, and write what each found, or why it failed.

    Args:
        until: of ``time.monotonic()``, after which no further cell begins; None: whoever started this process ends it.
    """
    torch.set_num_threads(max(torch.get_num_threads(), 1))
    for number, (cell, run) in enumerate(cells(part, setting).items()):
        if until is not None and time.monotonic() >= until:
            return
        try:
            found = run()
        except Exception as error:  # out of memory, no compiler: the other cells are measured all the same
            lines = str(error).strip().splitlines() or [""]
            found = {"failed": f"{type(error).__name__}: {lines[0][:160]}"}
        write_json(folder / f"{number}.json", {"cell": cell, "found": found})
        if setting.device == "cuda":
            torch.cuda.empty_cache()


def read_results(folder: Path, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return part -> cell -> what was found, in the order in which they were measured."""
    found = {}
    for part in parts:
        files = sorted((folder / part).glob("*.json"), key=lambda file: int(file.stem))
        rows = [json.loads(file.read_text()) for file in files]
        found[part] = {row["cell"]: row["found"] for row in rows}
    return found


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the fast tests of the device paths; ``code`` is pytest's, and ``summary`` its last line."""
    root = PACKAGE.parent
    if not all((root / test).exists() for test in TESTS):
        return {"left_out": "no tests are installed beside the package"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines() or ["nothing was said"]
    return {"code": done.returncode, "summary": lines[-1]}


def _within(command: Sequence[str], seconds: float, output: Path) -> None:
    """Run a process that measures, and end it when its time is over."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str((output / "compiled").resolve())}
    try:
        subprocess.run(command, timeout=seconds, env=environment, check=False)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"{seconds:.0f} s are over\n")


def machine(device: str) -> Mapping[str, Any]:
    """Return what it is measured on, in words."""
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    return {"device": name, "torch": torch.__version__, "CUDA": torch.version.cuda or "none"}


if __name__ == "__main__":
    sys.exit(main())
