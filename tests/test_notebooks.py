"""Every notebook is kept without outputs, has the agreed form, and runs from top to bottom in smoke mode."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from geta_nb.bench.run_notebook import describe, run_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECTIONS = ["Question", "Parameters", "Data", "Compress", "Measure", "Report"]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@every_notebook
def test_is_valid_and_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(path))


@every_notebook
def test_first_code_cell_holds_the_parameters_as_plain_scalars(path):
    first, *others = code_cells(path)
    assert first.metadata.tags == ["parameters"]
    assert not [cell for cell in others if "parameters" in cell.metadata.get("tags", [])]
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(first.source).body}
    assert {"smoke", "seed", "output_dir"} <= set(values)
    assert values["smoke"] is False
    assert all(isinstance(value, (str, int, float, bool)) for value in values.values())


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
def test_runs_in_smoke_mode_and_leaves_a_report(path, tmp_path):
    report = run_notebook(path, tmp_path, {"smoke": True}, progress=False)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["relative_bops"] < 1
    assert report["max_abs_difference"] <= 1e-4  # issue 2: the subnet computes what the masked model computes, in float32
    executed = nbformat.read(tmp_path / path.name, as_version=4)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http""", page), "the page asks the network"
    packed = tmp_path / report["metrics"]["file"]
    assert packed.stat().st_size < report["size_bytes"]["dense"]
    summary = describe(report, tmp_path, path)
    assert str(tmp_path / "report.html") in summary
    assert f"{100 * report['metrics']['accuracy']:.1f} % compressed" in summary
