"""HTML fragments: escaped names, tables that scroll inside themselves, cards of headline numbers, folded details.

In: plain text and numbers. Out: HTML text, static, without scripts, with its style inside. Every function whose argument is called
``content`` takes HTML made by these functions; every other argument is plain text and is escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from geta_nb.display.theme import HTML_STYLE, PICTURE_STYLE, SVG_STYLE, THEME
from geta_nb.display.wording import clean, count, shorten

MAX_ROWS = 400


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already; the only way past escaping in a table's cell."""

    content: str


@dataclass(frozen=True)
class Number:
    """A cell aligned to the right: the text of a number."""

    text: str


@dataclass(frozen=True)
class Prose:
    """A cell that may wrap: a sentence, a long list of ranges."""

    text: str


Cell = str | Markup | Number | Prose


def escape(value: object) -> str:
    """Return ``value`` as text that is safe inside HTML and SVG, in content and in quoted attributes."""
    return html.escape(clean(value), quote=True)


def _short(value: object, limit: int = 44) -> str:
    """Escaped text of at most ``limit`` columns; what was shortened carries the whole as a title."""
    short, full = shorten(value, limit), clean(value)
    return escape(full) if short == full else f'<span title="{escape(full)}">{escape(short)}</span>'


def name(value: object, limit: int = 44) -> Markup:
    """Return a name in code type, shortened to ``limit`` columns with the whole of it as its title."""
    return Markup(f"<code>{_short(value, limit)}</code>")


def fragment(title: str, *content: str) -> str:
    """Return a self-contained HTML fragment: scoped style, a title line and its parts."""
    heading = f'<div class="gv-title">{escape(title)}</div>'
    return f'<div class="geta-view"><style>{THEME}{SVG_STYLE}{HTML_STYLE}</style>{heading}{"".join(content)}</div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, label: str = "table", limit: int = MAX_ROWS, total: int | None = None
) -> str:
    """Return a table that scrolls inside itself; beyond ``limit`` rows the rest is counted, not shown; ``total``: if not all are given."""
    body = list(rows)
    many = len(body) if total is None else total
    numeric = [all(isinstance(row[i], Number) for row in body) and bool(body) for i in range(len(head))]
    titles = "".join(
        f'<th scope="col"{" class=gv-num" if right else ""}>{escape(text)}</th>' if text else "<td></td>"
        for text, right in zip(head, numeric, strict=True)
    )
    lines = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in body[:limit])
    rest = note(f"… and {count(many - limit)} more") if many > limit else ""
    return scroll(f'<table class="gv-table"><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>', label=label) + rest


def _cell(cell: Cell) -> str:
    if isinstance(cell, Markup):
        return f"<td>{cell.content}</td>"
    if isinstance(cell, Number):
        return f'<td class="gv-num">{escape(cell.text)}</td>'
    if isinstance(cell, Prose):
        return f'<td class="gv-wrap">{escape(cell.text)}</td>'
    return f"<td>{escape(cell)}</td>"


def facts(pairs: Iterable[tuple[str, Cell]]) -> str:
    """Return a two-column table of named facts."""
    lines = "".join(f'<tr><th scope="row">{escape(key)}</th>{_cell(value)}</tr>' for key, value in pairs)
    return scroll(f'<table class="gv-table"><tbody>{lines}</tbody></table>', label="facts")


def cards(numbers: Iterable[tuple[str, str, str]]) -> str:
    """Return headline numbers as cards: (what, value, how it compares)."""
    shown = "".join(
        f'<div class="gv-card"><span>{_short(what)}</span><b>{_short(value, 28)}</b><span>{_short(remark)}</span></div>'
        for what, value, remark in numbers
    )
    return f'<div class="gv-cards">{shown}</div>'


def scroll(content: str, *, label: str) -> str:
    """Return ``content`` in a box that scrolls and that the keyboard can reach; no landmark, for a notebook has many of the same name."""
    return f'<div class="gv-scroll" tabindex="0" role="group" aria-label="{escape(label)}">{content}</div>'


def details(summary: str, content: str, *, opened: bool = False) -> str:
    """Return a folded part; it unfolds without a script."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>{content}</details>"


def figure(content: str, caption: str) -> str:
    """Return a picture with its caption, in a box that scrolls."""
    # The fragment around the figure carries the picture's style already.
    return f"<figure>{scroll(content.replace(PICTURE_STYLE, ''), label=caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def note(text: str) -> str:
    """Return a remark in a dimmer colour."""
    return f'<div class="gv-note">{escape(text)}</div>'
