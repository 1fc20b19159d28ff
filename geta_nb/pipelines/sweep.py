"""A sweep: one notebook for every combination of values, on this machine or on a cluster, by joblib.

In: a notebook and a grid. Out: one folder per point, with everything the notebook leaves, and all reports.

A point is run in a folder of its own attempt, which becomes the point's folder by one rename when the notebook has ended: what is there
is whole. A worker holds a lock on its point while it runs; the lock dies with it, and whoever takes the point next goes on in what was
left, so that a notebook with checkpoints does not begin anew. A point that is there is not run again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from geta_nb._extra import load
from geta_nb.bench.jobs import source_fingerprint, write_json
from geta_nb.errors import ConfigError, InputError, RunStateError
from geta_nb.pipelines.catalogue import notebook_folder

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Point:
    """One run of a sweep: plain data that travels to workers.

    Attributes:
        notebook: path of the notebook.
        folder: where the finished run will be.
        parameters: name -> value, without ``output_dir``.
    """

    notebook: str
    folder: str
    parameters: dict[str, Scalar]


def sweep(
    name: str | Path, grid: Mapping[str, Sequence[Scalar]], *, output_dir: str | Path, n_jobs: int = 1, smoke: bool = False
) -> list[dict[str, Any]]:
    """Run a notebook for every combination of the values in ``grid`` and return all reports, the last parameter varying fastest.

    Inside ``joblib.parallel_config(backend="dask")`` the same call runs on the Dask cluster of the current client; ``output_dir`` must then
    be a folder that all workers see. Called again, it runs only what is not there yet, for the same notebook and the same source code.

    Args:
        name: of a notebook in ``notebooks/``, or a path to one.
        grid: parameter -> its values; numbers, texts or switches.
        output_dir: gets one folder a point, and ``sweep.json``.
        n_jobs: runs side by side; a cluster has as many as it has workers.
        smoke: runs of seconds.

    Returns:
        Each point's ``report.json``, with ``parameters`` and ``folder`` (relative to ``output_dir``) beside it.

    Raises:
        InputError: no such notebook.
        ConfigError: an empty or malformed grid, or a parameter that the notebook does not have.
        RunStateError: some points failed; all others have been run and are kept.
    """
    notebook = find_notebook(name)
    output = Path(output_dir).resolve()
    points = plan_points(notebook, check_grid(notebook, grid), output, smoke=smoke)
    joblib = load("joblib", "bench")
    # one task a batch: a worker that dies takes one run with it
    parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="all", return_as="generator")
    tasks = (joblib.delayed(run_point)(point) for point in points)
    results = list(tqdm(parallel(tasks), total=len(points), desc=f"sweep {notebook.stem}", unit="run"))
    reports = []
    for point, result in zip(points, results, strict=True):
        reports.append({**result, "parameters": point.parameters, "folder": Path(point.folder).name})
    failed = [report for report in reports if "failed" in report]
    write_json(output / "sweep.json", {"notebook": notebook.name, "grid": {k: list(v) for k, v in grid.items()}, "points": reports})
    if failed:
        raise RunStateError(
            f"sweep: {len(failed)} of {len(points)} runs failed.", at=failed[0]["parameters"], got=failed[0]["failed"],
            hint="mend it and call sweep again: what is done is not run again",
        )  # fmt: skip
    return reports


def find_notebook(name: str | Path) -> Path:
    """Return the notebook of this path, or of this name in ``notebooks/`` of the checkout or the installed package.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.exists():
        return path.resolve()
    place = notebook_folder()
    if (found := place / f"{path.name.removesuffix('.ipynb')}.ipynb").exists():
        return found
    known = sorted(found.stem for found in place.glob("*.ipynb"))
    raise InputError("sweep: no such notebook.", at=name, expected=", ".join(known) or "a path to a notebook")


def check_grid(notebook: Path, grid: Mapping[str, Sequence[Scalar]]) -> Mapping[str, Sequence[Scalar]]:
    """Return ``grid`` if every name is a parameter of the notebook and every value a plain scalar.

    Raises:
        ConfigError: it is not so, or a parameter has no values or one value twice.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = "".join(next((c["source"] for c in cells if "parameters" in c["metadata"].get("tags", ())), ()))
    known = re.findall(r"^(\w+)\s*=", source, re.MULTILINE)
    for name, values in grid.items():
        if name not in known or name in ("output_dir", "smoke"):
            rest = ", ".join(k for k in known if k not in ("output_dir", "smoke"))
            raise ConfigError(f"sweep: {notebook.stem} cannot be swept over this.", at=name, expected=f"one of {rest}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ConfigError("sweep: values of a parameter are a list.", at=name, got=repr(values), hint=f"{{{name!r}: [...]}}")
        if not all(isinstance(value, (str, int, float, bool)) for value in values) or len(set(map(repr, values))) < len(values):
            raise ConfigError("sweep: values are numbers, texts or switches, each once.", at=name, got=repr(list(values)))
    if not grid:
        raise ConfigError("sweep: an empty grid.", expected="at least one parameter", hint="{'seed': [0, 1, 2]}")
    return grid


def plan_points(notebook: Path, grid: Mapping[str, Sequence[Scalar]], output: Path, *, smoke: bool) -> list[Point]:
    """Return the points of a grid, each with a folder that names its values and, by a hash, notebook and source code."""
    version = hashlib.sha256(notebook.read_bytes() + source_fingerprint().encode()).hexdigest()
    points = []
    for values in itertools.product(*grid.values()):
        given = dict(zip(grid, values, strict=True))
        call = json.dumps([version, smoke, given], sort_keys=True)
        words = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{name}={value}" for name, value in given.items()))[:80]
        folder = output / f"{words}-{hashlib.sha256(call.encode()).hexdigest()[:8]}"
        points.append(Point(str(notebook), str(folder), {**given, **({"smoke": True} if smoke else {})}))
    return points


def run_point(point: Point) -> dict[str, Any]:
    """Run one point, unless it is there; return its report, or ``{"failed": why}``. What a worker does."""
    papermill = load("papermill", "notebook")
    runner = load("geta_nb.bench.run_notebook", "notebook")
    folder = Path(point.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            attempt = _attempt(folder)
            try:
                runner.run_notebook(Path(point.notebook), attempt, point.parameters, progress=False)
            except papermill.PapermillExecutionError as error:
                return {"failed": f"{error.ename}: {error.evalue} (see {attempt.name})"}
            attempt.rename(folder)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def _attempt(folder: Path) -> Path:
    """Return the folder to run in: a new one, or what a dead worker left, renamed so that its orphaned kernel no longer finds it."""
    attempt = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    left = sorted(folder.parent.glob(f".{folder.name}.????????"), key=lambda path: path.stat().st_mtime)
    if left:
        left[-1].rename(attempt)
    for older in left[:-1]:
        shutil.rmtree(older, ignore_errors=True)
    attempt.mkdir(exist_ok=True)
    return attempt


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process that holds it, however that ends. Waits for others."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows: there the rename decides, and a point may be run twice into two folders
        yield
        return
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
