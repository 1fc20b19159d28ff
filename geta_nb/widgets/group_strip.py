"""The groups of a family in the order in which they would go: one byte a cell, whatever their number.

In: a ``GETA``. Out: plain JSON-able values. What orders them is the optimizer's saliency; before it has one, the norm of each group, and
the strip says which. Read without gradients; a training step in another thread goes on meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geta_nb.geta import GETA
from geta_nb.groups import GroupTable
from geta_nb.quantizers import tensors_of_groups
from geta_nb.widgets.weight_histogram import packed

CELLS = 256
"""Cells of a strip; of more groups, each cell stands for several."""
NORMS = "norm"
NO_OPTIMIZER = "no optimizer yet, so no saliency: the norm of each group"
NO_GRADIENT = "the optimizer has no saliency of this family yet: the norm of each group"
DIFFERS = "the optimizer was made for another model: the norm of each group"
SALIENCY = "the optimizer's saliency, the mean of the family is 1"
PAPER = "the optimizer's saliency"


class Scores(NamedTuple):
    """What orders the groups: scores [G], what says so, bool [G] those that fade."""

    values: NDArray[np.float64]
    words: NDArray[Any]
    fading: NDArray[np.bool_]


@torch.no_grad()
def norms_and_alive(geta: GETA, family: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the norm over the producing slices of each group, [G], and whether it is not exactly zero; of one family, or of all.

    Waits for the device once.
    """
    table, tensors = geta.groups.table, tensors_of_groups(geta.model)
    found: list[tuple[Any, torch.Tensor]] = []
    seen: set[tuple[int, int, bytes]] = set()
    for entry in table.axis_maps:
        tensor, inside = tensors[entry.parameter], _of_family(table, entry.group_of_index, family)
        key = (id(tensor), entry.axis, entry.group_of_index.tobytes())
        if (entry.producing or entry.zeroed) and inside.any() and key not in seen:
            seen.add(key)
            found.append((entry, _figures(tensor.detach(), entry.axis)))
    squares, alive = np.zeros(table.n_groups), np.zeros(table.n_groups, dtype=bool)
    sizes = [part.shape[1] for _, part in found]
    flat = torch.cat([part.to(found[0][1].device) for _, part in found], dim=1).cpu().double().numpy() if found else np.zeros((2, 0))
    for (entry, _), part in zip(found, np.split(flat, np.cumsum(sizes)[:-1], axis=1), strict=False):
        inside = _of_family(table, entry.group_of_index, family)
        owners = entry.group_of_index[inside]
        np.logical_or.at(alive, owners, part[1, inside] > 0)
        if entry.producing:
            np.add.at(squares, owners, part[0, inside] ** 2)
    return np.sqrt(squares), alive


def _figures(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Norm of the slice at each index of an axis, and 1 where it holds something, [2, axis size]; no copy of the tensor is made."""
    others = [other for other in range(tensor.dim()) if other != axis]
    wide = torch.promote_types(tensor.dtype, torch.float32)
    norms = torch.linalg.vector_norm(tensor, dim=others, dtype=wide) if others else tensor.to(wide).abs()
    filled = (tensor != 0).any(dim=others) if others else tensor != 0
    return torch.stack([norms, filled.to(wide)]).float()


def _of_family(table: GroupTable, owners: NDArray[Any], family: int | None) -> NDArray[np.bool_]:
    """Which indices belong to a group of this family, or of any."""
    return np.asarray(owners >= 0 if family is None else np.append(table.family_of, -1)[owners] == family)


@torch.no_grad()
def find_scores(geta: GETA, norms: NDArray[np.float64]) -> Scores:
    """Return what orders the groups now: the saliency where the optimizer has one, else the norms."""
    table, optimizer = geta.groups.table, geta._optimizer
    n, none = len(table.family_names), np.zeros(len(norms), dtype=bool)
    if optimizer is None:
        return Scores(norms, np.full(n, NO_OPTIMIZER, dtype=object), none)
    pruner = optimizer.pruner
    if len(pruner.alive) != len(norms):
        return Scores(norms, np.full(n, DIFFERS, dtype=object), none)
    paper = optimizer.rules.saliency == "paper"
    if paper:  # its scores are made of the present gradients
        moved = np.full(n, any(tensor.grad is not None for tensor in pruner.members.tensors))
    else:
        moved = np.bincount(table.family_of, weights=pruner.average.abs().cpu().numpy() > 0, minlength=n) > 0
    if not moved.any():
        return Scores(norms, np.full(n, NO_GRADIENT, dtype=object), none)
    found = optimizer.saliency()
    values = np.where(moved[table.family_of], np.abs(found["scores"]), norms)
    return Scores(values, np.where(moved, PAPER if paper else SALIENCY, NO_GRADIENT).astype(object), found["fading"])


def strip(geta: GETA, family: int, scores: Scores, alive: NDArray[np.bool_]) -> dict[str, Any]:
    """Return one family's groups, the first to go first: those that are zero, then by score.

    Keys: ``n``, ``zero`` and ``fade`` (groups: all, those that are zero, those that fade); ``words`` (what orders them); ``low`` and
    ``high`` (scores); ``levels`` (one byte a cell: score over ``high``, as ``weight_histogram.packed``), ``kept`` and ``fading`` (shares of
    a cell's groups, packed alike); ``order`` (positions within the family, where each cell is one group).
    """
    members = np.flatnonzero(geta.groups.table.family_of == family)
    values = np.nan_to_num(scores.values[members].astype(np.float64), posinf=0.0, neginf=0.0)
    order = np.lexsort((np.arange(len(members)), values, alive[members]))
    values, kept, fading = values[order], alive[members][order], scores.fading[members][order]
    cells = min(len(order), CELLS)
    bounds = np.linspace(0, len(order), cells + 1).astype(int)
    high = float(values.max(initial=0.0))
    found: dict[str, Any] = {
        "n": len(order), "zero": int((~kept).sum()), "words": str(scores.words[family]),
        "low": float(f"{values.min(initial=high):.4g}"), "high": float(f"{high:.4g}"),
        "levels": packed(_means(values, bounds) / (high or 1.0)), "kept": packed(_means(kept, bounds)),
    }  # fmt: skip
    if fading.any():
        found |= {"fading": packed(_means(fading, bounds)), "fade": int(fading.sum())}
    return found | ({"order": order.tolist()} if cells == len(order) else {})


def _means(values: NDArray[Any], bounds: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.add.reduceat(values.astype(np.float64), bounds[:-1]) / np.diff(bounds))
