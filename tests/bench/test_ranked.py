"""What predicted rises say of final accuracies: which runs are read, which budgets are priced, and how it is told."""

from __future__ import annotations

import pytest
import torch

from geta_nb.baselines.task import Task, accuracy
from geta_nb.bench import predicted, ranked
from geta_nb.bench.fashion_rows import FIRST
from geta_nb.bench.kept_runs import KeptRun, keep_run
from geta_nb.bench.small_net import small_net
from geta_nb.errors import InputError
from geta_nb.sensitivity import Front, FrontPoint


def kept(row: str, column: str, part: str = "validation", seed: int = 0, **options: object) -> KeptRun:
    bits = {"bits": int(row.removeprefix("geta"))} if row != "djpq" else {}
    return KeptRun(part, row, column, seed, {**bits, **options}, "f", "c", {"accuracy": 0.5 + 0.01 * seed})


def test_only_validation_runs_of_our_own_bounds_with_the_first_seed_are_read(tmp_path):
    file = tmp_path / "runs.jsonl"
    with pytest.raises(InputError, match="no validation runs"):
        ranked.accuracies(file)
    others = kept("geta3", "a0.4", part="test"), kept("geta2", "w1.6", seed=1), kept("geta2", "a0.4", refit=False), kept("djpq", "a0.4")
    for run in (kept("geta3", "w1.6"), *others, kept("geta4", "a0.4")):
        keep_run(file, run)
    assert ranked.accuracies(file) == {("w1.6", 3): 0.5, ("a0.4", 4): 0.5}


def test_each_kept_budget_has_a_predicted_rise():
    torch.manual_seed(0)
    images, labels = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
    task = Task(
        build=lambda: small_net(0.25, in_channels=1, stride=2), batches=lambda _: [(images, labels)], steps_per_epoch=1,
        calibration=images, check=(images, labels), evaluate=lambda model: accuracy(model, images, labels), epochs=1,
    )  # fmt: skip
    ended = {(column.name, bits): 0.5 + bits / 100 for column in FIRST for bits in (2, 4)}
    rows = ranked.ranked(task, ended)
    assert {row.column for row in rows} <= {column.name for column in FIRST} and len(rows) >= 4
    assert all(row.predicted >= 0 and row.accuracy == ended[row.column, row.bits] for row in rows)


def test_the_table_says_how_well_they_agree():
    rows = [ranked.Ranked("w1.6", bits, predicted=0.1 * bits, accuracy=0.9 - 0.01 * bits) for bits in (2, 3, 4)]
    text = ranked.table([*rows, ranked.Ranked("a0.4", 2, 5.0, 0.2)])
    assert "1.6 %, weights: 1.00" in text and "0.4 %, weights and inputs: too few" in text and "over all: 1.00" in text
    assert "| 1.6 %, weights | 2 bits | 0.200 | 88.00 |" in text


def test_what_the_plans_of_kept_runs_predicted_is_ranked_without_training(tmp_path, capsys):
    file = tmp_path / "runs.jsonl"
    for column, rise, share in (("w3.2", 0.1, 0.9), ("w1.6", 0.2, 0.8), ("w0.8", 0.3, 0.85)):
        keep_run(file, KeptRun("test", "joint", column, 1, {}, "f", "c", {"accuracy": share, "notes": {"predicted_rise": rise}}))
        keep_run(file, KeptRun("test", "geta3", column, 1, {}, "f", "c", {"accuracy": share, "notes": {}}))
    assert ranked.main(["--plans", "--results", str(file)]) == 0
    assert capsys.readouterr().out == "GETA, bits and groups jointly, 2 to 16 bits, seed 1: 0.50\nover all 3 runs: 0.50\n"


def test_budgets_from_a_front_are_its_knee_and_halvings_of_it():
    points = tuple(FrontPoint(cost, rise, {}, {}, {}, None, "relative_bops") for cost, rise in ((1.0, 0.0), (0.1, 0.001), (0.05, 2.0)))
    front = Front(points, "relative_bops")
    assert front.knee.cost == 0.1 and predicted.halvings(front, 3) == [0.1, 0.05, 0.025]
