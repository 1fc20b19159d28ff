"""Write the outputs that the notebooks keep: ``make keep`` for all, ``python -m tests.pipelines.keep NAME ...`` for some.

In: the notebooks as they stand. Out: the same with the outputs of one run. Those whose data are at hand run in full, the others in
smoke mode, which their pictures say. The parameters of the kept run stand in the notebook's metadata; sources are not touched.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from geta_nb.bench.run_notebook import run_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FASHION = "/usr/share/datasets/fashion-mnist"
FULL: dict[str, dict[str, Any]] = {
    "01_compress_digits": {},
    "09_ablation": {},
    "10_deploy": {},
    "11_budget_sweep": {},
    "12_side_by_side": {},
    "13_fashion": {"data_dir": FASHION, "rows": "dense narrow3 lsq djpq"},
}
"""Notebooks whose data are at hand, and what their kept run changes of their parameters."""
KEY = "geta_nb_kept"
TRAINS = re.compile(r"\b\w*(train|sweep|other_rows|compare|measure)\w*\(")


def parameters_of(path: Path) -> dict[str, Any]:
    """Return the parameters of the run whose outputs a notebook keeps."""
    return FULL.get(path.stem, {"smoke": True})


def keep(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:
        run_notebook(path, Path(folder) / path.stem, parameters_of(path))
        executed = nbformat.read(Path(folder) / path.stem / path.name, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for count, (cell, ran) in enumerate(zip(code_cells(notebook), code_cells(executed), strict=True), 1):
        assert cell.source == ran.source
        cell.outputs, cell.execution_count = [_kept(output, count) for output in ran.outputs], count
    notebook.metadata[KEY] = parameters_of(path)
    draft = path.with_suffix(".draft")
    nbformat.write(notebook, draft)
    shutil.move(draft, path)


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells of a notebook, without the one that papermill puts in."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])]


def _kept(output: Any, count: int) -> Any:
    output = copy.deepcopy(output)
    if output.output_type == "execute_result":
        output.execution_count = count
    output.metadata = {} if "metadata" in output else output.get("metadata")
    return output


def comparable(cells: Iterable[Any]) -> list[list[str]]:
    """Return the words of each cell's outputs, as far as another run on another processor says the same.

    Up to the first training every number is the same. Behind it numbers are left out, since they depend on the processor's kernels.
    """
    found, exact = [], True
    for cell in cells:
        exact = exact and not TRAINS.search(cell.source)
        words = [str(output.get("data", {}).get("text/plain", "")) for output in cell.outputs if output.output_type != "stream"]
        found.append([text if exact else re.sub(r"\d+(\.\d+)?(e-?\d+)?", "#", text) for text in words])
    return found


def forms(cells: Iterable[Any]) -> list[list[str]]:
    """Return in which forms each cell's outputs show themselves; streams, which are progress, left out."""
    return [[" ".join(sorted(output.get("data", {}))) for output in cell.outputs if output.output_type != "stream"] for cell in cells]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the outputs of the notebooks named, or of all."""
    parser = argparse.ArgumentParser(description="Write the outputs that notebooks keep.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a notebook, such as 01_compress_digits; none: all")
    names = parser.parse_args(arguments).names
    unknown = sorted(set(names) - {path.stem for path in NOTEBOOKS})
    if unknown:
        parser.error(f"no such notebook: {', '.join(unknown)}")
    (ROOT / "runs").mkdir(exist_ok=True)
    for path in NOTEBOOKS:
        if not names or path.stem in names:
            sys.stdout.write(f"{path.stem} {parameters_of(path) or ''}\n")
            keep(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
