"""The registry of views: how an object shows itself, kept apart from the object.

The core knows this file and no renderer; ``geta_nb.display`` fills the registry. An object without a view falls back to its text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class View:
    """The forms of one kind of object: one line of text, and optionally a static HTML fragment and an SVG picture."""

    text: Callable[[Any], str]
    html: Callable[[Any], str] | None = None
    svg: Callable[[Any], str] | None = None


VIEWS: dict[type, View] = {}


def find_view(obj: object) -> View | None:
    """Return the view registered for the class of ``obj`` or its nearest base, or None."""
    return next((VIEWS[cls] for cls in type(obj).__mro__ if cls in VIEWS), None)


class Shown:
    """Mixin: shows itself in a notebook through the registry."""

    __slots__ = ()

    def __repr__(self) -> str:
        view = find_view(self)
        return view.text(self) if view else f"<{type(self).__name__}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        view = find_view(self)
        bundle = {"text/plain": repr(self)}
        if view and view.html:
            bundle["text/html"] = view.html(self)
        if view and view.svg:
            bundle["image/svg+xml"] = view.svg(self)
        return bundle
