"""The command line: what it lists, what it runs, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import sys
import types

import nbformat
import pytest

from geta_nb import _extra
from geta_nb.errors import ConfigError, GetaError, RunStateError
from geta_nb.pipelines import catalogue, cli

CODE = "import json, pathlib\nplace = pathlib.Path(output_dir)\n"
REPORT = {"relative_bops": 0.05, "metrics": {"dense_accuracy": 0.9, "accuracy": 0.8}, "size_bytes": {"dense": 4000, "subnet": 300}}


def write_notebook(path, body, parameters="smoke = False\nseed = 0\nrate = 0.5  # of something\ndata_dir = ''\noutput_dir = ''"):
    cells = [
        nbformat.v4.new_markdown_cell(f"# The {path.stem} pipeline\n\ntext"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three small pipelines in place of the real ones."""
    place = tmp_path / "notebooks"
    place.mkdir()
    settings = "dict(smoke=smoke, seed=seed, rate=rate, data_dir=data_dir)"
    report = f"(place / 'report.json').write_text(json.dumps({REPORT!r} | {{'settings': {settings}}}))"
    write_notebook(place / "01_good.ipynb", CODE + report)
    write_notebook(place / "02_bad.ipynb", "# divides\n1 / 0")
    write_notebook(place / "12_goodness.ipynb", "pass")
    monkeypatch.setattr(catalogue, "notebook_folder", lambda: place)
    monkeypatch.chdir(tmp_path)
    return place


def test_lists_all_pipelines_and_the_parameters_of_one(folder, capsys):
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "01_good      The 01_good pipeline",
        "02_bad       The 02_bad pipeline",
        "12_goodness  The 12_goodness pipeline",
    ]
    assert cli.main(["list", "1"]) == 0
    assert "rate        0.5    of something" in capsys.readouterr().out


def test_the_real_notebooks_are_listed_with_their_titles_and_parameters():
    for pipeline in catalogue.all_pipelines():
        assert pipeline.title and {"smoke", "seed", "output_dir"} <= {parameter.name for parameter in pipeline.parameters}


NAMES = [("01_good", "01_good"), ("1", "01_good"), ("bad", "02_bad"), ("12_goodness.ipynb", "12_goodness")]


@pytest.mark.parametrize(("name", "found"), NAMES)
def test_a_name_may_be_a_number_or_a_part(folder, name, found):
    assert catalogue.find_pipeline(name).name == found


@pytest.mark.parametrize(("name", "message"), [("good", "several pipelines"), ("02_bda", "did you mean 02_bad"), ("xyz", "geta-nb list")])
def test_a_name_that_is_none_or_several_is_refused(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        catalogue.find_pipeline(name)


def test_values_take_the_kind_of_their_default_and_paths_are_the_callers(folder, tmp_path):
    pipeline = catalogue.find_pipeline("01")
    values = pipeline.values([("smoke", "true"), ("seed", "3"), ("rate", "1"), ("data_dir", "data")], smoke=False)
    assert values == {"smoke": True, "seed": 3, "rate": 1.0, "data_dir": "../data"}
    assert [type(value) for value in values.values()] == [bool, int, float, str]
    assert pipeline.values([("data_dir", "")], smoke=True) == {"smoke": True, "data_dir": ""}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("seed", "1.5"), "a whole number"), (("rate", "fast"), "a number"), (("smoke", "perhaps"), "true or false"),
        (("sead", "1"), "did you mean seed"), (("output_dir", "x"), "-o DIR"),
    ],
)  # fmt: skip
def test_what_is_no_value_or_no_parameter_is_refused_before_anything_runs(folder, given, message, capsys):
    assert cli.main(["run", "01", "-p", *given]) == cli.WRONG
    assert message in capsys.readouterr().err
    assert not (folder.parent / "runs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
def test_run_writes_the_report_where_it_was_told_and_says_what_came_out(folder, tmp_path, capsys):
    assert cli.main(["run", "01", "-p", "rate", "0.25", "-o", "out", "--smoke", "-q"]) == 0
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    assert settings == {"smoke": True, "seed": 0, "rate": 0.25, "data_dir": ""}
    said = capsys.readouterr().out
    assert "90.0 % dense, 80.0 % compressed" in said and "5.00 % of the dense" in said and "out/report.html" in said


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
def test_a_failing_cell_gives_exit_code_1_and_its_name(folder, capsys):
    assert cli.main(["run", "02", "-q"]) == cli.FAILED
    said = capsys.readouterr().err
    assert "02_bad.ipynb, cell" in said and "# divides" in said and "ZeroDivisionError" in said


@pytest.mark.parametrize("arguments", [[], ["run"], ["fly"], ["run", "01", "-p", "seed"]])
def test_a_wrong_command_gives_exit_code_2(folder, arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == cli.WRONG


@pytest.mark.parametrize("command", [[], ["run"], ["sweep"]])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert left.value.code == 0
    assert "geta-nb run resnet20 -p group_sparsity 0.5" in capsys.readouterr().out


def test_sweep_hands_over_every_value_and_prints_a_line_a_run(folder, monkeypatch, capsys):
    calls = []

    def sweep(name, grid, *, output_dir, n_jobs=1, smoke=False):
        calls.append((name, grid, str(output_dir), n_jobs, smoke))
        return [REPORT | {"settings": {"seed": seed}} for seed in grid["seed"]]

    monkeypatch.setitem(sys.modules, "geta_nb.pipelines.sweep", types.SimpleNamespace(sweep=sweep))
    assert cli.main(["sweep", "01", "-p", "seed", "0, 1,2", "-p", "rate", "0.5", "-o", "out", "-j", "2", "--smoke"]) == 0
    assert calls == [("01_good", {"seed": [0, 1, 2], "rate": [0.5]}, "out", 2, True)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "seed=1  relative BOPs 5.00 %  accuracy 0.8" and lines[-1] == "look at out"


@pytest.mark.parametrize(("arguments", "message"), [(["-j", "0", "-p", "seed", "1"], "at least 1"), ([], "nothing to vary")])
def test_a_sweep_without_sense_is_refused(folder, arguments, message, capsys):
    assert cli.main(["sweep", "01", *arguments]) == cli.WRONG
    assert message in capsys.readouterr().err


def test_a_sweep_of_which_some_runs_failed_gives_exit_code_1(folder, monkeypatch, capsys):
    def sweep(*_, **__):
        raise RunStateError("sweep: 1 of 2 points failed.", at="seed=1")

    monkeypatch.setitem(sys.modules, "geta_nb.pipelines.sweep", types.SimpleNamespace(sweep=sweep))
    assert cli.main(["sweep", "01", "-p", "seed", "0,1"]) == cli.FAILED
    assert "1 of 2 points failed" in capsys.readouterr().err


def test_an_interrupt_gives_exit_code_130(folder, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "all_pipelines", interrupted)
    assert cli.main(["list"]) == cli.INTERRUPTED
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_the_app_is_served_on_this_machine_only(monkeypatch):
    asked = {}

    def run(command, *, env, check):
        asked.update(command=command, path=env["JUPYTER_PATH"])
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(cli.subprocess, "run", run)
    monkeypatch.setattr(cli, "load", lambda *_: None)
    assert cli.main(["app", "--port", "9000", "--no-browser"]) == 0
    assert asked["command"][1:3] == ["-m", "voila"] and asked["command"][3].endswith("widgets/app/studio.ipynb")
    assert {"--Voila.ip=127.0.0.1", "--port=9000", "--no-browser", "--template=studio"} <= set(asked["command"])
    assert asked["path"].startswith(asked["command"][3].removesuffix("/studio.ipynb"))


def test_notebooks_that_are_missing_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(_extra, "PACKAGE", tmp_path / "geta_nb")
    with pytest.raises(GetaError, match="its folder notebooks is missing"):
        catalogue.notebook_folder()
