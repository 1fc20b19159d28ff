"""Draw the rooms and their imports: ``python -m tests.house.picture`` (or ``make house``) writes ``docs/images/architecture.svg``.

In: the package's source. Out: the same bytes for the same imports. Rooms stand from the ground up; a line leaves a room to the right,
turns down, and has a dot on the line of each room that it imports.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from html import escape
from math import sqrt
from pathlib import Path

from tests.house import imports as house

PICTURE = house.ROOT / "docs" / "images" / "architecture.svg"
ROW, TOP, LEFT, WIDE, FIRST, COLUMN = 46, 104, 24, 414, 510, 33
MOST = 62  # letters of a line in a box
INK, SOFT, PAPER = "#1f2933", "#66727f", "#ffffff"
BANDS = {  # fill, line
    "shared": ("#eceff1", "#78848f"),
    "core": ("#e3eefb", "#2f6db5"),
    "façade": ("#efe6fa", "#7a4fb5"),
    "shown": ("#e4f4e8", "#2f8a4c"),
    "outside": ("#fdf0dc", "#b9761a"),
}


@dataclass(frozen=True)
class Box:
    """One row of the picture: its name, one line, what it gives, its band, and the places of the package that it holds."""

    name: str
    line: str
    gives: str
    band: str
    holds: tuple[str, ...]

    @property
    def files(self) -> int:
        """How many modules it has."""
        return sum(house.place(name) in self.holds for name in house.modules())

    @property
    def short(self) -> str:
        """Its name without the number, short enough to stand at a line."""
        return self.name.partition("  ")[2] or self.name.split()[-1]


def _room(name: str, band: str) -> Box:
    """Return a room's row: its line is the beginning of what its door says, and it gives the classes that the door names after "Out:".

    Raises:
        ValueError: the line is too long for its box.
    """
    text = ast.get_docstring(ast.parse((house.PACKAGE / name / "__init__.py").read_text())) or ""
    sentence = " ".join(text.split("\n\n")[0].split()).partition(": ")[2]
    line = min(sentence.partition(". ")[0], sentence.partition(": ")[0], key=len).rstrip(".")
    if len(line) > MOST:
        raise ValueError(f"geta_nb/{name}/__init__.py: more than {MOST} letters before the first colon or full stop: {line}")
    given = re.findall(r":class:`~?(?:\w+\.)*(\w+)`", text.partition("Out:")[2].partition("\n\n")[0])
    return Box(f"{house.stage(name)}  {name}/", line, ", ".join(dict.fromkeys(given)), band, (name,))


def boxes() -> list[Box]:
    """Return all rows, from the ground up."""
    ground = Box(", ".join(house.GROUND), "what every room may use", "", "shared", house.GROUND)
    facade = Box(f"{house.stage('geta')}  geta, checks, resuming", "the façade: from model to report", "GETA", "façade", house.FACADE)
    front = Box("import geta_nb as gt", "the public names, geta_nb/__init__.py", "", "façade", (house.FRONT,))
    core, shown = [_room(name, "core") for name in house.CORE], [_room(name, "shown") for name in house.SHOWN]
    return [ground, *core, facade, *shown, front, *(_room(name, "outside") for name in house.OUTSIDE)]


def arrows(rows: list[Box]) -> Counter[tuple[int, int]]:
    """Return how many statements of one row import another, by their numbers from the ground up.

    Raises:
        ValueError: an arrow goes up.
    """
    where = {name: number for number, box in enumerate(rows) for name in box.holds}
    found = {(f.importer, f.line, where[house.place(f.importer)], where[house.place(f.target)]) for f in house.all_imports()}
    up = sorted(f"{importer}:{line} imports {rows[to].name}" for importer, line, start, to in found if to > start)
    if up:
        raise ValueError("an arrow goes up: " + "; ".join(up))
    return Counter((start, to) for _, _, start, to in sorted(found) if start != to)


def _text(x: float, y: float, words: str, *, size: float = 12, colour: str = INK, weight: int = 400, anchor: str = "start") -> str:
    style = f'font-size="{size:g}" fill="{colour}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def _line(points: list[tuple[float, float]], colour: str, *, width: float = 1.5) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def _box(box: Box, y: float) -> list[str]:
    fill, line = BANDS[box.band]
    files = f"{box.files} file" + "s" * (box.files != 1)
    gives = f"{box.gives}  \N{MIDDLE DOT}  " if box.gives else ""
    return [
        f'<rect x="{LEFT}" y="{y:g}" width="{WIDE}" height="{ROW - 8}" rx="5" fill="{fill}" stroke="{line}"/>',
        _text(LEFT + 12, y + 16, box.name, size=13, weight=700),
        _text(LEFT + WIDE - 12, y + 16, f"{gives}{files}", size=11, colour=SOFT, anchor="end"),
        _text(LEFT + 12, y + 31, box.line),
    ]


def _dot(x: float, y: float, count: int, colour: str) -> list[str]:
    radius = 5.5 + 1.5 * sqrt(count)
    tip = f"{x - 4:g},{y - radius - 6:g} {x + 4:g},{y - radius - 6:g} {x:g},{y - radius:g}"
    return [
        f'<polygon points="{tip}" fill="{colour}"/>',
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.2f}" fill="{colour}"/>',
        _text(x, y + 3.5, str(count), size=10, colour=PAPER, weight=700, anchor="middle"),
    ]


def draw() -> str:
    """Return the picture."""
    rows = boxes()
    counts = arrows(rows)
    height, width = TOP + ROW * len(rows) + 16, FIRST + COLUMN * len(rows) + 8
    tops = [TOP + ROW * (len(rows) - 1 - i) for i in range(len(rows))]
    columns = [FIRST + COLUMN * i for i in range(len(rows))]
    rails, wires, dots = [], [], []
    for i, box in enumerate(rows):
        readers, colour = [start for start, to in counts if to == i], BANDS[box.band][1]
        read = [to for start, to in counts if start == i]
        rails += [_line([(LEFT + WIDE + 7, tops[i] + 28), (columns[max(readers)], tops[i] + 28)], "#c3cbd3", width=1)] if readers else []
        rails += [f'<path d="M{LEFT + WIDE + 1} {tops[i] + 28} l8 -4 v8 z" fill="#9aa5b1"/>'] if readers else []
        if read:
            turn = (columns[i], tops[i] + 10)
            wires.append(_line([(LEFT + WIDE, turn[1]), turn, (columns[i], tops[min(read)] + 28)], colour))
            wires.append(_text(columns[i] - 6, turn[1] - 4, box.short, size=10, colour=colour, anchor="end"))
        for to in read:
            dots += _dot(columns[i], tops[to] + 28, counts[i, to], colour)
    body = [part for i, box in enumerate(rows) for part in _box(box, tops[i])]
    return "\n".join([*_head(width, height, rows, counts), *rails, *wires, *dots, *body, "</svg>", ""])


def _head(width: int, height: int, rows: list[Box], counts: Counter[tuple[int, int]]) -> list[str]:
    legend = "Read from the ground up: each room stands on those below it. At its right: what it gives, and how many files it has."
    rest = "A room's line goes right, then down; a dot is a room that it imports, its number the import statements. No line goes up."
    total = f"{sum(box.files for box in rows)} files, {sum(counts.values())} import statements between rooms"
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        ' font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif">',
        "<title>The rooms of geta-nb and what each imports</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
        _text(LEFT, 34, "The rooms of geta-nb", size=20, weight=700),
        _text(width - LEFT, 34, total, colour=SOFT, anchor="end"),
        _text(LEFT, 60, legend, colour=SOFT),
        _text(LEFT, 78, rest, colour=SOFT),
    ]


def write(path: Path = PICTURE) -> Path:
    """Write the picture and return where."""
    path.write_text(draw())
    return path


if __name__ == "__main__":
    write()
