"""A training run that shows itself and can be waited for, with the same behaviour with and without a browser.

Comes in: what :class:`~geta_nb.widgets.runner.Runner` runs. Goes out: live and static views, and lines of text where nobody watches.
``live_view`` draws, ``live_static`` makes the static forms; without the packages of a notebook all but the live view works.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

from geta_nb import _extra
from geta_nb.errors import GetaError, RunStateError
from geta_nb.widgets.attempt import Attempt
from geta_nb.widgets.live_static import run_html, run_svg, run_text
from geta_nb.widgets.progress_lines import progress_reporter
from geta_nb.widgets.runner import Runner

POLL = 0.05
"""Seconds between two looks of a waiting caller."""


class LiveRun(Runner):
    """Trains in a background thread, shows itself live in a notebook, and is steered from there or from Python.

    Args:
        step: ``step(i)`` does forward, backward and one ``optimizer.step()``; returns ``{"loss": ...}``, numbers or one-element tensors.
        geta: the network.
        optimizer: what ``geta.qasso`` returned, or a function without arguments that returns it, called when the run starts.
        total_steps: steps of the whole run; ``i`` counts from ``first_step`` to here.
        evaluate: ``evaluate()`` returns ``{"accuracy": ...}``; called in the same thread, every ``every`` steps and at the end.
        every: steps between two evaluations.
        checkpoint: a file that ``geta.save_checkpoint`` writes, whole or not at all, when the run stops or finishes.
        first_step: where to begin: after ``GETA.resume``, the number of steps done before.
        compare: earlier runs to lay under the curves: their histories, or ``{"name": history}``; at most four.

    Attributes:
        history: a :class:`~geta_nb.widgets.history.History`.
        step_count: steps done.
        error: the exception a step raised, or None.
        refusal: why the last press of the button "Start" was refused, or None.

    Raises:
        ConfigError: an argument that makes no sense.

    One run at a time trains a network: the start of a second one over the same ``geta`` is refused and changes nothing, until the first has
    ended; ``LiveRun.of(geta)`` is the first. One thread at a time runs user code. Pause and stop take effect between two steps.

    A kernel interrupt while :meth:`wait` or ``await`` waits stops the run gracefully: nothing is lost, and :meth:`start` goes on from
    there. A second interrupt no longer waits for the step.
    """

    _view: Any = None

    def _prepare(self) -> None:
        begun = self.beginnings
        super()._prepare()
        if self.beginnings != begun:
            self.__dict__.pop("_report", None)  # its lines begin anew, too

    @cached_property
    def _report(self) -> Callable[[Any, bool], None]:
        return progress_reporter(self.total_steps, self.every)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the run has ended, or for ``timeout`` seconds; without a front end, say now and then how far it is.

        What is waited for is what the last start began; that somebody starts the run again after its end makes no difference. A kernel
        interrupt (``KeyboardInterrupt``) stops the run and returns when it has stopped, everything kept.

        Raises:
            RunStateError: it was never started, or this is called from one of its steps.
            BaseException: what a step raised, if one did.
        """
        attempt = self._to_wait_for("wait", "run.start().wait()")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while not attempt.done.wait(max(0.0, min(POLL, deadline - time.monotonic()))) and time.monotonic() < deadline:
                self._say()
        except KeyboardInterrupt:
            self._request_stop(attempt)
            while not attempt.done.wait(POLL):
                self._say()
        return self._outcome(attempt)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Self:
        """The same as :meth:`wait`; being cancelled, which is what an interrupt does here, stops the run gracefully."""
        attempt = self._to_wait_for("await", "await run.start()")
        while not attempt.done.is_set():
            try:
                await asyncio.sleep(POLL)
            except (asyncio.CancelledError, KeyboardInterrupt):
                if self._asked == "stop":
                    raise  # the second time
                self._request_stop(attempt)
            self._say()
        return self._outcome(attempt)

    def _outcome(self, attempt: Attempt) -> Self:
        if attempt.done.is_set():
            self._say(last=True)
            if attempt.error is not None:
                raise attempt.error
        return self

    def _say(self, *, last: bool = False) -> None:
        if self._view is None or not self._view.watched:
            self._report(self, last)

    def _to_wait_for(self, what: str, hint: str) -> Attempt:
        """What the last start began; what starts later is not waited for."""
        attempt = self._attempt
        if attempt is None:
            raise RunStateError(
                f"LiveRun.{what}: the run was never started.", expected="a started run", got=f"state {self._state}", hint=hint
            )
        if attempt.own:
            raise RunStateError(
                f"LiveRun.{what}: a step of this run would wait for itself.", expected="a call from another thread", got="its own thread"
            )
        return attempt

    # how it shows itself

    @property
    def view(self) -> Any:
        """The widget that draws this run; made when first asked for. Needs the extra "notebook"."""
        if self._view is None:
            self._view = _extra.load("geta_nb.widgets.live_view", "notebook").LiveView(self)
            self.listen(self._view.update)
        return self._view

    def __repr__(self) -> str:
        return run_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": run_html(self), "image/svg+xml": run_svg(self)}
        with suppress(GetaError):  # without the extra there is still the picture
            bundle |= self.view.widget_bundle()
        return bundle
