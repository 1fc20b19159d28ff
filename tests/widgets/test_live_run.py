"""Claims about LiveRun without any front end: states, steering, failures, arguments."""

from __future__ import annotations

import threading
import time

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError, RunStateError
from tests.widgets.live_runs import Endless, Training, until

STATES = {"idle", "running", "paused", "stopped", "finished", "failed"}


def test_a_run_goes_from_idle_through_running_to_finished_and_does_every_step_once():
    training = Training()
    run = training.run(evaluate=training.evaluate)
    assert run.state == "idle" and training.calls == []
    assert run.start() is run
    assert run.wait() is run
    assert run.state == "finished" and run.step_count == 40
    assert training.calls == list(range(40))
    assert training.optimizer.stage == "cool-down" and training.geta.group_sparsity() == 0.5


def test_a_run_trains_exactly_as_a_plain_loop_does():
    live, plain = Training(inner=torch.optim.AdamW), Training(inner=torch.optim.AdamW)
    live.run(evaluate=live.evaluate).start().wait()
    for i in range(plain.total):
        plain.step(i)
    for name, value in plain.geta.model.state_dict().items():
        assert torch.equal(value, live.geta.model.state_dict()[name]), name


def test_pause_really_pauses_resume_goes_on_and_stop_ends_it():
    step = Endless()
    run = step.run().start()
    until(lambda: step.count > 3)
    run.pause()
    assert run.state == "paused"
    held = step.count
    time.sleep(0.2)
    assert step.count == held == run.step_count
    run.resume()
    assert run.state == "running"
    until(lambda: step.count > held + 3)
    run.stop()
    assert run.state == "stopped"
    ended = step.count
    time.sleep(0.05)
    assert step.count == ended
    assert run.wait().state == "stopped"


def test_a_stop_waits_for_the_step_under_way_begins_no_other_and_loses_none():
    """How long that takes is the step's affair; ``make bench-live`` measures it between short steps."""
    training, calls = Training(8), []
    entered, go_on = threading.Event(), threading.Event()

    def step(i):
        calls.append(i)
        if i == 3:
            entered.set()
            assert go_on.wait(120)

    run = gt.LiveRun(step, training.geta, training.optimizer, total_steps=10_000).start()
    assert entered.wait(120)
    stopping = threading.Thread(target=run.stop)
    stopping.start()
    until(lambda: run.asked == "stop")
    assert stopping.is_alive() and run.state == "running" and run.step_count == 3
    go_on.set()
    stopping.join(120)
    assert not stopping.is_alive() and run.state == "stopped"
    assert calls == [0, 1, 2, 3] and run.step_count == 4


def test_a_stop_ends_a_paused_run_without_another_step():
    step = Endless()
    run = step.run().start()
    until(lambda: step.count > 2)
    run.pause()
    held = step.count
    assert run.stop().state == "stopped"
    run.wait()
    assert run.step_count == step.count == held


def test_a_stopped_run_goes_on_at_the_first_step_that_is_not_done():
    training = Training()
    at_ten = threading.Event()

    def step(i):
        if i == 9:
            at_ten.set()
            run.stop()  # from inside a step: nothing here depends on timing
        return training.step(i)

    run = gt.LiveRun(step, training.geta, training.optimizer, total_steps=40, every=10)
    run.start().wait()
    assert at_ten.is_set() and run.state == "stopped" and run.step_count == 10
    run.start().wait()
    assert run.state == "finished" and training.calls == list(range(40))


def test_a_failing_step_ends_in_failed_and_wait_raises_the_very_exception():
    run = Endless(fail_at=3).run().start()
    with pytest.raises(ValueError, match="the data ran out") as first:
        run.wait()
    assert run.state == "failed" and run.step_count == 3 and run.error is first.value
    with pytest.raises(ValueError, match="the data ran out"):
        run.wait()
    assert "ValueError: the data ran out" in repr(run)


def test_a_failing_evaluation_fails_the_run_too():
    training = Training()
    run = training.run(evaluate=lambda: {"accuracy": "high"}).start()
    with pytest.raises(InputError, match="a metric is a number"):
        run.wait()
    assert run.state == "failed" and run.step_count == 10


def test_after_a_failure_the_failed_step_is_tried_again():
    step = Endless(fail_at=3)
    run = step.run(total=6).start()
    with pytest.raises(ValueError, match="ran out"):
        run.wait()
    step.fail_at = None
    assert run.start().wait().state == "finished"
    assert run.error is None and step.count == 7


@pytest.mark.parametrize(
    ("prepare", "action", "match"),
    [
        (lambda run: None, "pause", "pause: not possible now"),
        (lambda run: None, "resume", "got:      state idle"),
        (lambda run: None, "wait", "never started"),
        (lambda run: run.start(), "start", "start: not possible now"),
        (lambda run: run.start().wait(), "start", "got:      state finished"),
        (lambda run: run.start().wait(), "pause", "got:      state finished"),
    ],
)
def test_what_a_state_does_not_allow_is_an_error_that_says_so(prepare, action, match):
    run = Endless().run(total=5 if "finished" in match else 10_000)
    prepare(run)
    with pytest.raises(RunStateError, match=match):
        getattr(run, action)()
    run.stop()
    assert run.state in STATES


def test_pausing_twice_resuming_twice_and_stopping_twice_do_nothing_more():
    run = Endless().run()
    assert run.stop().state == "idle"
    run.start()
    assert run.pause().pause().state == "paused"
    assert run.resume().resume().state == "running"
    assert run.stop().stop().state == "stopped"


def test_buttons_never_wait_and_never_raise():
    step = Endless()
    run = step.run()
    run.request("resume")
    assert run.state == "idle"
    run.request("start")
    until(lambda: step.count > 1)
    run.request("pause")
    until(lambda: run.state == "paused")
    run.request("start")
    assert run.state == "paused"
    run.request("resume")
    run.request("stop")
    until(lambda: run.state == "stopped")


def test_an_optimizer_that_cannot_be_made_fails_where_the_button_is():
    training = Training(8, activations=False)

    def make():
        raise gt.GetaError("no data yet.")

    run = gt.LiveRun(training.step, training.geta, make, total_steps=8)
    with pytest.raises(gt.GetaError, match="no data yet"):
        run.start()
    assert run.state == "idle"
    run.request("start")
    assert run.state == "failed" and "no data yet" in repr(run)


def test_the_optimizer_may_be_made_when_the_run_starts():
    training = Training(8)
    made = []

    def make():
        made.append(training.optimizer)
        return training.optimizer

    run = gt.LiveRun(training.step, training.geta, make, total_steps=8)
    assert run.optimizer is None
    run.start().wait()
    assert run.optimizer is training.optimizer and len(made) == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"total_steps": 0}, "total_steps is a count"),
        ({"total_steps": True}, "total_steps is a count"),
        ({"every": 0}, "every is a count"),
        ({"step": 3}, "step is a function"),
        ({"evaluate": 3}, "evaluate is a function"),
        ({"optimizer": 3}, "cannot say how far it is"),
        ({"first_step": 9}, "lies behind the end"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(change, match):
    training = Training(8)
    values = {"step": training.step, "geta": training.geta, "optimizer": training.optimizer, "total_steps": 8} | change
    with pytest.raises(ConfigError, match=match):
        gt.LiveRun(**values)
