"""Stage 12: how fast it runs: torch, ONNX Runtime and OpenVINO side by side.

In: a subnet and what it is compared with. Out: a :class:`LatencyTable` of interleaved runs. ``runs`` and ``runtimes`` need the extra
``export`` and are imported when they are asked for.
"""

from geta_nb.latency.signal_stack import kept_signal_stack
from geta_nb.latency.table import LatencyTable

__all__ = [
    "LatencyTable",
    "decoding",
    "kept_signal_stack",
    "runs",
    "runtimes",
]
