"""The fashion table as data: its columns, its rows with their options, and which runs make it, the second wave decided by validation runs.

Nothing here is chosen by test images: ``tried`` says between which options ``--validate`` compares, and :func:`choosing` which runs say
what leads a column, all trained on the first 50 000 training images and judged by the last 10 000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

DENSE_FP32, NARROW_FP32, NARROW, GETA, OTHER = "dense", "narrower, fp32", "narrower, quantized", "GETA", "other method"
AGAIN = "GETA's widths, from scratch"
"""What GETA's widths are worth without its weights: a question to validation images alone, and no rival, for it costs a run of GETA."""
KINDS = (DENSE_FP32, NARROW_FP32, NARROW, GETA, AGAIN, OTHER)
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
        repeated: those of them, and of its own, that were too close to tell apart by one seed: ``--validate`` runs all.
    """

    label: str
    kind: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tried: tuple[Mapping[str, Any], ...] = ()
    repeated: tuple[Mapping[str, Any], ...] = ()


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

FEWER_BITS = {"ranges": "error", "bits": 6}
"""Of the rounding after pruning: what it then costs less is spent on groups."""


ABLATED_AT = (2, 3)
"""Bits at which each of GETA's defaults is changed alone."""
REPEATED_AT = 3
CHANGES: tuple[Mapping[str, Any], ...] = (
    {"refit": False}, {"tie": "never"}, {"signed": True}, {"narrow_range": True}, {"granularity": "channel"}, {"learn_exponent": False},
    {"allocation": "uniform"}, {"lr_quant": 1e-4}, {"stages": "late"}, {"saliency": "taylor"}, {"sparing": 0.0},
)  # fmt: skip
JOINT_BITS = {"bit_range": [2, 16], "activation_bit_range": [2, 16]}
COUNTED = ({"weight_counts": 1.0, "input_counts": 4.0}, {"weight_counts": 4.0, "input_counts": 16.0})
"""How often rises by rounding count, other than by default."""
CLOSE: tuple[Mapping[str, Any], ...] = ({}, {"saliency": "taylor"}, {"granularity": "channel"}, {"lr_quant": 1e-4})
"""The defaults, and the changes that one seed cannot tell from them."""


def _tried(options: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the options with each change alone."""
    return tuple({**options, **change} for change in changes)


def _chosen(
    label: str, kind: str, method: str, base: Mapping[str, Any], changes: Iterable[Mapping[str, Any]], change: Mapping[str, Any]
) -> Row:
    """Return a row whose options are ``base`` with one of the ``changes``, the one that validation put ahead, or none: {}."""
    grid, options = (base, *_tried(base, changes)), {**base, **change}
    return Row(label, kind, method, options, tuple(other for other in grid if other != options))


def _narrow(bits: int, chosen: Mapping[str, Any]) -> Row:
    changes = ({"lr_step": 3e-4}, {"lr_step": 3e-3}, {"start": "error"})
    return _chosen(f"narrower networks, {bits} bits from the start", NARROW, "narrow", {"bits": bits}, changes, chosen)


def _geta(bits: int) -> Row:
    options = {"bits": bits}
    tried, repeated = CHANGES if bits in ABLATED_AT else (), CLOSE if bits == REPEATED_AT else ()
    return Row(f"GETA, no fewer than {bits} bits", GETA, "geta", options, _tried(options, tried), _tried(options, repeated))


def _other(label: str, method: str, base: Mapping[str, Any], *changes: Mapping[str, Any], chosen: Mapping[str, Any]) -> Row:
    return _chosen(label, OTHER, method, base, changes, chosen)


ROWS: Mapping[str, Row] = {
    "dense": Row("dense network", DENSE_FP32, "narrow", {"bits": 32}),
    "narrow32": Row("narrower networks, fp32", NARROW_FP32, "narrow", {"bits": 32}),
    **{f"narrow{b}": _narrow(b, chosen) for b, chosen in ((2, {"start": "error"}), (3, {}), (4, {"lr_step": 3e-4}))},
    **{f"geta{b}": _geta(b) for b in (2, 3, 4, 6)},
    "geta": Row("GETA, this package's defaults", GETA, "geta"),
    "joint": Row(
        "GETA, bits and groups jointly, 2 to 16 bits", GETA, "geta", JOINT_BITS, _tried(JOINT_BITS, COUNTED),
        repeated=_tried(JOINT_BITS, ({}, *COUNTED)),
    ),
    "again": Row("GETA's widths and bits (geta3), trained from scratch", AGAIN, "geta_again", {"bits": 3}, repeated=({"bits": 3},)),
    "paper": Row("GETA, the paper's rules and settings", GETA, "geta", {"paper": True}),
    "lsq": _other(
        "LSQ, fixed bits", "lsq", {"dense_share": 0.33}, {"dense_share": 0.0}, {"dense_share": 0.5}, {"lr_step": 3e-4}, {"lr_step": 3e-3},
        {"start": "error"}, chosen={"lr_step": 3e-3},
    ),
    "djpq": _other(
        "DJPQ", "djpq", {"gamma": 0.3}, {"gamma": 0.1}, {"gamma": 1.0}, {"dense_share": 0.33}, {"lr_quant": 3e-3}, {"refit": True},
        chosen={"dense_share": 0.33},
    ),
    "bayesian_bits": _other(
        "Bayesian Bits", "bayesian_bits", {"rate": 0.01}, {"rate": 0.003}, {"rate": 0.05}, {"dense_share": 0.33}, {"refit": True},
        chosen={"dense_share": 0.33},
    ),
    "hesso": _other(
        "HESSO pruning, then PTQ", "hesso", {"saliency": "taylor"}, {"saliency": "fisher"}, {"saliency": "paper"}, {"ranges": "error"},
        FEWER_BITS, {"ranges": "error", "bits": 4}, chosen=FEWER_BITS,
    ),
    "clipq": _other("CLIP-Q *", "clipq", {"bits": 3}, {"bits": 2}, {"bits": 4}, {"dense_share": 0.33}, chosen={"dense_share": 0.33}),
    "minmax": _other("PTQ, no further training", "minmax", {}, {"ranges": "error"}, chosen={}),
    "magnitude": _other(
        "magnitude groups, then PTQ", "magnitude", {"dense_share": 0.5}, {"dense_share": 0.33}, {"ranges": "error"}, FEWER_BITS,
        chosen=FEWER_BITS,
    ),
    "eagleeye": _other(
        "EagleEye sampling, then PTQ", "eagleeye", {"least": 0.3}, {"least": 0.1}, {"least": 0.6}, {"ranges": "error"}, FEWER_BITS,
        chosen=FEWER_BITS,
    ),
}
COMPRESSED = tuple(name for name, row in ROWS.items() if row.kind not in (DENSE_FP32, AGAIN))
"""Rows of the table below the dense network."""
CREDIT = "zeros scattered over the weights are counted as free, which ordinary devices cannot skip; its weights alone are quantized"

UNIFORM, DEFAULTS, JOINT = ("geta2", "geta3", "geta4", "geta6"), "geta", "joint"


def _of_kind(kind: str) -> tuple[str, ...]:
    return tuple(name for name, row in ROWS.items() if row.kind == kind)


RIVALS: tuple[tuple[tuple[str, ...], int], ...] = ((_of_kind(NARROW), 1), (_of_kind(OTHER), BEST_OTHERS), (UNIFORM, 1))
"""Rows of which the best so many lead a column."""
Accuracies = Mapping[tuple[str, str], float]
"""(row, column) -> validation accuracy with seed 0; a row that cannot reach the column is not in it."""


def choosing() -> list[Planned]:
    """Return the validation runs that leaders are chosen by: seed 0, the rivals in every column that all rows have, hardest first."""
    return [Planned(row, column.name) for column in reversed(FIRST) for rows, _ in RIVALS for row in rows]


def first_wave() -> list[Planned]:
    """Return the test runs of every row in every column that all rows have, with seed 0, the hardest columns first."""
    return [Planned("dense", FULL_COLUMN.name), *(Planned(row, column.name) for column in reversed(FIRST) for row in COMPRESSED)]


def leaders(validated: Accuracies, done: Iterable[Planned]) -> dict[str, list[str]]:
    """Return column -> the rows that lead it, of every column whose validation runs are all there.

    The best narrower quantized network, the two best other methods and GETA's best uniform row by validation accuracy in the column
    itself, or in the one that a further column is ``chosen_by``; no test image has a say.

    Args:
        validated: validation accuracies.
        done: validation runs that are there, also those that found their column out of reach.
    """
    there = set(done)
    complete = {column.name for column in FIRST if {run for run in choosing() if run.column == column.name} <= there}
    judged = {column.name: column.chosen_by or column.name for column in (*FIRST, *SECOND)}
    return {
        name: [row for rows, count in RIVALS for row in best(validated, by, rows, count)] for name, by in judged.items() if by in complete
    }


def second_wave(leading: Mapping[str, Iterable[str]]) -> list[Planned]:
    """Return the further test runs that the leaders ask for, column by column.

    In the columns that all rows have, seeds 1 and 2 for GETA's defaults and its joint row, the leaders and all narrower quantized networks;
    in the further columns all seeds for GETA's two rows and the leaders. All rows stay in the table: the choice spends seeds and hides
    nothing.
    """
    runs: list[Planned] = []
    for column in (*FIRST, *SECOND):
        if column.name in leading:
            more, seeds = ((), SEEDS) if column in SECOND else (_of_kind(NARROW), SEEDS[1:])
            rows = dict.fromkeys((DEFAULTS, JOINT, *leading[column.name], *more))
            runs += [Planned(row, column.name, seed) for row in rows for seed in seeds]
    return runs


def best(validated: Accuracies, column: str, rows: Iterable[str], count: int) -> list[str]:
    """Return the rows of highest accuracy, at most ``count``; of equals the one that stands first."""
    return sorted((row for row in rows if (row, column) in validated), key=lambda row: -validated[row, column])[:count]
