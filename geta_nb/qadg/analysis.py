"""From a model to its pruning space, quantizers and costs: the stages in their order. What the façade keeps of it.

In: a plain model and what is to be quantized. Out: the model with quantizers where its graph asks for them, and an :class:`Analysis`. The
model is traced once, without quantizers: groups are those of the plain network, and what is attached is what the graph shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from geta_nb.config import QuantConfig
from geta_nb.cost import CostModel, Totals
from geta_nb.graph import Trace, is_mark, marked_value, trace_model
from geta_nb.groups import GroupTable, Propagation, ProtectedList, find_groups, propagate, understood
from geta_nb.qadg.agreement import check_agreement
from geta_nb.qadg.branches import Branch, find_branches
from geta_nb.qadg.folded import QADG
from geta_nb.qadg.insertion import join_branches, match_codes, put_branches
from geta_nb.qadg.names import own_names
from geta_nb.qadg.pricing import price
from geta_nb.qadg.sites import find_sites
from geta_nb.quantizers import OwnTensors, Quantizers, attach_quantizers, marked, own_tensors


@dataclass
class Analysis:
    """All that was found out about a model.

    Attributes:
        trace, qadg: raw and folded graph.
        names: get_attr target -> own name of a parameter or buffer.
        state: labels.
        table, protected: groups, and what may not go.
        quantizers: what was attached, or was there.
        cost: cost model.
    """

    trace: Trace
    qadg: QADG
    names: dict[str, str]
    state: Propagation
    table: GroupTable
    protected: ProtectedList
    quantizers: Quantizers
    cost: CostModel

    def match_codes(self) -> None:
        """Let the graph show the quantizers as they are now: with a sign or without, with the lowest code or without."""
        self.qadg = match_codes(self.trace.module, self.qadg, self.quantizers, self.state)


def analyse(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    config: QuantConfig,
    *,
    protect: Callable[[str], bool],
    dense: Totals | None = None,
    approximate_norms: bool = False,
) -> Analysis:
    """Return groups, graph and costs of ``model``, which has its quantizers from then on; after an error it is as it was."""
    tensors = own_tensors(model)
    with marked(model, config):
        trace = trace_model(model, args, kwargs, understood=understood)
    with torch.device("cpu"):  # rules measure what operators do to zeros, which wants values whatever device is the default
        names = own_names(tensors, trace.module)
        asked = find_sites(trace.module, names)
        foreign = find_branches(trace.module)
        state = _labels(tensors, trace.module, names, foreign, approximate_norms)
        table, protected = find_groups(state, protect=protect)
        quantizers = attach_quantizers(model, config, asked)
        try:
            inserted = put_branches(trace.module, names, quantizers, state)
            qadg = QADG(trace, join_branches(trace.module, foreign, inserted), inserted.layers)
            qadg.families = _entry_families(trace.module, names, table)
            cost = price(tensors, qadg, state, table, quantizers, dense)
            check_agreement(model, qadg, quantizers, args, kwargs)
        except BaseException:
            quantizers.undo()
            raise
    return Analysis(trace, qadg, names, state, table, protected, quantizers, cost)


def _labels(
    tensors: OwnTensors, module: fx.GraphModule, names: dict[str, str], foreign: tuple[Branch, ...], approximate_norms: bool
) -> Propagation:
    """Return the labels of a plain trace, its tensors in the model's own order."""
    nodes = {node.name: node for node in module.graph.nodes}
    through = {nodes[name]: nodes[branch.entry] for branch in foreign if branch.keeps_zero for name in branch.nodes}
    through |= {node: marked_value(node) for node in nodes.values() if is_mark(node)}
    state = propagate(module, names, set(tensors.buffers), through, approximate_norms=approximate_norms)
    state.tensors = {name: state.tensors[name] for name in (*tensors.parameters, *tensors.buffers) if name in state.tensors}
    return state


def _entry_families(module: fx.GraphModule, names: dict[str, str], table: GroupTable) -> dict[str, str]:
    """get_attr node name -> the family that this parameter produces."""
    families = {}
    for entry in table.axis_maps:
        if entry.producing:
            group = int(entry.group_of_index.max())
            families[entry.parameter] = table.family_names[int(table.family_of[group])]
    return {
        node.name: families[names[str(node.target)]]
        for node in module.graph.nodes
        if node.op == "get_attr" and names.get(str(node.target)) in families
    }
