"""The fashion table's text: means, deviations and standard errors over seeds, and what they can tell apart.

In: kept runs, all of the same code. Out: cells, Markdown, sentences.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import hypot, sqrt
from statistics import fmean, stdev

from geta_nb.bench.fashion_rows import COLUMNS, COMPRESSED, CREDIT, DEFAULTS, FIRST, NARROW, NARROW_FP32, ROWS, SECOND, SEEDS, TUNED_AT
from geta_nb.bench.kept_runs import KeptRun


@dataclass(frozen=True)
class Cell:
    """One row in one column.

    Args:
        accuracies: of the seeds that are there, in [0, 1]; none where the column is out of reach.
        relative_bops: what the finished networks cost, the mean.
        width: of narrower networks.
        why_not: why the column is out of reach.
    """

    accuracies: tuple[float, ...] = ()
    relative_bops: float = 0.0
    width: float | None = None
    why_not: str = ""

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds, of one run; 0 for a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the mean: the deviation over the root of the number of seeds."""
        return self.deviation / sqrt(len(self.accuracies))


Cells = Mapping[tuple[str, str], Cell]


def cells_of(runs: Iterable[KeptRun]) -> dict[tuple[str, str], Cell]:
    """Return (row, column) -> cell."""
    grouped: dict[tuple[str, str], list[KeptRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        grouped.setdefault((run.row, run.column), []).append(run)
    return {place: _cell([run.figures for run in group]) for place, group in grouped.items()}


def _cell(figures: Sequence[Mapping[str, object]]) -> Cell:
    blocked = [str(one["out_of_reach"]) for one in figures if "out_of_reach" in one]
    if blocked:
        return Cell(why_not=blocked[0])
    notes = figures[0].get("notes", {})
    width = notes.get("width") if isinstance(notes, Mapping) else None
    costs = [float(str(one["relative_bops"])) for one in figures]
    return Cell(tuple(float(str(one["accuracy"])) for one in figures), fmean(costs), width)


def cells_text(cells: Cells) -> str:
    """Return the table, what it means, the narrower networks' widths, what is out of reach and what is not measured yet."""
    columns = (*FIRST, *SECOND)
    head = ["test accuracy (%) at relative BOPs of at most", *(column.words for column in columns)]
    rows = [[ROWS[name].label, *(_words(cells.get((name, column.name))) for column in columns)] for name in COMPRESSED]
    dense = cells.get(("dense", "dense"))
    notes = [
        f"Dense fp32: {_words(dense) or 'not measured yet'}. Mean ± deviation over seeds (standard error of the mean, number of seeds); "
        "a bare figure is seed 0 alone.",
        f"\\* {CREDIT}.",
        *(f"- {line}" for line in (*widths(cells), *out_of_reach(cells))),
    ]
    return f"{table(head, rows)}\n\n" + "\n".join(notes) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _words(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.why_not:
        return "out of reach"
    if len(cell.accuracies) == 1:
        return f"{100 * cell.mean:.2f}"
    return f"{100 * cell.mean:.2f} ± {100 * cell.deviation:.2f} ({100 * cell.standard_error:.2f}, {len(cell.accuracies)})"


def widths(cells: Cells) -> list[str]:
    """Return a sentence for each row of narrower networks: its width in each column, and what that costs."""
    lines = []
    for name, row in ROWS.items():
        found = {column: cells.get((name, column.name)) for column in (*FIRST, *SECOND)} if row.kind in (NARROW, NARROW_FP32) else {}
        words = [
            f"{cell.width:.3f} in {column.words} ({100 * cell.relative_bops:.3g} %)"
            for column, cell in found.items()
            if cell is not None and cell.width is not None
        ]
        lines += [f"{row.label}: width {'; '.join(words)}"] if words else []
    return lines


def out_of_reach(cells: Cells) -> list[str]:
    """Return why a row has no figure in a column."""
    return [f"{ROWS[row].label}, {COLUMNS[column].words}: {cell.why_not}" for (row, column), cell in cells.items() if cell.why_not]


def facts(cells: Cells) -> list[dict[str, object]]:
    """Return every cell as JSON-able facts, with what its accuracies come to."""
    return [{"row": row, "column": column, **asdict(cell), **_statistics(cell)} for (row, column), cell in cells.items()]


def _statistics(cell: Cell) -> dict[str, float]:
    if not cell.accuracies:
        return {}
    return {"mean": cell.mean, "deviation": cell.deviation, "seeds": len(cell.accuracies), "standard_error": cell.standard_error}


def lead(leading: Mapping[str, Iterable[str]]) -> list[str]:
    """Return, for each column, a sentence that names the rows which lead it."""
    return [f"{COLUMNS[name].words}: validation puts ahead {'; '.join(map(_label, rows))}" for name, rows in leading.items()]


def verdict(cells: Cells, leading: Mapping[str, Iterable[str]]) -> list[str]:
    """Return, for each column, GETA's defaults beside the rows that lead it.

    Only cells with all seeds are compared, and only with rows that validation put ahead: the best of several by test accuracy would be
    too good by what luck adds. A difference comes with its standard error, the root of the sum of both squares; one that is not more
    than twice that is not told apart.
    """
    whole = {place: cell for place, cell in cells.items() if len(cell.accuracies) == len(SEEDS)}
    return [
        f"{column.words}: {_difference(whole[DEFAULTS, column.name], whole[row, column.name], _label(row))}"
        for column in (*FIRST, *SECOND)
        for row in leading.get(column.name, ())
        if (row, column.name) in whole and (DEFAULTS, column.name) in whole
    ]


def _label(row: str) -> str:
    return ROWS[row].label.removesuffix(" *")


def _difference(ours: Cell, other: Cell, label: str) -> str:
    gap, error = ours.mean - other.mean, hypot(ours.standard_error, other.standard_error)
    told = "" if abs(gap) > 2 * error else ", not told apart"
    return f"GETA's defaults {100 * ours.mean:.2f}, {label} {100 * other.mean:.2f}: {100 * gap:+.2f} ± {100 * error:.2f} points{told}"


Options = dict[tuple[str, str], dict[str, Cell]]
"""(row, its options as JSON) -> column -> its validation runs."""


def validation_text(runs: Iterable[KeptRun]) -> str:
    """Return the options that were compared on the last training images, the table's own in bold, and where others are ahead of them."""
    grouped: dict[tuple[str, str], dict[str, list[KeptRun]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        grouped.setdefault((run.row, _text(run.options)), {}).setdefault(run.column, []).append(run)
    found = {place: {column: _cell([run.figures for run in same]) for column, same in group.items()} for place, group in grouped.items()}
    columns = [name for name in TUNED_AT if any(name in group for group in found.values())]
    means = {place: mean for row in ROWS for place, mean in _means(found, row).items()}
    rows = []
    for (row, options), group in sorted(found.items(), key=lambda item: (list(ROWS).index(item[0][0]), item[0][1])):
        own = options == _text(ROWS[row].options)
        figures = [_words(group.get(column)) for column in columns]
        mean = f"{100 * means[row, options]:.2f}" if (row, options) in means else ""
        rows.append([ROWS[row].label, f"**{options}**" if own else options, *figures, mean])
    head = ["row", "options", *(f"{COLUMNS[column].words} (validation, %)" for column in columns), "mean"]
    return f"{table(head, rows)}\n\n" + "".join(f"- {line}\n" for line in _ahead(means))


def _text(options: Mapping[str, object]) -> str:
    return json.dumps(dict(options), sort_keys=True)


def _means(found: Options, row: str) -> dict[tuple[str, str], float]:
    """Return (row, options) -> mean accuracy, of options that were run in all columns.

    A column that none of the row's options reaches is left out; where others reach it, one that does not has 0 there.
    """
    whole = {place: group for place, group in found.items() if place[0] == row and set(group) == set(TUNED_AT)}
    reached = [column for column in TUNED_AT if any(group[column].accuracies for group in whole.values())]
    accuracies = {place: [cell.mean if (cell := group[column]).accuracies else 0.0 for column in reached] for place, group in whole.items()}
    return {place: fmean(values) for place, values in accuracies.items() if values}


def _ahead(means: Mapping[tuple[str, str], float]) -> list[str]:
    lines = []
    for row in ROWS:
        mine = {options: mean for (name, options), mean in means.items() if name == row}
        own = _text(ROWS[row].options)
        first = max(mine, key=lambda options: mine[options], default=own)
        if own in mine and mine[first] > mine[own]:
            lines.append(f"{_label(row)}: {first} is ahead of the table's own by {100 * (mine[first] - mine[own]):.2f} points")
    return lines
