"""Execute a notebook and say what came out: ``python -m geta_nb.bench.run_notebook NOTEBOOK OUTPUT_FOLDER`` (or ``make run``)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill

from geta_nb.widgets.publish import publish


def run_notebook(notebook: Path, output: Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Run ``notebook`` in its own folder with ``output_dir`` set to ``output``; return the ``report.json`` it left there.

    What is left shows itself without a kernel: widgets are replaced by their static views.

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
        extra_arguments=["--log-level=ERROR"],  # kernels warn that they speak over loopback TCP
    )
    publish(output / notebook.name, output / notebook.name)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


def describe(report: Mapping[str, Any], output: Path, notebook: Path) -> str:
    """Return what a newcomer wants to know, in six lines: accuracy, size, cost, and where to look."""
    metrics, size = report["metrics"], report["size_bytes"]
    packed = output / metrics["file"]
    return (
        f"accuracy       {100 * metrics['dense_accuracy']:.1f} % dense, {100 * metrics['accuracy']:.1f} % compressed\n"
        f"size           {size['dense'] / 1000:.1f} kB dense, {size['subnet'] / 1000:.1f} kB compressed"
        f" ({packed.stat().st_size / 1000:.1f} kB on disk)\n"
        f"relative BOPs  {100 * report['relative_bops']:.2f} % of the dense fp32 network\n"
        f"look at        {output / 'report.html'} (opens without network)\n"
        f"               {output / notebook.name}\n"
        f"               {packed}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebook named on the command line and print the summary."""
    parser = argparse.ArgumentParser(description="Execute a notebook with a progress bar; results go into a folder.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a very short run: does everything work?")
    options = parser.parse_args(arguments)
    report = run_notebook(options.notebook, options.output, {"smoke": True} if options.smoke else None)
    sys.stdout.write("\n" + describe(report, options.output, options.notebook))
    return 0


if __name__ == "__main__":
    sys.exit(main())
