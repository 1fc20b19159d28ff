"""Widgets of a cell that runs again are closed: nobody sees them any longer, and each keeps a network, and a model in the page, alive.

In: a widget when it is made, and when it is displayed. Out: ``close()`` after a later run of the same cell, if the widget stands in no
other cell and in no other widget. Without IPython, or where the page does not name its cells, nothing is closed.
A widget that is closed lives on in Python, and opens again when it is displayed.
"""

from __future__ import annotations

import weakref
from typing import Any

import ipywidgets

_SEEN: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()
"""For each widget the cells that made or displayed it, with the number of the run that did."""


def note_cell(widget: Any) -> None:
    """Remember that the cell that runs now makes ``widget``, or displays it."""
    shell = _shell()
    cell = _cell_of(shell)
    if cell is None:
        return
    if close_unseen not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", close_unseen)
    _SEEN.setdefault(widget, {})[cell] = shell.execution_count


def close_unseen(result: Any) -> None:
    """Close the widgets that only earlier runs of the cell that has just run made or displayed."""
    cell, count = getattr(result.info, "cell_id", None), result.execution_count
    if cell is None or count is None:
        return
    for widget, cells in list(_SEEN.items()):
        if cells.get(cell, count) >= count:
            continue
        del cells[cell]
        if not cells and not _stands_in_another(widget):
            widget.close()


def stands_in_a_cell(widget: Any) -> bool:
    """Whether a cell has made or displayed ``widget`` and has not run again since."""
    return bool(_SEEN.get(widget))


def _stands_in_another(widget: Any) -> bool:
    alive = getattr(ipywidgets.widgets.widget, "_instances", None)
    if alive is None:  # another ipywidgets: what cannot be known is not closed
        return True
    return any(widget in getattr(other, "children", ()) for other in list(alive.values()))


def _shell() -> Any:
    """Return the shell of a kernel, or None."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if hasattr(shell, "get_parent") else None


def _cell_of(shell: Any) -> str | None:
    """Return the name that the page gives the cell that runs now, None where it gives none or none runs."""
    if shell is None:
        return None
    message = shell.get_parent() or {}
    if message.get("header", {}).get("msg_type") != "execute_request":
        return None  # made by a message of a page or by a thread: it belongs to no cell
    found = message.get("metadata", {}).get("cellId")
    return found if isinstance(found, str) else None
