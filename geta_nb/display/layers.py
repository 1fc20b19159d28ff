"""The picture and the table of layers that previews and reports share: channels, bits, BOPs and bytes, before and after.

In: rows of any origin as mappings. Out: one picture with a column a quantity, every column on its own scale, before above after; and the
same numbers as a table, for readers whose viewer drops pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geta_nb.display.charts import Column, Series, Values, bar_table
from geta_nb.display.markup import Cell, Number, name, table
from geta_nb.display.theme import BLUE, GREEN, GREY, ORANGE, VERMILION
from geta_nb.display.wording import MISSING, bits, clean, count, percent, size

Row = Mapping[str, Any]


def row_name(row: Row) -> str:
    """Return the layer's name, or a word for the root."""
    return clean(row.get("layer") or "(root)")


def _values(rows: Sequence[Row], key: str) -> Values:
    return [None if row.get(key) is None else float(row[key]) for row in rows]


def _any(values: Values) -> bool:
    return any(value is not None for value in values)


def layers_picture(rows: Sequence[Row], *, label: str) -> str:
    """Return bars per layer.

    Args:
        rows: mappings with ``layer`` and any of ``channels``, ``bops``, ``size_bytes`` each ``_before`` and ``_after``, ``bits`` and
            ``activation_bits`` (after; before is the dense 32). What no row has gets no column.
        label: what a screen reader says.
    """
    columns = [_channel_column(rows), *_bit_columns(rows)]
    columns += [_cost_column("BOPs", rows, "bops", VERMILION, count), _cost_column("size", rows, "size_bytes", ORANGE, size)]
    return bar_table([row_name(row) for row in rows], [column for column in columns if column.series], label=label)


def _channel_column(rows: Sequence[Row]) -> Column:
    """Kept channels as a share of those before, so that narrow layers read as well as wide ones; the numbers stand beside."""
    before, after = _values(rows, "channels_before"), _values(rows, "channels_after")
    if not _any(after):
        return Column("", [], [])
    shares = [None if a is None else a / b if b else 1.0 for b, a in zip(before, after, strict=True)]
    return Column(
        "channels kept", [Series(BLUE, "kept", shares)], [_channels(*pair) for pair in zip(before, after, strict=True)], maximum=1.0
    )


def _cost_column(title: str, rows: Sequence[Row], key: str, kind: str, words: Any) -> Column:
    """Each layer's share of the total, before and after: where the cost is. The number is what is left of the layer's own cost."""
    before, after = _values(rows, key + "_before"), _values(rows, key + "_after")
    if not _any(after):
        return Column("", [], [])
    series = [Series(kind, f"share of {title} after", _shares(after))]
    if not _any(before):
        return Column(f"{title}: share", series, [words(value) for value in after])
    series.insert(0, Series(GREY, "share before", _shares(before)))
    return Column(f"{title}: share, left", series, [_left(b, a) for b, a in zip(before, after, strict=True)])


def _shares(values: Values) -> Values:
    total = sum(value for value in values if value is not None) or 1.0
    return [None if value is None else value / total for value in values]


def _channels(before: float | None, after: float | None) -> str:
    if after is None:
        return MISSING
    return count(after) if before is None else f"{count(after)}/{count(before)}"


def _left(before: float | None, after: float | None) -> str:
    return MISSING if after is None or not before else percent(after / before)


def _bit_columns(rows: Sequence[Row]) -> list[Column]:
    columns = []
    for title, key, kind in (("weight bits", "bits", BLUE), ("input bits", "activation_bits", GREEN)):
        values = _values(rows, key)
        if _any(values):
            scale = 16.0 if max(value for value in values if value is not None) <= 16 else 32.0
            columns.append(Column(title, [Series(kind, title, values)], [bits(value) for value in values], maximum=scale))
    return columns


def layers_table(rows: Sequence[Row]) -> str:
    """Return the numbers of every layer as a table; quantities nobody has are left out."""
    known = [(title, key, words) for title, key, words in _COLUMNS if _any(_values(rows, key))]
    body = [[*_first_cells(row), *(Number(words(row.get(key))) for _, key, words in known)] for row in rows]
    return table(("layer", "operator", *(title for title, _, _ in known)), body, label="layers")


def _first_cells(row: Row) -> list[Cell]:
    return [name(row_name(row)), name(row.get("operator") or "")]


_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("channels before", "channels_before", count),
    ("after", "channels_after", count),
    ("weight bits", "bits", bits),
    ("input bits", "activation_bits", bits),
    ("MACs before", "macs_before", count),
    ("after", "macs_after", count),
    ("BOPs before", "bops_before", count),
    ("after", "bops_after", count),
    ("parameters before", "parameters_before", count),
    ("after", "parameters_after", count),
    ("size before", "size_bytes_before", size),
    ("after", "size_bytes_after", size),
)
