"""What gate-learning baselines share: a factor on every group's output, pressure towards a budget, and hard choices at the end.

In: a network, its groups, learned gates. Out: the network with factors on its channels, later folded into its weights. A gate acts on what
the group's layer gives out after its norm, so that 0 means absent, as for every other method here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from geta_nb.baselines.space import Bools, Floats, Space, dead_indices
from geta_nb.baselines.task import Task, fit
from geta_nb.errors import BudgetError
from geta_nb.groups import group_flags, mask_groups

Values = Callable[[Tensor, int], Tensor]


def gated_modules(model: nn.Module, table: Any) -> dict[str, Tensor]:
    """Return module path -> group of each of its outputs, int64 [C], -1 where none: the norms that write a group, else the matrices."""
    written: dict[str, Tensor] = {}
    for entry in table.axis_maps:
        if entry.producing and entry.axis == 0:
            written[entry.parameter.rpartition(".")[0]] = torch.as_tensor(entry.group_of_index)
    norms = {path for path in written if isinstance(model.get_submodule(path), nn.modules.batchnorm._NormBase)}
    normed = {int(g) for path in norms for g in written[path].tolist()} - {-1}
    return {path: groups for path, groups in written.items() if path in norms or not normed & set(groups.tolist())}


def place_gates(model: nn.Module, table: Any, values: Values) -> Callable[[], None]:
    """Multiply the groups' outputs by ``values(groups [C], batch size)``, [1 or B, C]; returns what takes the gates off again."""

    def hook(groups: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def multiply(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            factors = torch.where(groups >= 0, values(groups.clamp(min=0), len(output)), 1.0)
            return output * factors.reshape(*factors.shape, *[1] * (output.dim() - 2))

        return multiply

    handles = [model.get_submodule(path).register_forward_hook(hook(groups)) for path, groups in gated_modules(model, table).items()]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


@torch.no_grad()
def fold_gates(model: nn.Module, table: Any, factors: Tensor) -> None:
    """Multiply the gated modules' own weights and biases by the groups' ``factors``, [G]: what the gates did, without gates."""
    for path, groups in gated_modules(model, table).items():
        module = model.get_submodule(path)
        own = torch.where(groups >= 0, factors[groups.clamp(min=0)], 1.0)
        for name in ("weight", "bias"):
            parameter = _own(module, name)
            if parameter is not None:
                parameter.mul_(own.reshape(-1, *[1] * (parameter.dim() - 1)))


def _own(module: nn.Module, name: str) -> Tensor | None:
    table = getattr(module, "parametrizations", {})
    return cast(Tensor, table[name].original) if name in table else cast("Tensor | None", getattr(module, name, None))


def own_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the network's parameters by original name, quantized or not."""
    names = ("weight", "bias")
    found = {f"{path}.{name}": _own(module, name) for path, module in model.named_modules() for name in names if hasattr(module, name)}
    return {name: p for name, p in found.items() if isinstance(p, Tensor)}


class Pressure:
    """Weight of a regulariser that rises while the cost is above the budget and falls below it (dual ascent on the log cost).

    The methods' own papers fix this weight and train once per weight; here one run has to end at a given cost.
    """

    def __init__(self, target: float, *, rate: float, steps: int) -> None:
        self.weight, self._target, self._rate, self._steps, self._done = 0.0, target, rate, steps, 0
        self._start: float | None = None

    def update(self, cost: float) -> None:
        """Compare ``cost`` with a goal that falls geometrically from the first cost to the target over the first 80 % of the steps."""
        self._start = self._start or cost
        done = min(self._done / (0.8 * self._steps), 1.0)
        goal = self._start ** (1 - done) * self._target**done
        self.weight = max(0.0, self.weight + self._rate * (math.log(cost) - math.log(goal)))
        self._done += 1


def family_scores(keep: Floats, family_of: Any) -> Floats:
    """Return log(n_f / (rank + 1/2)), [G]: n_f the sum of ``keep``, [G], over the family, rank 0 its best group.

    At least 0 for as many groups of each family as its keeps add up to, so that choosing those costs what the soft gates cost; going on
    from there by score narrows all families in proportion.
    """
    family_of = np.asarray(family_of)
    order = np.lexsort((-keep, family_of))
    rank = np.empty(len(keep))
    rank[order] = np.arange(len(keep)) - np.searchsorted(family_of[order], family_of[order])
    counts = np.bincount(family_of, weights=keep)[family_of]
    return np.asarray(np.log(np.maximum(counts, 1e-6) / (rank + 0.5)))


def settle(
    space: Space, scores: Floats, relative_bops: float, weight_bits: Mapping[str, int], activation_bits: Mapping[str, int],
    lower: Callable[[int], int],
) -> tuple[Bools, dict[str, float], dict[str, float]]:
    """Return living groups and bits that meet the budget: groups of negative score go, then the lowest, then bits of the dearest layers.

    Args:
        scores: [G]; below 0 the method has closed the gate itself.
        lower: bits -> the next fewer; the same when there are none.

    Raises:
        BudgetError: out of reach.
    """
    weights, inputs = dict(weight_bits), dict(activation_bits)
    while True:
        try:
            alive = space.prune_to(scores, relative_bops, weights, inputs)
            closed = scores < 0
            closed[[int(i) for i in _best(scores, space.table.family_of)]] = False
            return alive & ~closed, {k: float(v) for k, v in weights.items()}, {k: float(v) for k, v in inputs.items()}
        except BudgetError:
            table = max((weights, inputs), key=lambda bits: max(bits.values(), default=0))
            layer = max(table, key=lambda name: table[name]) if table else None
            if layer is None or lower(table[layer]) == table[layer]:
                raise
            table[layer] = lower(table[layer])


def _best(scores: Floats, family_of: Any) -> list[int]:
    """Return the group of the highest score of each family."""
    return list({int(family_of[i]): int(i) for i in scores.argsort(kind="stable")}.values())


def phases(task: Task, dense_share: float, joint_share: float) -> tuple[int, int, int]:
    """Return the epochs of fp32 training, of learning gates, and of what follows: all of the task's together."""
    dense = round(dense_share * task.epochs)
    joint = round(joint_share * (task.epochs - dense))
    return dense, joint, task.epochs - dense - joint


def train_masked(
    task: Task, space: Space, model: nn.Module, alive: Bools, epochs: int, *, seed: int, groups: list[dict[str, Any]],
    also: Callable[[], None] = lambda: None,
) -> None:
    """Train on, in place, with the dead groups at zero before and after every step; ``also`` is called where they are put there."""
    dead = group_flags(dead_indices(alive), len(alive))

    def keep() -> None:
        mask_groups(space.table, {**own_parameters(model), **dict(model.named_buffers())}, dead)
        also()

    keep()
    fit(task, model, epochs, seed=seed + 1000, groups=groups, after_step=keep)
