"""Means and norms over fewer channels: the cut network divides by what the whole one divides by.

A mean over D channels of which all but k are zero is k / D times the mean over the k. So with r = D / k

    x / sqrt(S / D + eps) * w  =  x / sqrt(S / k + eps * r) * (w * sqrt(r))

and a root-mean-square norm over k channels, of another epsilon and another scale, gives the whole network's values: the same class with
other numbers. Where no such constant and scale are found behind a mean, it is multiplied by k / D in the graph. Beside ``folding``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from geta_nb.graph import module_path, operator_name
from geta_nb.groups import Rescale
from geta_nb.subnet.cut import Cut

_EPSILON_AT = {"rms_norm": 3, "_fused_rms_norm": 3, "layer_norm": 4, "native_layer_norm": 4}
_SAME = frozenset({"to", "_to_copy", "type_as", "view", "reshape", "_unsafe_view", "unsqueeze", "expand", "clone", "contiguous", "alias"})
"""Operators that give the values of their first argument in another form."""
_FAR = 16  # operators between a mean and its scale: a norm has six


@dataclass(frozen=True)
class _Scale:
    """A parameter that a norm multiplies with, as itself or plus a number: (1 + w)."""

    parameter: fx.Node
    offset: float = 0.0


@dataclass(frozen=True)
class _Norm:
    """How one mean can be over fewer channels.

    Attributes:
        rescale: the mean.
        growth: r, by how much the mean over what is left is larger.
        epsilons: (node, position of a number added to it, what it becomes).
        scale: what takes over the rest; None where there is none.
        factor: what the scale is multiplied by.
    """

    rescale: Rescale
    growth: float
    epsilons: tuple[tuple[fx.Node, int, float], ...] = ()
    scale: _Scale | None = None
    factor: float = 1.0


@dataclass
class _Readers:
    """Who wants one scale changed, and how many read it."""

    norms: list[_Norm] = field(default_factory=list)
    count: int = 0

    def agree(self) -> bool:
        """Whether all that reads the parameter wants the same of it."""
        wanted = {(norm.factor, norm.scale.offset) for norm in self.norms if norm.scale is not None}
        return len(wanted) == 1 and self.count == len(self.norms)


def rescale_norms(cut: Cut, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Let means and norms over channels that are cut away divide as before: scales change in place, the rest is noted in ``cut``.

    Args:
        cut: labels, groups and what stays; gets the numbers and factors of the graph's nodes.
        names: get_attr target -> own name.
        tensors: own name -> value of the subnet before it is sliced; scales among them are changed. One that something else reads
            too, or that two norms want differently, stays as it is, and the graph multiplies in its place.
    """
    own = {target: name for target, name in names.items() if name not in cut.state.buffers}
    norms = [_norm(rescale, growth, own) for rescale in cut.state.findings.rescales if (growth := _growth(cut, rescale)) != 1]
    readers: dict[str, _Readers] = {}
    for norm in norms:
        if norm.scale is not None:
            readers.setdefault(names[str(norm.scale.parameter.target)], _Readers()).norms.append(norm)
    for node in cut.state.values if readers else ():
        if node.op == "get_attr" and (reader := readers.get(names.get(str(node.target), ""))) is not None:
            reader.count += len(node.users)
    agreed = {name for name, found in readers.items() if found.agree()}
    for norm in norms:
        taken = norm.scale is not None and names[str(norm.scale.parameter.target)] in agreed
        _note(cut, norm if taken else replace(norm, scale=None))
    with torch.no_grad():
        for name in agreed:
            scale, factor = readers[name].norms[0].scale, readers[name].norms[0].factor
            assert scale is not None
            tensors[name].add_(scale.offset).mul_(factor).sub_(scale.offset)
            cut.scales[name] = factor, scale.offset


def in_float64(graph: nn.Module, cut: Cut, own: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a cut graph in float64, its scales too: not those that were rounded to the network's type.

    Args:
        graph: what was cut.
        cut: which scales changed, and how.
        own: own name -> parameter of the network.
    """
    wide = copy.deepcopy(graph).double()
    with torch.no_grad():
        for name, (factor, offset) in cut.scales.items():
            wide.get_parameter(name).copy_(cut.slice(name, (own[name].detach().double() + offset) * factor - offset))
    return wide


def _growth(cut: Cut, rescale: Rescale) -> float:
    """How many channels there were for each that is left."""
    kept = [cut.table.kept(labels, cut.alive) for labels in rescale.arrays]
    left = prod(int(flags.sum()) for flags in kept)
    return prod(len(flags) for flags in kept) / left if left else 1.0


def _note(cut: Cut, norm: _Norm) -> None:
    """Write down what the graph's nodes become."""
    node = norm.rescale.node
    if norm.scale is None:
        if operator_name(node) not in _EPSILON_AT:
            cut.factors[node] = 1 / norm.growth
            return
        cut.factors[node] = norm.factor
    for owner, position, number in norm.epsilons:
        cut.numbers.setdefault(owner, {})[position] = number
        old = owner.args[position] if position < len(owner.args) else None
        cut.note(module_path(owner), old if isinstance(old, (int, float)) else None, number)


def _norm(rescale: Rescale, growth: float, names: Mapping[str, str]) -> _Norm:
    node = rescale.node
    if operator_name(node) not in _EPSILON_AT:
        return _behind_a_mean(rescale, growth, names)
    position = _EPSILON_AT[operator_name(node)]
    given: Any = node.args[position] if len(node.args) > position else node.kwargs.get("eps")
    epsilon = _default_epsilon(node) if given is None else float(given)
    weight: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("weight")
    scale = _scale(weight, names)
    return _Norm(rescale, growth, ((node, position, epsilon * growth),), scale, growth**0.5)


def _default_epsilon(node: fx.Node) -> float:
    """What a norm adds that was given nothing: 1e-5 in a layer norm, the resolution of the numbers it computes with in the other."""
    if "rms" not in operator_name(node):
        return 1e-5
    first: Any = node.args[0]
    return torch.finfo(first.meta["val"].dtype).eps


def _behind_a_mean(rescale: Rescale, growth: float, names: Mapping[str, str]) -> _Norm:
    """Follow a mean to what it is multiplied with: of degree ``power`` in it all the way, numbers added to it grow with it.

    y = f(m) is of degree p when f(m / r) = f(m) / r**p; a number added to it becomes r**p times as large, and what is left in the end is
    made up for by a scale times r**-p.
    """
    alone = _Norm(rescale, growth)
    node, power = rescale.node, 1.0
    epsilons: list[tuple[fx.Node, int, float]] = []
    for _ in range(_FAR):
        if len(node.users) != 1:
            return alone
        (user,) = node.users
        name = operator_name(user)
        scale = _scale_of_product(user, node, names) if name == "mul" else None
        if scale is not None:
            return _Norm(rescale, growth, tuple(epsilons), scale, growth**-power)
        if (position := _added_number(user, node)) is not None:
            epsilons.append((user, position, float(user.args[position]) * growth**power))  # type: ignore[arg-type]
        elif (change := _degree(user, node)) is not None:
            power *= change
        else:
            return alone
        node = user
    return alone


def _added_number(user: fx.Node, node: fx.Node) -> int | None:
    """Return which argument is a positive number that is added to a node, or that it is held above; None where none is."""
    name = operator_name(user)
    if user.args[0] is not node or user.kwargs:
        return None
    plain = {"add": 2, "clamp_min": 2, "clamp": 3}.get(name, 0)
    number = user.args[1] if 1 < len(user.args) <= plain else None
    upper = user.args[2] if name == "clamp" and len(user.args) > 2 else None
    return 1 if isinstance(number, (int, float)) and number > 0 and upper is None else None


def _degree(user: fx.Node, node: fx.Node) -> float | None:
    """Return by what an operator multiplies the degree in a node; None where it has none."""
    name, first = operator_name(user), user.args[0] is node
    powers = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
    if name in powers:
        return powers[name]
    if name == "pow" and first and isinstance(user.args[1], (int, float)):
        return float(user.args[1])
    if (name in _SAME and first) or (name == "mul" and user.args[0] is not user.args[1]):
        return 1.0
    if name == "div" and not user.kwargs and user.args[0] is not user.args[1]:
        return 1.0 if first else -1.0
    return None


def _scale_of_product(product: fx.Node, node: fx.Node, names: Mapping[str, str]) -> _Scale | None:
    others = [item for item in product.args if item is not node]
    return _scale(others[0], names) if len(others) == 1 else None


def _scale(value: Any, names: Mapping[str, str]) -> _Scale | None:
    """Return the parameter that a value is, or is plus a number; it and all on the way are read once."""
    offset = 0.0
    for _ in range(_FAR):
        if not isinstance(value, fx.Node):
            return None
        if value.op == "get_attr":
            is_parameter = isinstance(value.meta.get("val"), Tensor) and str(value.target) in names
            return _Scale(value, offset) if is_parameter else None
        if len(value.users) != 1 or value.op != "call_function":
            return None
        name, numbers = operator_name(value), [item for item in value.args if isinstance(item, (int, float))]
        if name == "add" and not offset and len(value.args) == 2 and len(numbers) == 1 and not value.kwargs:
            offset = float(numbers[0])
            value = next(item for item in value.args if isinstance(item, fx.Node))
        elif name in _SAME:
            value = value.args[0]
        else:
            return None
    return None
