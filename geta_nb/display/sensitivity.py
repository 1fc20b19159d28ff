"""Views of how much the loss rises: a heat map of layers by bits, families by share, the curve of each family, and the front with its knee.

In: a :class:`Sensitivity`, a :class:`Front` or one of its points. Out: text, HTML and SVG. Every cell has its number; colour, on a
logarithmic scale, only repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from geta_nb.display.drawing import CHARACTER, fmt, group, legend, line, path, picture, rect, text, text_width
from geta_nb.display.markup import Cell, Number, cards, details, figure, fragment, note, table
from geta_nb.display.theme import BLUE, HUES, SHADED, VERMILION
from geta_nb.display.wording import bits, clean, count, number, percent, plural, shorten_all, size

_CELL, _ROW, _GAP, _TOP, _LABEL = 48.0, 18.0, 26.0, 52.0, 216.0
_MOST = 60
_WIDE, _HIGH = 430.0, 190.0
Known = Mapping[str, Mapping[float, float]]
HEAT = "rise of the loss with one layer at so many bits, or one family with that share of its groups, all else as it was"
CURVES = "rise of the loss against the share of groups that a family keeps: the most fragile families"


def sensitivity_text(found: Any) -> str:
    """Return the loss, how it was found, and what is most fragile."""
    rows = found.fragile()
    worst = "; ".join(f"{words(row)} +{number(row[3])}" for row in rows[:3])
    how = found.estimate if found.rank_correlation is None else f"{found.estimate}, rank correlation {found.rank_correlation:.2f}"
    fragile = f"; most fragile: {worst}" if worst else ""
    return f"Sensitivity(loss {number(found.loss)}, {plural(len(found.rises), 'rise')}, {clean(how)}{fragile})"


def words(row: tuple[str, str, float, float]) -> str:
    """Return what a row of ``fragile()`` is about, in words."""
    kind, name, at, _ = row
    if kind == "family":
        return f"{clean(name)} with {percent(at)} of its groups"
    return f"{'inputs' if kind == 'input' else 'weights'} of {clean(name)} at {bits(at)} bits"


def sensitivity_html(found: Any) -> str:
    """Return headline numbers, the heat map, the curves and all numbers as tables."""
    rows = found.fragile()
    r = found.rank_correlation
    checked = "" if r is None else f"rank correlation with the measured rises of {found.checked} probes: {r:.2f} (Spearman)"
    how = {"measured": "each change was tried", "gradient": "estimated from gradients"}.get(found.estimate, found.estimate)
    heads = [("loss as it is", number(found.loss), plural(found.batches, "batch")), ("rises", count(len(found.rises)), how)]
    heads += [("most fragile", f"+{number(rows[0][3])}", words(rows[0]))] if rows else []
    curves = curves_svg(found) if found.by_family else ""
    return fragment(
        "Sensitivity",
        note(checked) if checked else "",
        cards(heads),
        figure(sensitivity_svg(found), HEAT),
        figure(curves, CURVES) if curves else "",
        details("Most fragile first", table(("what", "rise"), [(words(row), Number(number(row[3]))) for row in rows], label="fragile")),
        *_tables(found),
    )


def _tables(found: Any) -> list[str]:
    parts = []
    blocks = (("Weights, by bits", found.by_layer, bits), ("Inputs, by bits", found.by_input, bits))
    for title, known, unit in (*blocks, ("Families, by share kept", found.by_family, percent)):
        if known:
            sizes = _sizes(known)
            rows: list[tuple[Cell, ...]] = [
                (clean(name), *(Number(number(rises[at]) if at in rises else "") for at in sizes)) for name, rises in known.items()
            ]
            parts.append(details(f"{title} ({count(len(rows))})", table(("", *(unit(at) for at in sizes)), rows, label=title)))
    return parts


def _sizes(known: Known) -> list[float]:
    return sorted({at for rises in known.values() for at in rises}, reverse=True)


def sensitivity_svg(found: Any) -> str:
    """Return the heat map."""
    finite = [rise.mean for rise in found.rises.values() if math.isfinite(rise.mean)]
    scale = _Heat(max(finite, default=0.0))
    blocks = [("weights, bits", found.by_layer, bits), ("inputs, bits", found.by_input, bits)]
    upper, right, bottom = _block([block for block in blocks if block[1]], _TOP, scale)
    lower, further, end = _block([("groups kept", found.by_family, percent)] if found.by_family else [], bottom, scale)
    title = text(0, 12, "rise of the loss", kind="gv-strong")
    return picture(max(right, further, 240), end, [title, upper, lower], label=sensitivity_text(found))


class _Heat:
    """Shades from nothing to the largest rise, logarithmic from a thousandth of it on."""

    def __init__(self, most: float) -> None:
        self._most, self._floor = most, most / 1000 or 1.0

    def shade(self, rise: float) -> float:
        if not math.isfinite(rise):
            return 1.0
        if self._most <= 0 or rise <= 0:
            return 0.0
        return min(math.log1p(rise / self._floor) / math.log1p(self._most / self._floor), 1.0)


def _block(blocks: Sequence[tuple[str, Known, Any]], top: float, heat: _Heat) -> tuple[str, float, float]:
    """Return tables of coloured cells beside each other, with the names of their rows once; and where they end."""
    if not blocks:
        return "", 0.0, top
    worst: dict[str, float] = {}
    for _, known, _ in blocks:
        for name, rises in known.items():
            worst[name] = max(worst.get(name, -math.inf), *rises.values())
    names = sorted(worst, key=lambda name: -worst[name])
    shown = names[:_MOST]
    labels = shorten_all(shown, int((_LABEL - 8) / CHARACTER))
    parts = [text(0, top + _ROW * i + 13, label, title=clean(name)) for i, (label, name) in enumerate(zip(labels, shown, strict=True))]
    x = max(map(text_width, labels)) + 12
    for title, known, unit in blocks:
        sizes = _sizes(known)
        parts.append(text(x, top - 18, title, kind="gv-strong"))
        parts += [text(x + _CELL * (k + 0.5), top - 4, unit(at), kind="gv-dim", anchor="middle") for k, at in enumerate(sizes)]
        for i, name in enumerate(shown):
            for k, at in enumerate(sizes):
                if at in known.get(name, {}):
                    parts.append(_cell(x + _CELL * k, top + _ROW * i, known[name][at], heat, f"{clean(name)}, {title}: {unit(at)}"))
        x += max(_CELL * len(sizes), text_width(title)) + _GAP
    end = top + _ROW * len(shown)
    if len(names) > len(shown):
        parts.append(text(0, end + 14, f"… and {count(len(names) - len(shown))} more", kind="gv-dim"))
        end += _ROW
    return "".join(parts), x - _GAP + 4, end + _TOP


def _cell(x: float, y: float, rise: float, heat: _Heat, where: str) -> str:
    shade = heat.shade(rise)
    box = rect(x + 0.5, y + 0.5, _CELL - 1, _ROW - 1, kind=SHADED, opacity=0.04 + 0.71 * shade)
    return group([box, text(x + _CELL / 2, y + 13, _short(rise), kind="gv-small", anchor="middle")], title=f"{where}: {number(rise)}")


def _short(rise: float) -> str:
    if not math.isfinite(rise):
        return "∞"
    return f"{rise:.3f}".replace("-0.000", "0.000") if abs(rise) < 10 else f"{rise:.3g}"


def curves_svg(found: Any) -> str:
    """Return the rise of the most fragile families against the share that they keep, one line each."""
    known: Known = found.by_family
    names = [name for kind, name, _, _ in found.fragile() if kind == "family"][: len(HUES)]
    tops = [rise for name in names for rise in known[name].values() if math.isfinite(rise)]
    most = max([*tops, 0.0]) or 1.0
    left, top = 52.0, 30.0
    parts = [legend(0, 12, list(zip(HUES, shorten_all(names, 24), strict=False)))[0], rect(left, top, _WIDE, _HIGH, kind="gv-box")]
    for k in range(5):
        y = top + _HIGH * (1 - k / 4)
        parts.append(line([(left, y), (left + _WIDE, y)], kind="gv-rule"))
        parts.append(text(left - 4, y + 3, number(most * k / 4), kind="gv-small", anchor="end"))
        parts.append(text(left + _WIDE * k / 4, top + _HIGH + 14, percent(1 - k / 4), kind="gv-small", anchor="middle"))
    for hue, name in zip(HUES, names, strict=False):
        places = [(1.0, 0.0), *sorted(((at, min(max(rise, 0.0), most)) for at, rise in known[name].items()), reverse=True)]
        drawn = [(left + _WIDE * (1 - at), top + _HIGH * (1 - rise / most)) for at, rise in places]
        parts.append(group([line(drawn, kind=hue.replace("-c", "-l"))], title=clean(name)))
    parts.append(text(left, top + _HIGH + 30, "share of its groups that a family keeps", kind="gv-dim"))
    end = max(left + _WIDE + 20, legend(0, 12, list(zip(HUES, shorten_all(names, 24), strict=False)))[1])
    return picture(end, top + _HIGH + 38, parts, label=f"rise of the loss by share kept, {plural(len(names), 'family')}")


def front_text(front: Any) -> str:
    """Return how many plans there are, and the knee."""
    return f"Front({plural(len(front.points), 'plan')}, {clean(front.measure)} against rise of the loss; knee: {_plan(front.knee)})"


def point_text(point: Any) -> str:
    """Return one plan's cost and rise, its bits and shares."""
    ranges = [_range("weights", point.bits.values(), bits), _range("inputs", point.input_bits.values(), bits)]
    ranges.append(_range("kept", point.kept.values(), percent))
    return f"FrontPoint({_plan(point)}{''.join(ranges)})"


def _range(title: str, values: Any, unit: Any) -> str:
    found = sorted(values)
    if not found:
        return ""
    low, high = unit(found[0]), unit(found[-1])
    return f", {title} {low if low == high else f'{low} to {high}'}{' bits' if unit is bits else ''}"


def _plan(point: Any) -> str:
    return f"{_cost(point.cost, point.measure)}, rise {number(point.rise)}"


def _cost(value: float, measure: str) -> str:
    return size(value) if measure == "size_bytes" else percent(value)


def front_html(front: Any) -> str:
    """Return the knee, the picture, and all plans with the step that led to each."""
    knee = front.knee
    rows: list[tuple[Cell, ...]] = [(Number(_cost(p.cost, p.measure)), Number(number(p.rise)), _step(p.step)) for p in front.points]
    return fragment(
        "Front",
        cards(
            [
                ("knee", _cost(knee.cost, front.measure), clean(front.measure)),
                ("rise there", number(knee.rise), "predicted, before training on"),
            ]
        ),
        figure(front_svg(front), "least predicted rise of the loss at each cost; the knee is marked"),
        details(f"All plans ({count(len(rows))})", table((front.measure, "rise", "step"), rows, label="plans")),
    )


def _step(step: Any) -> str:
    if step is None:
        return "the whole network"
    unit = percent if step.kind == "family" else bits
    what = {"weight": "weights of", "input": "inputs of", "family": "groups of"}[step.kind]
    return f"{what} {clean(step.name)}: {unit(step.before)} to {unit(step.after)}, +{number(step.rise)}"


def front_svg(front: Any) -> str:
    """Return predicted rise against cost, the cost logarithmic, the knee marked."""
    left, top = 60.0, 30.0
    most = front.worth_showing
    shown = [point for point in front.points if point.rise <= most]
    costs = [max(point.cost, 1e-12) for point in shown]
    low, high = math.log(min(costs)), math.log(max(costs))

    def at(cost: float, rise: float) -> tuple[float, float]:
        return left + _WIDE * (math.log(max(cost, 1e-12)) - low) / ((high - low) or 1), top + _HIGH * (1 - min(rise / most, 1.0))

    title = text(0, 12, f"predicted rise of the loss against {front.measure}", kind="gv-strong")
    parts = [title, rect(left, top, _WIDE, _HIGH, kind="gv-box")]
    for k in range(5):
        y, cost = top + _HIGH * (1 - k / 4), math.exp(low + (high - low) * k / 4)
        parts.append(line([(left, y), (left + _WIDE, y)], kind="gv-rule"))
        parts.append(text(left - 4, y + 3, number(most * k / 4), kind="gv-small", anchor="end"))
        parts.append(text(left + _WIDE * k / 4, top + _HIGH + 14, _cost(cost, front.measure), kind="gv-small", anchor="middle"))
    parts.append(line([at(point.cost, point.rise) for point in shown], kind=BLUE.replace("-c", "-l")))
    for point in shown:
        x, y = at(point.cost, point.rise)
        parts.append(group([rect(x - 2, y - 2, 4, 4, kind=BLUE)], title=f"{_plan(point)}: {_step(point.step)}"))
    x, y = at(front.knee.cost, front.knee.rise)
    diamond = f"M{fmt(x)},{fmt(y - 6)}L{fmt(x + 6)},{fmt(y)}L{fmt(x)},{fmt(y + 6)}L{fmt(x - 6)},{fmt(y)}Z"
    parts.append(group([path(diamond, kind=VERMILION), text(x + 9, y - 6, f"knee: {_plan(front.knee)}")], title="knee"))
    end = max(left + _WIDE + 24, x + 9 + text_width(f"knee: {_plan(front.knee)}"))
    return picture(end, top + _HIGH + 24, parts, label=front_text(front))
