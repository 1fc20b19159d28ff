"""The language-model table: ``python -m geta_nb.bench.lm_table`` (or ``make bench-lm``).

Every finished run is a line of ``docs/data/lm.jsonl``, so a stopped command goes on. A run is known by what was asked (sizes, steps, rates,
options), not by a hash of all code: the line says its commit, and ``--again ROW`` makes a row's runs anew. First the dense network, then
GETA's runs, then the cuts, whose sizes follow from GETA's, then how fast each generates.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geta_nb.bench.jobs import Job, finished
from geta_nb.bench.kept_runs import KeptRun, current_commit, keep_run, read_runs
from geta_nb.bench.lm_cells import QUALITY, SPEED, lines_of, markdown
from geta_nb.bench.lm_run import COLUMNS, DENSE, ROWS, lm_run, network_file, settings
from geta_nb.bench.lm_speed import lm_speed
from geta_nb.bench.lm_task import SIZES, fingerprint, read_text, trained_dense
from geta_nb.errors import InputError

RESULTS = Path("docs/data/lm.jsonl")
PAGE = Path("docs/language_models.md")
EQUAL = ("bytes", "parameters")
MARKS = ("<!-- bench-lm: begin (made by `make bench-lm`) -->", "<!-- bench-lm: end -->")


@dataclass(frozen=True)
class LmBench:
    """What is run and where it is kept.

    Args:
        folder: of networks and checkpoints.
        file: of the kept runs.
        size: a name of ``lm_task.SIZES``.
        columns: which are made.
        workers: processes, one thread each; 1 runs in this one.
        say: is told what has just been done.
    """

    folder: Path
    file: Path
    size: str = "full"
    columns: tuple[str, ...] = tuple(COLUMNS)
    workers: int = 2
    say: Callable[[str], None] = lambda line: None
    commit: str = field(default_factory=current_commit)

    def runs(self) -> list[KeptRun]:
        """Return the kept runs that were asked as this bench asks."""
        return [run for run in read_runs(self.file) if run.fingerprint == settings(run.row, run.column, self.size)]

    def make(self, seeds: Sequence[int] = (0,), *, equal: Sequence[str] = EQUAL, speeds: bool = True) -> None:
        """Make what is missing.

        Args:
            seeds: of the fine-tuning.
            equal: which cuts, by what they have in common with GETA's networks.
            speeds: measure tokens a second too, of seed 0.

        Raises:
            InputError: the kept runs read another text: another Python has another standard library.
        """
        self._check_text()
        trained_dense(SIZES[self.size], self.folder / "dense", say=self.say)
        for seed in seeds:
            self._make([*(("geta", column, seed) for column in self.columns), (DENSE, DENSE, seed)])
            for what in equal:
                self._make([(row, column, seed) for column in self.columns for row in ROWS if ROWS[row].equal == what])
                if speeds:
                    self._measure()

    def _check_text(self) -> None:
        known = {run.figures["text"] for run in self.runs() if "text" in run.figures}
        text = read_text(SIZES[self.size])
        found = fingerprint(text.rows, text.test.held)
        if known - {found}:
            raise InputError(
                "lm_table: the kept runs read another text.", at=self.file, expected="the Python that they were made with",
                got=f"Python {sys.version.split()[0]}", hint="--results FILE for a table of your own",
            )  # fmt: skip

    def _make(self, places: Sequence[tuple[str, str, int]]) -> None:
        there = {(run.row, run.column, run.seed): run for run in self.runs() if run.part == QUALITY}
        jobs = {}
        for row, column, seed in places:
            base = there.get(("geta", column, 0))
            if (row, column, seed) in there or (ROWS[row].equal and base is None):
                continue
            options = {"parameters": self._parameters(ROWS[row].equal, base)} if base is not None and ROWS[row].equal else {}
            arguments = {"row": row, "column": column, "seed": seed, "size": self.size, "folder": str(self.folder), **options}
            jobs[f"{row} {column} {seed}"] = Job(lm_run, arguments)
        for name, figures in self._results(jobs):
            given = jobs[name].arguments
            options = {key: given[key] for key in ("parameters",) if key in given}
            self._keep(QUALITY, given["row"], given["column"], given["seed"], options, figures)

    @staticmethod
    def _parameters(equal: str, base: KeptRun) -> int:
        """Return how many parameters a cut may have: of one byte each as many as GETA's network has bytes, or as many as it has."""
        return int(base.figures["size_bytes"] if equal == "bytes" else base.figures["parameters"])

    def _results(self, jobs: dict[str, Job]) -> Iterable[tuple[str, dict[str, Any]]]:
        if self.workers == 1 or len(jobs) < 2:
            yield from ((name, job.run(**job.arguments)) for name, job in jobs.items())
            return
        with closing(finished(jobs, workers=self.workers)) as futures:
            for name, future in futures:
                yield name, future.result()

    def _measure(self) -> None:
        runs = self.runs()
        done = {(run.row, run.column) for run in runs if run.part == SPEED}
        wanted = [(run.row, run.column) for run in runs if run.part == QUALITY and run.seed == 0 and "after" in run.figures]
        for row, column in sorted(set(wanted) - done, key=lambda place: (list(ROWS).index(place[0]), place[1])):
            if row != DENSE and not network_file(self.folder, row, column, 0).exists():
                continue  # made on another machine, which kept its figures alone
            figures = lm_speed(row, column, size=self.size, folder=str(self.folder))
            self._keep(SPEED, row, column, 0, {}, figures)

    def _keep(self, part: str, row: str, column: str, seed: int, options: dict[str, Any], figures: dict[str, Any]) -> None:
        keep_run(self.file, KeptRun(part, row, column, seed, options, settings(row, column, self.size), self.commit, figures))
        self.say(f"{part}: {row} at {column}, seed {seed}: {figures.get('after', figures)}")

    def lines(self) -> list[list[str]]:
        """Return the table's lines as far as they are made."""
        return lines_of(self.runs(), self.columns)


def write_page(page: Path, text: str) -> None:
    """Put the table between the marks of a page.

    Raises:
        InputError: the page has no such marks.
    """
    begin, end = MARKS
    whole = page.read_text() if page.exists() else ""
    if begin not in whole or end not in whole:
        raise InputError("lm_table: the page has no place for the table.", at=page, expected=f"{begin} and {end}", got="none")
    found = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}{end}", whole, flags=re.DOTALL)
    page.write_text(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, write the table, print it."""
    parser = argparse.ArgumentParser(description="A language model, compressed by GETA and cut by others.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_lm"), help="folder of networks and the table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines of the finished runs")
    parser.add_argument("--page", type=Path, default=None, help=f"put the table into this page too, such as {PAGE}")
    parser.add_argument("--seeds", type=int, default=1, help="how many, of the fine-tuning")
    parser.add_argument("--columns", nargs="*", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--again", action="append", default=[], choices=list(ROWS), metavar="ROW", help="forget this row's runs first")
    parser.add_argument("--smoke", action="store_true", help="a tiny network: does every row run? Kept beside the table")
    parser.add_argument("--kept", action="store_true", help="make nothing: the table of what is there")
    parser.add_argument("--no-speed", action="store_true", help="leave tokens a second out")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args(arguments)
    file = options.output / "smoke.jsonl" if options.smoke else options.results
    folder = options.output / "smoke" if options.smoke else options.output
    bench = LmBench(folder, file, "smoke" if options.smoke else "full", tuple(options.columns), options.workers, _say)
    if options.again:
        forget(file, options.again)
    if not options.kept:
        bench.make(range(options.seeds), speeds=not options.no_speed)
    text = markdown(bench.runs())
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.md").write_text(text)
    if options.page is not None:
        write_page(options.page, text)
    sys.stdout.write(text)
    return 0


def forget(file: Path, rows: Sequence[str]) -> None:
    """Take the runs of these rows out of the file."""
    kept = [run for run in read_runs(file) if run.row not in rows]
    file.unlink(missing_ok=True)
    for run in kept:
        keep_run(file, run)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
