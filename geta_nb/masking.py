"""Zero groups in place, and read off which are zero. In: parameters and the group table. Out: flags, one a group. Serves the façade."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from geta_nb.errors import ConfigError, InputError, NonFiniteError
from geta_nb.extents import BoolArray
from geta_nb.groups import Group, GroupTable
from geta_nb.quantizers import Quantizer


def group_flags(groups: Iterable[int | Group], n_groups: int, who: str = "mask") -> BoolArray:
    """Return which groups are named, [G].

    Args:
        groups: groups or their indices; negative ones count from the end.
        n_groups: how many there are.
        who: the caller's public name, for the message.

    Raises:
        ConfigError: an index that there is not, or something that is no group.
    """
    if isinstance(groups, (int, np.integer, Group)):
        raise ConfigError(
            f"{who}: one group is not a collection of groups.", expected="groups or their indices", got=repr(groups), hint="[group]"
        )
    if not isinstance(groups, Iterable):
        raise ConfigError(f"{who}: not groups.", expected="groups or their indices", got=repr(groups), hint="geta.groups[:3]")
    flags = np.zeros(n_groups, dtype=bool)
    for group in groups:
        index = group if isinstance(group, (int, np.integer)) else getattr(group, "index", None)
        if not isinstance(index, (int, np.integer)) or isinstance(index, bool):
            raise ConfigError(f"{who}: not a group.", expected="a gt.Group or an index", got=repr(group))
        if not -n_groups <= index < n_groups:
            raise ConfigError(f"{who}: no such group.", expected=f"0 <= index < {n_groups}", got=index)
        flags[index] = True
    return flags


@torch.no_grad()
def mask_groups(table: GroupTable, parameters: Mapping[str, Tensor], chosen: BoolArray) -> None:
    """Zero the producing slices of the chosen groups, [G], in place."""
    padded = np.append(chosen, False)  # index -1 is an index of no group
    for entry in table.axis_maps:
        rows = np.flatnonzero(padded[entry.group_of_index]) if entry.producing else ()
        if len(rows):
            tensor = parameters[entry.parameter]
            tensor.index_fill_(entry.axis, torch.from_numpy(np.asarray(rows)).to(tensor.device), 0)


def alive_groups(table: GroupTable, parameters: Mapping[str, Tensor]) -> BoolArray:
    """Return which groups are not exactly zero, [G].

    Raises:
        InputError: the parameters have no values.
    """
    alive = np.zeros(table.n_groups, dtype=bool)
    for entry in table.axis_maps:
        if not entry.producing:
            continue
        tensor = parameters[entry.parameter].detach()
        if tensor.is_meta:
            raise _no_values(entry.parameter)
        others = [axis for axis in range(tensor.dim()) if axis != entry.axis]
        filled = (tensor != 0).any(dim=others) if others else tensor != 0
        owners = entry.group_of_index[filled.cpu().numpy()]
        alive[owners[owners >= 0]] = True
    return alive


def keep_one(table: GroupTable, alive: BoolArray) -> BoolArray:
    """Keep the first group of a family that is zero as a whole: a layer needs one channel."""
    alive = alive.copy()
    counts = np.bincount(table.family_of, weights=alive, minlength=len(table.family_names))
    firsts = np.unique(table.family_of, return_index=True)[1]
    alive[firsts[counts[table.family_of[firsts]] == 0]] = True
    return alive


def _no_values(name: str) -> InputError:
    return InputError("GETA: the model has no values.", at=name, got="a meta tensor", hint="load the weights first")


def _is_finite(tensor: Tensor) -> bool:
    # one pass without a second tensor: a sum is finite only of finite numbers; one that overflows proves nothing
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())


def check_finite(parameters: Mapping[str, Tensor], quantizers: Mapping[str, Quantizer]) -> None:
    """Check that no weight is NaN or infinite, and that every quantizer has a bit width.

    Raises:
        NonFiniteError: one is; the message names its parameter or layer.
        InputError: the parameters have no values.
    """
    for name, tensor in parameters.items():
        if tensor.is_meta:
            raise _no_values(name)
        if tensor.is_floating_point() and not _is_finite(tensor.detach()):
            raise NonFiniteError("construct_subnet: a weight is not finite.", at=name, expected="finite numbers", got="NaN or infinity")
    for layer, quantizer in quantizers.items():
        if not math.isfinite(float(quantizer.bit_width())):
            raise NonFiniteError(
                "construct_subnet: a quantizer has no bit width.", at=layer, expected="step size and clip value > 0",
                got=f"step_size={float(quantizer.step_size.detach()):.3g}, clip_max={float(quantizer.clip_max.detach()):.3g}",
                hint="train with geta.qasso(...), which keeps them positive",
            )
