"""``explorer.overlay``: numbers or words of the user's own as colours and labels of the vertices, with a legend; several, by name.

In: what :mod:`geta_nb.widgets.overlay_values` understands. Out: the traits ``overlays`` and ``colour``, which the page follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets

from geta_nb.errors import ConfigError
from geta_nb.geta import GETA
from geta_nb.latency import LatencyTable
from geta_nb.sensitivity import Sensitivity
from geta_nb.widgets.overlay_values import Paths, Values, overlay_of, ready_made, words_about

COLOURS = ("operator", "family", "bits", "kept", "cost", "protected")


class Overlaid(traitlets.HasTraits):
    """The part of an explorer that has overlays; ``geta``, ``_data`` and ``message`` are the explorer's."""

    overlays = traitlets.List(traitlets.Dict()).tag(sync=True)
    colour = traitlets.Unicode("operator").tag(sync=True)
    geta: GETA
    _data: dict[str, Any]
    message: Any

    @traitlets.validate("colour")
    def _known_colour(self, proposal: Any) -> str:
        colour: str = proposal["value"]
        known = (*COLOURS, *(overlay["name"] for overlay in self.overlays))
        if colour not in known:
            raise ConfigError("Explorer: no such colour.", expected=", ".join(known), got=repr(colour))
        return colour

    def overlay(self, values: Values | Sensitivity | LatencyTable | str | None, *, name: str | None = None) -> None:
        """Colour and label vertices by values of your own, with a legend; it joins the colours to choose from, and is shown.

        Args:
            values: path -> number or text, all of one kind. A path is that of a module, which stands for all that it runs, or of a
                parameter or vertex, which wins over the modules around it. Numbers are on a scale from the least to the largest: from blue
                over grey to red where some are negative, by powers of ten where they span three of them. Texts are categories. NaN and
                infinity have a colour of their own, and are counted in the legend. Ready made: what ``geta.sensitivity`` returned (the rise
                of the loss at the fewest bits, and with the fewest groups, one overlay each); ``"gradient norms"``, of what ``p.grad`` is
                now; ``"latency"``, milliseconds of every innermost module on the example inputs, measured now in torch.
                None: remove the overlay ``name``, or all.
            name: as it is listed; another one of this name is replaced. None: "overlay", or what the ready-made one is called.

        Raises:
            ConfigError: a path that there is not, with those near it; mixed kinds; or a name that a colour has already.
            RunStateError: ``"gradient norms"`` without a gradient, ``"latency"`` while a run trains the network.
        """
        if values is None:
            return self._remove(name)
        if name is not None and (not isinstance(name, str) or not name.strip() or name in COLOURS):
            raise ConfigError("Explorer.overlay: not a name for an overlay.", expected="a text that is no colour", got=repr(name))
        found = ready_made(self.geta, values, name)
        if found is None:
            if not isinstance(values, Mapping):
                raise ConfigError("Explorer.overlay: not values by path.", expected="{path: number or text}", got=type(values).__name__)
            found = [(name or "overlay", dict(values), "")]
        paths = Paths(self._data, self.geta.model)
        made = [overlay_of(paths, column, title, unit=unit) for title, column, unit in found]
        taken = {overlay["name"] for overlay in made}
        self.overlays = [overlay for overlay in self.overlays if overlay["name"] not in taken] + made
        self.colour = made[0]["name"]
        self.message = "; ".join(filter(None, map(words_about, made)))
        return None

    def _remove(self, name: str | None) -> None:
        known = [overlay["name"] for overlay in self.overlays]
        if name is not None and name not in known:
            raise ConfigError("Explorer.overlay: there is no such overlay.", expected=", ".join(map(repr, known)) or "none", got=repr(name))
        gone = set(known if name is None else [name])
        if self.colour in gone:
            self.colour = "operator"
        self.overlays = [overlay for overlay in self.overlays if overlay["name"] not in gone]

    def shown_overlay(self) -> dict[str, Any] | None:
        """Return the overlay that is the colour now, or None."""
        return next((overlay for overlay in self.overlays if overlay["name"] == self.colour), None)
