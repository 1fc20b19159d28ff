"""Every notebook keeps the outputs of one run, has the agreed form, runs from top to bottom in smoke mode, and repeats its outputs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from PIL import Image

from geta_nb.bench.run_notebook import describe, describe_failure, run_notebook
from geta_nb.pipelines import fashion, hf_nets, image_folder, squad, squad_task, superres, text
from geta_nb.pipelines.catalogue import read_pipeline
from geta_nb.pipelines.published import STAND_IN
from geta_nb.pipelines.run import Run
from tests.pipelines.keep import FULL, GALLERY, KEY, comparable, forms, gallery, parameters_of
from tests.pipelines.keep import code_cells as kept_cells
from tests.pipelines.notebook_runs import NOTEBOOKS, ROOT, rerun_kept_under_nbval, rerun_under_nbval, run_smoke, smoke_run

SECTIONS = ["Question", "Parameters", "Data", "Compress", "Measure", "Report"]
AGAIN = "01_compress_digits"
"""Run again in full, as it was when its outputs were kept."""
REPEATED = ["09_ablation"]
PAGES_ASK = re.compile(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http""")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


@every_notebook
def test_is_valid_and_keeps_the_outputs_of_one_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata[KEY] == parameters_of(path), "kept outputs of another run: make keep"
    assert "widgets" not in notebook.metadata, "the state of widgets carries the whole front end"
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    shown = [output.get("data", {}) for output in outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert [data for data in shown if {"image/png", "image/svg+xml"} & set(data) or "<svg" in data.get("text/html", "")]
    assert path.stat().st_size < 1_500_000


@every_notebook
def test_kept_outputs_name_no_machine_and_ask_no_network(path):
    for output in (output for cell in code_cells(path) for output in cell.outputs):
        text = json.dumps({key: value for key, value in output.items() if key != "data"}) + json.dumps(
            {key: value for key, value in output.get("data", {}).items() if not key.startswith("image/png")})
        assert not re.search(r"/(home|root|tmp|work|Users)/", text), path.stem
        assert not PAGES_ASK.search(text), path.stem


def test_the_gallery_shows_what_the_notebooks_keep():
    for path, contents in gallery().items():
        assert path.read_bytes() == contents, f"{path.name}: make keep"
    assert {path for path in gallery() if path.suffix != ".md"} == set(GALLERY.iterdir())


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in FULL], ids=lambda path: path.stem)
def test_kept_pictures_of_a_run_on_a_stand_in_say_so_themselves(path):
    outputs = [output.get("data", {}) for cell in code_cells(path) for output in cell.outputs]
    words = "a smoke run of seconds: the figures mean nothing"
    drawn = [data for data in outputs if "image/png" in data or "training run at step" in data.get("image/svg+xml", "")]
    assert drawn
    assert all(words in str(data.get("image/svg+xml", "")) + str(data.get("text/plain", "")) for data in drawn)


@every_notebook
def test_first_code_cell_holds_the_parameters_as_plain_scalars(path):
    first, *others = code_cells(path)
    assert first.metadata.tags == ["parameters"]
    assert not [cell for cell in others if "parameters" in cell.metadata.get("tags", [])]
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(first.source).body}
    assert {"smoke", "seed", "output_dir"} <= set(values)
    assert values["smoke"] is False
    assert values["output_dir"] == f"../runs/{path.stem}"
    assert all(isinstance(value, (str, int, float, bool)) for value in values.values())


@every_notebook
def test_a_run_knows_every_parameter_so_that_none_can_change_unnoticed(path):
    """A run goes on from its checkpoints when its parameters are the same; one that it is not told could change in between."""
    calls = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    told = [{keyword.arg for keyword in call.keywords} for call in calls if getattr(call.func, "id", "") == "Run"]
    parameters = {parameter.name for parameter in read_pipeline(path).parameters}
    assert all(parameters - {"output_dir"} <= names for names in told)
    assert told or "data_dir" not in parameters, "a notebook with real data makes a Run"


@every_notebook
def test_has_the_six_sections_in_order(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS


@every_notebook
def test_defines_no_function_longer_than_ten_lines(path):
    functions = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 10] == []


@pytest.mark.slow
@every_notebook
@pytest.mark.usefixtures("importable_in_kernels")
def test_runs_in_smoke_mode_and_leaves_a_report(path, smoke_folder):
    run = smoke_run(path, smoke_folder)
    assert run.report == json.loads((run.folder / "report.json").read_text())
    assert not [output for output in run.outputs if output.output_type == "error"]
    assert not (run.folder / "checkpoints").exists()
    page = (run.folder / "report.html").read_text()
    assert "<svg" in page
    assert not PAGES_ASK.search(page), "the page asks the network"
    assert str(run.folder / "report.html") in describe(run.report, run.folder, path)


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in FULL], ids=lambda path: path.stem)
def test_a_smoke_run_says_again_what_the_notebook_keeps(path, smoke_folder):
    ran = comparable(kept_cells(smoke_run(path, smoke_folder).executed))
    assert ran == comparable(code_cells(path)), "the kept outputs are of other code: make keep"


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in set(FULL) - {AGAIN}], ids=lambda path: path.stem)
def test_each_cell_of_a_notebook_shows_as_many_things_as_it_keeps(path, smoke_folder):
    ran = forms(kept_cells(smoke_run(path, smoke_folder).executed))
    assert ran == forms(code_cells(path)), "the kept outputs are of other code: make keep"


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
def test_the_first_notebook_gives_its_kept_outputs_again_under_nbval(tmp_path):
    again = rerun_kept_under_nbval(ROOT / "notebooks" / f"{AGAIN}.ipynb", tmp_path)
    assert again.returncode == 0, again.stdout[-4000:]


@pytest.mark.slow
@every_notebook
@pytest.mark.usefixtures("importable_in_kernels")
def test_every_compressed_network_of_a_report_is_smaller_and_right(path, smoke_folder):
    run = smoke_run(path, smoke_folder)
    rows = run.report.get("rows", {"": run.report})
    for name, row in rows.items():
        if "size_bytes" not in row or "metrics" not in row:
            continue  # a row of another method: its own tests know it
        assert 0 < row["relative_bops"] < 1, name
        # float32 sums of a few thousand terms in another order, on outputs of size 1 to 30
        assert row["max_abs_difference"] <= 1e-3, name
        if row["target_group_sparsity"] is not None:
            assert row["group_sparsity"] == row["target_group_sparsity"], name
        if "file" in row["metrics"]:
            packed, said = (run.folder / row["metrics"]["file"]).stat().st_size, row["metrics"]["file_bytes"]
            assert packed < row["size_bytes"]["dense"], name
            assert packed in said.values() if isinstance(said, dict) else packed == said, name  # one file, or one per format
    summary = describe(run.report, run.folder, path)
    assert all(name in summary for name in rows)


def write_questions(folder):
    for file, seed in ((squad_task.TRAIN_FILE, 5), (squad_task.DEV_FILE, 6)):
        squad_task.write_squad(folder / file, squad_task.generated_questions(90, seed=seed))


def write_bert(folder):
    tokenizer = squad.train_wordpieces([q.context for q in squad_task.generated_questions(50, seed=5)], vocabulary=200)
    tokenizer.save_model(str(folder))
    hf_nets.bert_answering("tiny", vocabulary=tokenizer.get_vocab_size()).save_pretrained(folder)


def write_images(folder):
    image_folder.write_stand_in(folder, train=24, held=6, side=96)


def write_photographs(folder):
    for number, image in enumerate(superres.sample_photographs()[0]):
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{number}.png")


def write_texts(folder):
    for number, part in enumerate(text.standard_library(most=60_000)[0]):
        (folder / f"{number}.txt").write_text(part)


def write_phi(folder):
    tokenizer = text.train_tokenizer(text.standard_library(most=20_000)[0], vocabulary=300)
    tokenizer.save(str(folder / "tokenizer.json"))
    hf_nets.phi("tiny", vocabulary=300).save_pretrained(folder)


def write_fashion(folder):
    fashion.load_fashion(Run(folder / "out", smoke=True))
    for file in (folder / "out" / "stand_in").iterdir():
        file.rename(folder / file.name)


# CIFAR-10 files are in tests/pipelines/test_images.py
REAL = {
    "04_bert_squad": (write_questions, write_bert),
    "05_resnet50_imagenet": (write_images, None),
    "07_phi_language_model": (write_texts, write_phi),
    "08_carn_super_resolution": (write_photographs, None),
    "13_fashion": (write_fashion, None),
}


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
@pytest.mark.parametrize("name", REAL)
def test_runs_on_files_in_the_real_format(name, tmp_path):
    parameters = {}
    for parameter, write in zip(("data_dir", "model_dir"), REAL[name], strict=True):
        if write is not None:
            (tmp_path / parameter).mkdir()
            write(tmp_path / parameter)
            parameters[parameter] = str(tmp_path / parameter)
    run = run_smoke(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out", **parameters)
    assert run.report["settings"]["stand_in"] is False
    assert all(STAND_IN not in table["notes"] for table in run.report["tables"])


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in REPEATED], ids=lambda path: path.stem)
def test_run_again_it_repeats_its_outputs_under_nbval_which_sees_a_changed_one(path, smoke_folder, tmp_path):
    """Its first line of words is written a second time, with other words as its output: that one alone fails."""
    run, changed = smoke_run(path, smoke_folder), tmp_path / "changed"
    changed.mkdir()
    notebook = run.executed
    last_lines = [cell.source.rpartition("\n")[2] for cell in notebook.cells]
    at = next(i for i, line in enumerate(last_lines) if line.startswith('f"'))
    other = nbformat.v4.new_output("execute_result", {"text/plain": "'1.0 % dense, 2.0 % compressed'"}, execution_count=1)
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(last_lines[at], outputs=[other], execution_count=1))
    nbformat.write(notebook, changed / path.name)
    again = rerun_under_nbval(type(run)(path, changed, run.report), tmp_path)
    cells = sum(bool(cell.source.strip()) for cell in code_cells(path)) + 1  # and the injected parameters
    assert again.returncode == 1, again.stdout[-4000:]
    assert f"1 failed, {cells} passed" in again.stdout, again.stdout[-4000:]
    number = sum(cell.cell_type == "code" for cell in notebook.cells[: at + 1])
    assert re.search(rf"Cell {number}: Cell outputs differ[\s\S]*1\.0 % dense, 2\.0 % compressed", again.stdout), again.stdout[-4000:]


@pytest.mark.slow
@pytest.mark.usefixtures("importable_in_kernels")
def test_a_failing_cell_is_named_with_its_notebook(tmp_path):
    cells = [nbformat.v4.new_code_cell("output_dir = ''", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("\n# sums\n1 / 0")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        run_notebook(tmp_path / "broken.ipynb", tmp_path / "out", progress=False)
    said = describe_failure(caught.value, tmp_path / "broken.ipynb")
    assert re.fullmatch(r"broken\.ipynb, cell \d \(In \[3\]\) failed: # sums\nZeroDivisionError: division by zero\n", said), said
    with pytest.raises(pytest.fail.Exception, match=r"broken\.ipynb, cell \d"):
        run_smoke(tmp_path / "broken.ipynb", tmp_path / "again")


@pytest.mark.slow
def test_a_killed_notebook_goes_on_and_ends_as_if_it_had_not_been(smoke_folder, tmp_path, importable_in_kernels):
    path = ROOT / "notebooks" / "02_resnet20_cifar10.ipynb"
    whole = smoke_run(path, smoke_folder)
    command = [sys.executable, "-m", "geta_nb.bench.run_notebook", str(path), str(tmp_path), "--smoke"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 400
    while not list(tmp_path.glob("checkpoints/*/compress.safetensors")):
        assert killed.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)
    children = psutil.Process(killed.pid).children(recursive=True)
    for process in [psutil.Process(killed.pid), *children]:
        process.kill()
    killed.wait()
    psutil.wait_procs(children, timeout=60)
    assert not (tmp_path / "report.json").exists()
    resumed = run_smoke(path, tmp_path)
    said = [str(output.get("data", {}).get("text/plain", "")) for output in resumed.outputs]
    assert any("goes on from" in text for text in said), "the run began anew"
    assert resumed.report == whole.report
