"""Claims about waiting for a live run, in a script and in an event loop, and about how long it will take."""

from __future__ import annotations

import asyncio

import pytest

import geta_nb as gt
from geta_nb.widgets import live_run, meter
from tests.widgets.live_runs import Endless, Training

# two images that are soon known by heart say little of which groups matter
pytestmark = pytest.mark.filterwarnings("ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning")


class Clock:
    """Time that passes only while somebody waits for it."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, []

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def test_wait_with_a_timeout_comes_back_after_it_while_the_run_goes_on(monkeypatch):
    run, clock = Endless().run().start(), Clock()
    with monkeypatch.context() as patch:
        patch.setattr(live_run, "time", clock)
        patch.setattr(run._attempt.done, "wait", clock.wait)
        assert run.wait(0.15).state == "running"
    assert sum(clock.waits) == pytest.approx(0.15) and max(clock.waits) <= live_run.POLL
    assert run.wait(0.01).state == "running"  # and by a real clock
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
        while run.step_count == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        return await task

    run = asyncio.run(main())
    assert run.state == "stopped" and run.step_count > 0


def test_a_run_says_how_long_the_rest_will_take(monkeypatch):
    """A clock of its own: each step takes a quarter of a second."""
    training, clock, said = Training(8), Clock(), {}
    monkeypatch.setattr(meter, "time", clock)

    def step(i):
        said[i] = run.seconds_left
        clock.wait(0.25)

    run = gt.LiveRun(step, training.geta, training.optimizer, total_steps=40)
    assert run.seconds_left is None
    run.start().wait()
    assert run.seconds_left is None
    assert said[0] is said[1] is None, "nothing is known before two steps are done"
    assert all(said[i] == pytest.approx(0.25 * (40 - i)) for i in range(2, 40))
