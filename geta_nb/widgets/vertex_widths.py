"""How wide each vertex is: in the dense network, now, under a budget, in a subnet. Exact: the labels that a cut follows are counted.

In: a ``GETA``, and which of its groups live. Out: plain numbers by vertex, for the page and for pictures. Pure; no widget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import fx, nn

from geta_nb.budget import Budget
from geta_nb.cost import expected_alive, lowest_bits
from geta_nb.errors import GetaError, InputError
from geta_nb.geta import GETA
from geta_nb.groups import BoolArray, Extent, ExtentTable, GroupTable, Labels, alive_groups, masking, removal_order
from geta_nb.quantizers import tensors_of_groups
from geta_nb.subnet import SubnetInfo
from geta_nb.widgets.graph_layers import find_layers


class Planned(NamedTuple):
    """What is left of a network, or would be: groups that live, bool [G]; bits of weights and of inputs by layer."""

    alive: BoolArray
    weight_bits: Mapping[str, float]
    input_bits: Mapping[str, float]


class Widths:
    """Channels of every vertex that has some, for any set of living groups.

    Attributes:
        names: name of each such vertex.
        nodes: its position among the nodes of :func:`geta_nb.widgets.graph_data.graph_data`.
        dense: its channels in the dense network.
    """

    def __init__(self, geta: GETA) -> None:
        layers, table = find_layers(geta.qadg), geta.groups.table
        products = {count.node: op for count, op in zip(geta._analysis.state.findings.macs, geta.cost.operators, strict=True)}
        extents: list[Extent] = []
        made = _rows_made(table)
        self.names: list[str] = []
        self.nodes: list[int] = []
        for i in layers.members["QADG"]:
            node = layers.nodes[i]
            op = products.get(node)
            extent = _carried(geta, node, table, made) or (op.channels if op is not None else None)
            if extent is not None:
                self.names.append(node.name)
                self.nodes.append(i)
                extents.append(extent)
        self._table = ExtentTable(extents, table.n_groups)
        self.dense = self.of(np.ones(table.n_groups, dtype=bool))

    def of(self, alive: BoolArray) -> list[int]:
        """Return the channels of each vertex when the groups ``alive``, bool [G], live."""
        return [int(count) for count in self._table.counts(alive)]


def _rows_made(table: GroupTable) -> dict[int, set[int]]:
    """How many indices each group takes of the axes that make it."""
    found: dict[int, set[int]] = {}
    for entry in table.axis_maps:
        if entry.producing:
            groups, counts = np.unique(entry.group_of_index[entry.group_of_index >= 0], return_counts=True)
            for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
                found.setdefault(group, set()).add(count)
    return found


def _carried(geta: GETA, node: fx.Node, table: GroupTable, made: Mapping[int, set[int]]) -> Extent | None:
    """Channels of what an operator gives out, where groups run through it; of attention heads on an axis of their own, all their rows."""
    value = geta._analysis.state.values.get(node)
    labels = next((item for item in value if isinstance(item, Labels)), None) if isinstance(value, (list, tuple)) else value
    if not isinstance(labels, Labels):
        return None
    found = [(array.cover, table.label_groups[array.labels].ravel()) for array in labels.arrays]
    found = [(cover, groups) for cover, groups in found if (groups >= 0).any()]
    if not found:
        return None
    const = 1
    if len(found) == 1 and len(labels.shape) - 1 not in found[0][0]:  # the last axis may be what each head has
        groups, last = found[0][1], int(labels.shape[-1])
        first = int(groups[groups >= 0][0])
        if int((groups == first).sum()) * last in made.get(first, ()) and last > 1:
            const = last
    return Extent(const, tuple(groups for _, groups in found))


def alive_now(geta: GETA) -> BoolArray:
    """Return which groups are not zero; all, where the model has no values."""
    try:
        return alive_groups(geta.groups.table, tensors_of_groups(geta.model))
    except InputError:  # on the meta device
        return np.ones(len(geta.groups), dtype=bool)


def under_budget(geta: GETA, budget: Budget) -> Planned:
    """Return what a budget comes to before a run has chosen groups and bits, as ``geta.preview`` counts it.

    Raises:
        BudgetError: it cannot be met.
    """
    table, cost = geta.groups.table, geta.cost
    fewest = np.ones(table.n_groups, dtype=bool)
    fewest[removal_order(table, budget)] = False
    weights, inputs = lowest_bits(cost, budget, fewest)
    alive, _ = expected_alive(cost, table, budget, weights, inputs)
    return Planned(masking.keep_one(table, alive), weights, inputs)


def of_subnet(geta: GETA, subnet: nn.Module) -> Planned:
    """Return what a subnet kept, of whichever kind it is.

    Raises:
        InputError: not a subnet of this network.
    """
    geta.report(subnet)  # which refuses what is none of ours
    info = getattr(subnet, "geta_info", None)
    assert isinstance(info, SubnetInfo) and info.facts is not None
    alive = np.ones(len(geta.groups), dtype=bool)
    alive[list(info.facts.removed)] = False
    return Planned(alive, info.facts.weight_bits, info.facts.activation_bits)


def live_state_of(geta: GETA, plan: Planned) -> dict[str, list[float | None]]:
    """Return a plan in the form of :func:`geta_nb.widgets.graph_data.live_state`."""
    table = geta.groups.table
    sizes = np.bincount(table.family_of, minlength=len(table.family_names))
    kept = np.bincount(table.family_of, weights=plan.alive, minlength=len(table.family_names)) / np.maximum(sizes, 1)
    return {
        "weight": _bits(geta.bit_widths(), plan.weight_bits),
        "input": _bits(geta.activation_bit_widths(), plan.input_bits),
        "kept": [float(share) for share in kept],
    }


def _bits(layers: Sequence[str] | Mapping[str, Any], known: Mapping[str, float]) -> list[float | None]:
    found = [known.get(layer) for layer in layers]
    return [None if bits is None or not np.isfinite(bits) else round(float(bits), 3) for bits in found]


def compare_state(
    geta: GETA, widths: Widths, *, now: BoolArray | None = None, budget: Budget | None = None, subnet: Planned | None = None
) -> dict[str, Any]:
    """Return what the page shows before and after: channels by vertex, in the order of ``nodes``, and bits by weight quantizer.

    Args:
        geta: the network.
        widths: of it.
        now: groups that live now, bool [G]; None: read from the model.
        budget: what is planned; None: not shown. One that cannot be met is said in ``refused``.
        subnet: what a subnet kept.
    """
    found: dict[str, Any] = {"nodes": widths.nodes, "dense": widths.dense, "now": widths.of(alive_now(geta) if now is None else now)}
    bits: dict[str, Any] = {}
    if budget is not None:
        try:
            plan = under_budget(geta, budget)
        except GetaError as error:
            found["refused"] = str(error).splitlines()[0]
        else:
            found["budget"], bits["budget"] = widths.of(plan.alive), _bits(geta.bit_widths(), plan.weight_bits)
    if subnet is not None:
        found["subnet"], bits["subnet"] = widths.of(subnet.alive), _bits(geta.bit_widths(), subnet.weight_bits)
    return {**found, "bits": bits}
