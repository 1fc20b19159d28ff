"""The user's own numbers, or words, for the vertices of a graph: a colour and a label each.

In: a mapping by path, a ``Sensitivity``, or the name of what is read from the model now. Out: columns for the page, by vertex. No widget.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import nn

from geta_nb.display.wording import clean
from geta_nb.errors import ConfigError, RunStateError
from geta_nb.geta import GETA
from geta_nb.latency import LatencyTable
from geta_nb.quantizers import own_tensors, parameter_tensors
from geta_nb.sensitivity import Sensitivity
from geta_nb.widgets.module_times import module_times

Values = Mapping[str, Any]
_NOT_FINITE = "NaN or infinite"


class Paths:
    """What may be named in a graph, and the folded vertices that each name stands for.

    Args:
        data: what :func:`geta_nb.widgets.graph_data.graph_data` returned.
        model: the network itself, whose modules and tensors may be named though they run nothing in the graph.
    """

    def __init__(self, data: Mapping[str, Any], model: nn.Module) -> None:
        self._listed = {clean(raw): clean(own) for raw, own in own_tensors(model).plain.items()}
        every = (model.named_modules(remove_duplicate=False), model.named_parameters(remove_duplicate=False), model.named_buffers())
        self.silent = {clean(name) for names in every for name, _ in names}
        nodes, members = data["nodes"], data["layers"]["QADG"]["nodes"]
        paths = data["modules"]["path"]
        self.names: dict[str, int] = {nodes["name"][i]: i for i in members}
        self.of_module: dict[str, list[int]] = {path: [] for path in paths}
        for i in members:
            for path in _upwards(paths[nodes["module"][i]]):
                self.of_module[path].append(i)
        tensors = data["tensors"]
        self.of_tensor: dict[str, list[int]] = {}
        for i, facts in data["vertices"].items():
            for tensor in facts.get("t", ()):
                self.of_tensor.setdefault(tensors[tensor][0], []).append(int(i))
        for names, found in zip(data["quantizers"].values(), ("w", "a"), strict=True):
            for i, facts in data["vertices"].items():
                if found in facts:
                    self.of_tensor.setdefault(names[facts[found]], []).append(int(i))

    def find(self, path: str) -> tuple[int, list[int]] | None:
        """Return how special a name is, and the vertices it stands for; None where there is none."""
        path = self._listed.get(path, path)  # as torch lists a quantized weight
        if path in self.names:
            return 10_000, [self.names[path]]
        if self.of_module.get(path):  # what a module runs
            return path.count(".") + bool(path), self.of_module[path]
        if path in self.of_tensor:  # a parameter, or a layer as its quantizer is called
            return 5_000, self.of_tensor[path]
        return None

    def near(self, path: str) -> str:
        """Return what may have been meant, in words."""
        modules = [name for name, run in self.of_module.items() if run]
        known = [name for name in dict.fromkeys([*modules, *self.of_tensor, *self.names]) if name]
        tail = [name for name in known if name.endswith(f".{path}")][:3]
        found = tail or get_close_matches(path, known, n=3, cutoff=0.5)
        return f"did you mean {' or '.join(map(repr, found))}?" if found else f"one of {', '.join(map(repr, known[:4]))} ..."


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def overlay_of(paths: Paths, values: Values, name: str, *, unit: str = "") -> dict[str, Any]:
    """Return an overlay: ``name``, ``kind`` ("numbers" or "texts"), ``nodes`` and ``values`` as columns, ``unit``, and which are ``odd``.

    A value of a module is that of all it runs; one of a module inside, a parameter or a vertex is nearer and wins. A module or tensor of
    the model that runs nothing, such as a dropout, is counted in ``silent``. A number that is not finite has the value None, and stands
    in ``odd`` as "NaN", "inf" or "-inf" at its place.

    Raises:
        ConfigError: no values, or none that is drawn; a path that there is not, a value that is neither number nor text, or both kinds.
    """
    if not values:
        raise ConfigError("Explorer.overlay: there are no values.", expected="{path: number or text}", got="an empty mapping")
    plain = {path: _plain(path, value) for path, value in values.items()}
    kinds = {isinstance(value, str) for value in plain.values()}
    if len(kinds) > 1:
        raise ConfigError("Explorer.overlay: numbers and texts in one overlay.", at=name, expected="all numbers, or all texts")
    found = [(paths.find(clean(path)), path) for path in plain]
    unknown = [str(path) for place, path in found if place is None and clean(path) not in paths.silent]
    if unknown:
        some = ", ".join(map(repr, unknown[:3])) + (" ..." if len(unknown) > 3 else "")
        raise ConfigError(
            "Explorer.overlay: no such module, vertex or parameter.", at=some, expected="paths of this network",
            got=f"{len(unknown)} of {len(plain)} unknown", hint=paths.near(unknown[0]),
        )
    at: dict[int, Any] = {}
    for place, path in sorted(((place, path) for place, path in found if place is not None), key=lambda one: one[0][0]):
        at.update(dict.fromkeys(place[1], plain[path]))
    if not at:
        first = next(iter(plain))
        raise ConfigError("Explorer.overlay: none of these runs anything in this network.", at=first, hint=paths.near(first))
    nodes = sorted(at)
    column = [at[node] for node in nodes]
    strange = [(i, value) for i, value in enumerate(column) if isinstance(value, float) and not math.isfinite(value)]
    odd = {str(i): str(value).replace("nan", "NaN") for i, value in strange}
    return {
        "name": name, "kind": "texts" if kinds == {True} else "numbers", "unit": unit, "nodes": nodes,
        "values": [None if str(i) in odd else value for i, value in enumerate(column)], "odd": odd,
        "silent": sum(place is None for place, _ in found),
    }  # fmt: skip


def _plain(path: object, value: Any) -> float | str:
    """A number or a text; a tensor or an array of one element is its number."""
    if not isinstance(path, str):
        raise ConfigError("Explorer.overlay: not a path.", expected="a dotted path", got=repr(path))
    if isinstance(value, (str, bool)):
        return clean(value)
    if isinstance(value, numbers.Real):
        return float(value)
    many = value.numel() if isinstance(value, torch.Tensor) else value.size if isinstance(value, np.ndarray) else 0
    if many == 1:
        return float(value.item())
    raise ConfigError("Explorer.overlay: neither a number nor a text.", at=path, expected="a number or a text", got=type(value).__name__)


def words_about(overlay: Mapping[str, Any]) -> str:
    """Return what is to be said of an overlay: values that are not finite, and what is not drawn; "" where there is nothing."""
    odd, silent = len(overlay["odd"]), overlay["silent"]
    words = [f"{odd} of {len(overlay['nodes'])} vertices are {_NOT_FINITE}, and have a colour of their own"] if odd else []
    words += [f"{silent} of the paths run nothing in this graph"] if silent else []
    return f"{overlay['name']}: {'; '.join(words)}" if words else ""


def ready_made(geta: GETA, what: object, name: str | None) -> list[tuple[str, dict[str, Any], str]] | None:
    """Return (name, values, unit) of each overlay that an object, or a known name, stands for; None where it is none of these.

    Raises:
        ConfigError: a name that is not known, or a table without layers.
        RunStateError: no parameter has a gradient.
    """
    if isinstance(what, Sensitivity):
        return list(_of_sensitivity(geta, what, name or "sensitivity"))
    if isinstance(what, LatencyTable):
        raise ConfigError(
            "Explorer.overlay: this table times the whole network.", expected="times of layers", got="rows by backend and batch size",
            hint='explorer.overlay("latency"), which times each module in torch',
        )
    if not isinstance(what, str):
        return None
    makers: dict[str, Callable[[GETA], tuple[dict[str, float], str]]] = {"gradient norms": gradient_norms, "latency": module_times}
    if what not in makers:
        near = get_close_matches(what, list(makers), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "explorer.overlay({path: value}, name=...)"
        known = ", ".join(map(repr, makers))
        raise ConfigError("Explorer.overlay: no overlay of this name can be made.", expected=known, got=repr(what), hint=hint)
    values, unit = makers[what](geta)
    return [(name or what, values, unit)]


def gradient_norms(geta: GETA) -> tuple[dict[str, float], str]:
    """Return the norm of what every parameter's ``.grad`` is now, over all parameters of its module; one transfer from the device.

    Raises:
        RunStateError: there is no gradient.
    """
    tensors = {name: p.grad for name, p in parameter_tensors(geta.model).items() if p.grad is not None}
    if not tensors:
        raise RunStateError(
            "Explorer.overlay: no parameter has a gradient.", expected="the state after a backward pass", got="p.grad is None everywhere",
            hint="loss.backward() first, and look before optimizer.zero_grad()",
        )
    owners: dict[str, list[torch.Tensor]] = {}
    for name, gradient in tensors.items():
        owners.setdefault(name.rpartition(".")[0], []).append(gradient.detach().float().square().sum())
    device = next(iter(owners.values()))[0].device
    norms = torch.stack([torch.stack([part.to(device) for part in parts]).sum().sqrt() for parts in owners.values()])
    return dict(zip(owners, norms.tolist(), strict=True)), ""


def _of_sensitivity(geta: GETA, found: Sensitivity, name: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The rise of the loss at the fewest bits that were asked, and at the smallest share of each family."""
    known = {*(geta.quantizers.weights if geta.quantizers else ()), *geta.groups.table.family_names}
    strangers = [layer for layer in (*found.by_layer, *found.by_family) if layer not in known]
    if strangers:
        raise ConfigError("Explorer.overlay: a sensitivity of another network.", at=strangers[0], expected="one of this geta")
    kinds: tuple[tuple[Mapping[str, Mapping[float, float]], str, Callable[[Sequence[float]], str]], ...] = (
        (found.by_layer, "layer", _at_bits), (found.by_family, "family", _at_share),
    )  # fmt: skip
    for rises, kind, words in kinds:
        least = {layer: min(sizes) for layer, sizes in rises.items()}
        if least:
            values = {layer: rises[layer][size] for layer, size in least.items()}
            yield f"{name}: {words(list(least.values()))}", values if kind == "layer" else _of_producers(geta, values), ""


def _at_bits(least: Sequence[float]) -> str:
    return f"weights at {_range(least)} bits"


def _at_share(least: Sequence[float]) -> str:
    return f"groups at {_range([round(100 * share) for share in least])} %"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _of_producers(geta: GETA, values: Mapping[str, float]) -> dict[str, float]:
    """A family's value at every parameter that makes it; of several families in one parameter, the largest."""
    table = geta.groups.table
    found: dict[str, float] = {}
    for entry in table.axis_maps:
        if entry.producing and not entry.zeroed:
            for family in set(table.family_of[entry.group_of_index[entry.group_of_index >= 0]].tolist()):
                value = values.get(table.family_names[family])
                if value is not None:
                    found[entry.parameter] = max(value, found.get(entry.parameter, value))
    return found
