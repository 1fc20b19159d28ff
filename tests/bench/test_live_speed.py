"""The command that measures how soon a run stops: what it says, and that the runs it measures go on by themselves."""

from __future__ import annotations

from geta_nb.bench import live_speed


def test_a_line_puts_what_was_measured_beside_what_is_wanted() -> None:
    assert live_speed.line("stop it", [0.25, 0.125, 1.0], 500.0) == "stop it: median 250 ms, slowest 1000 ms, wanted 500 ms (0.50 of it)\n"


def test_a_run_that_is_measured_goes_on_until_it_is_stopped_running_or_paused() -> None:
    for paused in (False, True):
        assert live_speed.stop_time(paused=paused) > 0
    run = live_speed.short_run().start()
    assert run.wait(0.01).state == "running"
    assert run.stop().state == "stopped" and run.step_count < run.total_steps
