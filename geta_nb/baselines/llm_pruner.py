"""LLM-Pruner's cut: coupled structures by first-order importance, the same share of every block, in one shot; fine-tuning follows.

    I(g) = sum over the slices of group g, producers and consumers, of sum |w dL/dw|

with the gradient of the loss on a few calibration rows: the first-order element-wise importance of Ma et al. 2023, arXiv:2305.11627
(LLM-Pruner), without its term of second order, added up over a group. Their groups of one head and of one MLP neuron are this
package's groups. As in the paper's block-wise strategy the residual stream stays whole, and every family of heads or neurons loses the
same share, its least important groups first. Departures: the paper spares the first and the last blocks, which the sizes asked for
here do not allow; it recovers by low-rank adapters, where the caller trains all weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geta_nb.baselines.language import Loss, remove_until
from geta_nb.baselines.space import Floats, group_sums
from geta_nb.geta import GETA

CALIBRATION_ROWS = 32


def importance(table: Any, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Floats:
    """Return I of every group, [G]."""
    return group_sums(table, {name: parameters[name] * gradient for name, gradient in gradients.items()}, 1)


def gradients_of(model: nn.Module, rows: Tensor, loss: Loss, *, batch: int = 8) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over rows by parameter name; the model's own gradients are left empty."""
    model.zero_grad(set_to_none=True)
    for part in rows.split(batch):
        (loss(model, part) * (len(part) / len(rows))).backward()
    found = {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def block_order(scores: Floats, family_of: NDArray[np.int64], kept: set[int]) -> NDArray[np.int64]:
    """Return groups in the order in which they go: each family's least important first, all families at the same share.

    Args:
        scores: importance, [G].
        family_of: family of each group, [G].
        kept: families that stay whole; of every other one the most important group stays.

    >>> block_order(np.array([3.0, 1.0, 2.0, 9.0, 8.0]), np.array([0, 0, 0, 1, 1]), set()).tolist()
    [1, 4, 2]
    """
    share = np.full(len(scores), np.inf)
    for family in sorted(set(family_of.tolist()) - kept):
        members = np.flatnonzero(family_of == family)
        ranked = members[np.argsort(scores[members], kind="stable")][:-1]
        share[ranked] = np.arange(1, len(ranked) + 1) / len(members)
    order = np.argsort(share, kind="stable").astype(np.int64)
    return order[: int(np.isfinite(share).sum())]


def residual_families(table: Any) -> set[int]:
    """Return families of the residual stream: those that run through an embedding or an output, told by reaching over several blocks.

    A group of one block touches the tensors of that block alone; one of the stream touches those of every block.
    """
    family_of = np.asarray(table.family_of)
    touched: dict[int, set[str]] = {}
    for entry in table.axis_maps:
        for group in {int(g) for g in entry.group_of_index if g >= 0}:
            touched.setdefault(int(family_of[group]), set()).add(entry.parameter)
    usual = float(np.median([len(names) for names in touched.values()]))
    return {family for family, names in touched.items() if len(names) > 2 * usual}


def cut(model: nn.Module, rows: Tensor, loss: Loss, *, parameters: int) -> nn.Module:
    """Return the network without the least important heads and neurons, all gone at once.

    Args:
        model: the trained network.
        rows: calibration rows of tokens, [N, length]; the first :data:`CALIBRATION_ROWS` are read.
        loss: (model, rows) -> mean loss.
        parameters: at most so many stay.

    Raises:
        BudgetError: out of reach with one head and one neuron left per block.
    """
    twin = copy.deepcopy(model).eval()
    geta = GETA(twin, rows[:1], quantize=None)
    table = geta.groups.table
    scores = importance(table, dict(twin.named_parameters()), gradients_of(twin, rows[:CALIBRATION_ROWS], loss))
    with torch.no_grad():
        return remove_until(geta, block_order(scores, np.asarray(table.family_of), residual_families(table)), parameters)
