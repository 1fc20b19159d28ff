"""``gt.Explorer``: the graph of a network as nested modules that open and close, and the budget steered from it.

Comes in: a ``GETA``. Goes out: a widget whose page is told the graph once, packed; later only small values change: what training does to
bits and kept shares (:meth:`Explorer.refresh`), the budget, what is selected. Its mime bundle also has a static form.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from glob import escape as literal
from os import PathLike
from pathlib import Path
from typing import Any

import traitlets
from torch import nn

from geta_nb.budget import Budget, LayerBudget
from geta_nb.display.markup import figure, fragment, note
from geta_nb.display.qadg import qadg_text
from geta_nb.errors import BudgetError, ConfigError, GetaError
from geta_nb.geta import GETA
from geta_nb.widgets import exports
from geta_nb.widgets.annotated_svg import Side, pair_svg
from geta_nb.widgets.attempt import run_over, watch
from geta_nb.widgets.before_after import BeforeAfter
from geta_nb.widgets.budget_lock import HOW, check_budget_is_free, lock_words
from geta_nb.widgets.decisions import decisions_of
from geta_nb.widgets.first_view import MOST
from geta_nb.widgets.graph_data import budget_state, graph_data, live_state
from geta_nb.widgets.graph_layers import LAYERS
from geta_nb.widgets.overlays import COLOURS, Overlaid
from geta_nb.widgets.page_script import PageWidget
from geta_nb.widgets.run_checks import facade
from geta_nb.widgets.selecting import Selecting
from geta_nb.widgets.vertex_details import VertexDetails

_WITHOUT_KERNEL = "Run the cell to explore: open and close modules, colour, select, steer the budget."


class Explorer(BeforeAfter, Overlaid, Selecting, PageWidget):
    """Interactive graph of a network.

    Args:
        geta: the network.
        subnet: what ``geta.construct_subnet()`` returned, of either kind: it stands beside its network, and both sides move together.
        before_after: whether each vertex shows its channels, dense -> now -> under the budget, and what is gone as a ghost.
        budget: where the budget starts; None: with that of this network's other widgets, at first ``Budget()``.
        layer: picture shown first: "raw", "branches" or "QADG".
        colour: what colours mean first: "operator", "family", "bits", "kept", "cost" or "protected".
        height: of the widget, in pixels.

    Attributes:
        budget: the budget with what was clicked; an observable trait, and may be set.
        selected: module paths of what is selected, a tuple, () for none: it follows clicks in the page. May be set, as by :meth:`select`.
        selection: the same as the page says it: "vertex:NAME" or "module:PATH", "modules:" and a path a line; "" for none.
        selected_family: name of the selected family, "" for none.
        colour: what colours mean; also the name of an overlay, see :meth:`overlay`. May be set, and so may ``before_after``.
        query: what is searched for, such as ``"type:linear bits<8"``; may be set. ``queries``: earlier ones, the last first.

    Raises:
        ConfigError: no such layer or colour.
        InputError: not a subnet of this network.
        RunStateError: a budget set while a run trains this network, which would not heed it.
        BudgetError: a budget that a panel of this network shows cannot be met; the last good one stays.

    All explorers and budget panels of one network share one budget, wherever they stand.
    """

    graph = traitlets.Bytes().tag(sync=True)
    live_state = traitlets.Dict().tag(sync=True)
    budget_state = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    layer = traitlets.Enum(LAYERS, default_value="QADG").tag(sync=True)
    selected_family = traitlets.Unicode("").tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)
    queries = traitlets.List(traitlets.Unicode()).tag(sync=True)
    height = traitlets.Int(600).tag(sync=True)
    budget = traitlets.Instance(Budget)

    def __init__(
        self, geta: GETA, *, subnet: nn.Module | None = None, before_after: bool = False, budget: Budget | None = None, layer: str = "QADG",
        colour: str = "operator", height: int = 600, **more: Any,
    ) -> None:
        self.geta = facade(geta, "Explorer")
        _check("layer", layer, LAYERS)
        _check("colour", colour, COLOURS)
        self._data, self._noticing = graph_data(geta), threading.RLock()
        self.decisions = decisions_of(geta)
        start = self.decisions.first(geta, budget, "Explorer")
        super().__init__(
            graph=gzip.compress(json.dumps(self._data, separators=(",", ":"), allow_nan=False).encode(), mtime=0),
            live_state=live_state(geta), budget_state=budget_state(geta, start), budget=start,
            layer=layer, colour=colour, height=height, before_after=before_after, **more,
        )  # fmt: skip
        self._details = VertexDetails(geta, self._data["vertices"])
        self.decisions.join(self, budget)
        self._started = self.decisions.started.exceptions
        self._set_subnet(subnet)
        watch(self)
        self.run_changed(None)

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script and the style of the page."""
        return exports.asset("explorer.js"), exports.asset("explorer.css")

    def reopened(self) -> None:
        """Take over the budget that the others of this network have by now."""
        self.decisions.rejoin(self)

    # -- what changes ---------------------------------------------------------------------------------------------------------------

    def refresh(self, progress: Mapping[str, Any] | None = None) -> None:
        """Show the present bits and kept shares.

        Args:
            progress: a snapshot of ``optimizer.progress()``; None: read from the model itself.
        """
        self._count()
        if progress is None:
            self.live_state = live_state(self.geta)
            return
        kept = progress["kept"]
        self.live_state = {
            "weight": [_number(progress["bits"].get(layer)) for layer in self.geta.bit_widths()],
            "input": [_number(progress["activation_bits"].get(layer)) for layer in self.geta.activation_bit_widths()],
            "kept": [float(kept.get(name, 1.0)) for name in self.geta.groups.table.family_names],
        }

    @traitlets.validate("budget")
    def _only_between_runs(self, proposal: Any) -> Budget:
        budget: Budget = proposal["value"]
        if hasattr(self, "_started") and budget != self.budget:
            check_budget_is_free(self.geta, "Explorer.budget")
        return budget

    def run_changed(self, _run: Any) -> None:
        """A run over this network has started, or ended: say that its budget is locked, or no longer."""
        with self._noticing:  # the run's thread and the one that starts it may both be here: the later one is right
            going = run_over(self.geta)
            if going is not None or HOW in self.message:
                self.message = lock_words(going) if going is not None else ""

    @traitlets.observe("budget")
    def _budget_changed(self, change: Any) -> None:
        self.budget_state = budget_state(self.geta, change["new"])
        self._count(anew=False)

    def protect(self, family: str | int, on: bool = True) -> Budget:
        """Keep every group of a family, or let them go again; returns the new budget."""
        index = self._family(family)
        budget = self._with({self._producer(index): {"protect": bool(on)}})
        if not on and budget_state(self.geta, budget)["protect"][index]:
            raise BudgetError(
                "Explorer: another exception of the budget protects this family.", at=self._name(index),
                expected="an exception that is its own", got=", ".join(map(repr, budget.exceptions)),
                hint="explorer.budget = gt.Budget(...)",
            )
        return self._set(budget, f"{self._name(index)} is {'protected' if on else 'free'}")

    def set_bits(self, family: str | int, low: int, high: int) -> Budget:
        """Bound the weight bits of the layers that make a family; returns the new budget."""
        index = self._family(family)
        layers = self._quantized(index)
        if not layers:
            raise BudgetError("Explorer: no layer that makes this family has a weight quantizer.", at=self._name(index))
        budget = self._with({literal(layer): {"bit_range": (low, high)} for layer in layers})
        return self._set(budget, f"{self._name(index)}: {low} to {high} bits")

    def set_max_sparsity(self, family: str | int, share: float | None) -> Budget:
        """Let at most this share of a family go, None: any; returns the new budget."""
        index = self._family(family)
        budget = self._with({self._producer(index): {"max_sparsity": share}})
        return self._set(budget, f"{self._name(index)}: {'no limit' if share is None else f'at most {100 * share:g} % may go'}")

    def reset(self, family: str | int) -> Budget:
        """Take back what was set for a family here; returns the new budget."""
        index = self._family(family)
        ours = {self._producer(index), *(literal(layer) for layer in self._quantized(index))}
        kept = {pattern: layer for pattern, layer in self.budget.exceptions.items() if pattern not in ours}
        kept |= {pattern: layer for pattern, layer in self._started.items() if pattern in ours}
        return self._set(replace(self.budget, exceptions=kept), f"{self._name(index)} is as in the budget")

    def handle(self, content: Mapping[str, Any]) -> None:
        """Do what the page asks; what is wrong is said there, not raised.

        Args:
            content: ``{"kind": "protect" | "bits" | "sparsity" | "reset", "family": index, ...}``, or ``{"kind": "details", ...}``, which
                is answered by a message: see ``VertexDetails.answer``.
        """
        if content.get("kind") == "details":
            self.send(self._details.answer(content))
            return
        acts = {
            "protect": lambda family: self.protect(family, bool(content["on"])),
            "bits": lambda family: self.set_bits(family, content["low"], content["high"]),
            "sparsity": lambda family: self.set_max_sparsity(family, content["share"]),
            "reset": self.reset,
        }
        kind, family = content.get("kind"), content.get("family")
        if kind not in acts or not isinstance(family, int) or isinstance(family, bool):
            self.message = "a request that is not understood"
            return
        try:
            acts[kind](family)
        except GetaError as error:
            self.message = str(error).splitlines()[0]
            self.send_state("message")
        except KeyError as error:
            self.message = f"a request without {error}"

    def _set(self, budget: Budget, words: str) -> Budget:
        self.budget, self.message = budget, words
        return budget

    def _with(self, changes: Mapping[str, Mapping[str, Any]]) -> Budget:
        exceptions = dict(self.budget.exceptions)
        for pattern, values in changes.items():
            changed = replace(exceptions.pop(pattern, LayerBudget()), **values)
            if changed != LayerBudget():
                exceptions[pattern] = changed  # the last pattern wins
        return replace(self.budget, exceptions=exceptions)

    # -- families -------------------------------------------------------------------------------------------------------------------

    def _family(self, family: str | int) -> int:
        names = self.geta.groups.table.family_names
        if isinstance(family, str) and family in names:
            return names.index(family)
        if isinstance(family, int) and not isinstance(family, bool) and 0 <= family < len(names):
            return family
        raise ConfigError("Explorer: no such family.", expected=f"a name or 0 .. {len(names) - 1}", got=repr(family), hint="geta.families")

    def _name(self, index: int) -> str:
        return self.geta.groups.table.family_names[index]

    def _producer(self, index: int) -> str:
        """Pattern of what makes a family: its module, or where a module makes several, its first parameter."""
        table = self.geta.groups.table
        families: dict[str, set[int]] = {}
        for entry in table.axis_maps:
            if entry.producing:
                members = table.family_of[entry.group_of_index[entry.group_of_index >= 0]]
                families.setdefault(entry.parameter, set()).update(members.tolist())
        first = next(name for name, made in families.items() if index in made)
        module = first.rpartition(".")[0]
        alone = all(made == {index} for name, made in families.items() if module and name.startswith(f"{module}."))
        return literal(module if module and alone else first)

    def _quantized(self, index: int) -> list[str]:
        """Layers whose weights make a family, as their quantizers are called."""
        layers = list(self.geta.bit_widths())
        makers = [facts for facts in self._data["vertices"].values() if index in facts.get("p", ()) and "w" in facts]
        return list(dict.fromkeys(layers[facts["w"]] for facts in makers))

    # -- static forms ---------------------------------------------------------------------------------------------------------------

    def static_svg(self, *, max_boxes: int = MOST, dot: str | None = "dot") -> str:
        """Return the first view as SVG: by Graphviz' ``dot`` where there is one, else (or with None) by our own drawing.

        With an overlay as its colour, with ``before_after``, or with a subnet (then both, beside each other) it is our own drawing.

        Args:
            max_boxes: modules are opened while at most so many boxes are in sight; as many as there are vertices: all are open.
            dot: the Graphviz program.
        """
        sides = self._sides()
        if sides:
            return pair_svg(*sides, max_boxes=max_boxes)
        return exports.static_svg(self.geta, max_boxes=max_boxes, dot=dot)

    def _sides(self) -> list[Side]:
        """What a static picture has besides the graph; empty for the graph alone."""
        if self._subnet is not None:
            return [self.picture_side(type(self.geta.model).__name__), self.picture_side("subnet", subnet=True)]
        return [self.picture_side()] if self.before_after or self.shown_overlay() is not None else []

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write this explorer as a page of its own that works offline and asks nobody; returns its path.

        ``page.html#encoder.layer.0`` opens with that module, vertex or parameter selected, and the address follows what is selected.
        """
        return exports.write_page(path, f"{self._data['title']}: graph", self.page_data())

    def page_data(self) -> dict[str, Any]:
        """Return what a page needs to show this explorer without a kernel."""
        names = ("live_state", "budget_state", "layer", "colour", "overlays", "before_after", "subnet_state", "selection")
        counted = self.compare_state if self.shows_widths else self.counted()  # the page may be asked for it
        values = {name: getattr(self, name) for name in names}
        return {"graph": self._data, **values, "compare_state": counted, "details": self._details.page()}

    def __repr__(self) -> str:
        return f"Explorer({qadg_text(self.geta.qadg)})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget's own view, and a text and a picture for readers without a kernel."""
        shown = super()._repr_mimebundle_(**options)
        bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})
        if bundle is None:
            bundle = {}
        caption = "folded graph" if self._sides() else "first view of the folded graph"
        picture = figure(self.static_svg(dot=None), f"{caption}; W and A mark weight and input quantizers with their bits")
        static = fragment("Graph explorer", picture, note(_WITHOUT_KERNEL))
        return {**bundle, "text/plain": repr(self), "text/html": static}, metadata


def _check(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"Explorer: no such {name}.", expected=", ".join(known), got=repr(value))


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)
