"""Published figures, each with how sure we are of it. They stand beside a run's own; no number of this file enters a computation.

The paper is Qu et al. 2025, arXiv:2502.16638 (CVPR 2025), whose full text was not at hand: ``transcribed`` figures were copied out of it
by independent reproductions; ``unverified`` ones are from memory and may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geta_nb.pipelines.tables import Table

TRANSCRIBED = "transcribed by independent reproductions"
UNVERIFIED = "from memory, UNVERIFIED"
MEASURED = "measured in this run"
SOURCE = "Qu et al. 2025, arXiv:2502.16638"


@dataclass(frozen=True)
class Figure:
    """One row of a results table.

    Attributes:
        method: what was compressed how.
        quality: as printed, with its unit.
        bops: relative BOPs as printed, in the counting of its source; "" where it gives none.
        sure: where the figure comes from.
    """

    method: str
    quality: str
    bops: str
    sure: str


def _known(method: str, quality: str, bops: str = "") -> Figure:
    return Figure(method, quality, bops, TRANSCRIBED)


def _partly(method: str, quality: str, bops: str, which: str) -> Figure:
    return Figure(method, quality, bops, f"{TRANSCRIBED}; {which} {UNVERIFIED}")


def _unsure(method: str, quality: str, bops: str = "") -> Figure:
    return Figure(method, quality, bops, UNVERIFIED)


PUBLISHED: dict[str, tuple[Figure, ...]] = {
    "resnet20": (
        _known("dense", "91.70 %", "100 %"),
        _known("GETA (structured)", "91.42 %", "4.5 %"),
        _known("GETA, independent run of the released script, 3 seeds", "91.44 %", "8.43 %"),
        _unsure("ANNC (unstructured)", "90.92 %", "4.4 %"),
        _unsure("QST-B (unstructured)", "91.50 %", "5.1 %"),
    ),
    "vgg7": (
        _unsure("dense", "93.05 %", "100 %"),
        _known("GETA", "92.57 %", "0.41 %"),
        _partly("DJPQ-restrict", "91.43 %", "0.46 %", "BOPs"),
        _partly("Bayesian Bits", "91.96 %", "0.29 %", "BOPs"),
    ),
    "bert": (
        _known("GETA, sparsity 10 %", "EM 78.26, F1 86.06", "19.4 %"),
        _known("GETA, sparsity 30 %", "EM 77.28, F1 85.70"),
        _known("GETA, sparsity 50 %", "EM 76.74, F1 85.87", "14.4 %"),
        _known("GETA, sparsity 70 %", "EM 75.88, F1 84.74", "11.9 %"),
        _known("OTO, then 8-bit PTQ, 10 / 30 / 50 / 70 %", "F1 83.43 / 83.31 / 83.30 / 82.57"),
    ),
    "resnet50": (_unsure("GETA, sparsity 40 %", "74.40 %", "5.38 %"),),
}
NO_FIGURES = "The paper's figures for this experiment are in a table or picture that was not at hand; none are printed here."
COUNTING = (
    "Relative BOPs of the paper's own rows: the released scripts take the denominator from a network that is 16-bit already, "
    "so they do not compare with rows of other papers, nor with ours (dense fp32 denominator)."
)
STAND_IN = "This run used stand-in data: its quality does not compare with published figures, only the setting does."


def beside(name: str, ours: Iterable[tuple[str, str, float]], *, stand_in: bool) -> Table:
    """Return our results and the published ones as one table.

    Args:
        name: key of :data:`PUBLISHED`; any other name has no published figures, and the table says so.
        ours: (method, quality as text, relative BOPs as a share).
        stand_in: the run did not use the real data.
    """
    figures: Sequence[Figure] = PUBLISHED.get(name, ())
    rows = [Figure(method, quality, f"{100 * bops:.2f} %", MEASURED) for method, quality, bops in ours]
    notes = [f"Published: {SOURCE}.", COUNTING] if figures else [NO_FIGURES]
    cells = [[str(value) for value in asdict(row).values()] for row in (*rows, *figures)]
    return Table("Beside published figures", ("method", "quality", "relative BOPs", "how sure"), cells, notes + [STAND_IN] * stand_in)


def published_rows(name: str) -> list[dict[str, Any]]:
    """Return the published figures of an experiment as plain values."""
    return [asdict(figure) for figure in PUBLISHED.get(name, ())]
