"""Find the matrices of a network: what could carry a weight quantizer, where, under which layer name, and what speaks against it.

In: a module, quantized already or not. Out: the places of every Parameter with two axes or more, and of every such weight that others
compute. First step of ``prepare``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from geta_nb.errors import ConfigError
from geta_nb.quantizers.foreign import computed_matrices, weight_value
from geta_nb.quantizers.parametrized import copies_itself, is_foreign, original_modules, own_parameters

ITERATED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers whose children are called or listed in turn: a quantizer among them would be taken for a layer."""


class Site(NamedTuple):
    """One place where a weight stands; ``new``: this call put the quantizer there."""

    path: str
    module: nn.Module
    name: str
    new: bool = False

    @property
    def computed(self) -> bool:
        """Whether others compute it."""
        return is_foreign(self.module, self.name)

    @property
    def parameter(self) -> str:
        """The parameter's original dotted name."""
        return f"{self.path}.{self.name}" if self.path else self.name


def _is_matrix(parameter: nn.Parameter) -> bool:
    return not is_lazy(parameter) and parameter.is_floating_point() and parameter.ndim >= 2 and parameter.numel() > 0


def find_matrices(model: nn.Module) -> list[list[Site]]:
    """Return the places of each Parameter with at least two axes: tied names lie in one list, the first name first.

    So do those of each matrix that others compute: one module under several paths.
    """
    found: dict[tuple[int, str], list[Site]] = {}
    for path, module in original_modules(model):
        for name, parameter in _plain(module).items():
            if _is_matrix(parameter):
                found.setdefault((id(parameter), ""), []).append(Site(path, module, name))
        for name in computed_matrices(module):
            found.setdefault((id(module), name), []).append(Site(path, module, name))
    return list(found.values())


def _plain(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in own_parameters(module).items() if not is_foreign(module, name)}


def layer_name(site: Site) -> str:
    """Return the module's path when ``weight`` is its only matrix, else (and for a root that is a layer) the parameter's."""
    own = [name for name, parameter in _plain(site.module).items() if _is_matrix(parameter)]
    return site.path if site.path and [*own, *computed_matrices(site.module)] == ["weight"] else site.parameter


def channel_axis(sites: list[Site], axes: Mapping[str, int | None] | None = None) -> int | None:
    """Return the axis of the output channels of a parameter; None where one range has to do.

    That is a table, of which rows are read one by one, and a matrix of one channel or of one element a channel, which a step each would
    not make smaller.

    Args:
        sites: the places where it stands.
        axes: what a graph knows, own name -> axis or None; else the class of the module tells.
    """
    if any(isinstance(site.module, nn.Embedding | nn.EmbeddingBag) for site in sites):
        return None
    known = [axes[site.parameter] for site in sites if axes is not None and site.parameter in axes]
    if None in known:
        return None
    # where two operators differ, the first axis serves one of them
    axis = min((at for at in known if at is not None), default=_axis_by_class(sites[0].module))
    shape = weight_value(sites[0].module, sites[0].name).shape
    return None if axis is None or shape[axis] in (1, shape.numel()) else axis


def _axis_by_class(module: nn.Module) -> int | None:
    turned = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    if turned and getattr(module, "groups", 1) != 1:
        return None  # an output channel is a place on axis 1 and a group on axis 0
    return int(turned or type(module).__name__ == "Conv1D")


def held_aside(model: nn.Module) -> set[int]:
    """Return the ids of tensors that modules also keep in plain attributes, and so read past a parametrization (nn.LSTM does)."""
    held: set[int] = set()
    for module in model.modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_buffers", "_modules"):
                items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
                held |= {id(item) for item in items if isinstance(item, Tensor)}
    return held


def unfit(site: Site, held: set[int]) -> str | None:
    """Return why a parametrization of this parameter would break the module or have no effect, or None."""
    if isinstance(site.module, ITERATED):
        return f"owned by a {type(site.module).__name__}, which runs or lists its children"
    if isinstance(site.module, torch.jit.ScriptModule):
        return "owned by a compiled ScriptModule"
    if site.computed:
        return "computed, in a module that copies itself in a way of its own" if copies_itself(site.module) else None
    if id(own_parameters(site.module)[site.name]) in held:
        return "also kept in a plain attribute, from where the module reads it"
    return None


def check_skip(patterns: tuple[str, ...], known: set[str]) -> None:
    """Raise :class:`ConfigError` for a pattern that matches none of the ``known`` paths: it would be dropped silently."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            near = get_close_matches(pattern, sorted(known), n=1, cutoff=0.0)
            raise ConfigError(
                "QuantConfig: a skip pattern matches no layer, parameter or module.",
                expected="whole dotted paths, * for any part",
                got=repr(pattern),
                hint=f'skip=("{near[0]}",)' if near else None,
            )


def paths_around(sites: list[Site]) -> set[str]:
    """Return what a skip pattern may name: each parameter, its module, and every module around it."""
    steps = [site.parameter.split(".") for site in sites]
    return {".".join(parts[:end]) for parts in steps for end in range(1, len(parts) + 1)}
