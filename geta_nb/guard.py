"""Looks for NaN and infinity before a step touches any weight. Comes in: a loss, gradients. Goes out: an error that names the place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import NonFiniteError


def check_loss(loss: Any, step: int) -> None:
    """Raise :class:`NonFiniteError` when the loss a closure returned (a number, a 0-dim tensor or None) is not finite."""
    value = None if loss is None else float(loss.detach() if isinstance(loss, Tensor) else loss)
    if value is not None and not math.isfinite(value):
        raise NonFiniteError(
            "QASSO.step: the loss is not finite, so no weight was changed.", at=f"step {step}", got=f"loss = {value}",
            hint="a smaller learning rate, or torch.nn.utils.clip_grad_norm_",
        )  # fmt: skip


def check_gradients(param_groups: Iterable[Mapping[str, Any]], names: Mapping[int, str], step: int) -> None:
    """Check all gradients at once; a single number crosses from the device.

    Args:
        param_groups: of the optimizer.
        names: id of a parameter -> its name, for the message.
        step: steps done, for the message.

    Raises:
        NonFiniteError: a gradient holds NaN or infinity; names the first such parameter.
    """
    given = [p for group in param_groups for p in group["params"] if p.grad is not None]
    if not given:
        return
    gradients = [p.grad._values() if p.grad.is_sparse else p.grad for p in given]
    norms = torch._foreach_norm(gradients)
    device = norms[0].device
    if math.isfinite(float(torch.stack([n.to(device, torch.float32) for n in norms]).sum())):
        return
    # a norm may overflow where every entry is finite: only an entry that is not counts
    for parameter, gradient in zip(given, gradients, strict=True):
        if not bool(gradient.isfinite().all()):
            raise NonFiniteError(
                "QASSO.step: a gradient is not finite, so no weight was changed.",
                at=f"{names.get(id(parameter), 'a parameter outside the model')}, step {step}",
                expected="finite numbers", got="NaN" if bool(gradient.isnan().any()) else "infinity",
                hint="a smaller learning rate, torch.nn.utils.clip_grad_norm_, or torch.amp.GradScaler",
            )  # fmt: skip
