"""Looks for NaN and infinity before a step touches any weight. Comes in: a loss, gradients. Goes out: an error that names the place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import NonFiniteError


_SMALL = 1 << 14


class Known(NamedTuple):
    """Sums that are not finite if a gradient is not, and the ids of the parameters whose gradients they cover."""

    sums: Sequence[Tensor]
    covered: AbstractSet[int]


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
    sums = [*known.sums, *_sums([p.grad for p in given if id(p) not in known.covered])]
    if not sums or math.isfinite(float(sums[0] if len(sums) == 1 else torch.stack([s.to(sums[0].device, torch.float32) for s in sums]).sum())):
        return
    # a sum may overflow where every entry is finite: only an entry that is not counts
    for parameter in given:
        gradient = _entries(parameter.grad)
        if not bool(gradient.isfinite().all()):
            raise NonFiniteError(
                "QASSO.step: a gradient is not finite, so no weight was changed.",
                at=f"{names.get(id(parameter), 'a parameter outside the model')}, step {step}",
                expected="finite numbers", got="NaN" if bool(gradient.isnan().any()) else "infinity",
                hint="a smaller learning rate, torch.nn.utils.clip_grad_norm_, or torch.amp.GradScaler",
            )  # fmt: skip


def _entries(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
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
