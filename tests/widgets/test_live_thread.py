"""Claims about the thread of a live run: torch's settings are those of the caller, and what it leaves is a checkpoint."""

from __future__ import annotations

import threading

import pytest
import torch

import geta_nb as gt
from tests.widgets.live_runs import Training


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
