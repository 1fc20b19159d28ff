"""The quantized model as torch's exporter sees it, folded: a second way to the same QADG, made when somebody asks. Beside the analysis.

In: a model with its quantizers. Out: a :class:`QADG` on a trace of its own, whose branches are found by structure, ours as those that
others wrote. The analysis needs none of it: it traces the plain model and knows where it put its branches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx, nn

from geta_nb.graph import attribute_tensor, trace_model
from geta_nb.groups import understood
from geta_nb.qadg.branches import Branch, find_branches
from geta_nb.qadg.folded import QADG
from geta_nb.qadg.names import own_names
from geta_nb.quantizers import Quantizers, own_tensors


def trace_quantized(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], quantizers: Quantizers) -> QADG:
    """Return the folded trace of a model as it is, quantizers and all; families are not known.

    Raises:
        TraceError: torch.export cannot trace the model.
    """
    trace = trace_model(model, args, kwargs, understood=understood)
    names = own_names(own_tensors(model), trace.module)
    layers: dict[str, str] = {}
    branches: list[Branch] = []
    nodes = {node.name: node for node in trace.module.graph.nodes}
    for branch in find_branches(trace.module):
        kind, layer = _owner(trace.module, branch, quantizers)
        if layer is not None:
            layers[branch.exit] = layer
            entry = str(nodes[branch.entry].target)
            branch = replace(branch, kind=kind, name=names.get(entry, branch.name) if kind == "attached" else branch.name)
        branches.append(branch)
    return QADG(trace, tuple(branches), layers)


def _owner(module: fx.GraphModule, branch: Branch, quantizers: Quantizers) -> tuple[str, str | None]:
    """Return kind and layer of the quantizer of ours whose numbers a branch reads; of others, their kind and None."""
    read = {id(attribute_tensor(module, target)) for target in branch.parameters}
    for kind, table in (("attached", quantizers.weights), ("inserted", quantizers.activations)):
        for layer, quantizer in table.items():
            if read and read <= {id(parameter) for parameter in quantizer.parameters()}:
                return kind, layer
    return branch.kind, None
