"""``explorer.select`` and ``explorer.selected``: what is selected, by module path, from Python and from clicks in the page.

In: a path, or the page's word. Out: the trait ``selection``, which page and kernel share, and the module paths that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import traitlets

from geta_nb.display.wording import clean
from geta_nb.errors import ConfigError
from geta_nb.geta import GETA
from geta_nb.widgets.overlay_values import Paths

VERTEX, MODULE = "vertex:", "module:"


class Selecting(traitlets.HasTraits):
    """The part of an explorer that knows what is selected; ``geta`` and ``_data`` are the explorer's."""

    selection = traitlets.Unicode("").tag(sync=True)
    selected: Any = traitlets.Any(())
    geta: GETA
    _data: dict[str, Any]

    def select(self, path: str | None) -> None:
        """Open what hides a module or vertex, select it, and bring it to the middle; None: select nothing.

        Args:
            path: of a module; or the name of a vertex, or of a parameter, whose vertex is meant.

        Raises:
            ConfigError: there is none of this name; those near it are named.
        """
        self.selection = self._place(path) if path else ""

    def _place(self, path: object) -> str:
        if not isinstance(path, str):
            raise ConfigError("Explorer.select: not a path.", expected="a dotted path", got=repr(path))
        name, paths = clean(path), Paths(self._data, self.geta.model)
        nodes: list[str] = self._data["nodes"]["name"]
        if paths.of_module.get(name):
            return MODULE + name
        if name in paths.of_tensor and name not in paths.names:
            return VERTEX + nodes[paths.of_tensor[name][0]]
        if name in nodes:
            return VERTEX + name
        raise ConfigError(
            "Explorer.select: no such module, vertex or parameter.", at=repr(path), expected="a path of this network", hint=paths.near(name)
        )

    @traitlets.observe("selection")
    def _chosen(self, change: Any) -> None:
        self._follows = True
        try:
            self.selected = self._paths_of(change["new"])
        finally:
            self._follows = False

    def _paths_of(self, selection: str) -> tuple[str, ...]:
        """Module paths of what the page says is selected."""
        kind, _, name = selection.partition(":")
        if kind == "modules":  # a stack of equal blocks
            return tuple(name.split("\n"))
        if f"{kind}:" == MODULE:
            return (name,)
        nodes = self._data["nodes"]
        if f"{kind}:" != VERTEX or name not in nodes["name"]:
            return ()
        return (self._data["modules"]["path"][nodes["module"][nodes["name"].index(name)]],)

    @traitlets.validate("selected")
    def _settable(self, proposal: Any) -> tuple[str, ...]:
        value = proposal["value"]
        if getattr(self, "_follows", False) or (value == () and not self.selection):
            return tuple(value)
        paths = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
        if tuple(paths) == self.selected:
            return tuple(paths)
        if len(paths) > 1:
            raise ConfigError("Explorer.selected: one thing is selected at a time.", expected="one path", got=f"{len(paths)} paths")
        wanted = self._place(paths[0]) if paths and paths[0] else ""
        self.selection = wanted
        return self._paths_of(wanted)
