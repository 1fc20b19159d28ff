"""Claims about LiveRun without any front end: states, latency, exceptions, pauses, history, waiting, torch's settings."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError, RunStateError
from tests.widgets.live_runs import Training

STATES = {"idle", "running", "paused", "stopped", "finished", "failed"}
LATENCY = 0.5  # seconds; what the issue asks of a stop between short steps


class Endless:
    """A step that takes 5 ms and counts itself; fails at one number if told so."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.count, self.fail_at, self.training = 0, fail_at, Training(8)

    def __call__(self, i: int):
        time.sleep(0.005)
        self.count += 1
        if i == self.fail_at:
            raise ValueError("the data ran out")
        return {"loss": 1.0 / (i + 1)}

    def run(self, total: int = 10_000_000, **options):
        return gt.LiveRun(self, self.training.geta, self.training.optimizer, total_steps=total, **options)


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


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


@pytest.mark.parametrize("paused", [False, True])
def test_a_stop_reaches_the_loop_within_half_a_second_and_no_step_is_lost(paused):
    step = Endless()
    run = step.run().start()
    until(lambda: step.count > 2)
    if paused:
        run.pause()
    begin = time.perf_counter()
    run.stop()
    assert time.perf_counter() - begin < LATENCY
    run.wait()
    assert run.step_count == step.count


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


def test_wait_with_a_timeout_comes_back_while_the_run_goes_on():
    run = Endless().run().start()
    begin = time.perf_counter()
    assert run.wait(0.15).state == "running"
    assert 0.15 <= time.perf_counter() - begin < 0.15 + LATENCY
    run.stop()


def test_a_run_can_be_awaited_and_the_event_loop_stays_awake():
    async def both():
        training, ticks = Training(60), 0
        run = training.run().start()

        async def clock():
            nonlocal ticks
            while run.state == "running":
                ticks += 1
                await asyncio.sleep(0.001)

        other = asyncio.create_task(clock())
        result = await run
        await other
        return run, result, ticks

    run, result, ticks = asyncio.run(both())
    assert result is run and run.state == "finished"
    assert ticks > 1


def test_an_awaited_failure_is_raised_where_it_is_awaited():
    async def main():
        await Endless(fail_at=1).run().start()

    with pytest.raises(ValueError, match="ran out"):
        asyncio.run(main())


def test_cancelling_the_await_stops_the_run_gracefully():
    async def main():
        run = Endless().run().start()
        task = asyncio.ensure_future(run)
        await asyncio.sleep(0.1)
        task.cancel()
        return await task

    run = asyncio.run(main())
    assert run.state == "stopped" and run.step_count > 0


def test_the_history_has_a_column_for_everything_and_one_entry_a_record():
    training = Training()
    run = training.run(evaluate=training.evaluate)
    run.start().wait()
    history = run.history
    assert history.steps == list(range(1, 41))
    assert {*history.stage} == {"projection", "joint", "cool-down"}  # of the step that comes next
    assert [i for i, value in enumerate(history.metrics["accuracy"], 1) if value is not None] == [10, 20, 30, 40]
    assert list(history.bits) == list(training.geta.bit_widths()) and list(history.kept) == [f.name for f in training.geta.families]
    assert {name: values[-1] for name, values in history.bits.items()} == training.geta.bit_widths()
    assert all(len(column) == 40 for table in (history.bits, history.kept, history.metrics) for column in table.values())
    assert history[-1]["kept"] == training.optimizer.progress()["kept"]
    assert all(isinstance(loss, float) for loss in history.loss)


def test_the_loss_of_a_record_is_the_mean_of_the_steps_since_the_one_before():
    training = Training(8)
    losses = torch.arange(1200.0)
    run = gt.LiveRun(lambda i: {"loss": losses[i]}, training.geta, training.optimizer, total_steps=1200, every=10_000)
    run.start().wait()
    assert run.history.steps == list(range(3, 1201, 3))
    assert run.history.loss == [3 * i + 1.0 for i in range(400)]  # whole numbers below 2**24: exact in float32


def test_other_values_of_a_step_become_metrics_and_a_bare_loss_is_taken():
    training = Training(8)
    run = gt.LiveRun(lambda i: {"loss": 1, "gradient norm": 2.0}, training.geta, training.optimizer, total_steps=2)
    assert run.start().wait().history.metrics == {"gradient norm": [2.0, 2.0]}
    run = gt.LiveRun(lambda i: torch.tensor([0.5]), training.geta, training.optimizer, total_steps=2)
    assert run.start().wait().history.loss == [0.5, 0.5]
    run = gt.LiveRun(lambda i: None, training.geta, training.optimizer, total_steps=2)
    assert run.start().wait().history.loss == [None, None]
    run = gt.LiveRun(lambda i: {"loss": torch.ones(3)}, training.geta, training.optimizer, total_steps=2).start()
    with pytest.raises(InputError, match="one number"):
        run.wait()


def test_the_history_is_the_same_with_and_without_a_front_end():
    watched, alone = Training(), Training()
    one, other = watched.run(evaluate=watched.evaluate), alone.run(evaluate=alone.evaluate)
    assert one.view.watched is False
    one.view.watched = True
    one.start().wait()
    other.start().wait()
    assert one.history == other.history and len(one.history) == 40


def test_a_long_run_keeps_a_bounded_history_with_its_first_and_last_record():
    training = Training(8)
    run = gt.LiveRun(lambda i: {"loss": 0.0}, training.geta, training.optimizer, total_steps=5000, evaluate=lambda: {"a": 1.0}, every=2)
    run.start().wait()
    assert 500 <= len(run.history) <= run.history.limit == 1000
    assert run.history.steps[0] == 2 and run.history.steps[-1] == 5000
    assert run.history.steps == sorted(set(run.history.steps))


def test_a_run_says_how_long_the_rest_will_take():
    step = Endless()
    run = step.run(total=400)
    assert run.seconds_left is None
    run.start()
    until(lambda: step.count > 60)
    # 5 ms a step and 340 steps: 1.7 s, more on a busy machine, never less than the sleeping alone
    assert 0.5 < run.seconds_left < 60
    run.stop()
    assert run.seconds_left is None


def test_the_thread_has_the_torch_settings_of_the_caller():
    seen = []

    def step(i):
        seen.append((torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device(), torch.is_autocast_enabled("cpu")))

    training = Training(8)
    make = lambda: gt.LiveRun(step, training.geta, training.optimizer, total_steps=1)  # noqa: E731
    make().start().wait()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16):
            make().start().wait()
    finally:
        torch.set_default_dtype(before)
    assert seen == [(True, torch.float32, torch.device("cpu"), False), (False, torch.float64, torch.device("meta"), True)]
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_the_thread_draws_from_the_callers_random_generator():
    drawn = []
    training = Training(8)
    torch.manual_seed(7)
    run = gt.LiveRun(lambda i: drawn.append(float(torch.rand(()))), training.geta, training.optimizer, total_steps=3)
    run.start().wait()
    torch.manual_seed(7)
    assert drawn == [float(torch.rand(())) for _ in range(3)]


def test_a_button_uses_the_settings_of_the_thread_that_made_the_run():
    seen = []
    training = Training(8)
    with torch.device("meta"):
        run = gt.LiveRun(lambda i: seen.append(torch.get_default_device()), training.geta, training.optimizer, total_steps=1)
    pressed = threading.Thread(target=run.request, args=("start",))
    pressed.start()
    pressed.join()
    run.wait()
    assert seen == [torch.device("meta")]


def test_a_checkpoint_is_written_when_the_run_stops_and_a_resumed_run_ends_as_one_that_never_stopped(tmp_path):
    path = tmp_path / "run.safetensors"
    broken, whole = Training(), Training()

    def step(i):
        if i == 16:
            run.stop()
        return broken.step(i)

    run = gt.LiveRun(step, broken.geta, broken.optimizer, total_steps=40, checkpoint=path)
    run.start().wait()
    assert run.state == "stopped" and run.step_count == 17 and [p.name for p in tmp_path.iterdir()] == [path.name]
    again = Training()  # a fresh process would build these the same way
    again.geta = gt.GETA.resume(path, again.geta.model, again.geta.example_inputs)
    again.optimizer = again.geta.qasso(torch.optim.SGD, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(40), lr=0.05)
    again.run(first_step=again.optimizer.steps_done).start().wait()
    whole.run().start().wait()
    assert again.calls == list(range(17, 40))
    for name, value in whole.geta.model.state_dict().items():
        assert torch.equal(value, again.geta.model.state_dict()[name]), name


def test_a_checkpoint_that_cannot_be_written_fails_the_run(tmp_path):
    training = Training(8)
    run = training.run(checkpoint=tmp_path / "no such folder" / "run.safetensors").start()
    with pytest.raises(gt.GetaError, match="cannot be written"):
        run.wait()
    assert run.state == "failed" and run.step_count == 8


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
