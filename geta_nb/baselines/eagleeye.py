"""EagleEye-style sampling: many random choices of how much each layer loses, ranked without training by adaptive batch norm.

    kept share of layer l = min(1, factor u_l),   u_l ~ uniform(least, 1),   one factor for all layers so that the budget is met

Within a layer the filters of least L1 norm go. Of the candidates the one with the best accuracy after *adaptive batch norm* wins: running
mean and variance are measured anew on some training batches, all weights as they are.

The winner is fine-tuned, then rounded to 8 bits by ``minmax``. Source: Li et al. 2020, arXiv:2007.02491. There candidates that miss the
budget are drawn again; here the factor puts each on the budget. Given beyond the paper: the rounding, with ``ranges="error"`` at choice.
"""

from __future__ import annotations

import copy

import numpy as np

from geta_nb.baselines.attach import adapt_norms
from geta_nb.baselines.minmax import post_quantize
from geta_nb.baselines.space import FULL, Bools, Floats, Space, check_met, dead_indices, group_sums
from geta_nb.baselines.task import Result, Task, accuracy, fit, pretrained
from geta_nb.groups import group_flags, mask_groups


def candidate(space: Space, l1: Floats, shares: Floats, relative_bops: float, bits: tuple[dict[str, float], dict[str, float]]) -> Bools:
    """Return living groups, [G], of one random choice.

    Args:
        l1: L1 norm of each group's filters, [G].
        shares: u, [families], > 0: families with larger shares keep more.
        bits: of weights and of inputs.

    The n-th best of N groups stays while n / N <= factor * u. So ordering all groups by (n / N) / u and cutting from the top, until the
    budget is met, is the search for the factor.
    """
    family_of = np.asarray(space.table.family_of)
    order = np.lexsort((-l1, family_of))
    rank = np.empty(len(l1))
    rank[order] = np.arange(len(l1)) - np.searchsorted(family_of[order], family_of[order])
    position = (rank + 1) / np.bincount(family_of)[family_of]
    return space.prune_to(-position / shares[family_of], relative_bops, *bits)


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, bits: int = 8,
    dense_share: float = 0.5, candidates: int = 40, batches: int = 6, least: float = 0.3,
    ranges: str = "extremes",
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, pick the best of ``candidates``, fine-tune it, quantize to ``bits``.

    Args:
        least: u is drawn from least .. 1.
        batches: of 64 training inputs, for adaptive batch norm.
        ranges: of the rounding, see ``minmax``.

    Raises:
        BudgetError: out of reach even with one group left per family.
    """
    space = space or Space(task)
    weight_bits, activation_bits = pair = space.bits(bits, bits if activations else FULL)
    dense_epochs = round(dense_share * task.epochs)
    model = pretrained(task, seed, dense_epochs)
    l1 = group_sums(space.table, {n: p for n, p in model.named_parameters() if p.dim() > 1}, 1, producers=True)
    generator = np.random.default_rng(seed)
    parts = task.calibration.split(64)[:batches]
    scored: list[tuple[float, Bools]] = []
    for _ in range(candidates):
        shares = generator.uniform(least, 1.0, len(space.table.family_names))
        alive = candidate(space, l1, shares, relative_bops, pair)
        twin = copy.deepcopy(model)
        tensors = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
        mask_groups(space.table, tensors, group_flags(dead_indices(alive), len(alive)))
        adapt_norms(twin, parts)
        scored.append((accuracy(twin, *task.check), alive))
    best, alive = max(scored, key=lambda entry: entry[0])
    subnet = space.cut(model, alive)
    fit(task, subnet, task.epochs - dense_epochs, seed=seed)
    post_quantize(subnet, task.calibration, weight_bits, activation_bits, ranges=ranges)
    notes = {"bits": bits, "candidates": candidates, "best_check_accuracy": best, "groups": int(alive.sum())}
    return check_met(space.measure(subnet, alive, weight_bits, activation_bits, notes=notes), relative_bops, "EagleEye")
