"""Kept runs of the fashion benchmark, and the table that is made of them: it says what it knows, and no more."""

from __future__ import annotations

import dataclasses
import json

import pytest

from geta_nb.bench import fashion_cells, kept_runs
from geta_nb.bench.fashion_rows import COLUMNS, ROWS
from geta_nb.bench.kept_runs import KeptRun
from geta_nb.errors import InputError


def kept(row: str, column: str, seed: int, accuracy: float, **more: object) -> KeptRun:
    figures = {"accuracy": accuracy, "relative_bops": 0.9 * COLUMNS[column].relative_bops, "notes": {}, "seconds": 1.0} | more
    return KeptRun("test", row, column, seed, ROWS[row].options, "0" * 16, "abc", figures)


def test_kept_runs_are_lines_sorted_and_a_new_one_takes_the_old_ones_place(tmp_path):
    file = tmp_path / "new" / "runs.jsonl"
    for run in (kept("lsq", "w3.2", 0, 0.5), kept("djpq", "w3.2", 0, 0.6), kept("lsq", "w3.2", 0, 0.7)):
        kept_runs.keep_run(file, run)
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == ["djpq", "lsq"]
    assert [run.figures["accuracy"] for run in kept_runs.read_runs(file)] == [0.6, 0.7]
    compared = [dataclasses.replace(kept("djpq", "w1.6", 0, 0.5), part="validation", options={"gamma": g}) for g in (0.3, 1.0)]
    assert compared[0].place != compared[1].place
    assert [path.name for path in file.parent.iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"row": "lsq"}'])
def test_a_line_that_is_no_run_is_named(tmp_path, line):
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(dataclasses.asdict(kept('lsq', 'w3.2', 0, 0.5)))}\n{line}\n")
    with pytest.raises(InputError, match=r"runs\.jsonl:2"):
        kept_runs.read_runs(tmp_path / "runs.jsonl")


def test_a_cell_has_its_mean_deviation_and_standard_error():
    cells = fashion_cells.cells_of([kept("geta", "w1.6", seed, a) for seed, a in ((2, 0.93), (0, 0.91), (1, 0.92))])
    cell = cells["geta", "w1.6"]
    assert cell.accuracies == (0.91, 0.92, 0.93)
    # by hand: deviation 0.01, over the root of 3
    assert (round(cell.mean, 6), round(cell.deviation, 6), round(cell.standard_error, 6)) == (0.92, 0.01, 0.005774)
    assert "| GETA, this package's defaults |  | 92.00 ± 1.00 (0.58, 3) |  |  |  |  |" in fashion_cells.cells_text(cells).splitlines()


def test_the_table_says_what_is_one_seed_out_of_reach_not_measured_and_how_wide():
    blocked = KeptRun("test", "lsq", "w1.6", 0, {}, "0", "abc", {"out_of_reach": "2 bits are too dear"})
    runs = [kept("djpq", "w3.2", 0, 0.9), blocked, kept("narrow3", "a0.4", 0, 0.8, notes={"width": 0.67})]
    text = fashion_cells.cells_text(fashion_cells.cells_of(runs))
    lines = text.splitlines()
    both = "weights and inputs"
    assert lines[0].endswith(f"| 3.2 %, weights | 1.6 %, weights | 0.8 %, {both} | 0.4 %, {both} | 0.8 %, weights | 0.2 %, {both} |")
    assert "| DJPQ | 90.00 |  |  |  |  |  |" in lines
    assert "| LSQ, fixed bits |  | out of reach |  |  |  |  |" in lines
    assert "- LSQ, fixed bits, 1.6 %, weights: 2 bits are too dear" in lines
    assert "- narrower networks, 3 bits from the start: width 0.670 in 0.4 %, weights and inputs (0.36 %)" in lines
    assert "Dense fp32: not measured yet" in text
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}


@pytest.mark.parametrize(
    ("other", "words"),
    [(0.90, "+2.00 ± 0.58 points"), (0.95, "-3.00 ± 0.58 points"), (0.915, "+0.50 ± 0.58 points, not told apart")],
)
def test_the_verdict_follows_the_figures_and_their_errors(other, words):
    runs = [kept("geta", "w1.6", seed, a) for seed, a in enumerate((0.91, 0.92, 0.93))]
    runs += [kept(row, "w1.6", seed, other) for row in ("narrow3", "djpq", "geta3") for seed in range(3)]
    runs += [kept("narrow4", "w1.6", seed, 0.99) for seed in range(3)]  # ahead by test images: no reason to be compared
    lines = fashion_cells.verdict(fashion_cells.cells_of(runs), {"w1.6": ["narrow3", "djpq", "hesso", "geta3"]})
    names = ("narrower networks, 3 bits from the start", "DJPQ", "GETA, no fewer than 3 bits")
    assert lines == [f"1.6 %, weights: GETA's defaults 92.00, {name} {100 * other:.2f}: {words}" for name in names]


def test_nothing_is_compared_before_all_seeds_are_there_or_leaders_are_known():
    runs = [kept("geta", "w1.6", seed, 0.9) for seed in range(2)] + [kept("djpq", "w1.6", seed, 0.9) for seed in range(3)]
    assert fashion_cells.verdict(fashion_cells.cells_of(runs), {"w1.6": ["djpq"]}) == []
    whole = fashion_cells.cells_of([*runs, kept("geta", "w1.6", 2, 0.9)])
    assert fashion_cells.verdict(whole, {}) == [] and len(fashion_cells.verdict(whole, {"w1.6": ["djpq"]})) == 1


def test_the_rows_that_validation_puts_ahead_are_named():
    assert fashion_cells.lead({"w1.6": ["narrow3", "clipq"]}) == [
        "1.6 %, weights: validation puts ahead narrower networks, 3 bits from the start; CLIP-Q"
    ]


def test_facts_hold_what_the_accuracies_come_to():
    runs = [kept("geta", "w1.6", seed, a) for seed, a in enumerate((0.91, 0.92, 0.93))]
    blocked = KeptRun("test", "lsq", "w1.6", 0, {}, "0", "abc", {"out_of_reach": "2 bits are too dear"})
    ours, out = fashion_cells.facts(fashion_cells.cells_of([*runs, blocked]))
    assert (ours["row"], ours["seeds"], ours["mean"]) == ("geta", 3, pytest.approx(0.92))
    assert ours["standard_error"] == pytest.approx(0.01 / 3**0.5)
    assert "mean" not in out and out["why_not"] == "2 bits are too dear"


OWN = dict(ROWS["djpq"].options)
"""What the table's row has."""


def tried(options: dict, column: str, accuracy: float | None) -> KeptRun:
    run = kept("djpq", column, 0, accuracy or 0.0)
    figures = {"out_of_reach": "too dear"} if accuracy is None else run.figures
    return dataclasses.replace(run, part="validation", options=options, figures=figures)


def test_options_are_compared_by_their_mean_and_better_ones_are_named():
    own, other, half = OWN, {"gamma": 1.0}, {"gamma": 0.1}
    runs = [tried(own, "w1.6", 0.80), tried(own, "a0.4", 0.70), tried(other, "w1.6", 0.79), tried(other, "a0.4", 0.72)]
    runs += [tried(half, "w1.6", 0.99)]
    lines = fashion_cells.validation_text(runs).splitlines()
    assert f'| DJPQ | **{json.dumps(OWN, sort_keys=True)}** | 80.00 | 70.00 | 75.00 |' in lines
    assert '| DJPQ | {"gamma": 0.1} | 99.00 |  |  |' in lines, "one column is no comparison"
    assert lines[-1] == '- DJPQ: {"gamma": 1.0} is ahead of the table\'s own by 0.50 points'
    assert not [line for line in fashion_cells.validation_text(runs[:2]).splitlines() if line.startswith("-")]


def test_options_that_were_run_with_several_seeds_are_compared_by_their_means():
    own, other = OWN, {"gamma": 1.0}
    figures = [(column, seed, accuracy) for column in ("w1.6", "a0.4") for seed, accuracy in enumerate((0.7, 0.8, 0.9))]
    runs = [dataclasses.replace(tried(own, column, accuracy), seed=seed) for column, seed, accuracy in figures]
    runs += [tried(other, "w1.6", 0.81), tried(other, "a0.4", 0.81)]
    text = fashion_cells.validation_text(runs)
    assert f'| DJPQ | **{json.dumps(OWN, sort_keys=True)}** | 80.00 ± 10.00 (5.77, 3) | 80.00 ± 10.00 (5.77, 3) | 80.00 |' in text
    assert "by 1.00 points" in text


def test_options_that_cannot_reach_a_column_do_not_win_by_the_other():
    own, other = OWN, {"gamma": 1.0}
    runs = [tried(own, "w1.6", 0.8), tried(own, "a0.4", 0.7), tried(other, "w1.6", 0.85), tried(other, "a0.4", None)]
    text = fashion_cells.validation_text(runs)
    assert "is ahead" not in text and "out of reach" in text


def test_a_column_that_no_options_reach_does_not_count():
    own, other = OWN, {"gamma": 1.0}
    runs = [tried(own, "w1.6", None), tried(own, "a0.4", 0.7), tried(other, "w1.6", None), tried(other, "a0.4", 0.72)]
    text = fashion_cells.validation_text(runs)
    assert '| DJPQ | {"gamma": 1.0} | out of reach | 72.00 | 72.00 |' in text and "by 2.00 points" in text
