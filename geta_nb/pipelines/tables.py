"""A table that shows itself: aligned text, and HTML in the manner of all other views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geta_nb.display import markup
from geta_nb.display.wording import width
from geta_nb.views import VIEWS, Shown, View

LONG = 24
"""Characters of a cell that may wrap; a shorter one takes the room it needs."""


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """Rows under a head.

    Args:
        title: what the rows are.
        head: names of the columns.
        rows: text of each cell, as many as there are columns.
        notes: remarks below, one a line.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {"title": self.title, "head": list(self.head), "rows": [list(row) for row in self.rows], "notes": list(self.notes)}


def _text(table: Table) -> str:
    lines = [list(table.head), *(list(row) for row in table.rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(table.head))]
    shown = ["  ".join(cell + " " * (room - width(cell)) for cell, room in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([table.title, *shown, *table.notes])


def _html(table: Table) -> str:
    rows: list[list[markup.Cell]] = [[markup.Prose(cell) if width(cell) > LONG else cell for cell in row] for row in table.rows]
    return markup.fragment(table.title, markup.table(table.head, rows, label=table.title), *map(markup.note, table.notes))


VIEWS[Table] = View(_text, _html)
