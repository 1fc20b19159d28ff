"""Does the predicted rise of the loss rank what comes out in the end? ``python -m geta_nb.bench.ranked`` (minutes).

A dense network is trained on the fashion benchmark's validation split and its sensitivity is measured; then each budget that GETA was run
with there (bounds of 2, 3, 4 and 6 bits at each cost) has a predicted rise, and beside it stands the accuracy that the kept run ended with.
Printed as a table, with the rank correlation within each column and over all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.stats import spearmanr

from geta_nb.baselines.task import Task, fit
from geta_nb.bench.fashion_rows import COLUMNS, DEFAULTS, FIRST, JOINT, ROWS, UNIFORM
from geta_nb.bench.fashion_table import RESULTS
from geta_nb.bench.fashion_task import check_folder, fashion_task, usual_folder
from geta_nb.bench.geta_run import HIGHEST
from geta_nb.bench.kept_runs import read_runs
from geta_nb.bench.predicted import loss
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import BudgetError, InputError
from geta_nb.geta import GETA

SAMPLES, BATCH = 1024, 128


class Ranked(NamedTuple):
    """One budget: its column, its lowest bits, the predicted rise, and the validation accuracy of the run."""

    column: str
    bits: int
    predicted: float
    accuracy: float


def accuracies(results: Path) -> dict[tuple[str, int], float]:
    """Return (column, lowest bits) -> validation accuracy of GETA with seed 0, of the runs that are kept.

    Raises:
        InputError: there is none.
    """
    found = {}
    for run in read_runs(results):
        if run.part == "validation" and run.row in UNIFORM and run.seed == 0 and dict(run.options) == dict(ROWS[run.row].options):
            found[run.column, int(run.options["bits"])] = float(run.figures["accuracy"])
    if not found:
        raise InputError("ranked: no validation runs of GETA.", at=results, hint="python -m geta_nb.bench.fashion_table --validate")
    return found


def by_plans(results: Path) -> str:
    """Return how well the rise that a run's own plan predicts ranks its test accuracy over the columns: for each seed, and over all."""
    runs = [run for run in read_runs(results) if run.part == "test" and run.row in (DEFAULTS, JOINT)]
    found = {(run.row, run.seed, run.column): run.figures for run in runs if "predicted_rise" in run.figures.get("notes", {})}
    rows = [(row, seed, Ranked(column, 0, one["notes"]["predicted_rise"], one["accuracy"])) for (row, seed, column), one in found.items()]
    lines = [
        f"{ROWS[row].label}, seed {seed}: {_agreement([one for name, number, one in rows if (name, number) == (row, seed)])}"
        for row, seed in sorted({(row, seed) for row, seed, _ in rows})
    ]
    return "\n".join([*lines, f"over all {len(rows)} runs: {_agreement([one for *_, one in rows])}", ""])


def ranked(task: Task, ended: Mapping[tuple[str, int], float], *, seed: int = 0, epochs: int | None = None) -> list[Ranked]:
    """Return a row for each budget that a run is kept of and that is within reach.

    Args:
        task: what the dense network is trained on.
        ended: (column, lowest bits) -> accuracy.
        seed: of the network and its batches.
        epochs: of the training; None: the task's.
    """
    torch.manual_seed(seed)
    model = task.build()
    fit(task, model, task.epochs if epochs is None else epochs, seed=seed)
    inputs, labels = (part[:SAMPLES] for part in task.check)
    batches = list(zip(inputs.split(BATCH), labels.split(BATCH), strict=True))
    rows = []
    for activations in (False, True):
        geta = GETA(model.eval(), task.example, quantize=QuantConfig(activations=activations))
        geta.calibrate(task.calibration.split(64))
        sensitivity = geta.sensitivity(batches, loss)
        for column in FIRST:
            for bits in sorted(bits for name, bits in ended if name == column.name and column.activations == activations):
                both = (bits, HIGHEST)
                budget = Budget(relative_bops=column.relative_bops, bit_range=both, activation_bit_range=both, allocation="cost")
                try:
                    preview = geta.preview(budget, sensitivity=sensitivity)
                except BudgetError:
                    continue
                assert preview.predicted_rise is not None
                rows.append(Ranked(column.name, bits, preview.predicted_rise, ended[column.name, bits]))
    return rows


def table(rows: Sequence[Ranked]) -> str:
    """Return rows as Markdown, with the rank correlations below: +1 where the least predicted rise is the highest accuracy."""
    lines = ["| column | no fewer than | predicted rise | validation accuracy in the end |", "| --- | --- | --- | --- |"]
    lines += [f"| {COLUMNS[row.column].words} | {row.bits} bits | {row.predicted:.3f} | {100 * row.accuracy:.2f} |" for row in rows]
    columns = dict.fromkeys(row.column for row in rows)
    within = [f"{COLUMNS[name].words}: {_agreement([row for row in rows if row.column == name])}" for name in columns]
    return "\n".join([*lines, "", f"Rank correlation (Spearman): {'; '.join(within)}; over all: {_agreement(rows)}.", ""])


def _agreement(rows: Sequence[Ranked]) -> str:
    return f"{spearmanr([-row.predicted for row in rows], [row.accuracy for row in rows]).statistic:.2f}" if len(rows) > 2 else "too few"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Predicted rises beside final accuracies, on Fashion-MNIST's validation split.")
    parser.add_argument("--data-dir", type=Path, default=None, help="folder of the four IDX files; default: the system's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines of the finished runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plans", action="store_true", help="train nothing: what the plans of the kept test runs predicted")
    options = parser.parse_args(arguments)
    if options.plans:
        sys.stdout.write(by_plans(options.results))
        return 0
    folder = options.data_dir or usual_folder()
    check_folder(folder)
    torch.set_num_threads(1)
    rows = ranked(fashion_task(folder, validation=True), accuracies(options.results), seed=options.seed)
    sys.stdout.write(f"{table(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
