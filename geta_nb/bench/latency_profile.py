"""Where a runtime spends its time: shares by kind of operator, from the runtime's own counters.

In: an ONNX file and inputs. Out: (operator, share of the time), the largest first. Serves the latency table.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geta_nb.latency.runtimes import Array, open_onnxruntime, open_openvino

Shares = list[tuple[str, float]]


def profile(backend: str, path: Path, feed: Mapping[str, Array], *, repeats: int = 20) -> Shares:
    """Return shares of the time by operator; OpenVINO's names carry the precision in which they ran."""
    counts = _openvino(path, feed, repeats) if backend == "openvino" else _onnxruntime(path, feed, repeats)
    total = sum(counts.values()) or 1.0
    return [(name, seconds / total) for name, seconds in counts.most_common()]


def _openvino(path: Path, feed: Mapping[str, Array], repeats: int) -> Counter[str]:
    run: Any = open_openvino(path, profile=True)
    counts: Counter[str] = Counter()
    for _ in range(repeats):
        run(feed)
        for item in run.request.profiling_info:
            precision = item.exec_type.rpartition("_")[2]
            counts[f"{item.node_type} {precision}"] += item.real_time.total_seconds()
    return counts


def _onnxruntime(path: Path, feed: Mapping[str, Array], repeats: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        run: Any = open_onnxruntime(path, profile=str(Path(folder) / "profile"))
        for _ in range(repeats):
            run(feed)
        events = json.loads(Path(run.session.end_profiling()).read_text())
    counts: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            counts[event["args"]["op_name"]] += event["dur"]
    return counts
