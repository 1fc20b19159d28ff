"""Which runs make the fashion table: options and leaders are chosen by validation runs, and no test figure has a say."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import geta_nb as gt
from geta_nb.bench import fashion_rows, fashion_run, fashion_table, kept_runs
from geta_nb.bench.fashion_rows import COLUMNS, FIRST, ROWS, SECOND, Planned
from geta_nb.bench.fashion_table import Bench, Wanted
from geta_nb.qasso import Rules


def accuracies(**better: float) -> dict[tuple[str, str], float]:
    """0.5 everywhere, but for some rows at 1.6 %."""
    return {(run.row, run.column): 0.5 for run in fashion_rows.choosing()} | {(row, "w1.6"): value for row, value in better.items()}


def test_the_first_wave_is_every_row_once_in_every_common_column():
    runs = fashion_rows.first_wave()
    assert len(runs) == len(set(runs)) == 1 + (len(ROWS) - 2) * len(FIRST)
    assert {run.seed for run in runs} == {0}
    assert {run.row for run in runs} == set(ROWS) - {"again"}, "what GETA found, from scratch, is asked of validation images alone"


def test_leaders_are_chosen_among_rows_that_stand_for_one_place():
    runs = fashion_rows.choosing()
    others = {name for name, row in ROWS.items() if row.kind == fashion_rows.OTHER}
    rivals = others | {"narrow2", "narrow3", "narrow4", "geta2", "geta3", "geta4", "geta6"}
    assert len(runs) == len(set(runs)) == len(rivals) * len(FIRST)
    assert {run.row for run in runs} == rivals and {run.seed for run in runs} == {0}


def test_a_column_has_leaders_once_all_its_validation_runs_are_there():
    figures = accuracies(geta3=0.6, djpq=0.7, hesso=0.6, narrow4=0.9)
    column = [run for run in fashion_rows.choosing() if run.column == "w1.6"]
    assert fashion_rows.leaders(figures, column[:-1]) == {}
    leading = ["narrow4", "djpq", "hesso", "geta3"]
    assert fashion_rows.leaders(figures, column) == {"w1.6": leading, "w0.8": leading}


def test_a_row_that_cannot_reach_a_column_leads_nothing():
    figures = {place: value for place, value in accuracies(lsq=0.9).items() if place not in (("lsq", "w1.6"), ("geta2", "w1.6"))}
    leading = fashion_rows.leaders(figures, fashion_rows.choosing())
    assert "lsq" not in leading["w1.6"] and "geta3" in leading["w1.6"]
    assert set(leading) == {column.name for column in (*FIRST, *SECOND)}


def test_the_second_wave_gives_further_seeds_to_leaders_narrower_networks_and_our_defaults():
    assert fashion_rows.second_wave({}) == []
    leading = ["narrow4", "djpq", "hesso", "geta3"]
    runs = fashion_rows.second_wave({"w1.6": leading, "w0.8": leading})
    assert len(runs) == len(set(runs)) and not set(runs) & set(fashion_rows.first_wave())
    assert {(run.row, run.seed) for run in runs if run.column == "w1.6"} == {
        (row, seed) for row in ("geta", "joint", "geta3", "djpq", "hesso", "narrow2", "narrow3", "narrow4") for seed in (1, 2)
    }
    further = {(run.row, run.seed) for run in runs if run.column == "w0.8"}
    assert further == {(row, seed) for row in ("geta", "joint", *leading) for seed in (0, 1, 2)}
    assert {run.column for run in runs} == {"w1.6", "w0.8"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch) -> Bench:
    monkeypatch.setattr(fashion_table, "what_decides", lambda method, column, options: f"{method} {column} {sorted(options.items())}")
    return Bench(tmp_path, tmp_path / "runs.jsonl", commit="abc")


def keep(bench: Bench, part: str, row: str, accuracy: float, column: str = "w1.6") -> None:
    wanted = Wanted(Planned(row, column), ROWS[row].options, part == "validation")
    kept_runs.keep_run(bench.file, bench.to_keep(wanted, {"accuracy": accuracy, "seconds": 1.0, "relative_bops": 0.01}))


def test_no_test_figure_decides_what_leads(bench):
    for run in fashion_rows.choosing():
        if run.column == "w1.6":
            keep(bench, "test", run.row, 0.99 if run.row in ("lsq", "geta6") else 0.5)
    assert fashion_table.chosen(bench) == {}, "test runs alone choose nothing"
    for run in fashion_rows.choosing():
        if run.column == "w1.6":
            keep(bench, "validation", run.row, {"clipq": 0.8, "djpq": 0.7, "geta2": 0.7, "narrow3": 0.7}.get(run.row, 0.5))
    assert fashion_table.chosen(bench)["w1.6"] == ["narrow3", "clipq", "djpq", "geta2"]


def test_a_validation_run_of_other_options_or_code_chooses_nothing(bench):
    for run in fashion_rows.choosing():
        if run.column == "w1.6":
            keep(bench, "validation", run.row, 0.5)
    assert "w1.6" in fashion_table.chosen(bench)
    lines = kept_runs.read_runs(bench.file)
    bench.file.unlink()
    for line in lines:
        kept_runs.keep_run(bench.file, dataclasses.replace(line, fingerprint="old") if line.row == "djpq" else line)
    assert fashion_table.chosen(bench) == {}


def test_the_command_goes_from_validation_to_leaders_to_a_whole_table(tmp_path, monkeypatch, capsys):
    made = []

    def run(method, column, seed, options, **where):
        made.append((where["validation"], method, column, seed))
        found = {"djpq": 0.7, "hesso": 0.65}.get(method, 0.6 + 0.01 * options.get("bits", 0) if method in ("geta", "narrow") else 0.5)
        # by test images, with one seed, another row would seem to be ahead
        accuracy = found if where["validation"] or method != "clipq" else 0.99
        return {"accuracy": accuracy, "relative_bops": 0.001, "notes": {}, "seconds": 1.0}

    monkeypatch.setattr(fashion_table, "fashion_run", run)
    monkeypatch.setattr(fashion_table, "check_folder", lambda _: None)
    arguments = ["--data-dir", str(tmp_path), "--output", str(tmp_path), "--results", str(tmp_path / "runs.jsonl"), "--workers", "1"]
    assert fashion_table.main(arguments) == 0
    text = capsys.readouterr().out
    judged = [validation for validation, *_ in made]
    assert judged == sorted(judged, reverse=True), "all that chooses is there before a test image is read"
    assert "177 of 177 runs." in text and text == (tmp_path / "table.md").read_text()
    assert {method for _, method, column, _ in made if column == "a0.2"} == {"geta", "narrow", "djpq", "hesso"}
    leading = "narrower networks, 4 bits from the start; DJPQ; HESSO pruning, then PTQ; GETA, no fewer than 6 bits"
    assert f"- 1.6 %, weights: validation puts ahead {leading}" in text
    assert "- 0.2 %, weights and inputs: GETA's defaults 60.00, DJPQ 70.00: -10.00 ± 0.00 points" in text
    assert "CLIP-Q 99.00" not in text


def test_a_failed_validation_run_does_not_stand_for_the_test_run():
    names = {Wanted(Planned("djpq", "w1.6"), {}, validation).name for validation in (False, True)}
    assert names == {"djpq at w1.6, seed 0", "djpq at w1.6, seed 0, validation"}


def test_every_row_has_a_method_and_every_column_a_cost():
    assert {row.method for row in ROWS.values()} == set(fashion_run.METHODS)
    assert {row.kind for row in ROWS.values()} == set(fashion_rows.KINDS)
    assert {column.chosen_by for column in SECOND} <= {column.name for column in FIRST}
    assert set(fashion_table.TUNED_AT) <= set(COLUMNS)


def test_every_other_method_and_narrow_row_has_options_to_choose_from_that_its_method_takes():
    for name, row in ROWS.items():
        ablated = name in [f"geta{bits}" for bits in fashion_rows.ABLATED_AT]
        assert bool(row.tried) == (row.kind in (fashion_rows.OTHER, fashion_rows.NARROW) or ablated or name == fashion_rows.JOINT), name
        known = set(inspect.signature(fashion_run.METHODS[row.method]).parameters)
        own = {field.name for owner in (gt.Budget, gt.QuantConfig, Rules) for field in dataclasses.fields(owner)} | {"lr_quant", "stages"}
        assert all(set(options) <= known | (own if row.kind == fashion_rows.GETA else set()) for options in (row.options, *row.tried))
    runs = fashion_table.validation_runs()
    assert all(run.validation and (run.planned.seed == 0 or run.options in ROWS[run.planned.row].repeated) for run in runs)
    assert {run.planned.seed for run in runs if run.options == {"bits": 3, "granularity": "channel"}} == {0, 1, 2}
    assert len({run.name for run in runs}) == len(runs)


def test_the_page_says_how_many_runs_there_are():
    page = Path(__file__).resolve().parents[2].joinpath("docs", "fashion.md").read_text()
    options, own = fashion_table.validation_runs(), fashion_table.with_own_options(fashion_rows.choosing(), validation=True)
    leading = fashion_rows.leaders(accuracies(), fashion_rows.choosing())
    tests = [*fashion_rows.first_wave(), *fashion_rows.second_wave(leading)]
    more = {one.name for one in own} - {one.name for one in options}
    assert f"Steps 1 to 3 are {len(options)}, {len(more)} and {len(tests)} runs" in page
