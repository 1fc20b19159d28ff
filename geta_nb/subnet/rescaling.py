"""Norms over fewer channels: the scale behind a root mean square makes up for the channels that it no longer counts.

A mean square over D channels of which D - n are zero is n / D times that over the other n; a scale times sqrt(D / n) gives the masked
network's values back, up to the norm's epsilon and, for a layer norm, as far as the channels' mean is zero. Beside ``folding``, for
groups of ``approximate_norms`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph import operator_name
from geta_nb.groups import Rescale
from geta_nb.subnet.cut import Cut

_ROOTS = frozenset({"rsqrt", "sqrt"})
_ON_THE_WAY = frozenset({"add", "clamp", "clamp_min", "reciprocal", "mul", "div", "to", "_to_copy", "type_as", "view", *_ROOTS})
_FAR = 10  # operators between the mean and the scale: a norm has five


def rescale_norms(cut: Cut, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Multiply, in place, the scales of norms that run over channels that are cut away.

    Args:
        cut: labels, groups and what stays.
        names: get_attr target -> own name.
        tensors: own name -> value of the subnet before it is sliced; scales among them are changed. One that something else reads
            too, or that two norms want differently, stays as it is.
    """
    factors: dict[str, list[float]] = {}
    scales: dict[str, set[fx.Node]] = {}
    for rescale in cut.state.findings.rescales:
        kept = cut.table.kept(rescale.labels, cut.alive)
        scale = _scale_behind(rescale, cut)
        if scale is not None and 0 < kept.sum() < len(kept):
            name = names[str(scale.target)]
            factors.setdefault(name, []).append(sqrt(len(kept) / int(kept.sum())))
            scales.setdefault(name, set()).add(scale)
    with torch.no_grad():
        for name, wanted in factors.items():
            readers = sum(len(node.users) for node in scales[name])
            if len(set(wanted)) == 1 and readers == len(wanted):
                tensors[name].mul_(wanted[0])


def _scale_behind(rescale: Rescale, cut: Cut) -> fx.Node | None:
    """The parameter that a norm multiplies with in the end."""
    node = rescale.node
    if operator_name(node) != "mean":
        weight: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("weight")
        return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None
    if not _is_square(node.args[0]):
        return None
    roots = 0
    for _ in range(_FAR):
        if len(node.users) != 1:
            return None
        (user,) = node.users
        if operator_name(user) not in _ON_THE_WAY:
            return None
        roots += operator_name(user) in _ROOTS
        others = [item for item in user.all_input_nodes if item is not node]
        if operator_name(user) == "mul" and others and others[0].op == "get_attr":
            labels = cut.state.values.get(others[0])
            over = {array.labels.size for array in labels.arrays} if labels is not None else set()
            return others[0] if roots == 1 and over == {len(rescale.labels)} else None
        node = user
    return None


def _is_square(value: Any) -> bool:
    if not isinstance(value, fx.Node):
        return False
    name, (first, *rest) = operator_name(value), value.args
    return name == "square" or (name == "pow" and rest == [2]) or (name == "mul" and rest[0] is first)
