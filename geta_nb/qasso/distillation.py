"""Learning from a wider network: one line to add to a loss.

In: what the network and its teacher give out for the same batch. Out: how far apart their answers are, as one number with a gradient.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from geta_nb.errors import ConfigError, InputError


def distill(outputs: Any, teacher_outputs: Any, *, temperature: float = 2.0) -> Tensor:
    """Return T**2 times the divergence of a network's class probabilities from its teacher's, both softened by the temperature T.

        T**2 sum over classes of p log(p / q),    p = softmax(teacher / T),  q = softmax(outputs / T);    mean over everything else

    Add it to the loss, or take it for the loss: ``loss = task_loss + gt.distill(model(x), teacher(x))``. The teacher (the dense network,
    in eval mode, under ``torch.no_grad()``) gets no gradient. T**2 keeps gradients as large as those at T = 1.

    Args:
        outputs: logits, [..., classes], floating; or an object that holds them as ``logits``.
        teacher_outputs: the same of the teacher, same shape.
        temperature: T, > 0, dimensionless.

    Returns:
        0-dim, >= 0, float32 at least; 0 where both say the same.

    Raises:
        ConfigError: a temperature that is no positive number.
        InputError: these are no logits of one shape.

    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531.

    >>> import torch
    >>> float(distill(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])))
    0.0
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ConfigError("distill: temperature is a positive number.", expected="temperature > 0", got=repr(temperature))
    student, teacher = (getattr(found, "logits", found) for found in (outputs, teacher_outputs))
    for name, found in (("outputs", student), ("teacher_outputs", teacher)):
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim == 0:
            got = f"{found.dtype}, {found.ndim} axes" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"distill: {name} are no logits.", expected="a floating tensor [..., classes]", got=got)
    if student.shape != teacher.shape:
        expected, got = f"{tuple(student.shape)}", f"{tuple(teacher.shape)}"
        raise InputError("distill: network and teacher answer in different shapes.", expected=expected, got=got)
    classes = student.shape[-1]
    rows = (found.reshape(-1, classes) for found in (student, teacher.detach()))
    wide = (found.float() if found.itemsize < 4 else found for found in rows)
    log_q, log_p = (functional.log_softmax(found / temperature, dim=1) for found in wide)
    return functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2
