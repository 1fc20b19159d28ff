"""Claims about a run's calls in any order and from any thread: each waits for what it was called about, and none for what came later."""

from __future__ import annotations

import asyncio
import threading
from functools import cache, partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import geta_nb as gt
from geta_nb.errors import RunStateError
from tests.widgets.live_runs import Gated, Training, in_thread, until

one_training = cache(lambda: Training(8))
AFTER = {"start": "running", "pause": "paused", "resume": "running"}
REFUSED = {"start": {"running", "paused"}, "pause": {"idle", "stopped"}, "resume": {"idle", "stopped"}, "stop": set(), "wait": {"idle"}}


class SlowListener:
    """Somebody who watches a run and takes long to look, once the run has ended."""

    def __init__(self, run) -> None:
        self.run, self.entered, self.go_on = run, threading.Event(), threading.Event()

    def __call__(self, changed: bool) -> None:
        if changed and self.run.between_steps and self.run.state in {"stopped", "finished", "failed"} and not self.entered.is_set():
            self.entered.set()
            assert self.go_on.wait(120)


def stopped_after_a_step(gate, run):
    """Let a running step end, ask for a stop within the next one, let that end too; returns the thread that stops."""
    gate.let(1)
    until(lambda: gate.standing)
    stopping = in_thread(run.stop)
    until(lambda: run.asked == "stop")
    gate.let(1)
    return stopping


def test_a_wait_after_stop_and_start_is_for_the_new_run_however_slowly_the_old_one_is_watched():
    gate = Gated()
    run = gate.run(total=4)
    slow = SlowListener(run)
    run.listen(slow)
    run.start()
    stopping = stopped_after_a_step(gate, run)
    assert slow.entered.wait(120)  # the state is "stopped", and its thread is not yet over
    begun = in_thread(lambda: run.start().wait())
    slow.go_on.set()
    stopping.join(120)
    until(lambda: run.state == "running")
    assert run.wait(0.0).state == "running" and begun.is_alive()
    gate.open()
    begun.join(120)
    assert not begun.is_alive() and run.state == "finished" and gate.calls == [0, 1, 2, 3]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_stop_start_wait_again_and_again_does_every_step_once(times):
    training = Training(8 * (times + 1))
    starts = iter(range(1, times + 1))

    def step(i):
        if i % 8 == 7 and next(starts, None) is not None:
            run.stop()
        return training.step(i)

    run = gt.LiveRun(step, training.geta, training.optimizer, total_steps=training.total)
    run.listen(lambda changed: changed and run.view)  # a view is made, and told, in the midst of it
    for done in range(1, times + 1):
        assert run.start().wait().step_count == 8 * done and run.state == "stopped"
    assert run.start().wait().state == "finished" and training.calls == list(range(training.total))


def test_a_new_run_begins_only_after_the_old_one_has_told_everybody():
    """What is called in the run's thread may read the model; two such threads at once would read while the other trains."""
    gate = Gated()
    run, told, begun = gate.run(total=3), [], threading.Event()
    slow = SlowListener(run)
    run.listen(slow)
    run.listen(lambda changed: told.append(run.state) if slow.entered.is_set() and not begun.is_set() else None)
    run.start()
    until(lambda: gate.standing)
    run.request("stop")
    gate.let(1)
    assert slow.entered.wait(120) and run.state == "stopped"
    starting = in_thread(lambda: (run.start(), begun.set()))
    # sound code passes whatever this time is: nothing lets the start through before the listener goes on
    assert not begun.wait(0.05) and run.state == "stopped" and len(gate.calls) == 1
    slow.go_on.set()
    starting.join(120)
    assert begun.is_set() and told[0] == "stopped"
    gate.open()
    assert run.wait().state == "finished"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["start", "pause", "resume", "stop", "wait"]), min_size=1, max_size=12))
def test_any_order_of_calls_leaves_the_state_that_the_last_one_says(calls):
    gate = Gated(training=one_training())
    gate.open()
    run = gate.run(total=10**9)
    try:
        for call in calls:
            before, act = run.state, partial(run.wait, 0.0) if call == "wait" else getattr(run, call)
            if before in REFUSED[call]:
                with pytest.raises(RunStateError, match=f"state {before}"):
                    act()
                assert run.state == before
                continue
            assert act().state == {"wait": before, "stop": "idle" if before == "idle" else "stopped"}.get(call, AFTER.get(call))
            if run.state == "running":
                count = len(gate.calls)
                until(lambda count=count: len(gate.calls) > count)
    finally:
        run.stop()
    assert run.asked == "" and gate.calls == list(range(len(gate.calls)))
    assert run.step_count == len(gate.calls)


@pytest.mark.parametrize("waiting", ["wait", "await"])
def test_a_wait_of_another_thread_ends_with_the_run_it_waited_for(waiting):
    gate = Gated()
    run = gate.run(total=4)
    run.start()
    gate.let(1)
    seen = []

    async def main():
        await run

    def wait():
        if waiting == "wait":
            run.wait()
        else:
            asyncio.run(main())
        seen.append(True)

    attempt = run._attempt
    waiter = in_thread(wait)
    gate.ask(run, "stop")
    run.start()
    assert run._attempt is not attempt and attempt.done.is_set()
    waiter.join(120)
    assert not waiter.is_alive() and seen == [True] and run.state == "running"
    gate.open()
    run.wait()


def test_a_wait_for_a_run_that_failed_raises_its_error_though_it_was_started_again():
    gate = Gated(fail_at=1)
    run = gate.run(total=4).start()
    gate.let(2)
    failed = run._attempt
    assert failed.done.wait(120)
    gate.fail_at = None
    run.start()
    assert run.error is None
    with pytest.raises(ValueError, match="the data ran out"):
        run._outcome(failed)  # with which a wait for it ends, however late its thread is
    gate.open()
    assert run.wait().state == "finished"


def test_a_pause_that_is_taken_back_before_it_holds_returns():
    gate = Gated()
    run = gate.run(total=3).start()
    until(lambda: gate.standing)
    pausing = in_thread(run.pause)
    until(lambda: run.asked == "pause")
    run.resume()  # no step has ended meanwhile
    pausing.join(120)
    assert not pausing.is_alive() and run.state == "running" and run.asked == ""
    gate.open()
    assert run.wait().state == "finished"


def test_a_stop_is_over_with_the_run_it_stopped_whoever_starts_it_again():
    """A listener starts the run again in the very moment in which it is stopped; the one who stopped it must not wait for that too."""
    gate = Gated()
    run = gate.run(total=5)
    again = []

    def start_again(changed):
        if changed and run.state == "stopped" and not again:
            again.append(run.start())

    run.listen(start_again)
    run.start()
    stopping = stopped_after_a_step(gate, run)
    stopping.join(120)
    assert not stopping.is_alive() and again == [run] and run.state == "running"
    gate.open()
    assert run.wait().state == "finished" and gate.calls == list(range(5))


def test_a_start_while_a_stop_is_under_way_says_so_and_how():
    gate = Gated()
    run = gate.run(total=3).start()
    until(lambda: gate.standing)
    run.request("stop")
    with pytest.raises(RunStateError, match=r"(?s)got:      state running, asked to stop.*run\.stop\(\)\.start\(\)"):
        run.start()
    gate.open()
    assert run.stop().start().wait().state == "finished"


@pytest.mark.parametrize("timeout", [None, 0.0, 60.0])
def test_a_step_that_waits_for_its_own_run_is_told_that_it_never_would_end(timeout):
    training = Training(8)
    run = gt.LiveRun(lambda i: run.wait(timeout), training.geta, training.optimizer, total_steps=8)
    with pytest.raises(RunStateError, match="would wait for itself"):
        run.start().wait()
    assert run.state == "failed" and run.step_count == 0


def test_a_wait_whose_time_is_up_leaves_the_run_alone_and_a_later_one_waits_to_the_end():
    gate = Gated()
    run = gate.run(total=3).start()
    for timeout in (0.0, 0.01):
        assert run.wait(timeout).state == "running"
    run.request("stop")
    assert run.wait(0.0).asked == "stop"
    gate.open()
    assert run.wait().state == "stopped" and run.start().wait().state == "finished"


def test_an_interrupt_that_comes_as_the_run_has_ended_stops_nothing():
    gate = Gated()
    gate.open()
    run = gate.run(total=3).start().wait()
    run._request_stop(run._attempt)
    assert run.asked == "" and run.state == "finished"


def test_a_thread_that_cannot_be_started_leaves_the_run_as_it_was(monkeypatch):
    gate = Gated()
    gate.open()
    run = gate.run(total=3)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            run.start()
    assert run.state == "idle"
    assert run.start().wait().state == "finished"
