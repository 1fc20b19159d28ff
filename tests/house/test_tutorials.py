"""Every tutorial has the agreed form, keeps its outputs, and gives the same ones again when it is run, exercises' solutions included."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.house.tutorial_speed import TUTORIALS, run_again

WITHOUT_A_FIGURE = {"Question", "Exercises", "Recap"}

every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tagged(path: Path, tag: str) -> list[Any]:
    return [cell for cell in code_cells(path) if tag in cell.metadata.get("tags", [])]


def parsed(cell: Any) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(cell.source))


def has_assert(cell: Any) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(parsed(cell)))


def sections(path: Path) -> dict[str, list[Any]]:
    """Return heading -> cells, in order; a cell that holds a heading belongs to the section that it begins, and closes the one before."""
    found: dict[str, list[Any]] = {}
    current: list[Any] = []
    for cell in read(path).cells:
        for heading in re.findall(r"^## (.*)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []:
            current = found.setdefault(heading, [])
        current.append(cell)
    return found


def shows_a_figure(cell: Any) -> bool:
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return any("image/svg+xml" in d or "image/png" in d or "<svg" in d.get("text/html", "") for d in data)


def test_there_are_tutorials_and_their_numbers_follow_one_another():
    numbers = [int(path.name[:2]) for path in TUTORIALS]
    assert numbers
    assert numbers == sorted(set(numbers))


@every_tutorial
def test_is_valid_and_keeps_the_outputs_of_one_run_from_top_to_bottom(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata, "the state of widgets carries the whole front end"
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@every_tutorial
def test_begins_with_a_question_and_ends_with_exercises_and_a_recap(path):
    names = list(sections(path))
    assert names[0] == "Question"
    assert names[-2:] == ["Exercises", "Recap"]
    assert read(path).cells[0].source.startswith(f"# {int(path.name[:2])}. ")
    assert "At the end you can" in sections(path)["Question"][0].source


@every_tutorial
def test_has_25_to_60_short_code_cells(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert 25 <= len(lengths) <= 60
    assert sum(lengths) / len(lengths) <= 5
    assert [line for cell in code_cells(path) for line in cell.source.splitlines() if len(line) > 110] == []


@every_tutorial
def test_no_cell_ends_with_a_semicolon(path):
    """It silences the value only where the history is kept, which nbval's kernel does not: ``plt.show()`` always works."""
    assert [cell.source for cell in code_cells(path) if cell.source.rstrip().endswith(";")] == []


@every_tutorial
def test_six_numbers_come_before_any_network(path):
    for cell in code_cells(path):
        for node in ast.walk(parsed(cell)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.tensor", "tensor"}:
                numbers = re.findall(r"\d+\.?\d*", ast.unparse(node.args[0]))
                if len(numbers) == 6:
                    return
            assert not (isinstance(node, ast.Attribute) and node.attr in {"Module", "Sequential", "GETA"}), "a network before six numbers"
    pytest.fail("no tensor of six numbers")


@every_tutorial
def test_every_section_has_a_figure(path):
    missing = [name for name, cells in sections(path).items() if name not in WITHOUT_A_FIGURE and not any(map(shows_a_figure, cells))]
    assert missing == []


@every_tutorial
def test_predictions_are_checked_by_an_assert_before_the_next_text_but_one(path):
    cells = read(path).cells
    asked = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and "**Predict.**" in cell.source]
    assert len(asked) >= 3
    for i in asked:
        texts = [k for k in range(i + 1, len(cells)) if cells[k].cell_type == "markdown"]
        answer = [cell for cell in cells[i : (texts + [len(cells)] * 2)[1]] if cell.cell_type == "code"]
        assert any(map(has_assert, answer)), f"nothing checks the prediction of cell {i}"


@every_tutorial
def test_one_cell_fails_on_purpose_and_no_other_does(path):
    failing = [cell for cell in code_cells(path) if any(output.output_type == "error" for output in cell.outputs)]
    assert failing == tagged(path, "raises-exception")
    assert len(failing) == 1
    assert all(output.output_type != "stream" or output.name != "stderr" for cell in code_cells(path) for output in cell.outputs)


@every_tutorial
def test_exercises_have_hidden_solutions_that_check_themselves(path):
    cells = sections(path)["Exercises"]
    asked = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and "**Exercise " in cell.source]
    solutions = tagged(path, "solution")
    assert 3 <= len(asked) <= 5
    assert len(solutions) == len(asked)
    for number, i in enumerate(asked, 1):
        assert f"**Exercise {number}.**" in cells[i].source
        assert cells[i + 1] in solutions, "a solution follows its exercise"
        assert cells[i + 1].metadata.jupyter.source_hidden is True
        assert has_assert(cells[i + 1])


@every_tutorial
def test_kept_outputs_name_no_machine_and_ask_no_network(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            text = re.sub(r'xmlns(:\w+)?="[^"]*"|<metadata>[\s\S]*?</metadata>', "", str(output))
            assert not re.search(r"/(tmp|home|work|root|usr)/|ipykernel_\d", text), cell.source
            assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http""", text), cell.source


@every_tutorial
def test_links_between_tutorials_lead_somewhere(path):
    next_one = f"{int(TUTORIALS[-1].name[:2]) + 1:02d}_"
    for cell in read(path).cells:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", cell.source) if cell.cell_type == "markdown" else []:
            assert (path.parent / target).exists() or target.startswith(next_one), target


@pytest.mark.slow
@every_tutorial
def test_gives_the_kept_outputs_again(path, tmp_path):
    """Numbers and texts are compared, not pictures: fonts and rounding differ between machines. ``make bench-tutorials`` has the time."""
    done = run_again(path, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert f"{len(code_cells(path))} passed" in done.stdout
