"""One column of the fashion table as a pipeline: its data, its other rows, and what they show.

In: the folder of the four IDX files, or none: then scikit-learn's digits in that format stand in. Out: the rows' figures, resumable, and a
task for the training loop of all pipelines, which judges by training images until the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.baselines.task import accuracy
from geta_nb.bench.fashion import (
    BATCH,
    CLASSES,
    COLUMNS,
    EPOCHS,
    FULL_COLUMN,
    ROWS,
    SIDE,
    SMOKE_EPOCHS,
    SMOKE_IMAGES,
    TEST,
    TRAIN,
    Bench,
    Fashion,
    Planned,
    as_result,
    with_own_options,
    write_idx,
)
from geta_nb.cost import Report
from geta_nb.errors import ConfigError, InputError
from geta_nb.pipelines.batches import Batches
from geta_nb.pipelines.images import augment, image_loss
from geta_nb.pipelines.loop import Task
from geta_nb.pipelines.published import STAND_IN
from geta_nb.pipelines.run import Run
from geta_nb.pipelines.stand_ins import enlarged_digits
from geta_nb.pipelines.tables import Table
from geta_nb.qasso import FAMILY, INPUT, QASSO, WEIGHT, Allocation

CLOTHES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
"""What the labels 0 to 9 of Fashion-MNIST mean (github.com/zalandoresearch/fashion-mnist)."""
Figures = Mapping[str, Any]


def load_fashion(run: Run) -> Fashion:
    """Return the data: those in the run's ``data_dir``, else the digits, written in the same format below the run's folder.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = run.data_dir
    if folder is None:
        folder = run.folder / "stand_in"
        folder.mkdir(parents=True, exist_ok=True)
        for names, (images, labels) in zip((TRAIN, TEST), enlarged_digits(SIDE), strict=True):
            for name, values in zip(names, (images[:, 0], labels.to(torch.uint8)), strict=True):
                write_idx(folder / f"{name}.gz", values)
    return Fashion(folder, first=SMOKE_IMAGES if run.smoke else None)


def names_of_classes(run: Run) -> Sequence[str]:
    """Return what the labels mean."""
    return [str(digit) for digit in range(CLASSES)] if run.stand_in else CLOTHES


def epochs_of(run: Run) -> int:
    """Return the epochs of every row: a column compares at equal length."""
    return SMOKE_EPOCHS if run.smoke else EPOCHS


def draw(rows: Tensor, generator: torch.Generator, *, data: Fashion) -> tuple[Tensor, Tensor]:
    """Return training images [B, 1, 28, 28], standardised and mirrored half of the time, and their labels."""
    images, labels = data.train
    return data.standardised(augment(images[rows], generator, shift=0, mirror=True)), labels[rows]


def training_task(data: Fashion, *, seed: int) -> Task:
    """Return what a network is trained for; until the end it is judged by some training images, as no test image may be read twice."""
    images, labels = data.train
    some = torch.arange(len(labels))[: 8 * BATCH]
    watched = data.standardised(images[some]), labels[some]
    batches = Batches(len(labels), BATCH, partial(draw, data=data), seed=seed)
    return Task(batches, image_loss, lambda model: {"accuracy": _accuracy(model, watched)})


def judging_task(data: Fashion, training: Task) -> Task:
    """Return the same task, judged by the test images."""
    images, labels = data.judges()
    judges = data.standardised(images), labels
    return Task(training.batches, training.loss, lambda model: {"accuracy": _accuracy(model, judges)})


def _accuracy(model: nn.Module, labelled: tuple[Tensor, Tensor]) -> float:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return accuracy(model, *(part.to(device) for part in labelled))


def other_rows(run: Run, data: Fashion, rows: Sequence[str], column: str, *, workers: int = 1) -> dict[str, Figures]:
    """Return the figures of some rows of a column, by name: as ``make bench-fashion`` makes them, with the same options.

    Finished rows are kept in ``rows.jsonl`` below the run's folder: a stopped run goes on with the others.

    Args:
        rows: names of ``fashion_rows.ROWS``; ``"dense"`` is the uncompressed network.
        column: a name of ``fashion_rows.COLUMNS``.
        workers: processes, one thread each.

    Raises:
        InputError: a row failed; the others are kept.
    """
    check_names(rows, column)
    bench = Bench(data.folder, run.folder / "rows.jsonl", smoke=run.smoke, workers=workers)
    wanted = with_own_options([Planned(row, FULL_COLUMN.name if row == "dense" else column, run.seed) for row in rows])
    bench.make(wanted)
    if bench.failures:
        name, cause = next(iter(bench.failures.items()))
        raise InputError("other_rows: a row failed.", at=name, got=cause, hint="the others are kept; run again, or leave it out")
    made = bench.current(wanted)
    return {one.planned.row: made[one.name].figures for one in wanted}


def check_names(rows: Sequence[str], column: str) -> None:
    """Check the names before anything is trained.

    Raises:
        ConfigError: no such row or column.
    """
    if unknown := [row for row in rows if row not in ROWS]:
        raise ConfigError("fashion: no such row.", expected=", ".join(ROWS), got=", ".join(unknown))
    if column not in COLUMNS or column == FULL_COLUMN.name:
        raise ConfigError("fashion: no such column.", expected=", ".join(c for c in COLUMNS if c != FULL_COLUMN.name), got=column)


def label_of(row: str) -> str:
    """Return a row's name in the table."""
    return ROWS[row].label.removesuffix(" *")


def figures_of(report: Report) -> dict[str, Any]:
    """Return the facts of a report that :func:`cells` shows, named as the other rows have them."""
    return as_result(report.to_dict() | {"accuracy": report.metrics["accuracy"]}, {})


def plan_against_outcome(first: Mapping[str, Any], optimizer: QASSO) -> Table:
    """Return what a run first meant to do beside what came out, a row for each layer's weights, its inputs, and each family.

    Args:
        first: an early plan, as ``progress()["plan"]`` gave it.
        optimizer: at the end of the run, with its last plan.
    """
    meant, done = Allocation.from_dict(first), optimizer.plan
    bits = {WEIGHT: optimizer.bit_widths(), INPUT: optimizer.activation_bit_widths()}
    assert done is not None
    families = optimizer.progress()["kept"]
    planned = {(row.kind, row.name): row for row in meant.rows}
    rows = []
    for row in done.rows:
        before = planned[row.kind, row.name]
        if row.kind == FAMILY:
            shown = f"groups of {row.name}", f"{before.size} of {row.whole}", f"{round(families[row.name] * row.whole)} of {row.whole}"
        else:
            what = "weights" if row.kind == WEIGHT else "input"
            shown = f"{what} of {row.name}", f"{before.size} bits", f"{bits[row.kind][row.name]:g} bits"
        rows.append((*shown, f"{before.rise:.2g}", f"{row.rise:.2g}"))
    total = ("together", "", "", f"{meant.rise:.2g}", f"{done.rise:.2g}")
    remarks = [f"Planned first at step {meant.step}, last at step {done.step}; rises are those of the loss, before training repairs it."]
    return Table("Plan against outcome", ("what", "planned", "came out", "rise, by the first plan", "by the last"), [*rows, total], remarks)


def notes(run: Run, column: str) -> list[str]:
    """Return what has to be said below the table."""
    limit = f"Relative BOPs of at most {COLUMNS[column].words}; {epochs_of(run)} epochs each, seed {run.seed}."
    return [limit, "Differences of less than a point may be chance: docs/fashion.md has three seeds.", *[STAND_IN] * run.stand_in]


def cells(label: str, figures: Figures) -> tuple[str, ...]:
    """Return a row of text: name, accuracy, relative BOPs, share of the multiply-accumulates, size, bits of weights and of inputs."""
    if "out_of_reach" in figures:
        return label, "out of reach", *[""] * 4
    size, bits = figures["size_bytes"] / 1000, f"{_range(figures['weight_bits'])}, {_range(figures['activation_bits'])}"
    costs = f"{100 * figures['relative_bops']:.3g} %", f"{100 * figures['macs']:.3g} %", f"{size:.1f} kB"
    return label, f"{100 * figures['accuracy']:.2f} %", *costs, bits


def _range(bits: Mapping[str, float]) -> str:
    """Return ``"3 to 7"``, ``"4"``, or fp32 where there is no quantizer."""
    found = sorted({*bits.values()})
    return "fp32" if not found else f"{found[0]:g}" + (f" to {found[-1]:g}" if len(found) > 1 else "")
