"""Stage 6: the quantization-aware dependency graph: the trace with each quantizer branch folded into the operator that it serves.

In: trace, groups and quantizers. Out: a :class:`QADG` (raw nodes, branches and folded graph), the cost model priced from it, and the whole
:class:`Analysis` that the façade keeps.
"""

from geta_nb.qadg import analysis, kept
from geta_nb.qadg.analysis import Analysis, Graphed, analyse, graph_at_any_size
from geta_nb.qadg.branches import Branch
from geta_nb.qadg.computed import labels_of_computed, parts_of
from geta_nb.qadg.folded import QADG, Vertex
from geta_nb.qadg.retrace import trace_quantized

__all__ = [
    "QADG",
    "Analysis",
    "Branch",
    "Graphed",
    "Vertex",
    "analyse",
    "analysis",
    "graph_at_any_size",
    "kept",
    "labels_of_computed",
    "parts_of",
    "trace_quantized",
]
