"""From a model to its pruning space, quantizers and costs: the stages in their order. What the façade keeps of it.

In: a plain model and what is to be quantized. Out: the model with quantizers where its graph asks for them, and an :class:`Analysis`. The
model is traced once, without quantizers: groups are those of the plain network, and what is attached is what the graph shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from geta_nb.config import QuantConfig
from geta_nb.cost import CostModel, Totals
from geta_nb.graph import Sizes, Trace, is_mark, marked_value, outputs_of_check
from geta_nb.groups import GroupTable, Propagation, ProtectedList, find_groups, propagate
from geta_nb.qadg.agreement import check_agreement
from geta_nb.qadg.branches import Branch, find_branches
from geta_nb.qadg.computed import computed_by_others
from geta_nb.qadg.folded import QADG
from geta_nb.qadg.insertion import join_branches, match_codes, put_branches
from geta_nb.qadg.kept import Kept, traced
from geta_nb.qadg.pricing import price
from geta_nb.qadg.sites import find_sites
from geta_nb.qadg.training_only import find_training_only
from geta_nb.quantizers import Asked, OwnTensors, Quantizers, attach_quantizers, computed_weights, marked, own_tensors


@dataclass(frozen=True)
class Options:
    """What the user said of the analysis.

    Attributes:
        config: what is to be quantized.
        protect: says of a parameter name whether its groups stay.
        approximate_norms: whether channels that norms run over may go.
    """

    config: QuantConfig
    protect: Callable[[str], bool]
    approximate_norms: bool


@dataclass
class Graphed:
    """A model as a graph: what a cut needs of it.

    Attributes:
        trace, qadg: raw and folded graph.
        names: get_attr target -> own name of a parameter or buffer.
        state: labels.
        table: groups.
        quantizers: what was attached, or was there.
    """

    trace: Trace
    qadg: QADG
    names: dict[str, str]
    state: Propagation
    table: GroupTable
    quantizers: Quantizers


@dataclass
class Analysis(Graphed):
    """All that was found out about a model.

    Attributes:
        protected: what may not go, and why.
        cost: cost model.
        options: what the user said.
    """

    protected: ProtectedList
    cost: CostModel
    options: Options

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
    options, plain = Options(config, protect, approximate_norms), outputs_of_check(model, args, kwargs)
    found = _plain(model, args, kwargs, options, "batch")
    alone = find_training_only(
        model, args, kwargs, found.trace.module, found.names, found.tensors, found.table,
        marked(model, config), lambda unread: _plain(model, args, kwargs, options, "batch", training=unread),
    )  # fmt: skip
    if alone.kept:
        options = replace(options, protect=lambda name: name in alone.kept or protect(name))
        found.table, found.protected = find_groups(found.state, protect=options.protect)
    found.protected = alone.shown_in(found.protected, protect)
    with torch.device("cpu"):  # rules measure what operators do to zeros, which wants values whatever device is the default
        quantizers = attach_quantizers(model, config, _sites(model, found))
        quantizers.excluded = {**(computed_by_others(model) if config.weights else {}), **quantizers.excluded}
        try:
            qadg = _quantized(found, quantizers)
            cost = price(found.tensors, qadg, found.state, found.table, quantizers, dense)
            if found.kept is None or not found.kept.has_agreed(quantizers):
                check_agreement(model, qadg, quantizers, args, kwargs, plain)
                if found.kept is not None:
                    found.kept.note_agreement(quantizers)
        except BaseException:
            quantizers.undo()
            raise
    return Analysis(found.trace, qadg, found.names, found.state, found.table, quantizers, found.protected, cost, options)


def graph_at_any_size(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], analysis: Analysis | None = None
) -> Graphed:
    """Return the graph of a model with every axis of its inputs free where the model allows it; the model stays as it is.

    Args:
        model: with its quantizers.
        args, kwargs: example inputs.
        analysis: the model's; None: of a module that has quantizers on inputs at most.

    Raises:
        TraceError: torch cannot trace it in that way.
    """
    options = analysis.options if analysis is not None else Options(QuantConfig(weights=False), lambda name: False, False)
    found = _plain(model, args, kwargs, options, "any")
    with torch.device("cpu"):
        quantizers = analysis.quantizers if analysis is not None else attach_quantizers(model, options.config)
        qadg = _quantized(found, quantizers)
    return Graphed(found.trace, qadg, found.names, found.state, found.table, quantizers)


@dataclass
class _Plain:
    """The plain model as its graph shows it."""

    tensors: OwnTensors
    trace: Trace
    names: dict[str, str]
    foreign: tuple[Branch, ...]
    state: Propagation
    table: GroupTable
    protected: ProtectedList
    kept: Kept | None = None


def _plain(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, sizes: Sizes, *, training: Iterable[str] = ()
) -> _Plain:
    tensors = own_tensors(model)
    trace, names, kept = traced(model, tensors, args, kwargs, options.config, sizes, training)
    with torch.device("cpu"):
        foreign = find_branches(trace.module)
        state = _labels(tensors, trace.module, names, foreign, options.approximate_norms)
        table, protected = find_groups(state, protect=options.protect)
    return _Plain(tensors, trace, names, foreign, state, table, protected, kept)


def _sites(model: nn.Module, found: _Plain) -> Asked:
    """Return what the graph asks for; operands of which that takes the mark away are what was marked."""
    graph = found.trace.module.graph
    values = {node: marked_value(node) for node in graph.nodes if is_mark(node)}
    asked = find_sites(found.trace.module, found.names, computed_weights(model))
    left = set(graph.nodes)

    def operand(node: fx.Node | None) -> fx.Node | None:
        while node is not None and node not in left and node in values:
            node = values[node]
        return node

    macs = found.state.findings.macs
    macs[:] = [replace(one, weight=operand(one.weight), data=operand(one.data)) for one in macs]
    return asked


def _quantized(found: _Plain, quantizers: Quantizers) -> QADG:
    """Put the branches of quantizers into the trace; return it folded."""
    inserted = put_branches(found.trace.module, found.names, quantizers, found.state)
    qadg = QADG(found.trace, join_branches(found.trace.module, found.foreign, inserted), inserted.layers)
    qadg.families = _entry_families(found.trace.module, found.names, found.table)
    return qadg


def _labels(
    tensors: OwnTensors, module: fx.GraphModule, names: dict[str, str], foreign: tuple[Branch, ...], approximate_norms: bool
) -> Propagation:
    """Return the labels of a plain trace, its tensors in the model's own order."""
    nodes = {node.name: node for node in module.graph.nodes}
    through = {nodes[name]: nodes[branch.entry] for branch in foreign if branch.keeps_zero for name in branch.nodes}
    through |= {node: marked_value(node) for node in nodes.values() if is_mark(node)}
    state = propagate(module, names, set(tensors.buffers), through, approximate_norms=approximate_norms, saved=tensors.saved)
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
