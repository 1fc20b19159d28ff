"""Write the outputs that the notebooks keep: ``make keep`` for all, ``python -m tests.pipelines.keep NAME ...`` for some.

In: the notebooks as they stand. Out: the same with the outputs of one run. Those whose data are at hand run in full, the others in
smoke mode, which their pictures say. The parameters of the kept run stand in the notebook's metadata; sources are not touched.
"""

from __future__ import annotations

import argparse
import base64
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
    "11_budget_sweep": {"inputs": "weights", "halvings": 2},
    "12_side_by_side": {},
    "13_fashion": {"data_dir": FASHION, "rows": "dense narrow3"},
}
"""Notebooks whose data are at hand, and what their kept run changes of their parameters."""
KEY = "geta_nb_kept"
GALLERY = ROOT / "docs" / "images" / "gallery"
PAGE_HEAD = """# Gallery

The notebooks, each by the picture that it ends with. Made by `make keep` from the outputs that the notebooks keep.
"""
PROGRESS = re.compile(r"\|[^\n|]*\| *\d+/\d+ \[")
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
        cell.outputs, cell.execution_count = [_kept(output, count) for output in outputs_of(ran)], count
    notebook.metadata[KEY] = parameters_of(path)
    draft = path.with_suffix(".draft")
    nbformat.write(notebook, draft)
    shutil.move(draft, path)


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells of a notebook, without the one that papermill puts in."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])]


def outputs_of(cell: Any) -> list[Any]:
    """Return what a cell says, without what other people's tools write beside it: warnings, and widgets that show nothing."""
    shown = [copy.deepcopy(output) for output in cell.outputs if not _is_shell(output.get("data", {}))]
    for output in shown:
        if output.get("name") == "stderr":
            bars = [line for line in output.text.splitlines(keepends=True) if PROGRESS.search(line) and "Warning" not in line]
            output.text = "".join(bars)
    return [output for output in shown if output.get("text") != ""]


def _is_shell(data: Any) -> bool:
    """Whether a display was a widget of which nothing is left but its first words, such as a progress bar at 0 %."""
    words = data.get("text/plain")
    return words in ("", "Output()") or (set(data) == {"text/plain"} and PROGRESS.search(words) is not None)


def _kept(output: Any, count: int) -> Any:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "metadata" in output:  # of widgets, which are gone
        output.metadata = {}
    return output


def comparable(cells: Iterable[Any]) -> list[list[str]]:
    """Return the words of each cell's outputs, as far as another run on another processor says the same.

    Up to the first training every number is the same. Behind it numbers are left out, since they depend on the processor's kernels.
    """
    found, exact = [], True
    for cell in cells:
        exact = exact and not TRAINS.search(cell.source)
        words = [str(output.get("data", {}).get("text/plain", "")) for output in outputs_of(cell) if output.output_type != "stream"]
        found.append([text if exact else without_numbers(text) for text in words])
    return found


def without_numbers(text: str) -> str:
    """Return a text without its numbers, their units, and the blanks by which columns stand below each other.

    >>> without_numbers("width  16   11.3 kB, 1e-07") == without_numbers("width 8  998 B, -2.5")
    True
    """
    return " ".join(re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?( ?[kMGT]?B\b| [kMGT]\b)?", "#", text).split())


def forms(cells: Iterable[Any]) -> list[list[str]]:
    """Return in which forms each cell's outputs show themselves; streams, which are progress, left out."""
    return [[" ".join(sorted(output.get("data", {}))) for output in outputs_of(cell) if output.output_type != "stream"] for cell in cells]


def picture_of(notebook: Any) -> tuple[str, bytes]:
    """Return the end of a file's name, and the picture by which a notebook is known: what it ends with, not its data.

    That is its last picture of results, else the course of its training, else its last view.
    """
    shown = [(cell.source, output.get("data", {})) for cell in code_cells(notebook) for output in cell.outputs]
    named = [(source, data) for source, data in shown if str(data.get("text/plain", "")).startswith("[picture:")]
    results = [data for source, data in named if not source.endswith("data_picture")]
    if results:
        return ".png", base64.b64decode(results[-1]["image/png"])
    course = [data for source, data in shown if source.endswith("SVG(picture)") and "image/svg+xml" in data]
    views = course or [data for _, data in shown if "image/svg+xml" in data]
    return ".svg", str(views[-1]["image/svg+xml"]).encode()


def gallery() -> dict[Path, bytes]:
    """Return the page of all notebooks with their pictures, and the pictures: path -> contents."""
    files, lines = {}, [PAGE_HEAD]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        end, picture = picture_of(notebook)
        files[GALLERY / f"{path.stem}{end}"] = picture
        title = re.search(r"^# (.*)$", notebook.cells[0].source, re.MULTILINE)
        question = re.search(r"## Question\n\n(.*?)(\n\n|$)", notebook.cells[0].source, re.DOTALL)
        assert title is not None and question is not None, path
        name = f"[{title[1]}](notebooks/{path.name})"
        how = "" if path.stem in FULL else " *Kept from a smoke run of seconds without the real data: what one gets, not how good it is.*"
        alt = f"What {path.stem} ends with"
        lines.append(f"## {name}\n\n{question[1]}{how}\n\n![{alt}](images/gallery/{path.stem}{end})\n")
    return {ROOT / "docs" / "gallery.md": "\n".join(lines).encode(), **files}


def write_gallery() -> None:
    """Write the gallery of the outputs that are kept now; pictures that it has no more are removed."""
    files = gallery()
    GALLERY.mkdir(parents=True, exist_ok=True)
    for old in set(GALLERY.iterdir()) - set(files):
        old.unlink()
    for path, contents in files.items():
        path.write_bytes(contents)


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
    write_gallery()
    return 0


if __name__ == "__main__":
    sys.exit(main())
