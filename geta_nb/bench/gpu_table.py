"""The results of ``make bench-gpu`` as markdown, and their place in a page. In: results by part and cell. Out: text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geta_nb.bench.jobs import write_text
from geta_nb.errors import InputError

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
BEGIN, END = "<!-- bench-gpu: begin (made by `make bench-gpu`) -->", "<!-- bench-gpu: end -->"


def markdown(results: Results, machine: Mapping[str, Any], left_out: Sequence[str]) -> str:
    """Return tables of all that was measured, and the names of what was not.

    Args:
        results: part -> cell -> numbers, or ``failed`` or ``left_out`` with the reason.
        machine: what it was measured on.
        left_out: cells for which there was no time.
    """
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    parts = [f"Measured on {facts}."]
    parts += [_ratios(title, results[part]) for part, title in TITLES.items() if results.get(part)]
    parts += [_memory(results["memory"])] if results.get("memory") else []
    parts += [_tests(results["tests"])] if results.get("tests") else []
    failed = [f"{part}: {cell} ({row['failed']})" for part, rows in results.items() for cell, row in rows.items() if "failed" in row]
    parts += [f"Failed: {'; '.join(failed)}."] if failed else []
    parts += [f"Left out, for want of time: {'; '.join(left_out)}."] if left_out else []
    return "\n\n".join(parts) + "\n"


TITLES = {
    "steps": "optimizer.step()",
    "passes": "forward + backward",
    "throughput": "ResNet20, 32 x 32, a whole training step",
}


def _ratios(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    measured = {cell: row for cell, row in rows.items() if "ratio" in row}
    extra = {"whole_step": ("with a joint AdamW step", "{:.2f}"), "ours_images_per_second": ("images/s, ours", "{:.0f}"),
             "theirs_images_per_second": ("images/s, plain", "{:.0f}")}  # fmt: skip
    there = [key for key in extra if any(key in row for row in measured.values())]
    head = [title, "ours / plain", "ours", "plain", *(extra[key][0] for key in there)]
    lines = []
    for cell, row in measured.items():
        more = [extra[key][1].format(row[key]) for key in there]
        lines.append([cell, f"{row['ratio']:.2f}", f"{row['ours']:.2f} ms", f"{row['theirs']:.2f} ms", *more])
    return _table(head, lines)


def _memory(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        ["ours" if cell == "ours" else "plain", f"{row['weights'] / 1e9:.2f} G", f"{row['peak_bytes'] / 2**30:.2f} GiB"]
        for cell, row in rows.items() if "peak_bytes" in row
    ]  # fmt: skip
    return _table(["training step of a language model", "weights", "most memory held"], lines)


def _tests(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(f"Tests of the device paths: {row['summary']}." for row in rows.values() if "summary" in row)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def put_into(page: Path, text: str) -> None:
    """Write a table between the marks of a page, in place of what stands there.

    Raises:
        InputError: no such page, or no marks in it.
    """
    before = page.read_text() if page.exists() else ""
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        what = "bench-gpu: the page has no place for the table."
        raise InputError(what, at=str(page), expected=f"{BEGIN} ... {END}", got="no such marks")
    write_text(page, f"{head}{BEGIN}\n{text}{END}{tail}")
