"""Notebook 13's parts: the stand-in in the format of the real data, rows that are made once, and test images that no training reads."""

from __future__ import annotations

import re

import pytest
import torch

import geta_nb as gt
from geta_nb.bench import fashion_run, fashion_table
from geta_nb.bench.fashion_task import Fashion, check_folder, fashion_net
from geta_nb.errors import ConfigError, InputError
from geta_nb.pipelines import fashion
from geta_nb.pipelines.published import STAND_IN
from geta_nb.pipelines.run import Run

KNOWN = {"accuracy": 0.5, "relative_bops": 0.003, "macs": 0.25, "size_bytes": 1234.0}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out", smoke=True, seed=3)


@pytest.fixture
def data(run):
    return fashion.load_fashion(run)


def test_without_data_the_digits_stand_in_as_files_of_the_real_format(run):
    data = fashion.load_fashion(run)
    check_folder(data.folder)
    assert data.folder.parent == run.folder
    whole = Fashion(data.folder)
    assert whole.train[0].shape == (1437, 1, 28, 28)
    assert len(whole.judges()[1]) == 360
    assert set(whole.train[1].tolist()) == set(range(10))
    assert fashion.names_of_classes(run)[3] == "3"
    assert fashion.notes(run, "a0.4")[-1] == STAND_IN


def test_the_real_folder_is_read_and_its_classes_have_names(run, data, tmp_path):
    real = Run(tmp_path / "other", smoke=True, data_dir=data.folder)
    assert torch.equal(fashion.load_fashion(real).train[0], data.train[0])
    assert fashion.names_of_classes(real)[9] == "boot"
    assert STAND_IN not in fashion.notes(real, "a0.4")


def test_a_batch_is_a_function_of_its_step_and_half_of_its_images_are_mirrored(data):
    first, again = (fashion.training_task(data, seed=5).batches for _ in range(2))
    assert torch.equal(first[7][0], again[7][0])
    assert not torch.equal(first[7][0], first[8][0])
    rows = torch.arange(400)
    images, labels = fashion.draw(rows, torch.Generator().manual_seed(0), data=data)
    plain = data.standardised(data.train[0][rows])
    same, turned = ((images == other).flatten(1).all(1) for other in (plain, plain.flip(-1)))
    assert bool((same | turned).all())
    assert 120 < int(turned.sum()) < 280
    assert torch.equal(labels, data.train[1][rows])


def test_training_and_its_curve_read_no_test_image(data, monkeypatch):
    monkeypatch.setattr(Fashion, "judges", lambda _: pytest.fail("test images were read"))
    task = fashion.training_task(data, seed=0)
    model = fashion_net()
    task.loss(model, task.batches[0]).backward()
    assert 0 <= task.evaluate(model)["accuracy"] <= 1


def test_at_the_end_the_test_images_judge(data):
    task = fashion.judging_task(data, fashion.training_task(data, seed=0))
    model = fashion_net()
    assert task.evaluate(model)["accuracy"] == data.evaluate(model)


def test_finished_rows_are_kept_and_not_made_again(run, data, monkeypatch):
    found = fashion.other_rows(run, data, ["dense", "narrow3"], "a0.4")
    assert list(found) == ["dense", "narrow3"]
    assert found["dense"]["relative_bops"] == 1.0
    assert 0 < found["narrow3"]["relative_bops"] <= 0.004
    monkeypatch.setattr(fashion_table, "fashion_run", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert fashion.other_rows(run, data, ["narrow3", "dense"], "a0.4") == found


def test_a_row_that_fails_is_named_and_the_others_are_kept(run, data, monkeypatch):
    def broken(*_, **__):
        raise ValueError("no such luck")

    monkeypatch.setitem(fashion_run.METHODS, "clipq", broken)
    broken.__module__ = fashion_run.METHODS["narrow"].__module__
    with pytest.raises(InputError, match=r"a row failed(?s:.*)clipq at w1.6(?s:.*)no such luck"):
        fashion.other_rows(run, data, ["clipq", "narrow2"], "w1.6")
    assert "narrow2" in (run.folder / "rows.jsonl").read_text()


@pytest.mark.parametrize(("rows", "column", "said"), [
    (["narrow3", "narow4"], "a0.4", "no such row(?s:.*)narow4"), (["narrow3"], "a0.5", "no such column(?s:.*)a0.5"),
    ([], "dense", "no such column"),
])  # fmt: skip
def test_an_unknown_name_is_refused_before_anything_is_trained(rows, column, said):
    with pytest.raises(ConfigError, match=said):
        fashion.check_names(rows, column)


@pytest.mark.parametrize(("weights", "inputs", "bits"), [
    ({}, {}, "fp32, fp32"), ({"a": 3, "b": 3}, {}, "3, fp32"), ({"a": 3, "b": 7}, {"a": 4.0, "b": 2}, "3 to 7, 2 to 4"),
])  # fmt: skip
def test_a_row_of_the_table_says_what_it_costs(weights, inputs, bits):
    figures = KNOWN | {"weight_bits": weights, "activation_bits": inputs}
    assert fashion.cells("one", figures) == ("one", "50.00 %", "0.3 %", "25 %", "1.2 kB", bits)


def test_a_row_out_of_reach_says_so():
    assert fashion.cells("one", {"out_of_reach": "too dear"}) == ("one", "out of reach", "", "", "", "")


def test_the_rows_have_the_names_of_the_table():
    assert re.fullmatch(r"narrower networks, 3 bits from the start", fashion.label_of("narrow3"))
    assert fashion.label_of("clipq") == "CLIP-Q"


def test_a_plan_stands_beside_what_came_out():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    geta = gt.GETA(model, torch.randn(2, 6))
    schedule = gt.Schedule.for_steps(60)
    optimizer = geta.qasso(torch.optim.Adam, lr=1e-2, budget=gt.Budget(relative_bops=0.05, bit_range=(2, 16)), schedule=schedule)
    plans = []
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,))).backward()
        optimizer.step()
        if optimizer.plan is not None:
            plans.append(optimizer.progress()["plan"])
    table = fashion.plan_against_outcome(plans[0], optimizer)
    by_name = {row[0]: row for row in table.rows}
    assert list(by_name) == ["weights of 0", "weights of 2", "groups of 0", "together"]
    assert by_name["weights of 0"][2] == f"{geta.bit_widths()['0']} bits"
    assert by_name["groups of 0"][2] == f"{int(optimizer.group_mask.sum())} of 16"
    assert by_name["together"][4] == f"{optimizer.plan.rise:.2g}"
    assert f"step {plans[0]['step']}" in table.notes[0]
