"""Sweeps: every point once, whole or not at all, whoever is killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import nbformat
import pytest

from geta_nb.errors import ConfigError, InputError, RunStateError
from geta_nb.pipelines import sweep as sweeps
from geta_nb.pipelines.sweep import Point, check_grid, find_notebook, locked, plan_points, run_point, sweep

PARAMETERS = 'smoke = False\nseed = 0\nrate = 0.5\nlog = ""\nseconds = 0.0\noutput_dir = ""'
WORK = """
import json, os, time, uuid
from pathlib import Path
output, token = Path(output_dir), uuid.uuid4().hex[:8]
output.mkdir(parents=True, exist_ok=True)
adopted = sorted(path.name for path in output.glob("began-*"))
(output / f"began-{token}").write_text(str(os.getppid()))
Path(log, f"began-{seed}-{token}").write_text(str(os.getppid()))
time.sleep(seconds)
assert rate < 2, "such a rate breaks it"
(output / f"ended-{token}").write_text("")
(output / "report.json").write_text(json.dumps({"seed": seed, "rate": rate, "smoke": smoke, "adopted": adopted}))
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook that leaves a trace of every beginning and every end, inside its folder and outside."""
    monkeypatch.setattr(sweeps, "source_fingerprint", lambda: "sources")
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(WORK)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    path = tmp_path / "trace.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    (tmp_path / "log").mkdir()
    return path


def grid_of(notebook: Path, **values: object) -> dict[str, list]:
    return {**values, "log": [str(notebook.parent / "log")]}


def begun(notebook: Path) -> int:
    return len(list((notebook.parent / "log").iterdir()))


def whole(output: Path) -> list[Path]:
    """Folders of finished points, after checking that each was ended by exactly one run."""
    folders = sorted(path for path in output.iterdir() if path.is_dir() and not path.name.startswith("."))
    assert all(len(list(folder.glob("ended-*"))) == 1 for folder in folders)
    assert all(json.loads((folder / "report.json").read_text()) for folder in folders)
    return folders


def test_points_are_all_combinations_each_with_a_folder_of_its_own(notebook, tmp_path):
    grid = {"seed": [0, 1], "rate": [0.5, 1.0, 1.5]}
    points = plan_points(notebook, grid, tmp_path / "out", smoke=False)
    assert [(p.parameters["seed"], p.parameters["rate"]) for p in points] == [(s, r) for s in (0, 1) for r in (0.5, 1.0, 1.5)]
    folders = {p.folder for p in points}
    assert len(folders) == 6
    assert Path(points[0].folder).name.startswith("seed=0,rate=0.5-")
    assert not folders & {p.folder for p in plan_points(notebook, grid, tmp_path / "out", smoke=True)}
    notebook.write_text(notebook.read_text().replace("breaks it", "breaks it now"))
    assert not folders & {p.folder for p in plan_points(notebook, grid, tmp_path / "out", smoke=False)}, "another notebook, other points"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "an empty grid"),
        ({"sead": [1]}, r"(?s)cannot be swept over this.*at: +sead.*one of seed, rate"),
        ({"output_dir": ["x"]}, "cannot be swept over this"),
        ({"seed": []}, "values of a parameter are a list"),
        ({"log": "abc"}, "values of a parameter are a list"),
        ({"seed": [1, 1]}, "each once"),
        ({"seed": [[1]]}, "numbers, texts or switches"),
    ],
)
def test_a_grid_without_sense_is_refused(notebook, grid, message):
    with pytest.raises(ConfigError, match=message):
        check_grid(notebook, grid)


def test_a_notebook_is_found_by_name_and_the_known_ones_are_named():
    assert find_notebook("01_compress_digits").name == "01_compress_digits.ipynb"
    with pytest.raises(InputError, match=r"(?s)no such notebook.*at: +99_none.*01_compress_digits"):
        find_notebook("99_none")


@pytest.mark.slow
def test_a_sweep_runs_every_point_once_and_not_again(notebook, tmp_path):
    grid, output = grid_of(notebook, seed=[0, 1]), tmp_path / "out"
    reports = sweep(notebook, grid, output_dir=output, smoke=True)
    assert [(r["seed"], r["smoke"], r["parameters"]["seed"]) for r in reports] == [(0, True, 0), (1, True, 1)]
    assert [r["folder"] for r in reports] == [folder.name for folder in whole(output)]
    assert json.loads((output / "sweep.json").read_text())["points"] == reports
    assert sweep(notebook, grid, output_dir=output, smoke=True) == reports
    assert begun(notebook) == 2
    more = sweep(notebook, grid_of(notebook, seed=[0, 1, 2]), output_dir=output, smoke=True)
    assert more[:2] == reports
    assert begun(notebook) == 3


@pytest.mark.slow
def test_a_point_that_fails_is_named_and_the_others_are_kept(notebook, tmp_path):
    grid, output = grid_of(notebook, rate=[3.0, 1.0]), tmp_path / "out"
    with pytest.raises(RunStateError, match=r"(?s)1 of 2 runs failed.*'rate': 3\.0.*such a rate breaks it"):
        sweep(notebook, grid, output_dir=output)
    (kept,) = whole(output)
    assert "rate=1.0" in kept.name
    with pytest.raises(RunStateError):
        sweep(notebook, grid, output_dir=output)
    assert begun(notebook) == 3, "what is done is not run again; what failed is"


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_points(notebook, tmp_path):
    """Two processes on the same folder: every point is run by one of them, and both get all reports."""
    grid, output = grid_of(notebook, seed=[0, 1], seconds=[1.0]), tmp_path / "out"
    points = plan_points(notebook, grid, output, smoke=False)
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=run_point, args=(point,)) for point in (*points, *points[::-1])]
    for process in others:
        process.start()
    for process in others:
        process.join(500)
    assert [process.exitcode for process in others] == [0] * 4
    assert len(whole(output)) == 2
    assert begun(notebook) == 2


def test_a_lock_waits_for_the_one_before_it_and_ends_with_it(tmp_path):
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(120)
    assert order == ["first", "second"]


def _start(point: Point) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=run_point, args=(point,))
    process.start()
    return process


def _wait(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_what_a_killed_worker_left_is_taken_over_and_its_kernel_cannot_finish_it(notebook, tmp_path):
    output = tmp_path / "out"
    (point,) = plan_points(notebook, grid_of(notebook, seconds=[4.0]), output, smoke=False)
    killed = _start(point)
    _wait(lambda: begun(notebook) == 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(120)
    assert whole(output) == []
    report = run_point(point)
    assert len(report["adopted"]) == 1, "the second run went on in the folder of the first"
    time.sleep(1)  # an orphaned kernel would have ended by now
    assert len(whole(output)) == 1
    assert begun(notebook) == 2


@pytest.mark.slow
def test_on_a_dask_cluster_a_killed_worker_costs_nothing_but_time(notebook, tmp_path):
    distributed = pytest.importorskip("distributed")
    joblib = pytest.importorskip("joblib")
    grid, output = grid_of(notebook, seed=[0, 1, 2, 3], seconds=[2.0]), tmp_path / "out"
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        workers = set(client.run(os.getpid).values())
        assert len(workers) == 2
        killed: list[int] = []

        def kill_one() -> None:
            _wait(lambda: begun(notebook) >= 2)
            first = next((notebook.parent / "log").iterdir())
            killed.append(int(first.read_text()))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_one)
        killer.start()
        with joblib.parallel_config(backend="dask"):
            reports = sweep(notebook, grid, output_dir=output)
        killer.join(120)
    assert killed and killed[0] in workers, "the notebook's parent is the worker that was killed"
    assert [report["seed"] for report in reports] == [0, 1, 2, 3]
    assert len(whole(output)) == 4
    # one run was lost with its worker and made again; a finished one that only the dead worker knew of is read, not run
    assert begun(notebook) == 5
