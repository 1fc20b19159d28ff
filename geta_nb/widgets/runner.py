"""The engine of a live run: one background thread, six states, and requests that take effect between two steps.

Comes in: a step function, an optimizer, requests from any thread. Goes out: a trained model and a bounded history. Nothing here waits for
the run's end, prints or draws: that is ``live_run``.
"""

from __future__ import annotations

import atexit
import contextvars
import math
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from geta_nb.errors import RunStateError
from geta_nb.widgets.attempt import Attempt, run_over, tell_watchers
from geta_nb.widgets.budget_code import budget_code
from geta_nb.widgets.earlier import earlier_runs
from geta_nb.widgets.history import History
from geta_nb.widgets.meter import Clock, Meter, numbers
from geta_nb.widgets.run_checks import check_arguments, is_factory
from geta_nb.widgets.torch_state import carry_torch_state

if TYPE_CHECKING:
    from geta_nb.budget import Budget
    from geta_nb.geta import GETA
    from geta_nb.qasso import Schedule

State = Literal["idle", "running", "paused", "stopped", "finished", "failed"]
MAY_START: set[State] = {"idle", "stopped", "failed"}
GOING: set[State] = {"running", "paused"}
RECORDS = 400
"""Records that a run of any length takes, besides those of its evaluations."""


class Optimizer(Protocol):
    """What a run asks of an optimizer."""

    schedule: Schedule

    def progress(self) -> dict[str, Any]:
        """Return a JSON-able snapshot: step, stage, bits, kept shares."""


class Runner:
    """Runs steps in a thread. Arguments, attributes and errors: see :class:`~geta_nb.widgets.live_run.LiveRun`."""

    def __init__(
        self,
        step: Callable[[int], Any],
        geta: GETA,
        optimizer: Optimizer | Callable[[], Optimizer],
        *,
        total_steps: int,
        evaluate: Callable[[], Any] | None = None,
        every: int = 100,
        checkpoint: str | PathLike[str] | None = None,
        first_step: int = 0,
        compare: object = (),
    ) -> None:
        check_arguments(step, optimizer, total_steps, evaluate, every, first_step)
        self.compare = earlier_runs(compare)
        self.geta, self.total_steps, self.every, self.first_step = geta, total_steps, every, first_step
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.history, self.step_count, self.beginnings = History(), first_step, 0
        self.error: BaseException | None = None
        self.refusal: Exception | None = None
        self._step, self._evaluate = step, evaluate
        self._optimizer: Optimizer | None = None if is_factory(optimizer) else optimizer  # type: ignore[assignment]
        self._factory: Any = optimizer if is_factory(optimizer) else None
        self._stride = max(1, math.ceil(total_steps / RECORDS))
        self._meter, self._clock = Meter(), Clock()
        self._state: State = "idle"
        self._asked: Literal["", "pause", "stop"] = ""
        self._changed = threading.Condition()
        self._attempt: Attempt | None = None
        self._listeners: list[Callable[[bool], None]] = []
        # A button is pressed in whatever thread reads messages: its run goes by the settings of the thread that made this object.
        self._home = contextvars.copy_context(), carry_torch_state()

    # what it is now

    @property
    def state(self) -> State:
        """One of "idle", "running", "paused", "stopped", "finished", "failed"."""
        return self._state

    @property
    def asked(self) -> str:
        """``"pause"`` or ``"stop"`` while a step that was under way is being finished, else ``""``."""
        return self._asked

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None before the start when a function is to make it."""
        return self._optimizer

    @property
    def between_steps(self) -> bool:
        """Whether this is the training thread: what is called from there may read model and optimizer."""
        return self._attempt is not None and self._attempt.own

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the run finishes, pauses left out; None when not known."""
        return self._clock.seconds_left(self.step_count, self.total_steps) if self._state in GOING else None

    @classmethod
    def of(cls, geta: GETA) -> Runner | None:
        """Return the run that trains this network now, paused or not, or None: for the one whose name is lost."""
        found: Runner | None = run_over(geta)
        return found

    # steering

    def start(self) -> Self:
        """Begin, or go on after a stop or a failure, at the first step that is not done. Returns at once.

        Raises:
            RunStateError: it runs already, or has finished, or another run trains the same network; nothing is changed then.
        """
        # its own copy of the context: in a notebook, what the step prints belongs to the cell that called start()
        return self._start(contextvars.copy_context(), carry_torch_state())

    def _start(self, context: contextvars.Context, apply_state: Callable[[ExitStack], None]) -> Self:
        self._check("start", MAY_START)
        attempt = Attempt(self)
        other = attempt.take()  # without the lock of this run: its last thread may want that to come to its end
        if other is not None:
            self._refuse(other.run())
        try:
            with self._changed:
                self._check("start", MAY_START)
                self._prepare()
                self._launch(attempt, context, apply_state)
        except BaseException:
            if self._attempt is not attempt:
                attempt.leave()
            raise
        _ACTIVE.add(self)
        self._tell(force=True)
        tell_watchers(self)
        return self

    def _refuse(self, other: Runner | None) -> None:
        if other is self:
            raise RunStateError("LiveRun.start: not possible now.", expected="one start at a time", got="a start that is under way")
        raise RunStateError(
            "LiveRun.start: another run trains this network.", expected="one run at a time over a GETA", got=f"{other!r}, started before",
            hint="gt.LiveRun.of(geta).stop()",
        )

    def _prepare(self) -> None:
        """Make the optimizer where a function makes it; the lock is held."""
        renews = self._optimizer is not None and self._renews()
        if self._factory is not None and (self._optimizer is None or renews):
            self._optimizer = self._factory()
        if renews:
            self.first_step, self.step_count, self.history, self.beginnings = 0, 0, History(), self.beginnings + 1
            self._meter, self._clock = Meter(), Clock()

    def _renews(self) -> bool:
        """Whether the next start makes the optimizer anew, and begins at the first step; a run by itself never does."""
        return False

    def _launch(self, attempt: Attempt, context: contextvars.Context, apply_state: Callable[[ExitStack], None]) -> None:
        """Begin the thread, or change nothing; the lock is held."""
        before = self._state, self._attempt, self.error
        arguments = (self._main, attempt, apply_state)
        attempt.thread = threading.Thread(target=context.run, args=arguments, name="geta-live-run", daemon=True)
        self._attempt, self.error, self.refusal, self._asked = attempt, None, None, ""
        self._set("running")
        try:
            attempt.thread.start()
        except RuntimeError:  # there are too many
            self._state, self._attempt, self.error = before
            raise

    def pause(self) -> Self:
        """Hold the run between two steps; returns when it holds, has ended, or is to go on after all.

        Raises:
            RunStateError: it does not run.
        """
        return self._ask("pause", GOING)

    def resume(self) -> Self:
        """Go on after a pause.

        Raises:
            RunStateError: it neither runs nor is paused.
        """
        with self._changed:
            self._check("resume", GOING)
            if self._asked == "pause":
                self._asked = ""
            if self._state == "paused":
                self._state = "running"
            self._changed.notify_all()
        self._tell(force=True)
        return self

    def stop(self) -> Self:
        """End the run between two steps; returns when it has ended and those who watch know. Does nothing when it does not run."""
        return self._ask("stop", None)

    def request(self, action: str) -> None:
        """Do what a button says without waiting for a step; what the state does not allow is ignored: another page was quicker."""
        with suppress(RunStateError):
            if action == "start":
                self._start_from_button()
            elif action == "resume":
                self.resume()
            elif action == "pause":
                self._ask("pause", GOING, wait=False)
            elif action == "stop":
                self._ask("stop", GOING, wait=False)

    def _start_from_button(self) -> None:
        context, apply_state = self._home
        try:
            self._start(context.copy(), apply_state)
        except RunStateError as error:
            with self._changed:
                if self._state not in MAY_START:
                    return  # another page was quicker
                self.refusal = error
            self._tell(force=True)
        except Exception as error:  # nobody waits for it: it is shown where the button is
            with self._changed:
                if self._optimizer is None:
                    self.error = error
                    self._set("failed")
                else:  # there is something to go on with
                    self.refusal = error
            self._tell(force=True)

    # inside

    def _request_stop(self, attempt: Attempt) -> None:
        """Ask for a stop of this attempt and no later one."""
        with self._changed:
            if attempt is self._attempt and not attempt.ended:
                self._asked = "stop"
                self._changed.notify_all()

    def _ask(self, what: Literal["pause", "stop"], states: set[State] | None, *, wait: bool = True) -> Self:
        with self._changed:
            if states is not None:
                self._check(what, states)
            attempt = self._attempt
            asks = self._state in GOING and not (what == "pause" and self._state == "paused")
            if asks and self._asked != "stop":
                self._asked = what
                self._changed.notify_all()
            waits = wait and attempt is not None and not attempt.own
            if attempt is not None and asks and waits and what == "pause":
                self._changed.wait_for(lambda: attempt.ended or not self._asked or self._state == "paused")
        if attempt is not None and waits and what == "stop":
            attempt.done.wait()  # of this attempt: somebody else may start the next one at once
        if asks:
            self._tell(force=True)
        return self

    def _set(self, state: State) -> None:
        """Change the state; the lock is held."""
        self._state = state
        self._changed.notify_all()

    def _main(self, attempt: Attempt, apply_state: Callable[[ExitStack], None]) -> None:
        """The thread: run, keep what happened, and let those who wait go on, whatever happened."""
        end: State = "failed"
        try:
            with ExitStack() as stack:
                apply_state(stack)
                finished = self._train()
            if self.checkpoint is not None:
                self.geta.save_checkpoint(self.checkpoint)
            end = "finished" if finished else "stopped"
        except BaseException as error:
            attempt.error = error
        finally:
            self._end(attempt, end)

    def _end(self, attempt: Attempt, state: State) -> None:
        try:
            with self._changed:
                attempt.ended, self.error, self._asked = True, attempt.error, ""
                self._set(state)
            with suppress(Exception):  # a page that went away must not keep wait() from returning
                self._tell(force=True)
            tell_watchers(self)
        finally:
            attempt.leave()

    def _train(self) -> bool:
        """Do the steps that are left; False when stopped before the last one."""
        self._clock.begin()
        while self.step_count < self.total_steps:
            if not self._may_go_on():
                return False
            self._meter.add(self._step(self.step_count))
            self.step_count += 1
            done, last = self.step_count, self.step_count == self.total_steps
            due = self._evaluate is not None and (done % self.every == 0 or last)
            if due or last or done % self._stride == 0:
                self._record(evaluate=due)
            self._clock.tick(done)
            self._tell()
        return True

    def _may_go_on(self) -> bool:
        """Hold here while paused; False once stopped."""
        if not self._asked:
            return True
        with self._changed:
            if self._asked == "pause":
                self._asked = ""
                self._set("paused")
        self._tell(force=True)
        with self._changed:
            self._changed.wait_for(lambda: self._state != "paused" or self._asked == "stop")
            go_on = self._asked != "stop"
        self._clock.begin()
        return go_on

    def _record(self, *, evaluate: bool) -> None:
        means = self._meter.read()
        loss = means.pop("loss", None)
        metrics = means | (numbers(self._evaluate(), "evaluate()") if evaluate and self._evaluate is not None else {})
        assert self._optimizer is not None
        self.history.append({**self._optimizer.progress(), "step": self.step_count}, loss=loss, metrics=metrics)

    def budget_words(self, budget: Budget) -> str:
        """Say where this run, at rest, and a ``budget`` that was chosen beside it part ways; "" where they do not."""
        made = getattr(self._optimizer, "budget", None)
        if made is None or made == budget:
            return ""
        what = "has finished" if self._state == "finished" else "goes on"
        return f"This network's run {what} with {budget_code(made)}, for which its optimizer was made. Another budget wants another run."

    # who watches

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener(changed)`` from the training thread after each step; ``changed`` after a change of state."""
        self._listeners.append(listener)

    def _tell(self, *, force: bool = False) -> None:
        for listener in self._listeners:
            listener(force)

    def _check(self, what: str, states: set[State]) -> None:
        if self._state not in states:
            stopping = what == "start" and self._asked == "stop"
            raise RunStateError(
                f"LiveRun.{what}: not possible now.", expected=f"state {' or '.join(sorted(states))}",
                got=f"state {self._state}{', asked to stop' * stopping}", hint="run.stop().start()" if stopping else None,
            )

    def check_at_rest(self, what: str) -> None:
        """Raise :class:`RunStateError` while the training thread may change the model."""
        if self._state in GOING:
            raise RunStateError(
                f"{what}: the run is still going on.", expected="a stopped or finished run", got=f"state {self._state}", hint="run.stop()"
            )


_ACTIVE: weakref.WeakSet[Runner] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Let running steps end before the interpreter takes torch away from under them."""
    for run in list(_ACTIVE):
        attempt = run._attempt
        if attempt is not None and not attempt.ended:
            run._request_stop(attempt)
            attempt.done.wait(5)
