"""The step size that has a bit width: pure maths on vectors of quantizers. In: d, q_m, t and bits. Out: d.

Source: Qu et al. 2025, arXiv:2502.16638.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def levels(bits: Sequence[int] | Tensor, like: Tensor, signs: Sequence[int] | Tensor | int = 1) -> Tensor:
    """Return 2**(b-s) - 1, the largest code of ``b`` bits of which ``s``, 0 or 1, is the sign's, [L]; dtype and device of ``like``."""
    wide = torch.as_tensor(bits, dtype=torch.float64, device="cpu") - torch.as_tensor(signs, device="cpu")
    return (torch.exp2(wide) - 1).to(like.device, like.dtype)


def project_step_size(step: Tensor, clip: Tensor, exponent: Tensor, few: Tensor, many: Tensor) -> Tensor:
    """Return the step nearest to ``step`` whose bit width lies in the range.

        d <- clip(d, q_m**t / (2**(b_u-1) - 1), q_m**t / (2**(b_l-1) - 1))

    Args:
        step, clip, exponent: d, q_m, t, [L].
        few, many: :func:`levels` of b_l and of b_u, [L].

    Returns:
        d, [L]; projecting it again changes nothing.

    Source: arXiv:2502.16638 (PPSG).
    """
    top = clip**exponent
    return torch.minimum(torch.maximum(step, top / many), top / few)
