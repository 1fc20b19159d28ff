"""Charts for rows of layers: bars side by side, one column a quantity, and heat strips over steps.

In: names of rows and plain numbers. Out: SVG pictures; numbers stand beside the bars as text, colour is never the only carrier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geta_nb.display.drawing import CHARACTER, bar, legend, picture, rect, text, text_width
from geta_nb.display.wording import clean, count, shorten_all

ROW, TIGHT_ROW, TOP, LABEL, PAD = 20, 15, 46, 216, 14
MANY_ROWS = 30
MAX_ROWS = 120
Values = Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """One kind of bar in a column: theme class, words of the legend, a value per row (None: no bar)."""

    kind: str
    words: str
    values: Values


@dataclass(frozen=True)
class Column:
    """One quantity: its title, one or two series on one common scale, and the text that stands beside each row's bars."""

    title: str
    series: Sequence[Series]
    texts: Sequence[str]
    maximum: float | None = None

    @property
    def scale(self) -> float:
        """The value that fills the column's whole length."""
        present = [value for series in self.series for value in series.values if value is not None]
        return self.maximum or max(present, default=0.0) or 1.0


def bar_table(names: Sequence[str], columns: Sequence[Column], *, label: str, bar_room: float = 104) -> str:
    """Return rows of layers with one column of bars per quantity.

    Args:
        names: one per row, any text.
        columns: the quantities; every sequence in them has ``len(names)`` entries.
        label: what a screen reader says.
        bar_room: length of the longest bar, in pixels.
    """
    shown = min(len(names), MAX_ROWS)
    pitch = ROW if shown <= MANY_ROWS else TIGHT_ROW
    labels = shorten_all(names[:shown], int((LABEL - 8) / CHARACTER))
    left = max([text_width(short) for short in labels], default=0) + 8
    parts = [text(0, TOP + pitch * i + 11, short, title=_tip(names[i], short)) for i, short in enumerate(labels)]
    x = left + PAD
    for column in columns:
        drawn, x = _column(x, column, shown, bar_room, pitch)
        parts.append(drawn)
    bottom = TOP + pitch * shown
    if len(names) > shown:
        parts.append(text(0, bottom + 14, f"… and {count(len(names) - shown)} more", kind="gv-dim"))
        bottom += ROW
    entries = list(dict.fromkeys((series.kind, series.words) for column in columns for series in column.series))
    drawn_legend, legend_end = legend(0, 12, entries)
    return picture(max(x, legend_end), bottom + 4, [drawn_legend, *parts], label=label)


def _tip(name: str, short: str) -> str:
    return "" if clean(name) == short else clean(name)


def _column(x: float, column: Column, shown: int, bar_room: float, pitch: float) -> tuple[str, float]:
    numbers = max([text_width(value) for value in column.texts[:shown]], default=0)
    room = max(bar_room + 6 + numbers, text_width(column.title))
    parts = [text(x, TOP - 10, column.title, kind="gv-strong")]
    thickness = 12 / max(len(column.series), 1)
    for i in range(shown):
        y = TOP + pitch * i + 1
        parts.append(rect(x, y, bar_room, 12, kind="gv-track", opacity=0.25))
        for k, series in enumerate(column.series):
            value = series.values[i]
            if value is not None:
                length = bar_room * min(max(value / column.scale, 0), 1)
                parts.append(bar(x, y + k * thickness, length, thickness - 0.5, kind=series.kind))
        parts.append(text(x + bar_room + 6, y + 10, column.texts[i]))
    return "".join(parts), x + room + PAD


def heat_row(x: float, y: float, room: float, height: float, values: Values, *, kind: str, low: float, high: float) -> str:
    """Return one row of a heat strip: ``values`` from left to right, ``low`` faint, ``high`` full; equal neighbours are one rectangle."""
    levels = [None if value is None else round(20 * min(max((value - low) / ((high - low) or 1), 0), 1)) for value in values]
    step = room / max(len(levels), 1)
    parts, start = [], 0
    for here in range(1, len(levels) + 1):
        if here == len(levels) or levels[here] != levels[start]:
            level = levels[start]
            if level is not None:
                opacity = 0.06 + 0.94 * level / 20
                parts.append(rect(x + start * step, y, (here - start) * step, height, kind=kind, opacity=opacity))
            start = here
    return f'<g shape-rendering="crispEdges">{"".join(parts)}</g>'
