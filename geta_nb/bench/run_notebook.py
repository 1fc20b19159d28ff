"""Execute a notebook and say what came out: ``python -m geta_nb.bench.run_notebook NOTEBOOK OUTPUT_FOLDER`` (or ``make run``)."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill

from geta_nb.display.training import percent_or_number
from geta_nb.widgets.publish import publish


def run_notebook(notebook: Path, output: Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Run ``notebook`` in its own folder with ``output_dir`` set to ``output``; return the ``report.json`` it left there.

    What is left shows itself without a kernel: widgets are replaced by their static views, moving lines by where they ended.

    Raises:
        papermill.PapermillExecutionError: a cell failed; the notebook up to that cell lies in ``output``.
    """
    output.mkdir(parents=True, exist_ok=True)
    # relative, so that the executed notebook names no folder of this machine
    folder = os.path.relpath(output.resolve(), notebook.resolve().parent)
    papermill.execute_notebook(
        str(notebook),
        str(output / notebook.name),
        parameters={**(parameters or {}), "output_dir": folder},
        kernel_name="python3",
        cwd=str(notebook.parent),
        progress_bar=progress,
        stderr_file=sys.stderr if progress else None,  # the notebook's own progress bars, as they move
        extra_arguments=["--log-level=ERROR"],  # kernels warn that they speak over loopback TCP
    )
    publish(output / notebook.name, output / notebook.name)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def describe_failure(error: papermill.PapermillExecutionError, notebook: Path) -> str:
    """Return which cell of which notebook failed, how, and how that cell begins."""
    first = next((line for line in error.source.splitlines() if line.strip()), "")
    what = re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}")
    return f"{notebook.name}, cell {error.cell_index} (In [{error.exec_count}]) failed: {first}\n{what}\n"


def describe(report: Mapping[str, Any], output: Path, notebook: Path) -> str:
    """Return what a newcomer wants to know in a few lines: quality, size, cost, and where to look."""
    lines: list[tuple[str, str]] = []
    for row, facts in report.get("rows", {"": report}).items():
        if row:
            lines.append((row, ""))
        lines += _facts(facts, output)
    lines += [("look at", f"{output / 'report.html'} (opens without network)"), ("", str(output / notebook.name))]
    packed = report.get("metrics", {}).get("file")
    lines += [("", str(output / packed))] if packed else []
    return "".join(f"{what:<15}{value}".rstrip() + "\n" for what, value in lines)


def _facts(report: Mapping[str, Any], output: Path) -> Iterator[tuple[str, str]]:
    """Quality before and after, size, cost; a part that the report does not have is left out."""
    metrics, size = report.get("metrics", {}), report.get("size_bytes")
    for name in (key.removeprefix("dense_") for key in metrics if key.startswith("dense_")):
        if name in metrics:
            values = [_quality(metrics[key]) for key in (f"dense_{name}", name)]
            yield name.replace("_", " "), f"{values[0]} dense, {values[1]} compressed"
    if size:
        packed = output / metrics["file"] if "file" in metrics else None
        on_disk = f" ({packed.stat().st_size / 1000:.1f} kB on disk)" if packed is not None and packed.exists() else ""
        yield "size", f"{size['dense'] / 1000:.1f} kB dense, {size['subnet'] / 1000:.1f} kB compressed{on_disk}"
    if "relative_bops" in report:
        yield "relative BOPs", f"{100 * report['relative_bops']:.2f} % of the dense fp32 network"


def _quality(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else percent_or_number(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebook named on the command line and print the summary; 1 when a cell failed."""
    parser = argparse.ArgumentParser(description="Execute a notebook with a progress bar; results go into a folder.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a very short run: does everything work?")
    options = parser.parse_args(arguments)
    try:
        report = run_notebook(options.notebook, options.output, {"smoke": True} if options.smoke else None)
    except papermill.PapermillExecutionError as error:
        sys.stderr.write("\n" + describe_failure(error, options.notebook))
        return 1
    sys.stdout.write("\n" + describe(report, options.output, options.notebook))
    return 0


if __name__ == "__main__":
    sys.exit(main())
