"""What a pipeline leaves behind: the packed network, ``report.json`` and ``report.html``.

In: a ``GETA``, its subnet, what was measured. Out: files in the run's folder, and the JSON-able report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from geta_nb.bench.jobs import write_json
from geta_nb.cost import Report
from geta_nb.display.markup import escape
from geta_nb.display.page import standalone_page
from geta_nb.errors import ArtifactError
from geta_nb.files import load, save
from geta_nb.geta import GETA
from geta_nb.pipelines.loop import Task
from geta_nb.pipelines.run import Run, measure
from geta_nb.pipelines.tables import Table
from geta_nb.views import find_view


def pack(run: Run, subnet: nn.Module, name: str, task: Task) -> dict[str, Any]:
    """Save a subnet as packed integers, load it back, and measure what the file gives.

    Returns:
        The task's measures of the network in the file, ``file`` and ``file_bytes``.

    Raises:
        ArtifactError: the file gives back another network.
    """
    path = run.folder / f"{name}.safetensors"
    expected = measure(subnet, task.evaluate)
    save(subnet, path)
    found = measure(load(path).to(run.device), task.evaluate)
    if found != expected:
        raise ArtifactError("pack: the file gives back another network.", at=path, expected=expected, got=found)
    return found | {"file": path.name, "file_bytes": path.stat().st_size}


def measured(geta: GETA, subnet: nn.Module, metrics: Mapping[str, Any], *, dense: Mapping[str, float]) -> Report:
    """Return the report of a subnet, its measures beside those of the dense network (``dense_<name>``)."""
    return geta.report(subnet, metrics={f"dense_{name}": value for name, value in dense.items()} | dict(metrics))


def html_of(shown: Any) -> str:
    """Return the HTML of anything that shows itself; a string that begins with ``<`` is HTML or SVG already, any other one a heading."""
    if isinstance(shown, str):
        return shown if shown.startswith("<") else f"<h2>{escape(shown)}</h2>"
    view = find_view(shown)
    if view is None or view.html is None:
        raise TypeError(f"{type(shown).__name__} has no HTML view")
    return view.html(shown)


def write_report(
    run: Run, pipeline: str, title: str, *, rows: Mapping[str, Report], shown: Sequence[Any], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html``, remove the run's checkpoints, and return the report.

    Args:
        pipeline: name of the notebook.
        rows: name of each compressed network -> its report. The last one's facts stand at the top of the JSON, as if it were alone.
        shown: views, tables, headings, or finished HTML and SVG, in the page's order.
        extra: further JSON-able entries.
    """
    *_, main = rows.values()
    tables = [part.to_dict() for part in shown if isinstance(part, Table)]
    report = main.to_dict() | {"pipeline": pipeline, "title": title, "settings": run.settings, "tables": tables}
    if len(rows) > 1:
        report["rows"] = {name: row.to_dict() for name, row in rows.items()}
    write_json(run.folder / "report.json", report | dict(extra or {}))
    _write_page(run.folder / "report.html", title, map(html_of, shown))
    run.finish()
    return report | dict(extra or {})


def _write_page(path: Path, title: str, fragments: Iterable[str]) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(standalone_page(title, fragments), encoding="utf-8")
    partial.replace(path)
