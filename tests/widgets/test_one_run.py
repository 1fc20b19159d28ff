"""Claims about several runs: one at a time trains a network, a second one is refused and changes nothing, other networks do not care."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geta_nb as gt
from geta_nb.errors import RunStateError
from geta_nb.widgets import attempt
from tests.widgets.live_runs import Gated, Training, in_thread, until

REFUSED = r"(?s)LiveRun\.start: another run trains this network\..*one run at a.*got:      LiveRun\({state}, step {step} of .*LiveRun\.of"


def refused(state="running", step=0):
    return pytest.raises(RunStateError, match=REFUSED.format(state=state, step=step))


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_second_run_over_a_network_is_refused_names_the_first_and_changes_nothing(state):
    training = Training(8)
    gate, made = Gated(training=training), []
    first = gate.run(total=5).start()
    gate.let(2)
    until(lambda: first.step_count == 2)
    if state == "paused":
        gate.ask(first, "pause")
    weights = {name: value.clone() for name, value in training.geta.model.state_dict().items()}
    step, optimizer = first.step_count, training.geta._optimizer

    def make():
        made.append(training.geta.qasso(torch.optim.SGD, budget=gt.Budget(0.25), schedule=gt.Schedule.for_steps(8)))
        return made[-1]

    second = gt.LiveRun(training.step, training.geta, make, total_steps=8)
    with refused(state, step):
        second.start()
    assert made == [] and training.geta._optimizer is optimizer and training.calls == []
    assert (second.state, second.optimizer, second.error, second.step_count) == ("idle", None, None, 0)
    assert (first.state, first.step_count) == (state, step)
    assert all(torch.equal(value, weights[name]) for name, value in training.geta.model.state_dict().items())
    assert gt.LiveRun.of(training.geta) is first
    gate.open()
    gt.LiveRun.of(training.geta).stop()
    assert gt.LiveRun.of(training.geta) is None
    assert second.start().wait().state == "finished" and len(made) == 1


def test_a_button_that_is_refused_says_why_and_the_words_go_with_the_next_start():
    training = Training(8)
    gate = Gated(training=training)
    first, second = gate.run(total=3).start(), training.run()
    second.request("start")
    assert second.state == "idle" and "another run trains this network" in second.view.whole_log()["status"]["error"]
    gate.open()
    first.wait()
    second.request("start")
    assert second.wait().state == "finished" and second.view.whole_log()["status"]["error"] == ""


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_once_the_first_has_ended_in_whatever_way_another_may_start(end):
    training = Training(8)
    gate = Gated(training=training, fail_at=1 if end == "failed" else None)
    gate.open()
    first = gate.run(total=3 if end == "finished" else 10**9).start()
    if end == "stopped":
        first.stop()
    elif end == "failed":
        with pytest.raises(ValueError, match="ran out"):
            first.wait()
    else:
        first.wait()
    assert first.state == end
    assert training.run().start().wait().state == "finished"
    if end == "stopped":
        assert first.start().stop().state == "stopped"


def test_nothing_is_kept_of_runs_that_are_gone():
    training = Training(8)
    geta, run = weakref.ref(training.geta), training.run()
    run.start().wait()
    gone = weakref.ref(run)
    assert attempt.run_over(training.geta) is None
    del run
    gc.collect()
    assert gone() is None
    assert training.run().start().wait() is not None
    del training
    gc.collect()
    assert geta() is None and attempt._NOW == {}


def test_a_run_whose_thread_died_with_the_process_it_was_forked_from_holds_nobody_up(monkeypatch):
    training = Training(8)
    gate = Gated(training=training)
    first = gate.run(total=3).start()
    until(lambda: gate.standing)
    with monkeypatch.context() as patch:
        patch.setattr(first._attempt.thread, "is_alive", lambda: False)
        assert gt.LiveRun.of(training.geta) is None
        assert training.run().start().wait().state == "finished"
    gate.open()
    first.stop()


def test_of_many_that_start_at_once_one_starts():
    training = Training(8)
    gate = Gated(training=training)
    runs, barrier, ended = [gate.run(total=3) for _ in range(8)], threading.Barrier(8), []

    def start(run):
        barrier.wait(120)
        try:
            ended.append(run.start())
        except RunStateError as error:
            ended.append(error)

    threads = [in_thread(lambda run=run: start(run)) for run in runs]
    for thread in threads:
        thread.join(120)
    begun = [run for run in runs if run.state == "running"]
    assert len(begun) == 1 and ended.count(begun[0]) == 1 and sum(isinstance(e, RunStateError) for e in ended) == 7
    assert [run.state for run in runs if run is not begun[0]] == ["idle"] * 7
    gate.open()
    begun[0].wait()


def test_a_run_that_cannot_make_its_optimizer_leaves_the_network_free():
    training = Training(8)

    def make():
        raise gt.GetaError("no data yet.")

    with pytest.raises(gt.GetaError, match="no data yet"):
        gt.LiveRun(training.step, training.geta, make, total_steps=8).start()
    assert training.run().start().wait().state == "finished"


def test_a_run_may_begin_the_next_one_when_it_ends():
    training = Training(8)
    first, second, begun = training.run(), training.run(), threading.Event()

    def go_on(changed):
        if changed and first.state == "finished" and not begun.is_set():
            second.start()
            begun.set()

    first.listen(go_on)
    first.start().wait()
    assert begun.is_set() and second.wait().state == "finished"


def test_two_studios_over_one_network_are_two_runs():
    training = Training(8)
    gate = Gated(training=training)
    first, second = gt.studio(training.geta, gate, total_steps=8), gt.studio(training.geta, training.step, total_steps=8)
    first.run.start()
    with refused():
        second.run.start()
    for other in (second, gt.studio(training.geta)):
        with pytest.raises(RunStateError, match="still going on"):
            other.cut()
    gate.open()
    first.run.wait()


ONE, OTHER = (Gated(training=Training(8)) for _ in range(2))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["start", "pause", "stop"])), max_size=14))
def test_whatever_is_pressed_one_run_a_network_goes_on_and_no_start_is_refused_without_one(calls):
    """Three runs over one network, and one over another that is never in their way."""
    for gate in (ONE, OTHER):
        gate.calls.clear()
        gate.open()
    runs = [ONE.run(), ONE.run(), ONE.run(), OTHER.run()]
    going = lambda some: [run for run in some if run.state in {"running", "paused"}]  # noqa: E731
    try:
        for which, call in calls:
            run = runs[which]
            others = [other for other in going(runs[:3]) if other is not run and which < 3]
            states = [each.state for each in runs]
            if (call == "start" and (others or run in going(runs))) or (call == "pause" and run not in going(runs)):
                with pytest.raises(RunStateError, match="another run trains" if call == "start" and others else "not possible"):
                    getattr(run, call)()
                assert [each.state for each in runs] == states
            else:
                getattr(run, call)()
            assert len(going(runs[:3])) <= 1 and gt.LiveRun.of(ONE.training.geta) is next(iter(going(runs[:3])), None)
    finally:
        for run in runs:
            run.stop()


def test_a_copy_of_a_network_trains_beside_it():
    training = Training(8)
    gate = Gated(training=training)
    first = gate.run(total=3).start()
    twin = copy.deepcopy(training.geta)
    optimizer = twin.qasso(torch.optim.SGD, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(8))
    second = gt.LiveRun(lambda i: None, twin, optimizer, total_steps=8)
    assert second.start().wait().state == "finished" and first.state == "running"
    gate.open()
    first.wait()
