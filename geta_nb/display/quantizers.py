"""Views of one quantizer, its bits, step, clip value and exponent with the staircase it maps numbers to; and of all that were attached."""

from __future__ import annotations

import math
from typing import Any

from geta_nb.display.drawing import line, picture, text
from geta_nb.display.markup import Cell, Number, Prose, details, facts, figure, fragment, name, table
from geta_nb.display.wording import MISSING, bits, clean, count, number, plural, spread

_MAX_STAIRS = 129
Numbers = list[float]


def _values(quantizer: Any) -> tuple[Numbers, Numbers, float]:
    """Return d and q_m of every channel, and t; not numbers on the meta device, where nothing has a value."""
    if quantizer.step_size.is_meta:
        return [math.nan], [math.nan], math.nan
    steps, clips = (value.detach().flatten().tolist() for value in (quantizer.step_size, quantizer.clip_max))
    return steps, clips, float(quantizer.exponent.detach())


def _words(quantizer: Any) -> list[str]:
    """Return what is unusual about a quantizer's codes."""
    channels = quantizer.step_size.numel()
    return [*([f"per channel ({count(channels)})"] if channels > 1 else []), *code_words(quantizer)]


def code_words(kind: Any) -> list[str]:
    """Return what is unusual about codes that have a sign or none, and are symmetric or not."""
    return ["symmetric"] * kind.narrow_range if kind.signed else ["unsigned"]


def _bits(quantizer: Any) -> float:
    return float(quantizer.initial_bits if quantizer.step_size.is_meta else quantizer.bit_width().detach())


def quantizer_text(quantizer: Any) -> str:
    """Return class, bits and the three parameters; of several channels the smallest and the largest."""
    d, q_m, t = _values(quantizer)
    words = "".join(f", {word}" for word in _words(quantizer))
    return f"{type(quantizer).__name__}({bits(_bits(quantizer))} bits{words}, d={spread(d)}, q_m={spread(q_m)}, t={number(t)})"


def quantizer_html(quantizer: Any) -> str:
    """Return the parameters and the staircase."""
    d, q_m, t = _values(quantizer)
    rows: list[tuple[str, Cell]] = [
        ("bit width", Number(bits(_bits(quantizer)))),
        *([("codes", Prose(", ".join(words)))] if (words := _words(quantizer)) else []),
        ("step size d", Number(spread(d))),
        ("clip value q_m", Number(spread(q_m))),
        ("exponent t", Number(number(t))),
    ]
    return fragment(type(quantizer).__name__, facts(rows), figure(quantizer_svg(quantizer), "x to x^Q; grey: x itself"))


def quantizer_svg(quantizer: Any) -> str:
    """Return the staircase of x^Q over x, to 1.25 q_m or past the lowest code's end, on either side or from 0 on; of the widest channel."""
    steps, clips, t = _values(quantizer)
    q_m, d = max(zip(clips, steps, strict=True))
    low = -1.0 if quantizer.signed else 0.0
    side, left, top = 170.0, 34.0, 10.0
    usable = all(map(math.isfinite, (d, q_m, t))) and d > 0 and q_m > 0
    if not usable:
        return picture(200, 40, [text(8, 24, "not calibrated yet", kind="gv-dim")], label=quantizer_text(quantizer))
    below = quantizer.signed and not quantizer.narrow_range
    end = q_m**t + d * below  # of the lowest code
    reach = max(1.25 * q_m, 1.1 * end ** (1 / t))
    height = max(1.25 * q_m**t, 1.1 * end, d)

    def spot(x: float, y: float) -> tuple[float, float]:
        return left + side * (x / reach - low) / (1 - low), top + side * (1 - y / height) / (1 - low)

    def clamp(y: float) -> float:
        return float(min(max(y, low * height), height))

    plain = [spot(x, clamp(math.copysign(abs(x) ** t, x))) for x in (reach * (k / 32 - 1) for k in range(65)) if x >= low * reach]
    stairs = [spot(x, clamp(y)) for x, y in _staircase(d, q_m, t, reach, below=below) if x >= low * reach]
    stairs = stairs if quantizer.signed else [spot(0, 0), *stairs]
    axes = [line([spot(low * reach, 0), spot(reach, 0)], kind="gv-edge"), line([spot(0, low * height), spot(0, height)], kind="gv-edge")]
    ends = [text(left + side, top + side + 14, f"q_m {number(q_m)}", kind="gv-dim", anchor="end")]
    ends += [
        text(left - 4, top + 10, "x^Q", kind="gv-dim", anchor="end"),
        text(left, top + side + 14, bits(_bits(quantizer)) + " bits", kind="gv-strong"),
    ]
    return picture(
        left + side + 8,
        top + side + 20,
        [*axes, line(plain, kind="gv-l7"), line(stairs, kind="gv-l0"), *ends],
        label=quantizer_text(quantizer),
    )


def _staircase(d: float, q_m: float, t: float, reach: float, *, below: bool) -> list[tuple[float, float]]:
    """Corners of sgn(x) d round(min(|x|, q_m)^t / d), with one level more ``below``; levels that would touch are sampled instead."""
    top = round(q_m**t / d)
    if 2 * top + 1 > _MAX_STAIRS:
        xs, ends = [reach * (k / 100 - 1) for k in range(201)], (-(q_m**t + d * below), q_m**t)
        return [(x, d * round(min(max(math.copysign(abs(x) ** t, x), ends[0]), ends[1]) / d)) for x in xs]
    left, right = _stairs(d, t, top + below, reach), _stairs(d, t, top, reach)
    return [(-x, -y) for x, y in reversed(left)] + right


def _stairs(d: float, t: float, top: int, reach: float) -> list[tuple[float, float]]:
    """Corners of so many levels above zero."""
    edges = [math.pow((k - 0.5) * d, 1 / t) for k in range(1, top + 1)]
    return [(x, y) for k, x in enumerate(edges, 1) for y in ((k - 1) * d, k * d)] + [(reach, top * d)]


def quantizers_text(quantizers: Any) -> str:
    """Return how many weights and inputs have a quantizer."""
    inputs = plural(len(quantizers.activations), "input quantizer")
    return f"Quantizers({plural(len(quantizers.weights), 'weight quantizer')}, {inputs}, {count(len(quantizers.excluded))} left out)"


def quantizers_html(quantizers: Any) -> str:
    """Return bits per layer, and what stays unquantized and why."""
    weights, inputs = quantizers.weights, quantizers.activations
    rows: list[tuple[Cell, ...]] = [
        (name(layer), *(Number(bits(_bits(side[layer])) if layer in side else MISSING) for side in (weights, inputs)))
        for layer in dict.fromkeys([*weights, *inputs])
    ]
    left_out: list[tuple[Cell, ...]] = [(name(parameter), Prose(clean(why))) for parameter, why in quantizers.excluded.items()]
    return fragment(
        quantizers_text(quantizers),
        table(("layer", "weight bits", "input bits"), rows, label="quantizers"),
        details(f"Left out ({count(len(left_out))})", table(("parameter", "why"), left_out)) if left_out else "",
    )
