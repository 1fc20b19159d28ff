"""The baselines' table: every row at every cost, what was reached and what was not, and a verdict that follows the numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from geta_nb.bench import baseline_table, jobs
from geta_nb.bench.baseline_rows import COLUMNS, METHODS, OURS, baseline_run
from geta_nb.bench.digits_task import digits_task
from geta_nb.display.pareto import Curve, front, pareto_picture


def entry(row: str, at: float, accuracies: list[float], *, activations: bool = False) -> dict:
    runs = {
        f"{row}-{at}{'a' if activations else 'w'}-s{seed}": {"seed": seed, "accuracy": a, "relative_bops": at * 0.99, "size_bytes": 100.0}
        for seed, a in enumerate(accuracies)
    }
    (only,) = baseline_table.summary(runs)
    return only


def test_every_method_runs_at_every_cost_with_every_seed():
    names = baseline_table.all_jobs((0, 1, 2), 30)
    extra = sum(bool(options) for _, options in OURS.values()) * 2 * 3  # in the two hardest columns
    assert len(names) == (len(METHODS) + 1) * len(COLUMNS) * 3 + extra
    assert {f"lsq-0.008a-s{seed}" for seed in range(3)} <= set(names)
    arguments = {tuple(sorted((k, str(v)) for k, v in job.arguments.items())) for job in names.values()}
    assert len(arguments) == len(names), "no number stands in the table twice"


def test_what_is_out_of_reach_is_kept_as_such_and_named():
    result = baseline_run(0, "minmax", 0.03, activations=False, options={}, epochs=1)
    assert set(result) == {"seed", "out_of_reach"}
    entries = baseline_table.summary({"minmax-0.032w-s0": result})
    assert "| min-max PTQ |  | out of reach |  |  |" in baseline_table.markdown(entries)
    assert re.search(r"Out of reach:\n- uniform_bits: .*relative_bops >= 0\.0625", baseline_table.page(entries, 30))


def test_a_cell_is_a_mean_with_its_deviation_and_the_best_one_is_bold():
    entries = [entry("lsq", 0.083, [0.9, 0.8, 0.7]), entry("geta", 0.083, [0.95, 0.95, 0.95]), entry("djpq", 0.083, [0.5, 0.6])]
    lines = baseline_table.markdown(entries).splitlines()
    assert "| LSQ, fixed bits | 80.0 ± 10.0 |  |  |  |" in lines
    assert "| GETA, this package's defaults | 95.0 ± 0.0 |  |  |  |" in lines, "nothing is best while runs are missing"
    assert "| GETA, this package's defaults | **95.0 ± 0.0** |  |  |  |" in baseline_table.markdown(entries[:2])
    assert baseline_table.verdict(entries) == ["8.3 %: not decided, for runs of other methods are missing."]
    assert "| DJPQ | 55.0 ± 7.1 (seeds 0, 1 alone) |  |  |  |" in lines
    assert lines[0].endswith("| 8.3 % | 3.2 % | 1.6 % | 0.8 %, with activations |")


@pytest.mark.parametrize(("ours", "words"), [(0.9, "ahead of it by 10.0"), (0.8, "level with it by 0.0"), (0.7, "behind it by 10.0")])
def test_the_verdict_follows_the_numbers(ours, words):
    entries = [entry("lsq", 0.008, [0.8] * 3, activations=True), entry("minmax", 0.008, [0.1] * 3, activations=True)]
    entries += [entry("geta", 0.008, [ours] * 3, activations=True), entry("geta3", 0.008, [1.0] * 3, activations=True)]
    (line,) = baseline_table.verdict(entries)
    assert words in line and "(LSQ, fixed bits)" in line


def test_kept_results_are_read_and_none_is_made(tmp_path):
    wanted = {name: jobs.Job(baseline_run, {"seed": name}) for name in ("a", "b")}
    jobs.write_json(tmp_path / f"a-{wanted['a'].fingerprint}.json", {"x": 1})
    assert jobs.kept_results(wanted, tmp_path) == {"a": {"x": 1}}


def test_the_task_is_the_benchmarks():
    task, validation = digits_task(epochs=2), digits_task(epochs=2, validation=True)
    assert (task.steps_per_epoch, len(task.calibration), len(task.check[1])) == (23, 512, 512)
    assert validation.steps_per_epoch == 18


def test_the_front_is_what_nothing_beats():
    points = [(3.0, 0.1, False), (1.0, 0.5, False), (2.0, 0.5, False), (2.0, 0.2, True), (4.0, 0.1, False)]
    assert front(points) == [(1.0, 0.5, False), (2.0, 0.2, True), (3.0, 0.1, False)]
    assert front([]) == []


def test_a_pareto_picture_has_a_chart_a_rival_and_a_mark_a_point():
    ours = Curve("ours", [(0.01, 0.02, False), (0.05, 0.01, True)])
    rivals = [Curve(f"rival {i} <b>", [(0.02, 0.1 * (i + 1), False)]) for i in range(5)]
    svg = pareto_picture(ours, rivals)
    root = ET.fromstring(svg)
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles.count("ours: 2% error at 1%") == 5
    assert sum("rival" in title for title in titles) == 5
    paths = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert len(paths) == 5 * (2 + 1 + 1)  # a hollow mark is a ground and an outline
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(element.get("x")) <= width and 0 <= float(element.get("y")) <= height


def test_a_cheaper_point_is_further_left_and_a_worse_one_higher():
    svg = pareto_picture(Curve("ours", [(0.01, 0.5, False), (0.1, 0.05, False)]), [])
    (line,) = re.findall(r'<polyline class="gv-l0" points="([^"]+)"', svg)
    (x0, y0), (x1, y1) = (tuple(map(float, pair.split(","))) for pair in line.split())
    assert x0 < x1 and y0 < y1  # y grows downwards
