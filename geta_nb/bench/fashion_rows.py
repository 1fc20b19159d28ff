"""The fashion table as data: its columns, its rows with their options, and which runs make it, the second wave decided by the first.

Nothing here is tuned on the test images: ``tried`` says between which options ``--validate`` compares, on training images alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

DENSE_FP32, NARROW_FP32, NARROW, GETA, OTHER = "dense", "narrower, fp32", "narrower, quantized", "GETA", "other method"
KINDS = (DENSE_FP32, NARROW_FP32, NARROW, GETA, OTHER)
SEEDS = (0, 1, 2)
BEST_OTHERS = 2


@dataclass(frozen=True)
class Column:
    """What a finished network may cost.

    Args:
        name: short, in the kept runs.
        relative_bops: at most, in the paper's counting.
        activations: inputs are quantized too.
        chosen_by: the column whose first results say which rows are run in this one; empty: all rows are.
    """

    name: str
    relative_bops: float
    activations: bool = False
    chosen_by: str = ""

    @property
    def words(self) -> str:
        """The head of the column."""
        return f"{100 * self.relative_bops:.2g} %, weights{' and inputs' if self.activations else ''}" if self.name != "dense" else "fp32"


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        label: name in the table.
        kind: one of ``KINDS``.
        method: how it is made, a name of ``fashion_run.METHODS``.
        options: of the method.
        tried: other options that ``--validate`` compares with these.
    """

    label: str
    kind: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tried: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Planned:
    """One number to make: row and column by name."""

    row: str
    column: str
    seed: int = 0


FULL_COLUMN = Column("dense", 1.0)
FIRST = (Column("w3.2", 0.032), Column("w1.6", 0.016), Column("a0.8", 0.008, True), Column("a0.4", 0.004, True))
SECOND = (Column("w0.8", 0.008, chosen_by="w1.6"), Column("a0.2", 0.002, True, chosen_by="a0.4"))
COLUMNS = {column.name: column for column in (FULL_COLUMN, *FIRST, *SECOND)}
TUNED_AT = ("w1.6", "a0.4")
"""Columns of ``--validate``: the hardest ones that all rows have."""

ROWS: Mapping[str, Row] = {
    "dense": Row("dense network", DENSE_FP32, "narrow", {"bits": 32}),
    "narrow32": Row("narrower networks, fp32", NARROW_FP32, "narrow", {"bits": 32}),
    **{f"narrow{b}": Row(f"narrower networks, {b} bits from the start", NARROW, "narrow", {"bits": b}) for b in (2, 3, 4)},
    **{f"geta{b}": Row(f"GETA, {b} bits everywhere", GETA, "geta", {"bits": b}) for b in (2, 3, 4, 6)},
    "geta": Row("GETA, this package's defaults", GETA, "geta"),
    "paper": Row("GETA, the paper's rules and settings", GETA, "geta", {"paper": True}),
    "lsq": Row("LSQ, fixed bits", OTHER, "lsq", {"dense_share": 0.33}, ({"dense_share": 0.5},)),
    "djpq": Row("DJPQ", OTHER, "djpq", {"gamma": 0.3}, ({"gamma": 1.0},)),
    "bayesian_bits": Row("Bayesian Bits", OTHER, "bayesian_bits", {"rate": 0.01}, ({"rate": 0.05},)),
    "hesso": Row("HESSO pruning, 8-bit PTQ", OTHER, "hesso", {"saliency": "taylor"}, ({"saliency": "paper"},)),
    "clipq": Row("CLIP-Q *", OTHER, "clipq", {"bits": 3}, ({"bits": 4}, {"bits": 3, "dense_share": 0.33})),
    "minmax": Row("min-max PTQ", OTHER, "minmax"),
    "magnitude": Row("magnitude groups, 8-bit PTQ", OTHER, "magnitude", {"dense_share": 0.5}, ({"dense_share": 0.33},)),
    "eagleeye": Row("EagleEye sampling, 8-bit PTQ", OTHER, "eagleeye", {"least": 0.3}, ({"least": 0.1}, {"least": 0.6})),
}
CREDIT = "zeros scattered over the weights are counted as free, which ordinary devices cannot skip; its weights alone are quantized"

UNIFORM, DEFAULTS = ("geta2", "geta3", "geta4", "geta6"), "geta"
Accuracies = Mapping[tuple[str, str], float]
"""(row, column) -> accuracy with seed 0; a row that cannot reach the column is not in it."""


def first_wave() -> list[Planned]:
    """Return every row in every column that all rows have, with seed 0, the hardest columns first."""
    rows = [name for name, row in ROWS.items() if row.kind != DENSE_FP32]
    return [Planned("dense", FULL_COLUMN.name), *(Planned(row, column.name) for column in reversed(FIRST) for row in rows)]


def second_wave(first: Accuracies, done: Iterable[Planned]) -> list[Planned]:
    """Return what the first wave's results ask for, column by column, as soon as every row of a column is there.

    All seeds for GETA's defaults, its best uniform row, the narrower quantized networks and the two best others; and the further
    columns with all seeds for the same, of the narrower networks the best one alone. "Best" is by seed 0 in the column itself, or
    in the one that the further column is ``chosen_by``. All rows stay in the table: the choice spends seeds, it hides nothing.

    Args:
        first: seed 0's accuracies.
        done: runs that are there, also those that found their column out of reach.
    """
    there = set(done)
    complete = {column.name for column in FIRST if {run for run in first_wave() if run.column == column.name} <= there}
    runs = [
        Planned(row, column.name, seed)
        for column in FIRST
        if column.name in complete
        for row in (*leaders(first, column.name), *_of_kind(NARROW))
        for seed in SEEDS[1:]
    ]
    runs += [
        Planned(row, column.name, seed)
        for column in SECOND
        if column.chosen_by in complete
        for row in (*leaders(first, column.chosen_by), *best(first, column.chosen_by, _of_kind(NARROW), 1))
        for seed in SEEDS
    ]
    return runs


def leaders(first: Accuracies, column: str) -> list[str]:
    """Return GETA's defaults, its best uniform row and the two best others of a column."""
    return [DEFAULTS, *best(first, column, UNIFORM, 1), *best(first, column, _of_kind(OTHER), BEST_OTHERS)]


def best(first: Accuracies, column: str, rows: Iterable[str], count: int) -> list[str]:
    """Return the rows of highest accuracy, at most ``count``; of equals the one that stands first."""
    return sorted((row for row in rows if (row, column) in first), key=lambda row: -first[row, column])[:count]


def _of_kind(kind: str) -> list[str]:
    return [name for name, row in ROWS.items() if row.kind == kind]
