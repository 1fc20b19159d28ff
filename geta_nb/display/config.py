"""Views of what the user asks for: quantization options, budget, exceptions, and the four stages as a timeline."""

from __future__ import annotations

from collections.abc import Iterable

from geta_nb.budget import Budget, LayerBudget
from geta_nb.config import QuantConfig
from geta_nb.display.drawing import line, picture, rect, text
from geta_nb.display.markup import Cell, Number, Prose, details, facts, figure, fragment, name, table
from geta_nb.display.theme import BLUE, GREEN, ORANGE, PURPLE
from geta_nb.display.wording import bit_range, clean, count, number, percent, shorten, size
from geta_nb.qasso import Rules, Schedule

STAGE_KINDS = {"warm-up": PURPLE, "projection": BLUE, "joint": ORANGE, "cool-down": GREEN}


def _call(obj: object, values: Iterable[tuple[str, object]]) -> str:
    return f"{type(obj).__name__}({', '.join(f'{key}={shorten(repr(value), 120)}' for key, value in values)})"


def _on(switch: bool) -> str:
    return "yes" if switch else "no"


def quant_text(config: QuantConfig) -> str:
    """Return the options as the call that makes them."""
    keys = ("weights", "activations", "initial_bits", "learn_exponent", "learn_activation_exponent", "skip", "compile")
    return _call(config, ((key, getattr(config, key)) for key in (*keys, "granularity", "signed", "narrow_range")))


def quant_html(config: QuantConfig) -> str:
    """Return the options as a table of facts."""
    rows: list[tuple[str, Cell]] = [
        ("weights quantized", _on(config.weights)),
        ("activations quantized", _on(config.activations)),
        ("steps of weights", f"one per {config.granularity}"),
        ("codes of inputs", "signed" if config.signed is True else "unsigned where nothing is below zero"),
        ("codes with a sign", "symmetric about zero" if config.narrow_range else "one more below zero than above"),
        ("bits at the start", number(config.initial_bits)),
        ("exponent t learns", f"weights {_on(config.learn_exponent)}, activations {_on(config.learn_activation_exponent)}"),
        ("left out", Prose(", ".join(clean(pattern) for pattern in config.skip) or "nothing")),
        ("backward compiled", _on(config.compile)),
    ]
    return fragment("Quantization", facts(rows))


def rules_text(rules: Rules) -> str:
    """Return the rules of scoring and forgetting as the call that makes them."""
    keys = ("saliency", "forgetting", "sparing", "average_decay", "eta", "zeta", "shrink")
    return _call(rules, ((key, getattr(rules, key)) for key in keys))


def target_words(budget: Budget) -> str:
    """Return what the budget aims at, in words."""
    if budget.relative_bops is not None:
        return f"relative BOPs at most {percent(budget.relative_bops)} of the dense fp32 model"
    if budget.size_bytes is not None:
        return f"at most {size(budget.size_bytes)}"
    return f"group sparsity {percent(budget.group_sparsity)}"


def budget_text(budget: Budget) -> str:
    """Return the budget as the call that makes it; exceptions are counted."""
    keys = ("group_sparsity", "relative_bops", "size_bytes")
    values: list[tuple[str, object]] = [(key, getattr(budget, key)) for key in keys if getattr(budget, key) is not None]
    values += [("bit_range", budget.bit_range), ("activation_bit_range", budget.activation_bit_range)]
    values += [("round_to", budget.round_to)] if budget.round_to != 1 else []
    values += [("allocation", budget.allocation)] if budget.allocation != "joint" else []
    exceptions = f" with {count(len(budget.exceptions))} exceptions" if budget.exceptions else ""
    return _call(budget, values) + exceptions


_FALLS = {
    "joint": "as far as is cheapest in loss, layer by layer", "cost": "to the low end, less far where a layer costs little",
    "uniform": "to the low end in every layer",
}  # fmt: skip


def budget_html(budget: Budget) -> str:
    """Return target, ranges and the table of exceptions."""
    rows: list[tuple[str, Cell]] = [
        ("target", target_words(budget)),
        ("weight bits", bit_range(budget.bit_range)),
        ("activation bits", bit_range(budget.activation_bit_range)),
        ("kept groups are a multiple of", number(budget.round_to)),
    ]
    if budget.target is not None:
        rows.append(("bits may fall", _FALLS[budget.allocation]))
    exceptions = [(name(pattern), *_exception_cells(layer)) for pattern, layer in budget.exceptions.items()]
    head = ("layers", "protected", "weight bits", "activation bits", "sparsity at most")
    return fragment("Budget", facts(rows), table(head, exceptions, label="exceptions") if exceptions else "")


def _exception_cells(layer: LayerBudget) -> tuple[Cell, ...]:
    return (
        _on(layer.protect),
        Number(bit_range(layer.bit_range)),
        Number(bit_range(layer.activation_bit_range)),
        Number(percent(layer.max_sparsity)),
    )


def layer_budget_text(layer: LayerBudget) -> str:
    """Return the exception as the call that makes it; what is not set is left out."""
    keys = ("protect", "bit_range", "activation_bit_range", "max_sparsity")
    return _call(layer, ((key, getattr(layer, key)) for key in keys if getattr(layer, key) not in (None, False)))


def layer_budget_html(layer: LayerBudget) -> str:
    """Return the exception as a one-row table."""
    return fragment("Exception", table(("protected", "weight bits", "activation bits", "sparsity at most"), [_exception_cells(layer)]))


def schedule_text(schedule: Schedule) -> str:
    """Return the stages with their first and last steps, on one line."""
    spans = ", ".join(
        f"{stage} {_span_words(first, end)}" for stage, (first, end) in schedule.spans().items() if end is None or end > first
    )
    return f"Schedule({spans})"


def _span_words(first: int, end: int | None) -> str:
    return f"{count(first)}-…" if end is None else f"{count(first)}-{count(end)}"


def schedule_html(schedule: Schedule) -> str:
    """Return the timeline and a table of the stages."""
    periods = {"projection": schedule.projection_periods, "joint": schedule.joint_periods}
    what = {
        "warm-up": "plain training of weights and quantizers",
        "projection": f"the upper bit bound falls by {number(schedule.bit_reduction)} once per period",
        "joint": "redundant groups are forgotten, step sizes follow",
        "cool-down": "whole bit widths, the rest trains on",
    }
    rows = [
        (stage, Number(count(first)), Number("open" if end is None else count(end)), Number(number(periods.get(stage))), what[stage])
        for stage, (first, end) in schedule.spans().items()
    ]
    head = ("stage", "first step", "ends before", "periods", "what happens")
    return fragment("Schedule", figure(schedule_svg(schedule), "stages over optimizer steps"), details("Steps", table(head, rows)))


def schedule_svg(schedule: Schedule, *, room: float = 620) -> str:
    """Return the four stages as lanes over the steps; small ticks mark periods, the cool-down has no end of its own."""
    last = max(schedule.cool_down_start * 1.25, 1)
    left, lane = 86, 24
    parts = []
    periods = {"projection": schedule.projection_periods, "joint": schedule.joint_periods}
    for i, (stage, (first, end)) in enumerate(schedule.spans().items()):
        y = 6 + lane * i
        x0, x1 = (left + room * step / last for step in (first, last if end is None else end))
        parts += [text(left - 8, y + 12, stage, anchor="end"), rect(left, y, room, 16, kind="gv-track", opacity=0.2)]
        parts.append(rect(x0, y, max(x1 - x0, 1.5 if x1 > x0 else 0), 16, kind=STAGE_KINDS[stage], opacity=1 if end is not None else 0.55))
        n = periods.get(stage, 0)
        ticks = (x0 + (x1 - x0) * k / n for k in range(1, n))
        parts += [line([(x, y), (x, y + 16)], kind="gv-tick") for x in ticks if x1 - x0 > 4 * n]
    parts += _step_axis(schedule, left, room, last, 6 + lane * 4 + 4)
    return picture(left + room + 12, 6 + lane * 4 + 22, parts, label=schedule_text(schedule))


def _step_axis(schedule: Schedule, left: float, room: float, last: float, y: float) -> list[str]:
    steps = sorted({step for first, end in schedule.spans().values() for step in (first, end) if step is not None})
    parts, free = [], -1.0
    for step in steps:
        x, words = left + room * step / last, count(step)
        parts.append(line([(x, 4), (x, y)], kind="gv-rule"))
        if x - 3.5 * len(words) > free:
            parts.append(text(x, y + 11, words, kind="gv-dim", anchor="middle"))
            free = x + 3.5 * len(words) + 6
    return [*parts, text(left + room, y + 11, "steps …", kind="gv-dim", anchor="end")]
