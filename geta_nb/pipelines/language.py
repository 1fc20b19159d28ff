"""The language-model benchmark's table in a notebook: what is kept of the real thing, or a tiny one made on the spot.

In: a :class:`~geta_nb.pipelines.run.Run`. Out: a table that shows itself. The command is ``python -m geta_nb.bench.lm_table``.
"""

from __future__ import annotations

from pathlib import Path

from geta_nb._extra import carried
from geta_nb.bench.lm_cells import HEAD, made_by, remarks
from geta_nb.bench.lm_table import RESULTS, LmBench
from geta_nb.errors import InputError
from geta_nb.pipelines.run import Run
from geta_nb.pipelines.tables import Table

SMOKE_COLUMNS = ("s35",)


def kept_file() -> Path | None:
    """Return the kept runs that the checkout carries; None where there are none."""
    try:
        file = carried(RESULTS.parts[0]).joinpath(*RESULTS.parts[1:])
    except InputError:
        return None
    return file if file.exists() else None


def carried_table() -> Table | str:
    """Return the full-size runs that the checkout carries as a table; without a checkout, where they can be read."""
    file = kept_file()
    return _table(LmBench(Path(), file)) if file is not None else "no checkout, so no full-size runs: docs/language_models.md has them"


def lm_table(run: Run) -> Table:
    """Return GETA's networks beside those that others cut.

    A smoke run makes every method's row at one share with a tiny network and few steps, whose figures mean nothing. Else the runs that the
    checkout carries are shown; without a checkout they are made, which takes hours and goes on where it was stopped.
    """
    kept, own = kept_file(), run.folder / "lm.jsonl"
    if run.smoke:
        bench = LmBench(run.folder / "networks", own, "smoke", SMOKE_COLUMNS, workers=1)
        bench.make(equal=("parameters",), speeds=False)
        return _table(bench, ["A tiny network and a few steps: the figures mean nothing."])
    if kept is not None:
        return _table(LmBench(run.folder, kept))
    bench = LmBench(run.folder / "networks", own, workers=1)
    bench.make()
    return _table(bench)


def _table(bench: LmBench, notes: list[str] | None = None) -> Table:
    runs = bench.runs()
    return Table("GETA beside cuts of equal size", HEAD, bench.lines(), notes or [*remarks(runs), *made_by(runs)])
