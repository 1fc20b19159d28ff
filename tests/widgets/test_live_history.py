"""Claims about the history of a live run: what is recorded, when, and how much of it is kept."""

from __future__ import annotations

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import InputError
from tests.widgets.live_runs import Training


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
