"""The view of what became of each layer norm. In: a :class:`Centered`. Out: text and HTML."""

from __future__ import annotations

from typing import Any

from geta_nb.display.markup import details, fragment, name, note, table
from geta_nb.display.wording import clean, count, number, plural

_TITLE = "Centered"


def centered_text(found: Any) -> str:
    """Return how many norms changed, and how many stay."""
    untied = f", {plural(len(found.untied), 'copy')} of tied tables" if found.untied else ""
    left = f", {count(len(found.left))} left" if found.left else ""
    return f"Centered({plural(len(found.norms), 'layer norm')} without a mean{untied}{left}, rounding {number(found.max_abs_difference)})"


def centered_html(found: Any) -> str:
    """Return a table of norms, those that stay with the reason, and what was changed."""
    total = len(found.norms) + len(found.left)
    said = "There is no layer norm that could change." if not total else (
        f"{count(len(found.norms))} of {plural(total, 'layer norm')} are root-mean-square norms now: the mean over the channels is taken "
        f"out of what they read. Outputs on the example inputs differ by {number(found.max_abs_difference)} at most, which is rounding."
    )
    stays = table(("layer norm that stays", "why"), [(name(path), clean(reason)) for path, reason in found.left.items()], label="left")
    changed = table(("layer norm",), [(name(path),) for path in found.norms], label="norms")
    writers = table(
        ("parameter", ""), [(name(path), "a copy of its own" if path in found.untied else "") for path in found.writers], label="writers"
    )
    return fragment(
        _TITLE,
        note(said),
        stays if found.left else "",
        details(f"Norms without a mean ({count(len(found.norms))})", changed) if found.norms else "",
        details(f"Parameters from which a mean was taken ({count(len(found.writers))})", writers) if found.writers else "",
    )
