"""Says when training goes wrong. Comes in: a loss, gradients, a choice of groups. Goes out: an error or a warning that names the place.

NaN and infinity are looked for before a step touches any weight; a family is looked at when groups are chosen, while they still live.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geta_nb.budget import Budget
from geta_nb.errors import CollapseWarning, ConfigError, GetaWarning, NonFiniteError
from geta_nb.qasso.schedule import Schedule
from geta_nb.sharding import local, shards_of

if TYPE_CHECKING:
    from geta_nb.groups import GroupTable


_SMALL = 1 << 14


class Known(NamedTuple):
    """Sums that are not finite if a gradient is not, the ids of the parameters whose gradients they cover, and who adds up over ranks."""

    sums: Sequence[Tensor]
    covered: AbstractSet[int]
    add_up: Callable[[Tensor], Tensor] | None = None


def check_loss(loss: Any, step: int) -> None:
    """Raise :class:`NonFiniteError` when the loss a closure returned (a number, a 0-dim tensor or None) is not finite."""
    value = None if loss is None else float(loss.detach() if isinstance(loss, Tensor) else loss)
    if value is not None and not math.isfinite(value):
        raise NonFiniteError(
            "QASSO.step: the loss is not finite, so no weight was changed.", at=f"step {step}", got=f"loss = {value}",
            hint="a smaller learning rate, or torch.nn.utils.clip_grad_norm_",
        )  # fmt: skip


def check_gradients(param_groups: Iterable[Mapping[str, Any]], names: Mapping[int, str], step: int, *, known: Known | None = None) -> None:
    """Check all gradients at once; a single number crosses from the device.

    Args:
        param_groups: of the optimizer.
        names: id of a parameter -> its name, for the message.
        step: steps done, for the message.
        known: what others have added up already.

    Raises:
        NonFiniteError: a gradient holds NaN or infinity; names the first such parameter.
    """
    known = known or Known((), frozenset())
    given = [p for group in param_groups for p in group["params"] if p.grad is not None]
    shards = shards_of(given)
    sums = [*known.sums, *_sums([p.grad for p in given if id(p) not in known.covered])]
    if not sums:
        return
    total = torch.stack([s.to(sums[0].device, torch.float32) for s in sums]).sum()
    if math.isfinite(float(total if shards is None else (known.add_up or shards.sum)(total))):
        return
    # a sum may overflow where every entry is finite: only an entry that is not counts
    wrong = next((p for p in given if not bool(_entries(p.grad).isfinite().all())), None)
    heard = torch.tensor(float(wrong is not None), device="cpu")
    if not float(heard if shards is None else shards.largest(heard)):  # all ranks raise, or none does
        return
    at = "rows that another rank has" if wrong is None else names.get(id(wrong)) or f"a parameter {list(wrong.shape)} that came in later"
    what = "not finite" if wrong is None else "NaN" if bool(_entries(wrong.grad).isnan().any()) else "infinity"
    raise NonFiniteError(
        "QASSO.step: a gradient is not finite, so no weight was changed.", at=f"{at}, step {step}", expected="finite numbers", got=what,
        hint="a smaller learning rate, torch.nn.utils.clip_grad_norm_, or torch.amp.GradScaler",
    )  # fmt: skip


def _entries(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    gradient = local(gradient)
    return gradient._values() if gradient.is_sparse else gradient


def _sums(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    """Return a few 0-dim sums that are finite only if every entry is: small vectors are added up together."""
    sums: list[Tensor] = []
    small: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for found in gradients:
        gradient = _entries(found)
        if gradient.ndim == 1 and len(gradient) <= _SMALL:
            small.setdefault((gradient.dtype, gradient.device), []).append(gradient)
        else:
            sums.append(_sum(gradient))
    return sums + [_sum(torch.cat(together)) for together in small.values()]


def _sum(values: Tensor) -> Tensor:
    if values.is_complex():
        values = torch.view_as_real(values)
    # half types would overflow at once
    return values.sum(dtype=torch.float32) if values.dtype in (torch.float16, torch.bfloat16) else values.sum()


def collapsing_families(family_of: NDArray[np.int64], before: NDArray[np.bool_], after: NDArray[np.bool_]) -> list[int]:
    """Return the families that a choice leaves with one group of three or more; not those that were there already.

    Args:
        family_of: family of each group, [G].
        before, after: which groups live, bool [G].
    """
    total, had, left = (np.bincount(family_of, weights=weights) for weights in (np.ones(len(before)), before, after))
    return [int(family) for family in np.flatnonzero((total > 2) & (had > 1) & (left == 1))]


def warn_of_collapse(table: GroupTable, families: Iterable[int], budget: Budget, step: int) -> None:
    """Warn of each family that keeps one group, unless an exception of the budget lets it: the user has spoken.

    Args:
        table: the groups.
        families: of :func:`collapsing_families`.
        budget: whose exceptions count.
        step: steps done, for the message.
    """
    wanted = budget.group_sparsity or 0.0
    share = 0.75 if wanted <= 0.6 else math.floor(50 * (1 + wanted)) / 100
    for family in families:
        makers = _makers(table, family)
        if any(budget.layer(name).max_sparsity is not None for name in makers):
            continue
        layer = makers[0].rpartition(".")[0] or makers[0]
        warnings.warn(
            CollapseWarning(
                "QASSO: a layer collapses: all that it makes goes, but for one group.",
                at=f"{table.family_names[family]}, step {step}", got=f"1 of {int((table.family_of == family).sum())} groups left",
                hint=f'Budget(..., exceptions={{"{layer}": LayerBudget(max_sparsity={share})}})',
            ),
            stacklevel=6,
        )  # fmt: skip


def _makers(table: GroupTable, family: int) -> list[str]:
    """Return the parameters that make the channels of a family."""
    return [
        entry.parameter for entry in table.axis_maps
        if entry.producing and family in table.family_of[entry.group_of_index[entry.group_of_index >= 0]]
    ]  # fmt: skip


def warn_of_no_gradient(table: GroupTable, families: Sequence[int], step: int) -> None:
    """Warn of families whose groups are judged by the size of their weights, for want of a gradient.

    Args:
        table: the groups.
        families: of ``Pruner.unmoved``.
        step: steps done, for the message.
    """
    layers = [makers[0].rpartition(".")[0] or makers[0] for makers in (_makers(table, family) for family in families)]
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    warnings.warn(
        GetaWarning(
            "QASSO: layers get no gradient, so their groups are chosen by the size of their weights.",
            at=f"{', '.join(layers[:3])}{more}, step {step}", expected="a loss that depends on them, and requires_grad",
            got=f"none in {len(layers)} of {len(table.family_names)} families",
            hint=f'gt.GETA(..., protect=("{layers[0]}",)) keeps what is frozen whole',
        ),
        stacklevel=6,
    )  # fmt: skip


def check_arguments(inner: object, budget: object, schedule: object, lr_quant: object) -> None:
    """Raise :class:`ConfigError` for an argument of the optimizer that is of the wrong kind."""
    for name, value, kind in (("inner", inner, torch.optim.Optimizer), ("budget", budget, Budget), ("schedule", schedule, Schedule)):
        if not isinstance(value, kind):
            raise ConfigError(f"QASSO: {name} is of the wrong kind.", expected=kind.__name__, got=type(value).__name__)
    if isinstance(lr_quant, bool) or not isinstance(lr_quant, (int, float)) or not 0 <= lr_quant < math.inf:
        raise ConfigError("QASSO: lr_quant is a learning rate.", expected="a number >= 0", got=repr(lr_quant))
