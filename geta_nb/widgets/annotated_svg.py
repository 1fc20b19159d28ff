"""Static pictures with what an explorer shows besides the graph: channels before and after, what has gone as a ghost, an overlay; pairs.

In: a ``GETA`` and what is to be written on its vertices. Out: SVG by our own drawing, the same for the same input. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from geta_nb.display.drawing import fmt, group, picture, rect, text, text_width
from geta_nb.display.layout import layered
from geta_nb.display.markup import escape
from geta_nb.display.qadg import Box, box_words, collapse, draw_edge, qadg_text
from geta_nb.geta import GETA
from geta_nb.widgets.overlay_colours import GREY, Painted, paint

_ARROW, _GAP, _MARGIN, _TOP = " → ", 40.0, 8.0, 44.0


class Steps(NamedTuple):
    """Channels of one vertex, from first to last, and the bits of its weight at the end, if it has a quantizer and they are known."""

    channels: tuple[int, ...]
    bits: float | None = None

    @property
    def words(self) -> str:
        """As it is written on the vertex; what did not change is written once."""
        distinct = [str(many) for i, many in enumerate(self.channels) if i == 0 or many != self.channels[i - 1]]
        return _ARROW.join(distinct) + (f", {self.bits:.3g} bit" if self.bits is not None else "")


@dataclass(frozen=True)
class Side:
    """One picture.

    Attributes:
        geta: the network.
        words: its title, "" for none.
        steps: vertex name -> channels; without a vertex, nothing is said of it.
        known: badges: bits of weights and inputs.
        overlay: an overlay with the names of all nodes, or None.
        only_here: vertices that the other side has not.
    """

    geta: GETA
    words: str = ""
    steps: Mapping[str, Steps] = field(default_factory=dict)
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    overlay: tuple[Mapping[str, Any], Sequence[str]] | None = None
    only_here: frozenset[str] = frozenset()


def side_svg(side: Side, *, max_boxes: int) -> str:
    """Return one picture."""
    return pair_svg(side, max_boxes=max_boxes)


def pair_svg(*sides: Side, max_boxes: int = 300) -> str:
    """Return pictures beside each other, each under its title, with one legend a side."""
    parts: list[str] = []
    left, tallest = _MARGIN, 0.0
    for side in sides:
        drawn, width, height = _draw_side(side, left, max_boxes)
        parts += drawn
        left, tallest = left + width + _GAP, max(tallest, height)
    label = ", beside it ".join(f"{side.words}: {qadg_text(side.geta.qadg)}" if side.words else qadg_text(side.geta.qadg) for side in sides)
    return picture(left - _GAP + _MARGIN, tallest + _TOP + 8, parts, label=label)


def _draw_side(side: Side, dx: float, max_boxes: int) -> tuple[list[str], float, float]:
    boxes, edges = collapse(side.geta.qadg, max_boxes, side.known)
    painted = paint(*side.overlay) if side.overlay is not None else None
    boxes = [replace(box, below=_below(box, side, painted)) for box in boxes]
    layout = layered([box.size for box in boxes], edges)
    head, end = _legend(side, painted, dx)
    parts = [text(dx, 13, side.words, kind="gv-strong")] if side.words else []
    parts += head
    parts += [draw_edge([(x + dx, y + _TOP) for x, y in route]) for route in layout.routes]
    parts += [_draw(box, side, painted, x + dx, y + _TOP) for box, (x, y) in zip(boxes, layout.centres, strict=True)]
    return parts, max(layout.width, end - dx, text_width(side.words)), layout.height


def _below(box: Box, side: Side, painted: Painted | None) -> str:
    """Second line: where the vertex stands, and its channels or its value."""
    said = []
    if len(box.members) == 1:
        name = box.members[0]
        said = [side.steps[name].words] if name in side.steps else []
        said += [painted.words[name]] if painted is not None and name in painted.words else []
    else:
        shares = _shares(box, side)
        said = [f"{100 * shares[-1]:.0f} % of the channels"] if shares and shares[-1] < 1 else []
    place = box.below.split(" · ")[0]
    return " · ".join([place, *said]) if said else box.below


def _shares(box: Box, side: Side) -> tuple[float, ...]:
    """Shares of the first channels that are left after each step."""
    known = [side.steps[name].channels for name in box.members if name in side.steps]
    first = sum(channels[0] for channels in known)
    if not first:
        return ()
    longest = max(map(len, known))
    return tuple(sum(channels[min(k, len(channels) - 1)] for channels in known) / first for k in range(1, longest))


def _legend(side: Side, painted: Painted | None, x: float) -> tuple[list[str], float]:
    parts, y = [], 32.0

    def key(shape: str, words: str, wide: float = 10.0) -> None:
        nonlocal x
        parts.extend([shape, text(x + wide + 4, y, words)])
        x += wide + 4 + text_width(words) + 14

    if painted is not None and painted.scale is not None:
        low, high, colours = painted.scale
        parts.append(text(x, y, low))
        x += text_width(low) + 5
        key("".join(_fill(x + 14 * k, y - 8, 14, 9, colour) for k, colour in enumerate(colours)), high, 14.0 * len(colours))
    for colour, words in painted.legend if painted is not None else ():
        key(_fill(x, y - 8, 9, 9, colour), words)
    if any(share < 1 for steps in side.steps.values() for share in _of(steps)):
        key(_ghost(x, y - 9, 12, 10, gone=True), "gone", 12)
        if any(len(steps.channels) > 2 and steps.channels[2] < steps.channels[1] for steps in side.steps.values()):
            key(_ghost(x, y - 9, 12, 10, gone=False), "goes under the budget", 12)
    if side.only_here:
        key(_outline(x, y - 9, 12, 10), "on this side only", 12)
    return parts, x


def _of(steps: Steps) -> list[float]:
    return [many / steps.channels[0] for many in steps.channels[1:] if steps.channels[0]]


def _draw(box: Box, side: Side, painted: Painted | None, x: float, y: float) -> str:
    w, h = box.size
    left, top = x - w / 2, y - h / 2
    colours = [painted.colours[name] for name in box.members if name in painted.colours] if painted is not None else []
    parts = [rect(left, top, w, h, kind="gv-box", radius=4)]
    if painted is None:
        parts += [rect(left, top, w, h, kind=box.kind, opacity=0.13, radius=4), rect(left, top + 3, 4, h - 6, kind=box.kind)]
    else:
        parts += [_fill(left, top, w, h, colours[0] if colours else GREY, opacity=0.3 if colours else 0.06)]
        share = (h - 6) / max(len(colours), 1)
        parts += [_fill(left, top + 3 + k * share, 6, share, colour) for k, colour in enumerate(colours)]
    parts += _ghosts(box, side, left, top, w, h)
    if side.only_here.intersection(box.members):
        parts.append(_outline(left, top, w, h))
    parts += box_words(box, left, top, w)
    said = [f"channels: {side.steps[name].words}" for name in box.members[:1] if name in side.steps]
    return group(parts, title=" | ".join([box.title, *said]))


def _ghosts(box: Box, side: Side, left: float, top: float, w: float, h: float) -> list[str]:
    """What has gone of a box, from the right: emptied and dashed; before it, what the budget would take, hatched only."""
    shares, parts = _shares(box, side), []
    before = 1.0
    for k, share in enumerate(shares):
        if share < before:
            parts.append(_ghost(left + w * share, top, w * (before - share), h, gone=k == 0 or len(shares) == 1))
        before = min(before, share)
    return parts


def _ghost(x: float, y: float, w: float, h: float, *, gone: bool) -> str:
    """Emptied, hatched and dashed where it is gone; half emptied where it would go."""
    ground = rect(x, y, w, h, kind="gv-ground", opacity=0.88 if gone else 0.5)
    lines = "".join(f"M{fmt(x + at)} {fmt(y)}l{fmt(-min(h, at))} {fmt(min(h, at))}" for at in _every(5.0, w)) if gone else ""
    hatch = f'<path class="gv-edge" opacity="0.4" d="{lines}"/>' if lines else ""
    return f"{ground}{hatch}{_outline(x, y, w, h)}"


def _every(step: float, end: float) -> list[float]:
    return [k * step for k in range(1, int(end / step) + 1)]


def _outline(x: float, y: float, w: float, h: float) -> str:
    return f'<rect class="gv-edge" stroke-dasharray="3 2" x="{fmt(x)}" y="{fmt(y)}" width="{fmt(w)}" height="{fmt(h)}" rx="3"/>'


def _fill(x: float, y: float, w: float, h: float, colour: str, *, opacity: float = 1.0) -> str:
    shape = f'x="{fmt(x)}" y="{fmt(y)}" width="{fmt(w)}" height="{fmt(h)}" rx="2"'
    return f'<rect fill="{escape(colour)}" fill-opacity="{opacity:.2f}" {shape}/>'
