"""A run as one picture: the four stages as spans, loss and accuracy, the bits of each layer and what each family keeps, over steps.

In: the history of a run, a list of ``optimizer.progress()`` snapshots merged with ``{"loss": ..., "accuracy": ...}``, and its schedule.
Out: SVG. Long runs are averaged into columns, so that the picture stays small however often it was sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from geta_nb.display.charts import heat_row
from geta_nb.display.config import STAGE_KINDS
from geta_nb.display.drawing import legend, line, picture, rect, text, text_width
from geta_nb.display.theme import BLUE, GREEN, ORANGE, VERMILION
from geta_nb.display.wording import bits, clean, count, number, percent
from geta_nb.qasso import Schedule

BINS, MAX_ROWS = 120, 32
_LEFT, _ROOM, _RIGHT, _TOP, _CURVES = 214.0, 560.0, 84.0, 84.0, 120.0
Snapshot = Mapping[str, Any]


@dataclass(frozen=True)
class _Axis:
    """Steps to pixels; the history cut into columns of equal steps."""

    last: float
    bins: list[list[Snapshot]]

    def x(self, step: float) -> float:
        return _LEFT + _ROOM * min(max(step / self.last, 0), 1)

    def means(self, read: Callable[[Snapshot], Any]) -> list[float | None]:
        """Mean of what ``read`` finds in each column; empty columns repeat the one before, up to the last snapshot."""
        values: list[float | None] = []
        for inside in self.bins:
            found = [float(v) for v in map(read, inside) if v is not None and math.isfinite(float(v))]
            values.append(sum(found) / len(found) if found else (values[-1] if values else None))
        return values


def _axis(history: Sequence[Snapshot], schedule: Schedule, total_steps: int | None) -> _Axis:
    steps = [float(snapshot["step"]) for snapshot in history]
    reached = max(steps, default=0.0)
    # A run whose length is not known shows some cool-down, so that all four stages are seen from the start.
    last = max(reached, float(total_steps or 1.25 * schedule.cool_down_start), 1.0)
    n_bins = max(1, math.ceil(BINS * reached / last)) if history else 0
    bins: list[list[Snapshot]] = [[] for _ in range(n_bins)]
    for step, snapshot in zip(steps, history, strict=True):
        bins[min(int(BINS * step / last), n_bins - 1)].append(snapshot)
    return _Axis(last, bins)


def training_picture(
    history: Sequence[Snapshot], schedule: Schedule, *, total_steps: int | None = None, metric: str = "accuracy",
    earlier: Mapping[str, Sequence[Snapshot]] | None = None, remark: str = "",
) -> str:
    """Return the picture of a run.

    Args:
        history: snapshots in order of their steps; each has ``step`` and ``stage``, and may have ``loss``, ``accuracy``, bits per layer
            and kept share per family. May be empty: then only the stages are drawn.
        schedule: the run's stages.
        total_steps: length of the run, in steps, when it is known.
        metric: name of the snapshots' entry that is drawn beside the loss.
        earlier: name -> history of runs that are laid under the curves, thin, on the same scales.
        remark: what the picture says of itself below everything, such as that its data stand in.
    """
    axis = _axis(history, schedule, total_steps)
    parts, y = [_stages(axis, schedule)], _TOP
    under = {name: _axis(run, schedule, round(axis.last)) for name, run in (earlier or {}).items()}
    parts.append(_curves(axis, y, metric, under))
    y += _CURVES + 30 + 16 * len(under)
    latest = history[-1] if history else {}
    for strip in _STRIPS:
        names = list(strip.values(latest))
        if names:
            drawn, y = _draw_strip(axis, y, strip, names)
            parts.append(drawn)
    parts.append(_steps(axis, y))
    if remark:
        parts.append(text(_LEFT + _ROOM / 2, y + 30, clean(remark), kind="gv-strong", anchor="middle"))
    said = f"{_spoken(latest)} ({clean(remark)})" if remark else _spoken(latest)
    return picture(_LEFT + _ROOM + _RIGHT, y + (38 if remark else 18), parts, label=said)


def _spoken(latest: Snapshot) -> str:
    if not latest:
        return "training run, not started"
    return f"training run at step {count(latest['step'])}, {latest.get('stage')}, loss {number(latest.get('loss'))}"


def _stages(axis: _Axis, schedule: Schedule) -> str:
    parts = []
    for lane, (stage, (first, end)) in enumerate(schedule.spans().items()):
        y, x0, x1 = 6 + 17 * lane, axis.x(first), axis.x(axis.last if end is None else end)
        parts += [text(_LEFT - 8, y + 10, stage, anchor="end"), rect(x0, y, x1 - x0, 12, kind=STAGE_KINDS[stage])]
        parts.append(rect(x0, _TOP, x1 - x0, _CURVES, kind=STAGE_KINDS[stage], opacity=0.08))
    return "".join(parts)


def _curves(axis: _Axis, top: float, metric: str, under: Mapping[str, _Axis]) -> str:
    """Loss and metric of the run, and beneath them those of the runs that are laid under."""
    parts = [line([(_LEFT, y), (_LEFT + _ROOM, y)], kind="gv-rule") for y in (top, top + _CURVES)]
    entries, ends = [], dict.fromkeys(under, "")
    for key, kind, left in (("loss", "gv-c4", True), (metric, "gv-c0", False)):
        rows = {name: run.means(lambda snapshot, key=key: snapshot.get(key)) for name, run in under.items()}  # type: ignore[misc]
        values = axis.means(lambda snapshot, key=key: snapshot.get(key))  # type: ignore[misc]
        every = [value for row in (values, *rows.values()) for value in row if value is not None]
        if not every:
            continue
        low, high = (0.0, max(every)) if left else (min(every), max(every))
        stroke, words = kind.replace("-c", "-l"), number if left else percent_or_number
        for name, row in rows.items():
            parts.append(_curve(axis, top, row, low, high, f"{stroke} gv-under"))
            ends[name] += "".join(f"  {key} {words(value)}" for value in row[-1:] if value is not None)
        parts.append(_curve(axis, top, values, low, high, stroke))
        x, anchor = (_LEFT - 8, "end") if left else (_LEFT + _ROOM + 8, "start")
        parts += [text(x, top + 10, words(high), anchor=anchor), text(x, top + _CURVES, words(low), anchor=anchor)]
        entries += [(kind, f"{key} {words(value)} ({'left' if left else 'right'})") for value in values[-1:] if value is not None]
    drawn, _ = legend(_LEFT, top + _CURVES + 16, entries)
    for i, (name, found) in enumerate(ends.items()):
        drawn += text(_LEFT, top + _CURVES + 36 + 16 * i, f"thin: {clean(name)}{found}", kind="gv-dim", room=_ROOM)
    return "".join(parts) + drawn


def _curve(axis: _Axis, top: float, values: Sequence[float | None], low: float, high: float, kind: str) -> str:
    span = (high - low) or 1.0
    return line([(_bin_x(axis, i), top + _CURVES * (1 - (v - low) / span)) for i, v in enumerate(values) if v is not None], kind=kind)


def percent_or_number(value: float) -> str:
    """Return an accuracy: a share as percent, a number above 1 (already percent, or a score) as it is."""
    return percent(value) if 0 <= value <= 1 else number(value)


def _bin_x(axis: _Axis, i: int) -> float:
    return min(_LEFT + _ROOM * (i + 0.5) / BINS, axis.x(axis.last))


@dataclass(frozen=True)
class _Strip:
    """One heat strip: title, where a snapshot keeps its values, colour, scale, and how a value reads."""

    title: str
    key: str
    kind: str
    low: float
    high: float
    words: Callable[[Any], str]
    bound: str = ""

    def values(self, snapshot: Snapshot) -> Mapping[str, float]:
        return snapshot.get(self.key) or {}

    def mean(self, snapshot: Snapshot, names: Sequence[str]) -> float | None:
        """Mean over those of ``names`` that the snapshot has."""
        values = self.values(snapshot)
        found = [float(values[name]) for name in names if name in values]
        return sum(found) / len(found) if found else None


_STRIPS = (
    _Strip("weight bits", "bits", BLUE, 2, 16, bits, bound="bit_bound"),
    _Strip("activation bits", "activation_bits", ORANGE, 2, 16, bits),
    _Strip("kept share per family", "kept", GREEN, 0, 1, percent),
)


def rows_by_module(names: Sequence[str], most: int = MAX_ROWS) -> dict[str, list[str]]:
    """Return title -> names of at most about ``most`` rows: one a name, or one a module at the deepest level that fits.

    >>> rows_by_module(["a.0.x", "a.0.y", "a.1.x"], most=2)
    {'a.0.*': ['a.0.x', 'a.0.y'], 'a.1.x': ['a.1.x']}
    """
    if len(names) <= most:
        return {name: [name] for name in names}
    paths = [tuple(name.split(".")) for name in names]
    depths = range(max(map(len, paths)), 0, -1)
    depth = next((d for d in depths if len({path[:d] for path in paths}) <= most), 0)
    rows: dict[str, list[str]] = {}
    for name, path in zip(names, paths, strict=True):
        rows.setdefault(".".join([*path[:depth], "*"]), []).append(name)
    return {title if len(members) > 1 else members[0]: members for title, members in rows.items()}


def _draw_strip(axis: _Axis, y: float, strip: _Strip, names: Sequence[str]) -> tuple[str, float]:
    rows = rows_by_module(names)
    title = strip.title + (", means of modules" if len(rows) < len(names) else "")
    parts = [text(0, y + 10, title, kind="gv-strong"), _scale(strip, y)]
    y, height = y + 18, 14
    reads: list[tuple[str, Callable[[Snapshot], Any]]] = [(title, partial(strip.mean, names=members)) for title, members in rows.items()]
    if strip.bound:
        reads.insert(0, ("upper bound", lambda snapshot: snapshot.get(strip.bound)))
    for title, read in reads:
        values = axis.means(read)
        room = min(_ROOM * len(values) / BINS, _ROOM)
        parts.append(text(_LEFT - 8, y + height - 4, title, anchor="end", room=_LEFT - 8))
        parts.append(heat_row(_LEFT, y, room, height - 1, values, kind=strip.kind, low=strip.low, high=strip.high))
        parts.append(text(_LEFT + _ROOM + 8, y + height - 4, strip.words(next((v for v in reversed(values) if v is not None), None))))
        y += height
    return "".join(parts), y + 12


def _scale(strip: _Strip, y: float) -> str:
    low, high, room, right = strip.low, strip.high, 80.0, _LEFT + _ROOM
    x = right - room - text_width(strip.words(high)) - 4
    ramp = [low + (high - low) * k / 20 for k in range(21)]
    ends = [
        text(x - 4, y + 10, strip.words(low), kind="gv-dim", anchor="end"),
        text(right, y + 10, strip.words(high), kind="gv-dim", anchor="end"),
    ]
    return "".join([heat_row(x, y + 2, room, 8, ramp, kind=strip.kind, low=low, high=high), *ends])


def _steps(axis: _Axis, y: float) -> str:
    parts = [text(_LEFT, y + 10, "step 0", kind="gv-dim"), text(_LEFT + _ROOM, y + 10, count(axis.last), kind="gv-dim", anchor="end")]
    if 0 < len(axis.bins) < BINS:  # where the run is now
        parts.append(rect(axis.x(axis.last * len(axis.bins) / BINS), _TOP, 1, y - _TOP, kind=VERMILION))
    return "".join(parts)
