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
from geta_nb.widgets.history import History
from geta_nb.widgets.meter import Clock, Meter, numbers
from geta_nb.widgets.run_checks import check_arguments, is_factory
from geta_nb.widgets.torch_state import carry_torch_state

if TYPE_CHECKING:
    from geta_nb.geta import GETA
    from geta_nb.qasso import Schedule

State = Literal["idle", "running", "paused", "stopped", "finished", "failed"]
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
    ) -> None:
        check_arguments(step, optimizer, total_steps, evaluate, every, first_step)
        self.geta, self.total_steps, self.every, self.first_step = geta, total_steps, every, first_step
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.history, self.step_count = History(), first_step
        self.error: BaseException | None = None
        self._step, self._evaluate = step, evaluate
        self._optimizer: Optimizer | None = None if is_factory(optimizer) else optimizer  # type: ignore[assignment]
        self._factory: Any = optimizer if is_factory(optimizer) else None
        self._stride = max(1, math.ceil(total_steps / RECORDS))
        self._meter, self._clock = Meter(), Clock()
        self._state: State = "idle"
        self._asked: Literal["", "pause", "stop"] = ""
        self._changed, self._done = threading.Condition(), threading.Event()
        self._thread: threading.Thread | None = None
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
        return threading.current_thread() is self._thread

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the run finishes, pauses left out; None when not known."""
        return self._clock.seconds_left(self.step_count, self.total_steps) if self._state in {"running", "paused"} else None

    # steering

    def start(self) -> Self:
        """Begin, or go on after a stop or a failure, at the first step that is not done. Returns at once.

        Raises:
            RunStateError: it runs already, or has finished.
        """
        # its own copy of the context: in a notebook, what the step prints belongs to the cell that called start()
        return self._start(contextvars.copy_context(), carry_torch_state())

    def _start(self, context: contextvars.Context, apply_state: Callable[[ExitStack], None]) -> Self:
        with self._changed:
            self._check("start", {"idle", "stopped", "failed"})
            if self._optimizer is None and self._factory is not None:
                self._optimizer = self._factory()
            self.error, self._asked = None, ""
            self._done.clear()
            self._set("running")
            self._thread = threading.Thread(target=context.run, args=(self._main, apply_state), name="geta-live-run", daemon=True)
            self._thread.start()
        _ACTIVE.add(self)
        self._tell(force=True)
        return self

    def pause(self) -> Self:
        """Hold the run between two steps; returns when it holds.

        Raises:
            RunStateError: it does not run.
        """
        return self._ask("pause", {"running", "paused"})

    def resume(self) -> Self:
        """Go on after a pause.

        Raises:
            RunStateError: it neither runs nor is paused.
        """
        with self._changed:
            self._check("resume", {"running", "paused"})
            if self._asked == "pause":
                self._asked = ""
            if self._state == "paused":
                self._set("running")
        self._tell(force=True)
        return self

    def stop(self) -> Self:
        """End the run between two steps; returns when it has ended. Does nothing when it does not run."""
        return self._ask("stop", None)

    def request(self, action: str) -> None:
        """Do what a button says without waiting for it; what the present state does not allow is ignored: another page was quicker."""
        with suppress(RunStateError):
            if action == "start":
                self._start_from_button()
            elif action == "resume":
                self.resume()
            elif action == "pause":
                self._ask("pause", {"running", "paused"}, wait=False)
            elif action == "stop":
                self._ask("stop", {"running", "paused"}, wait=False)

    def _start_from_button(self) -> None:
        context, apply_state = self._home
        try:
            self._start(context.copy(), apply_state)
        except RunStateError:
            raise
        except Exception as error:  # nobody waits for it: it is shown where the button is
            with self._changed:
                self.error = error
                self._set("failed")
            self._tell(force=True)

    # inside

    def _request_stop(self) -> None:
        with self._changed:
            self._asked = "stop"
            self._changed.notify_all()

    def _ask(self, what: Literal["pause", "stop"], states: set[State] | None, *, wait: bool = True) -> Self:
        with self._changed:
            if states is not None:
                self._check(what, states)
            if self._state not in {"running", "paused"} or (what == "pause" and self._state == "paused"):
                return self
            if self._asked != "stop":
                self._asked = what
            self._changed.notify_all()
            if wait and not self.between_steps:
                self._changed.wait_for(lambda: self._state != "running" if what == "pause" else self._state not in {"running", "paused"})
        self._tell(force=True)
        return self

    def _set(self, state: State) -> None:
        """Change the state; the lock is held."""
        self._state = state
        self._changed.notify_all()

    def _main(self, apply_state: Callable[[ExitStack], None]) -> None:
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
            self.error = error
        finally:
            with self._changed:
                self._asked = ""
                self._set(end)
            with suppress(Exception):  # a page that went away must not keep wait() from returning
                self._tell(force=True)
            self._done.set()

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

    # who watches

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener(changed)`` from the training thread after each step; ``changed`` after a change of state."""
        self._listeners.append(listener)

    def _tell(self, *, force: bool = False) -> None:
        for listener in self._listeners:
            listener(force)

    def _check(self, what: str, states: set[State]) -> None:
        if self._state not in states:
            raise RunStateError(
                f"LiveRun.{what}: not possible now.", expected=f"state {' or '.join(sorted(states))}", got=f"state {self._state}",
            )

    def check_at_rest(self, what: str) -> None:
        """Raise :class:`RunStateError` while the training thread may change the model."""
        if self._state in {"running", "paused"}:
            raise RunStateError(
                f"{what}: the run is still going on.", expected="a stopped or finished run", got=f"state {self._state}", hint="run.stop()"
            )


_ACTIVE: weakref.WeakSet[Runner] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Let running steps end before the interpreter takes torch away from under them."""
    for run in list(_ACTIVE):
        if run.state in {"running", "paused"}:
            run._request_stop()
            run._done.wait(5)
