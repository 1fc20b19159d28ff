"""Stage 7: a smaller network that computes what the masked one computes.

In: a trained model, its analysis, and the groups that live. Out: the model's own classes, narrowed, or the cut graph as a
:class:`GraphNet`; either carries a :class:`SubnetInfo`: the formats of its numbers and what was measured at the cut.
"""

from geta_nb.subnet import build
from geta_nb.subnet.any_size import fitted, suited, whole_graph
from geta_nb.subnet.build import SubnetInfo, build_subnet, dense_totals, fingerprint, restore_formats
from geta_nb.subnet.formats import WeightFormat, nearly_whole
from geta_nb.subnet.gathered import Elsewhere, gathered, real_inputs
from geta_nb.subnet.graph_net import (
    BUFFER,
    PARAMETER,
    SCRATCH,
    Entry,
    GraphNet,
    copy_graph,
    find_module,
    input_sizes,
    list_entries,
    modes_of,
    note_modes,
    probe_inputs,
)
from geta_nb.subnet.modes import what_differs

__all__ = [
    "BUFFER",
    "PARAMETER",
    "SCRATCH",
    "Elsewhere",
    "Entry",
    "GraphNet",
    "SubnetInfo",
    "WeightFormat",
    "build",
    "build_subnet",
    "copy_graph",
    "dense_totals",
    "find_module",
    "fingerprint",
    "fitted",
    "gathered",
    "input_sizes",
    "list_entries",
    "modes_of",
    "nearly_whole",
    "note_modes",
    "probe_inputs",
    "real_inputs",
    "restore_formats",
    "suited",
    "what_differs",
    "whole_graph",
]
