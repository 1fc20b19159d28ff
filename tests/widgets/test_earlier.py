"""Claims about earlier runs laid under the curves of a live run."""

from __future__ import annotations

import json
import re

import pytest

import geta_nb as gt
from geta_nb.errors import ConfigError
from geta_nb.widgets.earlier import POINTS, earlier_curves, earlier_runs
from geta_nb.widgets.history import History
from tests.widgets.live_runs import Training


def history(n, loss=1.0, **metrics):
    made = History()
    for step in range(1, n + 1):
        made.append({"step": step, "stage": "joint"}, loss=loss / step, metrics=metrics)
    return made


def test_runs_are_named_in_order_or_by_the_reader():
    first, second = history(3), history(4)
    assert earlier_runs([first, second]) == {"run 1": first, "run 2": second}
    assert earlier_runs({"narrow": first}) == {"narrow": first} and earlier_runs(()) == {}


WRONG = [(history(2), "History"), ("run", "str"), (3, "int"), ([3], "int"), ([history(1)] * 5, "5 runs"), ([None], "NoneType")]


@pytest.mark.parametrize(("wrong", "got"), WRONG)
def test_what_is_no_run_is_refused_before_anything_starts(wrong, got):
    with pytest.raises(ConfigError, match=rf"compare takes[\s\S]*got: +{got}"):
        earlier_runs(wrong)


def test_curves_of_a_long_run_are_few_points_with_both_ends():
    (curve,) = earlier_curves({"long": history(997, accuracy=0.5)})
    assert len(curve["loss"]) <= POINTS + 1
    assert curve["loss"][0] == [1, 1.0] and curve["loss"][-1][0] == 997 and curve["metrics"]["accuracy"][-1] == [997, 0.5]


def test_values_that_are_no_numbers_leave_no_points():
    (curve,) = earlier_curves({"broken": history(3, loss=float("nan"))})
    assert curve == {"name": "broken", "loss": [], "metrics": {}}
    json.dumps(curve, allow_nan=False)


def test_a_live_run_shows_the_runs_before_it_in_page_and_picture():
    before, now = Training(40), Training(40)
    first = gt.LiveRun(before.step, before.geta, before.optimizer, total_steps=40, evaluate=before.evaluate, every=10).start().wait()
    options = {"total_steps": 40, "evaluate": now.evaluate, "every": 10}
    plain = gt.LiveRun(now.step, now.geta, now.optimizer, **options)
    assert "gv-under" not in re.sub(r"<style>.*?</style>", "", plain._repr_mimebundle_()["image/svg+xml"])
    name = "<b>earlier</b>"
    run = gt.LiveRun(now.step, now.geta, now.optimizer, compare={name: first}, **options)
    (curve,) = run.view.setup["earlier"]
    assert curve["name"] == name and curve["loss"][-1][0] == 40 and curve["metrics"]["accuracy"]
    picture = re.sub(r"<style>.*?</style>", "", run._repr_mimebundle_()["image/svg+xml"])
    assert picture.count("gv-under") == 2 and "thin: &lt;b&gt;earlier&lt;/b&gt;  loss " in picture and name not in picture
    run.start().wait()
    assert run.history == first.history  # looking at another run changes nothing


def test_a_run_that_goes_on_beneath_is_followed():
    before, now = Training(40), Training(40)
    first = gt.LiveRun(before.step, before.geta, before.optimizer, total_steps=40)
    run = gt.LiveRun(now.step, now.geta, now.optimizer, total_steps=40, compare=[first])
    assert run.view.setup["earlier"] == [{"name": "run 1", "loss": [], "metrics": {}}]
    first.start().wait()
    run.start().wait()
    assert run.view.setup["earlier"][0]["loss"][-1][0] == 40
