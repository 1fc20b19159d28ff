"""The language-model table's text: one line a network, means over seeds, "-" for what was not made.

In: kept runs. Out: head, lines and remarks, for Markdown and for a table that shows itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from geta_nb.bench.kept_runs import KeptRun
from geta_nb.bench.lm_run import COLUMNS, DENSE, ROWS
from geta_nb.display.wording import size

QUALITY, SPEED = "test", "speed"
HEAD = (
    "groups", "network", "equal in", "parameters", "file", "perplexity before", "after fine-tuning", "tokens/s: torch", "ONNX Runtime",
    "OpenVINO",
)  # fmt: skip
NONE = "-"


def lines_of(runs: Iterable[KeptRun], columns: Sequence[str] = tuple(COLUMNS)) -> list[list[str]]:
    """Return the table's lines: the dense network, then each column's rows."""
    found = list(runs)
    places = [(DENSE, DENSE), *((row, column) for column in columns for row in ROWS if row != DENSE)]
    return [_line(found, row, column) for row, column in places]


def _line(runs: Sequence[KeptRun], row: str, column: str) -> list[str]:
    here = [run for run in runs if (run.row, run.column) == (row, column)]
    quality = [run.figures for run in sorted(here, key=lambda run: run.seed) if run.part == QUALITY]
    speeds: Mapping[str, float] = next((run.figures["tokens_per_second"] for run in here if run.part == SPEED), {})
    share = "" if row == DENSE else f"{100 * COLUMNS[column]:.0f} %"
    name = [share, ROWS[row].label, ROWS[row].equal]
    rates = [f"{speeds[key]:.0f}" if key in speeds else NONE for key in ("torch", "onnxruntime", "openvino")]
    if any("out_of_reach" in one for one in quality):
        return [*name, "out of reach", *[NONE] * 6]
    if not quality:
        return [*name, *[NONE] * 4, *rates]
    first = quality[0]
    numbers = [f"{first['parameters'] / 1e6:.2f} M", size(first["file_bytes"])]
    return [*name, *numbers, *(_spread([one[when]["test"] for one in quality]) for when in ("before", "after")), *rates]


def _spread(values: Sequence[float]) -> str:
    """Return a mean, with the standard deviation over seeds where there are several."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f} ({len(values)})" if len(values) > 1 else "")


def remarks(runs: Iterable[KeptRun]) -> list[str]:
    """Return what stands below the table: who is ahead where sizes are equal, and how many heads GETA left."""
    found = list(runs)
    lines = []
    for column, share in COLUMNS.items():
        means = {row: _mean(found, row, column) for row in ROWS}
        if (ours := means["geta"]) is None:
            continue
        for equal in ("bytes", "parameters"):
            others = {row: mean for row, mean in means.items() if ROWS[row].equal == equal and mean is not None}
            sides = {"ahead of": [row for row in others if ours < others[row]], "behind": [row for row in others if ours >= others[row]]}
            words = [f"{side} {_named(rows, others)}" for side, rows in sides.items() if rows]
            if words:
                lines.append(f"{100 * share:.0f} % of the groups, equal in {equal}: GETA's {ours:.1f} is {', and '.join(words)}.")
    lines += [f"{100 * COLUMNS[run.column]:.0f} %: heads left in each layer {run.figures['heads']}." for run in _geta_runs(found)]
    return lines


def _named(rows: Sequence[str], means: Mapping[str, float]) -> str:
    return ", ".join(f"{ROWS[row].label.partition(',')[0]} ({means[row]:.1f})" for row in sorted(rows, key=means.__getitem__))


def _geta_runs(runs: Iterable[KeptRun]) -> list[KeptRun]:
    return sorted((run for run in runs if run.row == "geta" and run.part == QUALITY and run.seed == 0), key=lambda run: run.column)


def _mean(runs: Iterable[KeptRun], row: str, column: str) -> float | None:
    values = [float(run.figures["after"]["test"]) for run in runs if _is(run, row, column) and "after" in run.figures]
    return fmean(values) if values else None


def _is(run: KeptRun, row: str, column: str) -> bool:
    return (run.part, run.row, run.column) == (QUALITY, row, column)


def markdown(runs: Iterable[KeptRun]) -> str:
    """Return table and remarks as Markdown."""
    found = list(runs)
    if not found:
        return "No table was made yet: no full-size run is kept.\n"
    lines = [HEAD, ["---"] * len(HEAD), *lines_of(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "".join(f"- {line}\n" for line in (*remarks(found), *made_by(found)))


def made_by(runs: Iterable[KeptRun]) -> list[str]:
    """Return by which code the runs were made."""
    commits: Mapping[str, Any] = {run.commit: None for run in runs}
    return [f"Made by code of commit {', '.join(sorted(commits))}."] if commits else []
