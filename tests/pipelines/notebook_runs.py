"""Notebooks as tests run them: once each per session in smoke mode, and again under nbval against their own outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from geta_nb.bench.run_notebook import describe_failure, run_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class SmokeRun:
    """A notebook that was run: its report, and the folder where everything lies."""

    path: Path
    folder: Path
    report: dict[str, Any]

    @property
    def executed(self) -> nbformat.NotebookNode:
        return nbformat.read(self.folder / self.path.name, as_version=4)

    @property
    def outputs(self) -> list[nbformat.NotebookNode]:
        return [output for cell in self.executed.cells if cell.cell_type == "code" for output in cell.outputs]


def run_smoke(path: Path, folder: Path, **parameters: str) -> SmokeRun:
    """Run a notebook in smoke mode; a failing cell fails the test, named with its notebook."""
    try:
        return SmokeRun(path, folder, run_notebook(path, folder, {"smoke": True, **parameters}, progress=False))
    except papermill.PapermillExecutionError as error:
        pytest.fail(describe_failure(error, path), pytrace=False)


@cache
def smoke_run(path: Path, base: Path) -> SmokeRun:
    """Run a notebook in smoke mode, once a session."""
    return run_smoke(path, base / path.stem)


def rerun_under_nbval(run: SmokeRun, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an executed notebook again, cell by cell, and compare every output with the one it has; into another folder."""
    notebook = run.executed
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source += f'\noutput_dir = {json.dumps(str(folder / "again"))}'
    return _under_nbval(notebook, run.path.name, folder, "nbval_sanitize.cfg")


def rerun_kept_under_nbval(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook as it was run when its outputs were kept, and compare every output with the kept one; into another folder."""
    notebook = nbformat.read(path, as_version=4)
    values = {**notebook.metadata["geta_nb_kept"], "output_dir": str(folder / path.stem)}
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures belong into the cells
    return _under_nbval(notebook, path.name, folder, "nbval_kept.cfg", environment)


def _under_nbval(
    notebook: nbformat.NotebookNode, name: str, folder: Path, sanitize: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    again = folder / name
    nbformat.write(notebook, again)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", os.devnull]
    command += ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / sanitize), str(again)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False)
