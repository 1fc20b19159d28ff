"""The view of a live run: an anywidget whose traits always hold the present state, so that a page which is reloaded shows it.

Comes in: a live run, after each of its steps. Goes out: at most ten small messages a second that say what is new; the whole log is sent
only when a page asks for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets

from geta_nb.display.allocation import comes_to, what
from geta_nb.display.training import rows_by_module
from geta_nb.widgets.earlier import earlier_curves
from geta_nb.widgets.history import TABLES
from geta_nb.widgets.live_static import last_metrics, run_schedule
from geta_nb.widgets.page_script import PageWidget
from geta_nb.widgets.panel_assets import joined_module, panel_style

INTERVAL = 0.1
"""Seconds between two messages; a change of state is told at once."""
UNWATCHED_INTERVAL, SALIENCY_INTERVAL = 0.25, 1.0
MAX_ROWS, CURVE_POINTS, DIGITS = 300, 128, 5


def _present_log(_value: Any, widget: LiveView) -> dict[str, Any]:
    return widget.whole_log()


class LiveView(PageWidget):
    """Draws a run and passes its buttons on.

    Args:
        run: the live run.

    Attributes:
        watched: whether a page has said that it shows this view.
    """

    setup = traitlets.Dict().tag(sync=True)
    log = traitlets.Dict().tag(sync=True, to_json=_present_log)
    tick = traitlets.Dict().tag(sync=True)
    saliency = traitlets.Dict().tag(sync=True)

    def __init__(self, run: Any) -> None:
        self.run, self.watched = run, False
        self._lock, self._sent_step, self._sent_at, self._saliency_at = threading.RLock(), -1, 0.0, 0.0
        self._plan: Any = None
        self._known: Any = None
        self._curves: list[dict[str, Any]] = []
        self._words: list[list[str]] = []
        self._rows: list[list[np.ndarray[Any, Any]]] = []
        self._beginnings = run.beginnings
        super().__init__(setup=self._describe())

    @classmethod
    def assets(cls) -> tuple[str, str]:
        """Return the script and the style of the page."""
        return joined_module("live.js"), panel_style()

    def widget_bundle(self) -> dict[str, Any]:
        """Return the entry of a mime bundle by which a page finds this view."""
        bundle = self._repr_mimebundle_()
        found = bundle[0] if isinstance(bundle, tuple) else bundle
        return {key: value for key, value in (found or {}).items() if key.startswith("application/")}

    def update(self, changed: bool) -> None:
        """Tell the pages what is new, unless that was done a moment ago; called after each step, and when the state has ``changed``."""
        now = time.monotonic()
        if not changed and now - self._sent_at < (INTERVAL if self.watched else UNWATCHED_INTERVAL):
            return
        with self._lock:
            self._sent_at = now
            setup = self._describe()
            if setup != self.setup:
                self.setup = setup
            if self._beginnings != self.run.beginnings:  # the run began anew: so does what the pages know
                self._beginnings, self._sent_step = self.run.beginnings, -1
            after, records = self._sent_step, self._new_records()
            self._sent_step = records[-1][0] if records else after
            self.tick = {"after": after, "records": records, "status": self._status()}
            # only between steps: elsewhere the scores would be read while they change
            if self.watched and self.run.between_steps and (changed or now - self._saliency_at >= SALIENCY_INTERVAL):
                self._saliency_at = now
                self.saliency = self._cut()

    def whole_log(self) -> dict[str, Any]:
        """Return every record and the status as they are now: what a page that opens needs."""
        with self._lock:
            rows = self._row_indices()
            return {"records": [self._record(record, rows) for record in self.run.history], "status": self._status()}

    def handle(self, content: Mapping[str, Any]) -> None:
        """Greet a page, tell it everything again, or pass a button on."""
        action = content.get("action")
        if action in {"hello", "resend"}:
            self.watched = True
            with self._lock:
                self.setup = self._describe()
                self.send_state("log")
            self.update(True)
        elif isinstance(action, str):
            self.run.request(action)

    def _describe(self) -> dict[str, Any]:
        """What changes rarely: length, stages, and the rows of the strips."""
        schedule = run_schedule(self.run)
        spans = [[stage, first, end] for stage, (first, end) in schedule.spans().items()] if schedule else []
        names = self.run.history.names
        rows = {key: list(rows_by_module(found, MAX_ROWS)) for key, found in zip(TABLES, names, strict=True)}
        return {"total": self.run.total_steps, "spans": spans, "rows": rows, "plan": self._plan_words(), "earlier": self._earlier()}

    def _earlier(self) -> list[dict[str, Any]]:
        """Return the curves of the runs that are laid under; worked out once, and anew when one of them has gone on."""
        known = tuple((name, len(run), run.steps[-1:]) for name, run in self.run.compare.items())
        if known != self._known:
            self._known, self._curves = known, earlier_curves(self.run.compare)
        return self._curves

    def _plan_words(self) -> list[list[str]]:
        """Return the plan, the dearest part first: whose, what it comes to, why; worked out once for each plan."""
        plan = getattr(self.run.optimizer, "plan", None)
        if plan is not self._plan:
            rows = sorted(plan.rows, key=lambda row: -row.rise)[:MAX_ROWS] if plan is not None else []
            self._plan, self._words = plan, [[what(row), comes_to(row), row.why] for row in rows]
        return self._words

    def _row_indices(self) -> list[list[np.ndarray[Any, Any]]]:
        """For each table the positions of the names that each row is the mean of."""
        names = self.run.history.names
        if not self._rows or [sum(map(len, rows)) for rows in self._rows] != [len(found) for found in names]:
            self._rows = []
            for found in names:
                at = {name: i for i, name in enumerate(found)}
                self._rows.append([np.array([at[n] for n in members]) for members in rows_by_module(found, MAX_ROWS).values()])
        return self._rows

    def _new_records(self) -> list[list[Any]]:
        steps = self.run.history.steps
        first = next((i for i in range(len(steps), 0, -1) if steps[i - 1] <= self._sent_step), 0)
        rows = self._row_indices()
        return [self._record(record, rows) for record in self.run.history[first:]]

    def _record(self, record: dict[str, Any], rows: list[list[np.ndarray[Any, Any]]]) -> list[Any]:
        tables = []
        for key, members in zip(TABLES, rows, strict=True):
            values = np.fromiter(record[key].values(), dtype=np.float64, count=len(record[key]))
            tables.append([_finite(float(values[at].mean())) for at in members])
        metrics = {name: _finite(value) for name, value in record["metrics"].items()} or None
        return [record["step"], _finite(record["loss"]), metrics, *tables, record["bit_bound"]]

    def _status(self) -> dict[str, Any]:
        """What changes with every step, small."""
        run, schedule = self.run, run_schedule(self.run)
        last, error = run.history[-1] if len(run.history) else {}, run.refusal or run.error
        widths, groups = list((last.get("bits") or {}).values()), last.get("n_groups")
        return {
            "state": run.state, "asked": run.asked, "watched": self.watched, "step": run.step_count,
            "stage": schedule.stage(run.step_count) if schedule else last.get("stage", ""),
            "loss": _finite(last.get("loss")),
            "metrics": {name: _finite(value) for name, value in list(last_metrics(run).items())[:4]},
            "bits": _finite(sum(widths) / len(widths)) if widths else None,
            "zero": last["zero_groups"] / groups if groups and last.get("zero_groups") is not None else None,
            "left": _finite(run.seconds_left),
            "error": "" if error is None else f"{type(error).__name__}: {error}"[:2000],
            "beginnings": run.beginnings,
        }

    def _cut(self) -> dict[str, Any]:
        """Scores of the living groups in ascending order, sampled, and where the cut is; empty when the optimizer offers none."""
        offer = getattr(self.run.optimizer, "saliency", None)
        if offer is None:
            return {}
        found = offer()
        scores = np.sort(np.abs(found["scores"][found["alive"]]).astype(np.float64))
        scores = scores[np.isfinite(scores)]
        if not len(scores) or not scores[-1] > 0:
            return {}
        places = np.linspace(0, len(scores) - 1, min(CURVE_POINTS, len(scores))).astype(int)
        target = getattr(self.run.optimizer, "n_redundant", None)
        dead = int((~found["alive"]).sum())
        return {
            "curve": [float(f"{score:.4g}") for score in scores[places]], "dead": dead, "fading": int(found["fading"].sum()),
            "groups": len(found["alive"]), "target": target,
        }


def _finite(value: float | None) -> float | None:
    """A number that JSON can say, short."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
