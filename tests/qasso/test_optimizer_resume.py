"""A run of QASSO that was stopped goes on with the same bits; the state of another run is refused."""

import io

import pytest
import torch

from geta_nb.budget import Budget
from geta_nb.errors import CheckpointError
from geta_nb.qasso.schedule import Schedule
from tests.qasso.nets import BOTH, COLLAPSES, WEIGHTS, assert_equal, compress


@pytest.mark.filterwarnings(COLLAPSES)
@pytest.mark.parametrize("rules", ["default", "paper"])
@pytest.mark.parametrize("stop", [1, 5, 12, 15, 21, 23])
def test_a_run_stopped_at_any_step_and_resumed_gives_the_same_bits(rules, stop):
    whole = compress(config=BOTH, rules=rules)
    whole.train(25)
    first = compress(config=BOTH, rules=rules)
    first.train(stop)
    file = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = compress(config=BOTH, rules=rules, seed=7)
    second.stream.set_state(first.stream.get_state())
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    assert second.optimizer.progress() == first.optimizer.progress()
    second.train(25 - stop)
    assert_equal(dict(second.model.state_dict()), dict(whole.model.state_dict()))


def test_resuming_on_the_way_to_a_cost_target_gives_the_same_bits():
    budget = Budget(size_bytes=220)
    whole, first, second = (compress(config=WEIGHTS, budget=budget, seed=s) for s in (0, 0, 5))
    whole.train(25)
    first.train(20)
    second.stream.set_state(first.stream.get_state())
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.train(5)
    assert_equal(dict(second.model.state_dict()), dict(whole.model.state_dict()))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"budget": Budget(0.25)}, "budget"), ({"schedule": Schedule(1, 9, 3, 10, 3)}, "schedule"), ({"config": WEIGHTS}, "quantizers"),
     ({"net": "mixed"}, "groups")],
)  # fmt: skip
def test_a_state_of_another_run_is_refused(change, match):
    state = compress().optimizer.state_dict()
    with pytest.raises(CheckpointError, match=match):
        compress(**change).optimizer.load_state_dict(state)


def test_a_state_of_a_plain_optimizer_is_refused():
    run = compress()
    with pytest.raises(CheckpointError, match="'qasso' part"):
        run.optimizer.load_state_dict(run.optimizer.inner.state_dict())
