"""Quantizer branches of a graph that is cut: a weight's becomes the weight on its steps, an input's a call of its quantizer.

In: the copy of a trace, and where its branches are. Out: the same graph without them. Step of ``rewrite``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from geta_nb.qadg import QADG
from geta_nb.subnet.cut import Cut


def quantizer_paths(qadg: QADG, layers: Iterable[str]) -> dict[str, str]:
    """Return where the input quantizer of each layer stands: in the module of its weight, whose name is not the layer's at a root."""
    paths = {layer: f"{layer}.input_quantizer" for layer in layers}
    for branch in qadg.branches:
        layer = qadg.layers.get(branch.exit)
        if layer is not None and branch.kind == "inserted":
            paths[layer] = branch.parameters[0].rpartition(".")[0]
    return paths


def fold_branches(cut: Cut, graph: fx.Graph, qadg: QADG, twins: dict[str, fx.Node], paths: Mapping[str, str]) -> None:
    """Replace our weight branches by the materialised weight and our input branches by a call of their quantizer; others stay raw.

    A weight that others compute becomes a tensor of its own: what computes it is then read by nobody.
    """
    for branch in qadg.branches:
        layer = qadg.layers.get(branch.exit)
        if layer is None:
            continue
        entry, last = twins[branch.entry], twins[branch.exit]
        if branch.kind == "attached" and layer in cut.computed:
            with graph.inserting_before(last):
                weight = graph.get_attr(cut.computed[layer])
            weight.meta = {"val": entry.meta["val"]}
            last.replace_all_uses_with(weight)
        elif branch.kind == "attached":
            last.replace_all_uses_with(entry)
        else:
            inside = [twins[name] for name in branch.nodes]
            with graph.inserting_before(inside[0]):
                call = graph.call_module(paths[layer], (entry,))
            call.meta = dict(last.meta)
            last.replace_all_uses_with(call)
