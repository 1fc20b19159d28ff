"""Finished runs carried over a change: only where both codes give the same bits, and only what the earlier one made."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from geta_nb.bench import carry, kept_runs
from geta_nb.bench.carry import Ask
from geta_nb.bench.fashion_run import what_decides
from geta_nb.bench.kept_runs import KeptRun
from tests.bench.test_fashion import write_data


def run(row: str, column: str = "a0.4", fingerprint: str = "old", **options: object) -> KeptRun:
    return KeptRun("test", row, column, 0, options, fingerprint, "abc", {"accuracy": 0.5})


def test_a_run_of_this_code_is_not_stale():
    now = what_decides("lsq", "a0.4", {})
    assert carry.stale([run("lsq", fingerprint=now), run("lsq"), run("no such row")]) == [run("lsq")]


def test_each_method_column_and_options_is_compared_once_and_geta_at_full_length_in_hard_columns():
    runs = [run("geta3", bits=3), dataclasses.replace(run("geta3", bits=3), seed=1), run("geta3", "w3.2", bits=3), run("lsq", "a0.8")]
    asks = carry.asks_of(runs)
    assert asks == [
        Ask("geta", "a0.4", '{"bits": 3}'), Ask("geta", "w3.2", '{"bits": 3}'), Ask("lsq", "a0.8", "{}"),
        Ask("geta", "a0.4", '{"bits": 3}', full=True),
    ]  # fmt: skip
    assert carry.asks_of(runs, full=False) == asks[:3]


def test_a_method_of_which_one_answer_differs_is_not_carried():
    runs = [run("geta2", bits=2), run("geta3", bits=3), run("lsq")]
    asks = carry.asks_of(runs, full=False)
    same = [{"fingerprint": "old", "figures": {"accuracy": 0.25}} for _ in asks]
    other = [*same[:1], {"fingerprint": "new", "figures": {"accuracy": 0.26}}, *same[2:]]
    everything = carry.carried(runs, asks, same, same, "a = b")
    assert [(r.row, r.carried, r.commit) for r in everything] == [(row, "a = b", "abc") for row in ("geta2", "geta3", "lsq")]
    assert everything[2].fingerprint == what_decides("lsq", "a0.4", {}) and not carry.stale(everything)
    assert [r.row for r in carry.carried(runs, asks, same, other, "a = b")] == ["lsq"]


def test_what_another_code_made_is_not_carried():
    runs = [run("lsq", fingerprint="older")]
    asks = carry.asks_of(runs)
    answers = [{"fingerprint": "old", "figures": {}} for _ in asks]
    assert asks and carry.carried(runs, asks, answers, answers, "a = b") == []


def test_a_carried_run_is_read_back_and_others_are_written_as_before(tmp_path):
    file = tmp_path / "runs.jsonl"
    moved = dataclasses.replace(run("lsq"), carried="a = b")
    for one in (run("djpq"), moved):
        kept_runs.keep_run(file, one)
    assert kept_runs.read_runs(file) == [run("djpq"), moved]
    assert file.read_text().count("carried") == 1


@pytest.mark.slow
def test_two_codes_are_compared_by_their_bits(tmp_path):
    trees = [tmp_path / name for name in ("commented", "changed")]
    for tree in trees:
        shutil.copytree(carry.PACKAGE, tree / "geta_nb", ignore=shutil.ignore_patterns("__pycache__", "*.js"))
    lsq = Path("geta_nb/baselines/lsq.py")
    (trees[0] / lsq).write_text((trees[0] / lsq).read_text() + "\nUNREAD = 1\n")
    source = (trees[1] / lsq).read_text()
    assert "lr_step: float = 1e-3" in source
    (trees[1] / lsq).write_text(source.replace("lr_step: float = 1e-3", "lr_step: float = 1.01e-3"))
    asks = [Ask("lsq", "a0.8", '{"dense_share": 0.5}')]
    (commented,), (changed,), (here,) = carry.answers(asks, [*trees, carry.ROOT], write_data(tmp_path, 120))
    assert commented["fingerprint"] != here["fingerprint"] != changed["fingerprint"]
    assert carry.equal(commented, here) and not carry.equal(changed, here)
    assert 0 < here["figures"]["accuracy"] < 1


def test_uncommitted_code_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(carry, "current_commit", lambda: "abc+")
    assert carry.main(["HEAD", "--data-dir", str(write_data(tmp_path, 12))]) == 2
    assert "has no name" in capsys.readouterr().err
