"""One copy of each front end in a page, however many widgets it shows.

In: the script and the style of a kind of widget. Out: a model of its own that carries them, made once in a kernel, and a base class whose
widgets send a page a few lines that read it there. A widget's state travels, and is kept by papermill, with every instance: with the
script in it, forty widgets were two and a half megabytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import anywidget
import ipywidgets
import traitlets

from geta_nb._extra import carried
from geta_nb.widgets.cells import note_cell
from geta_nb.widgets.page_messages import heed_page

_NOTHING = "export default {};"


@cache
def loader() -> str:
    """Return the module that every widget sends: it loads the real one."""
    return (carried("widgets/page/src") / "loader.js").read_text(encoding="utf-8")


class PageScript(anywidget.AnyWidget):
    """A script and a style for pages; shows nothing itself."""

    _esm = traitlets.Unicode(_NOTHING).tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)


class PageWidget(anywidget.AnyWidget):
    """A widget whose script a page holds once; a subclass says by :meth:`assets` where it comes from, and handles the page's messages."""

    _esm = traitlets.Unicode().tag(sync=True)
    script = traitlets.Instance(ipywidgets.Widget).tag(sync=True, **ipywidgets.widget_serialization)
    script_key = traitlets.Unicode().tag(sync=True)

    def __init__(self, **values: Any) -> None:
        key, carrier = _carrier(*self.assets())
        super().__init__(_esm=loader(), script=carrier, script_key=key, **values)
        heed_page(self)
        note_cell(self)
        self.on_msg(self._received)

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script, an ES module whose default export is what anywidget wants, and the style."""
        raise NotImplementedError

    def handle(self, content: Mapping[str, Any]) -> None:
        """Do what the page asks."""

    def _received(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("kind") == "script":  # the model that carries it is gone from the page
            code, style = self.assets()
            self.send({"kind": "script", "code": code, "style": style})
        else:
            self.handle(content)

    def close(self) -> None:
        """Take this widget out of every page; it opens again when it is displayed."""
        super().close()
        self.layout.close()
        self.__dict__.pop("_repr_mimebundle_", None)  # ipywidgets puts None there

    def open(self) -> None:
        """Tell the pages of this widget, unless they know it."""
        if self.comm is None:
            self.layout.open()
            if self.has_trait("script") and self.trait_has_value("script"):
                self.script.open()
        super().open()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if self.comm is None:
            self.open()
            heed_page(self)
        note_cell(self)
        return super()._repr_mimebundle_(**options)


_CARRIERS: dict[str, PageScript] = {}


def _carrier(code: str, style: str) -> tuple[str, PageScript]:
    """Return the key of these files and the model that carries them, a new one where the last was closed."""
    key = "geta-nb-" + hashlib.sha256(f"{code}\0{style}".encode()).hexdigest()[:16]
    found = _CARRIERS.get(key)
    if found is None or found.comm is None:
        found = _CARRIERS[key] = PageScript(code=code, style=style)
    return key, found
