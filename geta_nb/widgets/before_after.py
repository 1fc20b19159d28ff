"""Before and after: what each vertex was, is now, and will be under the budget; and a subnet beside its dense network.

In: the explorer's ``GETA``, its budget, a subnet. Out: traits that the page draws from, counted only where it shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import traitlets
from torch import nn

from geta_nb.budget import Budget
from geta_nb.errors import InputError
from geta_nb.geta import GETA
from geta_nb.groups import BoolArray
from geta_nb.widgets.annotated_svg import Side, Steps
from geta_nb.widgets.vertex_widths import Planned, Widths, alive_now, compare_state, live_state_of, of_subnet


class BeforeAfter(traitlets.HasTraits):
    """The part of an explorer that shows before and after; ``geta`` and ``budget`` are the explorer's."""

    before_after = traitlets.Bool(False).tag(sync=True)
    compare_state = traitlets.Dict().tag(sync=True)
    subnet_state = traitlets.Dict().tag(sync=True)
    geta: GETA
    budget: traitlets.Instance[Budget]
    shown_overlay: Callable[[], dict[str, Any] | None]
    _data: dict[str, Any]
    _subnet: Planned | None = None
    _widths: Widths | None = None
    _alive: BoolArray | None = None

    def _set_subnet(self, subnet: nn.Module | None) -> None:
        """Show a subnet beside its network from now on."""
        if subnet is not None:
            if not isinstance(subnet, nn.Module):
                raise InputError("Explorer: not a subnet.", expected="what geta.construct_subnet() returned", got=type(subnet).__name__)
            self._subnet = of_subnet(self.geta, subnet)
            self.subnet_state = live_state_of(self.geta, self._subnet)
            self._count()

    @traitlets.observe("before_after")
    def _asked(self, _change: Any) -> None:
        self._count()

    @property
    def shows_widths(self) -> bool:
        """Whether the channels of vertices are shown: before and after is switched on, or there is something to compare with."""
        return bool(self.before_after or self._subnet is not None)

    def _count(self, *, anew: bool = True) -> None:
        """Tell the page the channels of all vertices, where it shows them; ``anew``: the model may have changed, so look at its weights."""
        self._alive = None if anew else self._alive
        if self.shows_widths:
            self.compare_state = self.counted()

    def counted(self) -> dict[str, Any]:
        """Return the channels of all vertices: dense, now, under the budget if it can be met, in the subnet if there is one."""
        self._alive = alive_now(self.geta) if self._alive is None else self._alive
        return compare_state(self.geta, self.widths(), now=self._alive, budget=self.budget, subnet=self._subnet)

    def widths(self) -> Widths:
        """Return how channels are counted; found when first asked for."""
        if self._widths is None:
            self._widths = Widths(self.geta)
        return self._widths

    def picture_side(self, words: str = "", *, subnet: bool = False, other: BeforeAfter | None = None, second: bool = False) -> Side:
        """Return what a static picture of this explorer has on its vertices.

        Args:
            words: its title.
            subnet: whether it is the subnet that is drawn, and not the network it was cut from.
            other: the explorer on the other side of a comparison.
            second: whether this one stands on the right, and its channels are compared with the other's.
        """
        known: dict[str, Mapping[str, float]] = {
            "weight_quantizer": self.geta.bit_widths(), "input_quantizer": self.geta.activation_bit_widths()
        }  # fmt: skip
        self._alive = None  # a picture shows the model as it is
        state, names, only = self.counted(), self.widths().names, frozenset[str]()
        bits: Mapping[str, float] = self.geta.bit_widths()
        columns = [state["dense"]]
        if subnet and self._subnet is not None:
            bits = self._subnet.weight_bits
            known = {"weight_quantizer": bits, "input_quantizer": self._subnet.input_bits}
            columns.append(state["subnet"])
        elif other is not None:
            first = dict(zip(other.widths().names, other.counted()["now"], strict=True)) if second else {}
            columns = [[first.get(name, own) for name, own in zip(names, state["now"], strict=True)], *([state["now"]] if second else [])]
            only = frozenset(vertex.name for vertex in self.geta.qadg.vertices) - {vertex.name for vertex in other.geta.qadg.vertices}
        elif self._subnet is None:
            columns += [state[column] for column in ("now", "budget") if column in state]
            bits = self._planned_bits(state) or bits
        rows = zip(names, zip(*columns, strict=True), self._layers(), strict=True)
        steps = {name: Steps(row, bits.get(layer)) for name, row, layer in rows}
        shown = self.shown_overlay()
        overlay = None if shown is None else (shown, self._data["nodes"]["name"])
        wanted = self.shows_widths or other is not None
        return Side(self.geta, words, steps if wanted else {}, known, overlay, only)

    def _planned_bits(self, state: Mapping[str, Any]) -> dict[str, float]:
        planned = state["bits"].get("budget", ())
        return {layer: bits for layer, bits in zip(self.geta.bit_widths(), planned, strict=False) if bits is not None}

    def _layers(self) -> list[str]:
        """Layer of each vertex's weight quantizer, "" for none."""
        known = {vertex.name: vertex.weight_quantizer or "" for vertex in self.geta.qadg.vertices}
        return [known[name] for name in self.widths().names]
