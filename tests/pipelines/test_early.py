"""A wrong setting is refused before anything is trained: in every notebook, budget and stages stand above the first training."""

from __future__ import annotations

import re

import nbformat
import pytest

from tests.pipelines.notebook_runs import NOTEBOOKS

TRAINED = [path for path in NOTEBOOKS if "run.train(" in path.read_text()]


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_budget_and_stages_are_settled_before_the_first_training(path):
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    first = min(found.start() for found in re.finditer(r"run\.train\(|compress\($|compress\(\n", source))
    for settled in ("gt.Budget(", "recipes.find_recipe(" if "find_recipe" in source else "ablation.variants("):
        assert 0 < source.index(settled) < first, settled


def test_there_are_notebooks_that_train():
    assert len(TRAINED) >= 8
