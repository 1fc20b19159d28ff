"""Finished runs in one file of JSON lines, a line a run, so that a table goes on where it was left, also on another machine.

In: what was run, with which options, by which code, and the figures. Out: the same, as long as options and code are what they were. Lines
are sorted, and the file is written whole or not at all: two machines' files differ by lines, which git merges.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geta_nb.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class KeptRun:
    """One finished run.

    Args:
        part: ``"test"`` or ``"validation"``: by which images it was judged.
        row, column, seed: which number it is.
        options: of its method.
        fingerprint: of all that the number depends on; another one makes the run stale.
        commit: of the checkout; with ``+`` where the package's files differed from it.
        figures: what came out, JSON-able.
        carried: ``"COMMIT = COMMIT"`` where the fingerprint is that of later code, which gave the same bits beside it; see ``carry``.
    """

    part: str
    row: str
    column: str
    seed: int
    options: Mapping[str, Any]
    fingerprint: str
    commit: str
    figures: Mapping[str, Any]
    carried: str = ""

    @property
    def place(self) -> tuple[str, str, str, int, str]:
        """What it stands for: a new run of the same place takes the old one's. Validation compares options, so there each has its own."""
        options = json.dumps(dict(self.options), sort_keys=True) if self.part == "validation" else ""
        return self.part, self.row, self.column, self.seed, options


def read_runs(file: Path) -> list[KeptRun]:
    """Return the runs of a file, none where there is no file.

    Raises:
        InputError: a line is not one of ours.
    """
    runs = []
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], start=1):
        try:
            runs.append(KeptRun(**json.loads(line)))
        except (ValueError, TypeError) as error:
            expected = "one run a line, as JSON"
            hint = f"delete line {number}; the run is made again"
            raise InputError("read_runs: not a kept run.", at=f"{file}:{number}", expected=expected, got=str(error), hint=hint) from None
    return runs


def keep_run(file: Path, run: KeptRun) -> None:
    """Put a run into the file; an older one of the same place goes."""
    runs = {kept.place: kept for kept in [*read_runs(file), run]}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text("".join(_line(runs[place]) for place in sorted(runs)))
    partial.replace(file)


def _line(run: KeptRun) -> str:
    return json.dumps({key: value for key, value in asdict(run).items() if key != "carried" or value}, sort_keys=True) + "\n"


def current_commit() -> str:
    """Return the checkout's commit, with ``+`` where the package differs from it; ``"unknown"`` outside a checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--", PACKAGE.name) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()
