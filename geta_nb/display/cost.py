"""Views of what a network costs: headline numbers against the dense fp32 model, and where the cost sits by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from geta_nb.cost import Costs, Preview, Totals, compare_layers
from geta_nb.display.layers import Row, layers_picture, layers_table
from geta_nb.display.markup import Cell, Number, cards, details, facts, figure, fragment, note, table
from geta_nb.display.wording import MISSING, clean, count, number, percent, size

CAPTION = (
    "per layer: channels kept, bits after, and the layer's share of all BOPs and bytes, before (grey) and after; the number beside is "
    "what is left of the layer's own"
)
PAPER = "relative BOPs, paper's counting"
FULL = "relative BOPs, full counting"
_COUNTINGS = (
    "Paper's counting: products of two activations (attention) count 0. Full counting: they count like any other. "
    "Both are shares of the dense fp32 model."
)
Numbers = Mapping[str, Any]


def headline(before: Numbers, after: Numbers) -> list[tuple[str, str, str]]:
    """Return cards of size, both relative BOPs, parameters and MACs.

    Args:
        before: ``size_bytes``, ``parameters``, ``macs`` of the dense model.
        after: the same of the compressed one, with ``relative_bops`` and ``relative_bops_full``.
    """
    found = [
        ("size", size(after.get("size_bytes")), _of(before, after, "size_bytes", size)),
        (PAPER, percent(after.get("relative_bops")), "of the dense fp32 model"),
        (FULL, percent(after.get("relative_bops_full")), "of the dense fp32 model"),
        ("parameters", count(after.get("parameters")), _of(before, after, "parameters", count)),
        ("MACs", count(after.get("macs")), _of(before, after, "macs", count)),
    ]
    return [card for card in found if card[1] != MISSING]


def _of(before: Numbers, after: Numbers, key: str, words: Any) -> str:
    dense, small = before.get(key), after.get(key)
    if dense is None or small is None:
        return ""
    return f"of {words(dense)}" + (f" ({percent(small / dense)})" if dense else "")


def _numbers(costs: Totals) -> dict[str, Any]:
    return {key: getattr(costs, key) for key, _, _ in _TITLES}


def headline_table(before: Numbers, after: Numbers) -> str:
    """Return before and after of every figure as a table: what a viewer that drops styles still shows well."""
    rows = [
        (title, Number(words(before.get(key))), Number(words(after[key]))) for key, title, words in _TITLES if after.get(key) is not None
    ]
    return table(("", "dense fp32", "compressed"), rows, label="totals")


def _named(numbers: Numbers) -> list[tuple[str, Cell]]:
    return [(title, Number(words(numbers[key]))) for key, title, words in _TITLES if numbers.get(key) is not None]


_TITLES: tuple[tuple[str, str, Any], ...] = (
    ("parameters", "parameters", count),
    ("size_bytes", "size", size),
    ("macs", "MACs", count),
    ("bops", "BOPs, paper's counting", count),
    ("bops_full", "BOPs, full counting", count),
    ("relative_bops", PAPER, percent),
    ("relative_bops_full", FULL, percent),
)


def costs_text(costs: Totals) -> str:
    """Return parameters, size and both relative BOPs."""
    return (
        f"{type(costs).__name__}({count(costs.parameters)} parameters, {size(costs.size_bytes)}, "
        f"relative BOPs {percent(costs.relative_bops)} (full counting {percent(costs.relative_bops_full)}))"
    )


def cost_rows(costs: Costs) -> list[Row]:
    """Return rows of ``display.layers``: each layer beside the layer of the same name in the dense fp32 model."""
    return [asdict(row) for row in compare_layers(costs)]


def totals_html(totals: Totals) -> str:
    """Return the figures of one network on its own, with its layers."""
    rows: list[Row] = [
        {**asdict(row), "bits": row.weight_bits, "activation_bits": row.input_bits}
        | {f"{key}_after": getattr(row, key) for key in _LAYER_KEYS}
        for row in totals.layers
    ]
    return fragment("Costs", facts(_named(_numbers(totals))), details(f"All layers ({count(len(rows))})", layers_table(rows)))


_LAYER_KEYS = ("channels", "macs", "bops", "parameters", "size_bytes")


def costs_html(costs: Costs) -> str:
    """Return headline numbers, the picture of layers and their table."""
    return _costs_html("Costs", costs, "")


def preview_html(preview: Preview) -> str:
    """Return what the budget would give: headline numbers, dense against predicted by layer, and what is assumed."""
    return _costs_html("Preview", preview, "; ".join(clean(line) for line in preview.assumptions))


def _costs_html(title: str, costs: Costs, remark: str) -> str:
    before, rows = _numbers(costs.dense), cost_rows(costs)
    picture = figure(layers_picture(rows, label=f"{title} per layer"), CAPTION)
    return fragment(
        title,
        note(remark) if remark else "",
        cards([*headline(before, _numbers(costs)), *_rise(costs)]),
        picture,
        details("What carries the predicted rise", _rises(costs)) if _rise(costs) else "",
        details("Totals", headline_table(before, _numbers(costs)) + note(_COUNTINGS)),
        details(f"All layers ({count(len(rows))})", layers_table(rows)),
    )


def _rise(costs: Costs) -> list[tuple[str, str, str]]:
    rise = costs.predicted_rise if isinstance(costs, Preview) else None
    return [] if rise is None else [("predicted rise of the loss", number(rise), "before training on")]


def _rises(costs: Costs) -> str:
    rises = costs.rises if isinstance(costs, Preview) else {}
    rows = [(clean(part), Number(number(rise))) for part, rise in rises.items() if rise > 0]
    return table(("", "rise"), rows, label="rises")


def costs_svg(costs: Costs) -> str:
    """Return dense against compressed cost by layer."""
    return layers_picture(cost_rows(costs), label=costs_text(costs))
