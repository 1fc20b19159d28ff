"""Zero groups in place, and read off which are zero. In: parameters and the group table. Out: flags, one a group. Serves the façade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from geta_nb.errors import ConfigError, InputError
from geta_nb.groups.extents import BoolArray
from geta_nb.groups.table import Group, GroupTable
from geta_nb.sharding import local, shards_of, share_of


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
def mask_groups(table: GroupTable, tensors: Mapping[str, Tensor], chosen: BoolArray) -> None:
    """Zero the producing slices of the chosen groups, [G], in place; ``tensors``: parameters and buffers by name."""
    padded = np.append(chosen, False)  # index -1 is an index of no group
    for entry in table.axis_maps:
        if not (entry.producing or entry.zeroed):
            continue
        tensor = tensors[entry.parameter]
        share = share_of(tensor)
        owners = entry.group_of_index if share is None else share.rows(entry.axis, entry.group_of_index)
        rows = np.flatnonzero(padded[owners])
        if len(rows):
            local(tensor).index_fill_(entry.axis, torch.from_numpy(np.asarray(rows)).to(tensor.device), 0)


def alive_groups(table: GroupTable, tensors: Mapping[str, Tensor]) -> BoolArray:
    """Return which groups are not exactly zero, [G]; ``tensors``: parameters and buffers by name.

    All ranks must ask where they are sharded.

    Raises:
        InputError: the parameters have no values.
    """
    alive = np.zeros(table.n_groups, dtype=bool)
    for entry in table.axis_maps:
        if not (entry.producing or entry.zeroed):
            continue
        tensor = tensors[entry.parameter].detach()
        if tensor.is_meta:
            raise no_values(entry.parameter)
        share, here = share_of(tensor), local(tensor)
        others = [axis for axis in range(here.dim()) if axis != entry.axis]
        filled = (here != 0).any(dim=others) if others else here != 0
        owners = entry.group_of_index if share is None else share.rows(entry.axis, entry.group_of_index)
        owners = owners[filled.cpu().numpy()]
        alive[owners[owners >= 0]] = True
    shards = shards_of(tensors.values())
    return alive if shards is None else shards.largest(torch.from_numpy(alive).float()).numpy() > 0


def keep_one(table: GroupTable, alive: BoolArray) -> BoolArray:
    """Keep the first group of a family that is zero as a whole: a layer needs one channel."""
    alive = alive.copy()
    counts = np.bincount(table.family_of, weights=alive, minlength=len(table.family_names))
    firsts = np.unique(table.family_of, return_index=True)[1]
    alive[firsts[counts[table.family_of[firsts]] == 0]] = True
    return alive


def no_values(name: str) -> InputError:
    """Return the error for a parameter on the meta device."""
    return InputError("GETA: the model has no values.", at=name, got="a meta tensor", hint="load the weights first")
