"""``gt.compare``: two explorers that move together.

In: two of ``GETA`` or ``Explorer``. Out: a :class:`Comparison`. Who follows whom is decided in the page (``widgets/explorer/src/pair.js``),
so it needs no kernel.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from geta_nb.display.markup import figure, fragment, note
from geta_nb.errors import ConfigError
from geta_nb.widgets import exports
from geta_nb.widgets.annotated_svg import pair_svg
from geta_nb.widgets.cells import stands_in_a_cell
from geta_nb.widgets.explorer import Explorer
from geta_nb.widgets.page_script import PageWidget
from geta_nb.widgets.run_checks import facade

_WITHOUT_KERNEL = "Run the cell to explore: both sides move together."


class Comparison(PageWidget):
    """Two explorers that move together: what :func:`compare` returns.

    Attributes:
        left, right: the explorers; what is set on one in the page (layer, colour, selection) follows on the other.
    """

    pair = traitlets.List(traitlets.Instance(ipywidgets.Widget)).tag(sync=True, **ipywidgets.widget_serialization)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    height = traitlets.Int(600).tag(sync=True)

    def __init__(self, left: Any, right: Any, *, words: tuple[str, str], height: int = 600) -> None:
        self.left, self.right = left, right
        super().__init__(pair=[left, right], words=list(words), height=height)

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script and the style of the page."""
        return Explorer.assets()

    def close(self) -> None:
        """Take both out of every page, but for one that a cell shows alone."""
        super().close()
        for one in self.pair:
            if not stands_in_a_cell(one):
                one.close()

    def static_svg(self) -> str:
        """Return both networks beside each other as SVG; in the right one, what is narrower or gone there is drawn ghosted."""
        first = self.left.picture_side(self.words[0], other=self.right)
        return pair_svg(first, self.right.picture_side(self.words[1], other=self.left, second=True))

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write both as one page that works offline and asks nobody; returns its path."""
        return exports.write_page(path, " and ".join(self.words), self.page_data())

    def page_data(self) -> dict[str, Any]:
        """Return what a page needs to show both without a kernel."""
        return {"pair": [one.page_data() for one in self.pair], "words": self.words}

    def __repr__(self) -> str:
        return f"Comparison({self.left!r}, {self.right!r})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})
        static = fragment("Two networks", figure(self.static_svg(), " and ".join(self.words)), note(_WITHOUT_KERNEL))
        return {**(bundle or {}), "text/plain": repr(self), "text/html": static}, metadata


def compare(a: Any, b: Any, *, words: tuple[str, str] | None = None, height: int = 600) -> Comparison:
    """Return two explorers beside each other that move together: camera, open modules, selection, layer, colour and search.

    Each side shows its channels. What is narrower on one side is drawn ghosted there, and so is a vertex that the other side has not.

    Args:
        a, b: a ``GETA``, or an ``Explorer``, each. For a subnet beside its own network take ``gt.Explorer(geta, subnet=subnet)``.
        words: what the sides are called; None: by their classes.
        height: of the widget, in pixels.

    Raises:
        InputError: something else.
        ConfigError: the same explorer twice.
    """
    explorers = [_explorer(one) for one in (a, b)]
    if explorers[0] is explorers[1]:
        raise ConfigError("compare: the same explorer twice.", expected="two", hint="gt.compare(geta_a, geta_b)")
    for one in explorers:
        one.before_after = True
    first, second = (type(one.geta.model).__name__ for one in explorers)
    names = (f"a: {first}", f"b: {second}") if first == second else (first, second)
    if words is not None and (len(words) != 2 or not all(isinstance(word, str) for word in words)):
        raise ConfigError("compare: words are what both sides are called.", expected="two texts", got=repr(words))
    return Comparison(*explorers, words=words or names, height=height)


def _explorer(one: Any) -> Any:
    return one if isinstance(one, Explorer) else Explorer(facade(one, "compare"))
