"""SVG primitives: rectangles, texts of known width, lines, and the picture that holds them.

In: numbers in pixels and plain text. Out: SVG text that is well-formed XML, follows light and dark, and refers to nothing outside
itself: arrow heads are small paths, not markers, so no identifier can clash with another picture on the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from geta_nb.display.markup import escape
from geta_nb.display.theme import PICTURE_STYLE
from geta_nb.display.wording import clean, shorten, width

CHARACTER = 6.63  # pixels: advance of an 11 px monospaced character (0.602 em in the fonts named by the theme)
SMALL = 5.43  # the same at 9 px
Point = tuple[float, float]


def fmt(value: float) -> str:
    """Return a coordinate with at most one digit after the point; a number that is not finite becomes 0."""
    rounded = f"{value:.1f}".removesuffix(".0") if math.isfinite(value) else "0"
    return "0" if rounded == "-0" else rounded


def picture(width_px: float, height_px: float, content: Sequence[str], *, label: str) -> str:
    """Return an SVG picture with its own style, a ground and a spoken label."""
    w, h = fmt(math.ceil(width_px)), fmt(math.ceil(height_px))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="geta-view" role="img" aria-label="{escape(label)}" '
        f'width="{w}" height="{h}" viewBox="0 0 {w} {h}">{PICTURE_STYLE}'
        f'<rect class="gv-ground" width="{w}" height="{h}"/>{"".join(content)}</svg>'
    )


def rect(x: float, y: float, w: float, h: float, *, kind: str, opacity: float = 1.0, radius: float = 0, title: str = "") -> str:
    """Return a rectangle of a theme class, with a tooltip when there is a ``title``."""
    extra = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    extra += f' rx="{fmt(radius)}"' if radius else ""
    shape = f'<rect class="{kind}" x="{fmt(x)}" y="{fmt(y)}" width="{fmt(max(w, 0))}" height="{fmt(max(h, 0))}"{extra}'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else shape + "/>"


def bar(x: float, y: float, length: float, h: float, *, kind: str, title: str = "") -> str:
    """Return a horizontal bar; what is more than nothing is at least one pixel long."""
    return rect(x, y, max(length, 1.0) if length > 0 else 0, h, kind=kind, title=title)


def text(x: float, y: float, value: object, *, kind: str = "", anchor: str = "start", room: float | None = None, title: str = "") -> str:
    """Return a text on its baseline; with ``room`` (pixels) it is shortened to fit and carries the whole as a tooltip."""
    full = clean(value)
    per_character = SMALL if "gv-small" in kind else CHARACTER
    short = full if room is None else shorten(full, max(int(room / per_character), 1))
    tip = title or (full if short != full else "")
    extra = f' class="{kind}"' if kind else ""
    extra += f' text-anchor="{anchor}"' if anchor != "start" else ""
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<text x="{fmt(x)}" y="{fmt(y)}"{extra}>{inside}{escape(short)}</text>'


def text_width(value: object, *, small: bool = False) -> float:
    """Return the pixels a text takes in a picture."""
    return width(clean(value)) * (SMALL if small else CHARACTER)


def line(points: Sequence[Point], *, kind: str) -> str:
    """Return a polyline; points that are not finite are left out."""
    drawn = " ".join(f"{fmt(x)},{fmt(y)}" for x, y in points if math.isfinite(x) and math.isfinite(y))
    return f'<polyline class="{kind}" points="{drawn}"/>' if drawn else ""


def path(commands: str, *, kind: str) -> str:
    """Return a path of a theme class."""
    return f'<path class="{kind}" d="{commands}"/>'


def group(content: Sequence[str], *, title: str = "") -> str:
    """Return parts that belong together, with a tooltip for all of them."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f"<g>{tip}{''.join(content)}</g>"


def legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> tuple[str, float]:
    """Return a row of (theme class, words) and the x where it ends."""
    parts = []
    for kind, words in entries:
        parts += [rect(x, y - 8, 9, 9, kind=kind), text(x + 13, y, words)]
        x += 13 + text_width(words) + 16
    return "".join(parts), x
