"""Run many small, independent jobs in worker processes, each result kept on disk, so that a killed run resumes.

In: a mapping of names to (function, arguments). Out: name -> JSON-able result. A result is kept for exactly these arguments and
exactly this source code: changing either makes it again, so a table is never made of two versions.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

PACKAGE = Path(__file__).resolve().parents[1]
UNRELATED = (
    "jobs.py", "digits_table.py", "speed_table.py", "step_table.py", "latency_table.py", "baseline_rows.py", "baseline_table.py",
    "run_notebook.py", "views.py", "fashion_table.py", "fashion_rows.py", "fashion_run.py", "fashion_cells.py", "kept_runs.py",
    "code_of.py", "carry.py", "carry_probe.py", "predicted.py", "gpu.py", "gpu_cells.py", "gpu_table.py", "texts.py", "lm_task.py",
    "lm_run.py", "lm_speed.py", "lm_cells.py", "lm_table.py", "lm_rates.py",
)  # fmt: skip
"""Tables, and rows whose options are arguments of their jobs."""


@dataclass(frozen=True)
class Job:
    """One call whose result is kept: ``run(**arguments)``, a module-level function with JSON-able arguments and result."""

    run: Callable[..., dict[str, Any]]
    arguments: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the function, its arguments, the source code or torch."""
        call = json.dumps([self.run.__qualname__, dict(self.arguments), source_fingerprint(), torch.__version__], sort_keys=True)
        return hashlib.sha256(call.encode()).hexdigest()[:16]


def source_fingerprint() -> str:
    """Hash of the package's sources that can change a number: all but displays, widgets, pipelines and the tables themselves."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] in ("display", "widgets", "pipelines") or name.name in UNRELATED:
            continue
        digest.update(str(name).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Write a file that is there whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def run_jobs(jobs: Mapping[str, Job], folder: Path, *, workers: int = 2, title: str = "runs") -> dict[str, dict[str, Any]]:
    """Return every job's result, from ``folder`` where it is kept, else made in ``workers`` processes of one thread each.

    Args:
        jobs: name -> job; names become file names.
        folder: one JSON file per result, written the moment it is there.
        workers: processes; 1 runs in this process (for tests and debuggers).
        title: of the progress bar on stderr.
    """
    files = {name: folder / f"{name}-{job.fingerprint}.json" for name, job in jobs.items()}
    missing = [name for name, file in files.items() if not file.exists()]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=title, unit="run", smoothing=0)
    with bar:
        if workers == 1:
            for name in missing:
                write_json(files[name], jobs[name].run(**jobs[name].arguments))
                bar.update()
        else:
            _in_processes({name: jobs[name] for name in missing}, files, workers, bar)
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def kept_results(jobs: Mapping[str, Job], folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results that are in ``folder``, without making any."""
    files = {name: folder / f"{name}-{job.fingerprint}.json" for name, job in jobs.items()}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def _in_processes(jobs: Mapping[str, Job], files: Mapping[str, Path], workers: int, bar: Any) -> None:
    with closing(finished(jobs, workers=workers)) as arriving:
        for name, future in arriving:
            write_json(files[name], future.result())
            bar.update()


def finished(jobs: Mapping[str, Job], *, workers: int) -> Generator[tuple[str, Future[dict[str, Any]]], None, None]:
    """Yield each job's name and its future, the moment it is done, from ``workers`` processes of one thread each.

    When the generator is closed, what has not begun is not run.
    """
    # spawn: a forked torch may hang in its thread pool
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: dict[Future[dict[str, Any]], str] = {pool.submit(job.run, **job.arguments): name for name, job in jobs.items()}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
