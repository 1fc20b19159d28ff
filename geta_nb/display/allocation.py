"""Views of the plan of a run with a cost target: what each layer and family comes to, what that costs in loss, and what would go next.

In: an :class:`Allocation`. Out: text, HTML, and the rows that the live view and the report show too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geta_nb.display.markup import Cell, Number, cards, details, fragment, note, table
from geta_nb.display.wording import MISSING, clean, count, number, percent, size

HEAD = ("what", "comes to", "rise of the loss", "its last step", "for", "its next step", "for")
_REASONS = (("why", "weights of"), ("input_why", "input of"))
KINDS = {"weight": "weights of", "input": "input of", "family": "groups of"}


def allocation_text(plan: Any) -> str:
    """Return the predicted rise, the cost, and what carries most of it."""
    worst = max(plan.rows, key=lambda row: row.rise, default=None)
    most = f"; most of it: {what(worst)} at {comes_to(worst)}, +{number(worst.rise)}" if worst is not None and worst.rise > 0 else ""
    return f"Allocation(step {count(plan.step)}, predicted rise {number(plan.rise)}{unit_words(plan)}, {cost_words(plan)}{most})"


def allocation_html(plan: Any) -> str:
    """Return headline numbers and the table of all rows."""
    head = [
        ("predicted rise", f"+{number(plan.rise)}", "of the loss, before training repairs it" if plan.samples else "of the loss, relative"),
        ("cost", _cost(plan.measure, plan.cost), f"at most {_cost(plan.measure, plan.target)}"),
        ("made at step", count(plan.step), ""),
    ]
    return fragment("Allocation", cards(head), note(NOTE), allocation_table(plan))


NOTE = (
    "Each step says what it costs in loss, to second order and before training repairs it, and which share of the network's cost it saves. "
    "What saves most for its rise goes first; a rise by rounding counts more than one by groups (see docs/sensitivity.md)."
)


def allocation_table(plan: Any, *, label: str = "allocation") -> str:
    """Return a row for each layer's weights and inputs and each family, the largest rise first."""
    rows = sorted(plan.rows, key=lambda row: -row.rise)
    return table(HEAD, [_cells(row) for row in rows], label=label)


def allocation_part(plan: Any) -> str:
    """Return the plan as a folded part of another view; "" without one."""
    title = f"Why each layer has its width (plan of step {count(plan.step)})" if plan is not None else ""
    return details(title, note(NOTE) + allocation_table(plan)) if title else ""


def reasons_part(allocation: Mapping[str, Mapping[str, Any]], rise: float | None) -> str:
    """Return a report's ``"allocation"`` as a folded part; "" where it has none."""
    if not allocation:
        return ""
    rows: list[tuple[Cell, ...]] = []
    for layer, found in allocation.items():
        rows += [(f"{words} {clean(layer)}", clean(found[key])) for key, words in _REASONS if key in found]
    remark = "" if rise is None else note(f"Predicted rise of the loss by rounding and by all groups that went: {number(rise)}.")
    return details("Why each layer has its bits", remark + table(("what", "why"), rows, label="reasons"))


def what(row: Any) -> str:
    """Return whose row it is."""
    return f"{KINDS[row.kind]} {clean(row.name)}"


def comes_to(row: Any) -> str:
    """Return its size in words."""
    return f"{count(row.size)} of {count(row.whole)} groups" if row.kind == "family" else f"{row.size} bits"


def _cells(row: Any) -> tuple[Cell, ...]:
    return (what(row), comes_to(row), Number(f"+{number(row.rise)}"), *_step(row.last), *_step(row.next))


def _step(move: Any) -> tuple[Cell, Cell]:
    if move is None:
        return MISSING, Number(MISSING)
    return f"{move.before} to {move.after}: +{number(move.rise)}", Number(f"{percent(move.saved)} of the cost")


def unit_words(plan: Any) -> str:
    """Return how rises are to be read where the batch's size is not known."""
    return "" if plan.samples else " (relative: the size of a batch is not known)"


def cost_words(plan: Any) -> str:
    """Return the cost and the most that it may be."""
    return f"{clean(plan.measure).replace('_', ' ')} {_cost(plan.measure, plan.cost)} of at most {_cost(plan.measure, plan.target)}"


def _cost(measure: str, value: float) -> str:
    return size(value) if measure == "size_bytes" else percent(value)
