"""The fashion table: ``python -m geta_nb.bench.fashion_table`` (or ``make bench-fashion``), in two processes, and how long is left.

Every finished run is a line of ``docs/data/fashion.jsonl``: a stopped command goes on, also on another machine, and only runs are made
again whose options or code changed. First the validation runs of the rows that could lead; then every row with seed 0, and further seeds
and columns for the rows that do lead, judged by test images, by the rules of ``fashion_rows``. Without the data the command says how to
get them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from geta_nb.bench.fashion_cells import cells_of, cells_text, facts, lead, validation_text, verdict
from geta_nb.bench.fashion_rows import COMPRESSED, ROWS, SECOND, SEEDS, TUNED_AT, Planned, choosing, first_wave, leaders, second_wave
from geta_nb.bench.fashion_run import fashion_run, what_decides
from geta_nb.bench.fashion_task import EPOCHS, check_folder, usual_folder
from geta_nb.bench.jobs import Job, finished, write_json
from geta_nb.bench.kept_runs import KeptRun, current_commit, keep_run, read_runs
from geta_nb.errors import InputError

RESULTS = Path("docs/data/fashion.jsonl")
GUESS = 120.0
"""Seconds of a run as long as none is known."""


@dataclass(frozen=True)
class Wanted:
    """One run to be there: its place in the table, its options, and whether the last training images judge it or the test's."""

    planned: Planned
    options: Mapping[str, Any]
    validation: bool = False

    @property
    def part(self) -> str:
        """Of the kept runs."""
        return "validation" if self.validation else "test"

    @property
    def method(self) -> str:
        """Name of the method."""
        return ROWS[self.planned.row].method

    @property
    def name(self) -> str:
        """Name in messages."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        judged = ", validation" if self.validation else ""
        return f"{self.planned.row} at {self.planned.column}, seed {self.planned.seed}{judged}{f' ({options})' if options else ''}"


@dataclass(frozen=True)
class Bench:
    """What is run, on which data, and where it is kept.

    Args:
        folder: of the data.
        file: of the kept runs.
        smoke: few images and epochs.
        workers: processes, one thread each; 1 runs in this one.
        commit: of the code, for the record.
        failures: fills with what went wrong, by run; the other runs go on.
    """

    folder: Path
    file: Path
    smoke: bool = False
    workers: int = 2
    commit: str = field(default_factory=current_commit)
    failures: dict[str, str] = field(default_factory=dict)

    def to_keep(self, wanted: Wanted, figures: Mapping[str, Any]) -> KeptRun:
        """Return the run as it is kept."""
        planned, fingerprint = wanted.planned, what_decides(wanted.method, wanted.planned.column, wanted.options)
        return KeptRun(wanted.part, planned.row, planned.column, planned.seed, wanted.options, fingerprint, self.commit, figures)

    def current(self, wanted: Iterable[Wanted]) -> dict[str, KeptRun]:
        """Return the kept runs that were made with these options by the code that stands here, by name."""
        kept = {run.place: run for run in read_runs(self.file)}
        empty = {one.name: self.to_keep(one, {}) for one in wanted}
        found = {name: kept[like.place] for name, like in empty.items() if like.place in kept}
        return {name: run for name, run in found.items() if run.fingerprint == empty[name].fingerprint}

    def make(self, wanted: Sequence[Wanted]) -> None:
        """Make the runs that are not there, keep each the moment it is done, and say how long is left."""
        there = self.current(wanted)
        missing = {one.name: one for one in wanted if one.name not in there and one.name not in self.failures}
        known = {name: float(run.figures["seconds"]) for name, run in there.items() if "seconds" in run.figures}
        _say(f"{len(there)} of {len(wanted)} runs are there; {time_left(missing, known, self.workers)}")
        with closing(self._results(missing)) as arriving:
            for name, result in arriving:
                one = missing.pop(name)
                if isinstance(result, Exception):
                    self.failures[name] = f"{type(result).__name__}: {result}"
                    _say(f"FAILED {name}: {self.failures[name]}")
                    continue
                keep_run(self.file, self.to_keep(one, result))
                known |= {name: float(result["seconds"])} if "seconds" in result else {}
                left = time_left(missing, known, self.workers)
                _say(f"{name}: {_result_words(result)}; {len(wanted) - len(missing)} of {len(wanted)}; {left}")

    def _job(self, one: Wanted) -> Job:
        arguments = {"method": one.method, "column": one.planned.column, "seed": one.planned.seed, "options": dict(one.options)}
        where = {"folder": str(self.folder), "validation": one.validation, "smoke": self.smoke}
        return Job(fashion_run, {**arguments, **where, "fingerprint": self.to_keep(one, {}).fingerprint})

    def _results(self, missing: Mapping[str, Wanted]) -> Generator[tuple[str, Any], None, None]:
        jobs = {name: self._job(one) for name, one in missing.items()}
        if self.workers > 1:
            with closing(finished(jobs, workers=self.workers)) as futures:
                for name, future in futures:
                    error = future.exception()
                    yield name, error if error is not None else future.result()
            return
        for name, job in jobs.items():
            try:
                result: Any = job.run(**job.arguments)
            except Exception as error:  # one method's defect is reported at the end; the others' runs go on
                result = error
            yield name, result


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _result_words(result: Mapping[str, Any]) -> str:
    return "out of reach" if "out_of_reach" in result else f"{100 * result['accuracy']:.2f} % in {result['seconds']:.0f} s"


def time_left(missing: Mapping[str, Wanted], known: Mapping[str, float], workers: int) -> str:
    """Return how long the missing runs take: each as long as its row's known ones, else as all known ones.

    Args:
        known: seconds of runs by name; a name begins with its row.
    """
    usual = fmean(known.values()) if known else GUESS
    by_row: dict[str, list[float]] = {}
    for name, seconds in known.items():
        by_row.setdefault(name.split(" ")[0], []).append(seconds)
    seconds = sum(fmean(by_row.get(one.planned.row, [usual])) for one in missing.values()) / workers
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return f"about {f'{hours} h ' if hours else ''}{minutes} min left" if missing else "nothing left"


def with_own_options(runs: Iterable[Planned], rows: Sequence[str] = (), *, validation: bool = False) -> list[Wanted]:
    """Return the runs with their rows' options; of these ``rows`` alone where some are named."""
    return [Wanted(run, ROWS[run.row].options, validation) for run in runs if not rows or run.row in rows]


def smoke_runs() -> list[Planned]:
    """Return every row in every column, with seed 0."""
    return first_wave() + [Planned(row, column.name) for column in SECOND for row in COMPRESSED]


def validation_runs(rows: Sequence[str] = ()) -> list[Wanted]:
    """Return each row that has options to choose between, with each of them, in the two hardest columns; seed 0 unless they are close."""
    chosen = {name: row for name, row in ROWS.items() if (row.tried or row.repeated) and (not rows or name in rows)}
    return [
        Wanted(Planned(name, column, seed), options, validation=True)
        for column in TUNED_AT
        for name, row in chosen.items()
        for options in (row.options, *row.tried)
        for seed in (SEEDS if options in row.repeated else SEEDS[:1])
    ]


def chosen(bench: Bench) -> dict[str, list[str]]:
    """Return column -> the rows that lead it, as far as the validation runs are there; see ``fashion_rows.leaders``."""
    runs = bench.current(with_own_options(choosing(), validation=True)).values()
    accuracies = {(run.row, run.column): float(run.figures["accuracy"]) for run in runs if "accuracy" in run.figures}
    return leaders(accuracies, [Planned(run.row, run.column, run.seed) for run in runs])


def write_table(bench: Bench, output: Path, planned: Sequence[Planned]) -> str:
    """Write ``table.md`` and ``table.json``; return the text."""
    runs = list(bench.current(with_own_options(planned)).values())
    cells, leading = cells_of(runs), chosen(bench)
    found = verdict(cells, leading)
    compared = validation_text(bench.current(validation_runs()).values())
    lines = "".join(f"- {line}\n" for line in (*lead(leading), *found))
    text = f"{cells_text(cells)}{lines}\n{len(runs)} of {len(planned)} runs.\n\n{compared}"
    made_with = {"epochs": EPOCHS, "torch": torch.__version__}
    write_json(output / "table.json", made_with | {"cells": facts(cells), "leaders": leading, "verdict": found})
    (output / "table.md").write_text(text)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Fashion-MNIST: accuracy at equal cost.")
    parser.add_argument("--data-dir", type=Path, default=None, help="folder of the four IDX files, plain or .gz; default: the system's")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_fashion"), help="folder of the tables")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines of the finished runs")
    parser.add_argument("--only", action="append", default=[], choices=list(ROWS), metavar="ROW", help="make this row alone; repeatable")
    parser.add_argument("--validate", action="store_true", help="compare options on the last training images; no test image is read")
    parser.add_argument("--smoke", action="store_true", help="few images: does every row run? Kept beside the tables, not in the results")
    parser.add_argument("--kept", action="store_true", help="make nothing: the table of what is there")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, write the table, print it; 1 if a run failed, 2 without data."""
    options = _parser().parse_args(arguments)
    folder = options.data_dir or usual_folder()
    try:
        if not options.kept:
            check_folder(folder)
    except InputError as error:
        _say(str(error))
        return 2
    file = options.output / "smoke.jsonl" if options.smoke else options.results
    bench = Bench(folder, file, options.smoke, options.workers)
    text = _validate(bench, options) if options.validate else _test(bench, options)
    sys.stdout.write(text)
    for name, cause in bench.failures.items():
        _say(f"failed: {name}: {cause}")
    return 1 if bench.failures else 0


def _validate(bench: Bench, options: argparse.Namespace) -> str:
    if not options.kept:
        bench.make(validation_runs(options.only))
    text = validation_text(bench.current(validation_runs()).values())
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "validation.md").write_text(text)
    return text


def _test(bench: Bench, options: argparse.Namespace) -> str:
    if options.smoke:
        planned = smoke_runs()
        if not options.kept:
            bench.make(with_own_options(planned, options.only))
        return write_table(bench, options.output, planned)
    first = with_own_options(choosing(), options.only, validation=True)
    if not options.kept:
        bench.make(first)
    planned = [*first_wave(), *second_wave(chosen(bench))]
    if not options.kept:
        # with the validation runs, whose seconds say how long the others take
        bench.make([*first, *with_own_options(planned, options.only)])
    return write_table(bench, options.output, planned)


if __name__ == "__main__":
    sys.exit(main())
