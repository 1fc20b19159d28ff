"""The view of measured latencies: bars of dense and subnet by backend and batch size, and all numbers as a table."""

from __future__ import annotations

from typing import Any

from geta_nb.display.charts import Column, Series, bar_table
from geta_nb.display.markup import Number, Prose, cards, details, facts, figure, fragment, note, table
from geta_nb.display.theme import BLUE, GREY
from geta_nb.display.wording import MISSING, count, plural, size

_WORDS = {"torch": "torch, eager", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_CLOCKS = {"wall": "time on the wall", "processor": "processor time"}
_HOW = "Milliseconds of one call, medians; all systems took turns. A speed-up is the median of the ratios of neighbours in time."


def latency_text(found: Any) -> str:
    """Return, by batch size, milliseconds of each backend and how many times faster than the dense network that is."""
    parts = []
    for batch in dict.fromkeys(row.batch for row in found.rows):
        shown = [f"{_WORDS.get(row.backend, row.backend)} {_beside(row)}" for row in found.rows if row.batch == batch]
        parts.append(f"batch {batch}: {'; '.join(shown)}")
    return f"LatencyTable({', '.join(parts)}; {_conditions(found)})"


def _ms(milliseconds: float | None) -> str:
    return MISSING if milliseconds is None else f"{milliseconds:.3g} ms"


def _times(factor: float | None) -> str:
    return MISSING if factor is None else f"{factor:.1f}×"


def latency_html(found: Any) -> str:
    """Return the best speed-up and file sizes as cards, the bars, and the table."""
    rows = [
        (
            Number(count(row.batch)), _WORDS.get(row.backend, row.backend), Number(_ms(row.dense_ms)), Number(_ms(row.subnet_ms)),
            Number(_times(row.speedup)), Number(_times(row.speedup_eager)), Number(f"{row.difference:.0e}"),
        )
        for row in found.rows
    ]  # fmt: skip
    head = ("batch", "backend", "dense", "subnet", "speed-up", "over dense eager torch", "difference to torch")
    return fragment(
        "Latency",
        cards(_cards(found)),
        figure(latency_svg(found), "milliseconds of one call, dense (grey) and subnet; longer is slower, each batch size has its scale"),
        table(head, rows, label="latencies"),
        note(f"{_HOW} {_conditions(found)}. In eager torch the subnet's quantizers are simulated in float32."),
        details("Versions", facts([(key, Prose(value)) for key, value in found.versions.items()])),
    )


def _conditions(found: Any) -> str:
    return f"{plural(found.threads, 'thread')}, {_CLOCKS.get(found.clock, found.clock)}"


def _cards(found: Any) -> list[tuple[str, str, str]]:
    shown = []
    for batch in dict.fromkeys(row.batch for row in found.rows):
        rows = [row for row in found.rows if row.batch == batch]
        best = min(rows, key=lambda row: row.subnet_ms)
        factor = "" if best.speedup_eager is None else f"{_times(best.speedup_eager)} over dense eager torch"
        shown.append((f"batch {batch}, {_WORDS.get(best.backend, best.backend)}", _ms(best.subnet_ms), factor))
    if "subnet" in found.file_bytes:
        dense = found.file_bytes.get("dense")
        shown.append(("ONNX file", size(found.file_bytes["subnet"]), "" if dense is None else f"of {size(dense)}"))
    return shown


def latency_svg(found: Any) -> str:
    """Return bars, one row a backend, one column a batch size."""
    backends = list(dict.fromkeys(row.backend for row in found.rows))
    columns = []
    for batch in dict.fromkeys(row.batch for row in found.rows):
        by = {row.backend: row for row in found.rows if row.batch == batch}
        rows = [by[backend] for backend in backends]
        series = [Series(BLUE, "subnet", [row.subnet_ms for row in rows])]
        if any(row.dense_ms is not None for row in rows):
            series.insert(0, Series(GREY, "dense fp32", [row.dense_ms for row in rows]))
        columns.append(Column(f"batch {batch}", series, [_beside(row) for row in rows]))
    return bar_table([_WORDS.get(name, name) for name in backends], columns, label=latency_text(found), bar_room=160)


def _beside(row: Any) -> str:
    return _ms(row.subnet_ms) if row.speedup is None else f"{_ms(row.dense_ms)} → {_ms(row.subnet_ms)}, {_times(row.speedup)}"
