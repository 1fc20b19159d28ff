"""geta-nb: joint structured pruning and quantization-aware training for any PyTorch network, seen and steered in notebooks."""

from typing import Any

from geta_nb import _extra
from geta_nb import display as _display  # fills the registry of views
from geta_nb.budget import Budget, LayerBudget
from geta_nb.centering import center
from geta_nb.config import QuantConfig
from geta_nb.cost import Preview, Report
from geta_nb.errors import GetaError
from geta_nb.files import load, save
from geta_nb.geta import GETA
from geta_nb.groups import Family, Group, register_rule
from geta_nb.qasso import QASSO, Schedule, distill
from geta_nb.sensitivity import Front, Sensitivity

_LAZY: dict[str, str] = {  # name -> module that wants an extra: "export" for those of _EXPORT, "notebook" for the others
    "BudgetPanel": "geta_nb.widgets.budget_panel",
    "Explorer": "geta_nb.widgets.explorer",
    "LiveRun": "geta_nb.widgets.live_run",
    "benchmark_latency": "geta_nb.latency.runs",
    "compare": "geta_nb.widgets.comparing",
    "export_decoder": "geta_nb.onnx",
    "export_onnx": "geta_nb.onnx",
    "studio": "geta_nb.widgets.studio",
    "to_graphviz": "geta_nb.widgets.exports",
    "to_pyvis": "geta_nb.widgets.exports",
}
_EXPORT = frozenset({"benchmark_latency", "export_decoder", "export_onnx"})

__version__ = "0.1.0"
__all__ = [
    "GETA",
    "QASSO",
    "Budget",
    "BudgetPanel",
    "Explorer",
    "Family",
    "Front",
    "GetaError",
    "Group",
    "LayerBudget",
    "LiveRun",
    "Preview",
    "QuantConfig",
    "Report",
    "Schedule",
    "Sensitivity",
    "benchmark_latency",
    "center",
    "compare",
    "distill",
    "export_decoder",
    "export_onnx",
    "load",
    "register_rule",
    "save",
    "studio",
    "to_graphviz",
    "to_pyvis",
]
del _display


def __getattr__(name: str) -> Any:
    """Import what wants an extra when it is first asked for: the core needs none."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_extra.load(_LAZY[name], "export" if name in _EXPORT else "notebook"), name)
