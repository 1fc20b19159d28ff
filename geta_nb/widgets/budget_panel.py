"""The budget panel: sliders, fields and a table of layers beside what they will cost, before any training.

One anywidget, not a tree of ipywidgets: native inputs bring the keyboard and screen readers along, the page's hooks (``data-testid``)
are ours and stay, and a change is one message each way instead of one per control. The page sends a form and waits for its answer
before it sends the next, always the newest: the preview follows as fast as it is computed, and never lags behind a moving slider.
"""

from __future__ import annotations

import glob
import threading
import weakref
from typing import TYPE_CHECKING, Any

import traitlets

from geta_nb.budget import Budget, paths_of
from geta_nb.cost import FP32_BITS, LayerCost
from geta_nb.errors import ConfigError, GetaError, RunStateError
from geta_nb.sensitivity import Sensitivity
from geta_nb.views import find_view
from geta_nb.widgets.attempt import run_over, watch
from geta_nb.widgets.budget_code import budget_code, budget_of, form_of
from geta_nb.widgets.budget_lock import check_budget_is_free, lock_words
from geta_nb.widgets.page_script import PageWidget
from geta_nb.widgets.panel_assets import joined_module, panel_style
from geta_nb.widgets.panel_front import front_facts, rises_of_layers
from geta_nb.widgets.run_checks import facade

if TYPE_CHECKING:
    from geta_nb.cost import Preview
    from geta_nb.geta import GETA

FIGURES = ("parameters", "size_bytes", "macs", "bops")
TOTALS = (*FIGURES, "macs_full", "bops_full", "relative_bops", "relative_bops_full")
DIGITS = 6


class BudgetPanel(PageWidget):
    """Chooses a budget with the eyes on what it costs.

    Args:
        geta: the network.
        budget: where to begin; None: ``gt.Budget()``.
        sensitivity: of this network: the panel then shows the predicted rise of the loss beside the costs and for each layer, and the
            front of both, in which a click loads a plan's budget.

    Attributes:
        budget: the budget, a trait: ``panel.observe(f, "budget")`` follows it, and it may be set from Python.
        preview: what the network costs once that budget is met.
        code: the line of Python that makes the budget.

    Raises:
        GetaError: a budget, here or set later, that this network cannot meet; the last good one stays.
        RunStateError: a budget set while a run trains this network, which would not heed it: stop the run, set it, and start.

    While a run trains the network, paused or not, the controls are locked and the panel says so; afterwards it says what a run that
    was made for another budget will do with this one.
    What the form says wrongly is shown beside its field; ``budget`` and ``preview`` then keep their last good values.
    """

    facts = traitlets.Dict().tag(sync=True)
    form = traitlets.Dict().tag(sync=True)
    result = traitlets.Dict().tag(sync=True)
    notice = traitlets.Dict({"locked": False, "words": ""}).tag(sync=True)
    budget = traitlets.Instance(Budget)

    def __init__(self, geta: GETA, budget: Budget | None = None, *, sensitivity: Sensitivity | None = None) -> None:
        start = Budget() if budget is None else budget
        if not isinstance(start, Budget):
            raise ConfigError("BudgetPanel: not a budget.", expected="gt.Budget(...)", got=type(start).__name__)
        self.geta = facade(geta, "BudgetPanel")
        if sensitivity is not None and not isinstance(sensitivity, Sensitivity):
            raise ConfigError("BudgetPanel: not a sensitivity.", expected="geta.sensitivity(...)", got=type(sensitivity).__name__)
        self.sensitivity = sensitivity
        self.preview: Preview = geta.preview(start, sensitivity=sensitivity)
        self._answering = 0  # the number of the form that is being answered
        self._run: Any = None  # a weak reference to the last run over the network that is known here
        self._noticing, self._opened = threading.RLock(), False
        super().__init__(
            budget=start, facts=_facts(geta, self.preview) | {"front": front_facts(geta, sensitivity)}, form=form_of(start),
            result=self._answer(start, 0),
        )
        self.observe(self._read_form, "form")
        self._opened = True
        watch(self)
        self.run_changed(run_over(geta))

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script and the style of the page."""
        return joined_module("budget.js"), panel_style()

    @property
    def code(self) -> str:
        """The budget as one line of Python."""
        return budget_code(self.budget)

    @traitlets.validate("budget")
    def _price(self, proposal: Any) -> Budget:
        """Price a new budget before it becomes the budget: what cannot be met is refused here."""
        budget: Budget = proposal["value"]
        if not hasattr(self, "preview") or budget == getattr(self, "_priced", None):
            return budget
        self._check_free()
        preview = self.geta.preview(budget, sensitivity=self.sensitivity)
        self._check_free()  # pricing takes a while
        self.preview, self._priced = preview, budget
        return budget

    def _check_free(self) -> None:
        if self._opened:
            check_budget_is_free(self.geta, "BudgetPanel.budget")

    @traitlets.observe("budget")
    def _show(self, change: Any) -> None:
        if change["old"] is traitlets.Undefined or not isinstance(change["old"], Budget):
            return
        if not self._answering:  # set from Python: the form follows
            self.form = form_of(self.budget)
            self.result = self._answer(self.budget, 0)
        self._notice()

    def _answer(self, budget: Budget, number: int) -> dict[str, Any]:
        return _answer(budget, self.preview, number) | rises_of_layers(self.geta, self.preview)

    def run_changed(self, run: Any) -> None:
        """A run over this network has started, or ended: lock the controls or free them, and say so."""
        if run is not None:
            self._run = weakref.ref(run)
        if self.result["errors"]:
            self.result = self._answer(self.budget, self.result["answers"])
        self._notice()

    def _notice(self) -> None:
        with self._noticing:  # the run's thread and the one that starts it may both be here: the later one is right
            going = run_over(self.geta)
            known = self._run() if self._run is not None else None
            words = lock_words(going) if going is not None else known.budget_words(self.budget) if known is not None else ""
            self.notice = {"locked": going is not None, "words": words}

    def _read_form(self, change: Any) -> None:
        form = change["new"]
        number = form.get("sent")
        if not number:  # ours, not the page's
            return
        budget, errors = budget_of(form)
        if budget is not None:
            try:
                self._answering = number
                self.budget = budget
            except GetaError as error:
                errors[_field_of(error, form)] = str(error)
                if isinstance(error, RunStateError):
                    self.form = form_of(self.budget)  # the page was too late: it shows again what holds
            finally:
                self._answering = 0
        self.result = self._answer(self.budget, number) | {"errors": errors}

    def refuse(self, error: GetaError) -> None:
        """Show beside the form why a budget from elsewhere was not taken; the last good one stays."""
        answer = self._answer(self.budget, self.result.get("answers", 0))
        self.result = answer | {"errors": {_field_of(error, self.form): str(error)}}

    def __repr__(self) -> str:
        return f"BudgetPanel({self.code})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = super()._repr_mimebundle_(**kwargs)
        bundle = dict((found[0] if isinstance(found, tuple) else found) or {})
        bundle["text/plain"] = repr(self)
        views = [(find_view(shown), shown) for shown in (self.budget, self.preview)]
        bundle["text/html"] = "".join(view.html(shown) for view, shown in views if view and view.html)
        view, shown = views[1]
        if view and view.svg:
            bundle["image/svg+xml"] = view.svg(shown)
        return bundle


def _field_of(error: GetaError, form: dict[str, Any]) -> str:
    """Where an error of the whole budget is shown: beside the exception it names, else beside the target."""
    named = [pattern for pattern in form.get("exceptions") or {} if error.at == f"exceptions[{pattern!r}]"]
    return f"exceptions.{named[0]}" if named else "target"


def _facts(geta: GETA, preview: Preview) -> dict[str, Any]:
    """What the page needs once: which layers there are, what may be set for them, and what they cost now."""
    weights = geta.quantizers.weights if geta.quantizers else {}
    inputs = geta.quantizers.activations if geta.quantizers else {}
    producing = {path for entry in geta.groups.table.axis_maps if entry.producing for path in paths_of(entry.parameter)}
    keys = {op.layer: op.weight or op.module_path for op in geta.cost.operators if not op.attention}
    layers = []
    dense = {row.layer: row for row in preview.dense.layers}
    for row in preview.layers:
        key = keys.get(row.layer) or (row.layer if row.operator == "parameters" else "")
        layers.append({
            "name": row.layer, "operator": row.operator, "pattern": glob.escape(key) if key else "",
            "quantized": row.weight_bits is not None and key in weights, "prunable": key in producing,
            "dense": _figures(dense.get(row.layer)),
        })
    return {
        "layers": layers, "weights": bool(weights), "activations": bool(inputs), "groups": len(geta.groups), "most_bits": FP32_BITS,
        "dense": {name: getattr(preview.dense, name) for name in TOTALS},
    }


def _answer(budget: Budget, preview: Preview, number: int) -> dict[str, Any]:
    """What the page shows of a budget: totals, a row a layer, and the line of code."""
    return {
        "answers": number, "code": budget_code(budget), "errors": {},
        "totals": {name: _short(getattr(preview, name)) for name in TOTALS},
        "group_sparsity": _short(preview.group_sparsity), "assumption": preview.assumption,
        "layers": {row.layer: [*_figures(row), row.weight_bits, row.channels] for row in preview.layers},
    }


def _figures(row: LayerCost | None) -> list[float]:
    return [_short(getattr(row, name, 0)) for name in FIGURES]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
