"""Carry finished runs of the fashion table over a change that changes no number: ``python -m geta_nb.bench.carry COMMIT``.

In: the kept runs, the commit whose code made them, and the code that stands here. Out: the same runs with today's fingerprint, where
both codes, side by side on this machine, give the same outputs to the last bit. Compared are short runs of every method, column and
options (512 images, 32 epochs: all stages, falls and cuts), and GETA once at full length in each of the two hardest columns. A method
of which one differs keeps its old fingerprint everywhere, so that its runs are made again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geta_nb.bench.fashion_rows import ROWS, TUNED_AT
from geta_nb.bench.fashion_run import what_decides
from geta_nb.bench.fashion_table import RESULTS
from geta_nb.bench.fashion_task import check_folder, usual_folder
from geta_nb.bench.kept_runs import PACKAGE, KeptRun, current_commit, keep_run, read_runs
from geta_nb.errors import GetaError, InputError

ROOT = PACKAGE.parent
LONG = "geta"
"""The method that is compared at full length too."""
PROBE = Path(__file__).with_name("carry_probe.py")


@dataclass(frozen=True)
class Ask:
    """One run that both codes make.

    Args:
        method, column: names.
        options: of the method, as JSON with sorted keys.
        full: of full length, judged by training images.
    """

    method: str
    column: str
    options: str
    full: bool = False


def stale(runs: Iterable[KeptRun]) -> list[KeptRun]:
    """Return the runs that were made by other code than that which stands here."""
    return [run for run in runs if run.row in ROWS and run.fingerprint != what_decides(ROWS[run.row].method, run.column, run.options)]


def asks_of(runs: Iterable[KeptRun], *, full: bool = True) -> list[Ask]:
    """Return what has to be compared: each method, column and options once, and one full length in each hard column."""
    short = list(dict.fromkeys(_ask(run) for run in runs))
    longest = {ask.column: replace(ask, full=True) for ask in reversed(short) if ask.column in TUNED_AT and ask.method == LONG}
    return [*short, *(longest.values() if full else ())]


def _ask(run: KeptRun) -> Ask:
    return Ask(ROWS[run.row].method, run.column, json.dumps(dict(run.options), sort_keys=True))


def equal(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two codes' answers to one ask are the same but for seconds."""
    return bool(before["figures"] == now["figures"])


def carried(runs: Iterable[KeptRun], asks: Sequence[Ask], before: Sequence[Any], now: Sequence[Any], name: str) -> list[KeptRun]:
    """Return the runs with today's fingerprint, of the methods whose every answer was the same.

    Args:
        runs: stale ones.
        asks, before, now: what was asked, and both codes' answers.
        name: of the change, as it is kept.
    """
    differing = {ask.method for ask, old, new in zip(asks, before, now, strict=True) if not equal(old, new)}
    made_by = {ask: old["fingerprint"] for ask, old in zip(asks, before, strict=True)}
    return [
        replace(run, fingerprint=what_decides(ROWS[run.row].method, run.column, run.options), carried=name)
        for run in runs
        if ROWS[run.row].method not in differing and made_by[_ask(run)] == run.fingerprint
    ]


def answers(asks: Sequence[Ask], trees: Sequence[Path], folder: Path) -> list[list[Any]]:
    """Let the codes in ``trees`` answer, all at once, a process of one thread each.

    Raises:
        GetaError: a process failed.
    """
    lines = "".join(json.dumps([ask.method, ask.column, json.loads(ask.options), ask.full]) + "\n" for ask in asks)
    with tempfile.TemporaryDirectory() as scratch:
        questions = Path(scratch) / "asks.jsonl"
        questions.write_text(lines)
        command = [sys.executable, "-P", str(PROBE), str(questions), str(folder)]
        running = [
            subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}, cwd=tree, stdout=subprocess.PIPE,
                             stderr=None if tree == trees[-1] else subprocess.DEVNULL, text=True)
            for tree in trees
        ]  # fmt: skip
        printed = [process.communicate()[0].splitlines() for process in running]
    for tree, process, found in zip(trees, running, printed, strict=True):
        if process.returncode or len(found) != len(asks):
            raise GetaError("carry: a code could not make its runs.", at=tree, expected=f"{len(asks)} answers", got=f"{len(found)}")
    return [[json.loads(line) for line in found] for found in printed]


def unpack(commit: str, folder: Path) -> None:
    """Write the package as it was at a commit into a folder.

    Raises:
        InputError: no such commit here.
    """
    done = subprocess.run(["git", "archive", commit, PACKAGE.name], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise InputError("carry: no such commit.", expected="a commit of this checkout", got=commit, hint="git log docs/data/fashion.jsonl")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and carry what is equal; 1 where something is not, 2 where there is nothing to compare with."""
    parser = argparse.ArgumentParser(description="Carry finished runs of the fashion table over a change that changes no number.")
    parser.add_argument("commit", help="whose code made them")
    parser.add_argument("--data-dir", type=Path, default=None, help="folder of the four IDX files; default: the system's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines of the finished runs")
    parser.add_argument("--short", action="store_true", help="no run of full length")
    options = parser.parse_args(arguments)
    folder = options.data_dir or usual_folder()
    try:
        check_folder(folder)
        here = current_commit()
        if here.endswith("+") or here == "unknown":
            raise InputError("carry: the code that stands here has no name.", expected="a committed package", got=here, hint="git commit")
        kept = read_runs(options.results)
        old = stale(kept)
        asks = asks_of(old, full=not options.short)
        with tempfile.TemporaryDirectory() as scratch:
            unpack(options.commit, Path(scratch))
            before, now = answers(asks, [Path(scratch), ROOT], folder) if asks else ([], [])
    except GetaError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    moved = carried(old, asks, before, now, f"{options.commit} = {here}")
    for run in moved:
        keep_run(options.results, run)
    for ask, was, made in zip(asks, before, now, strict=True):
        if not equal(was, made):
            sys.stdout.write(f"differs: {ask.method} at {ask.column}, {ask.options}{', full length' if ask.full else ''}\n")
    sys.stdout.write(f"{len(moved)} of {len(old)} stale runs carried, {len(kept) - len(old)} were current, {len(asks)} runs compared.\n")
    return 0 if len(moved) == len(old) else 1


if __name__ == "__main__":
    sys.exit(main())
