"""Hard-concrete gates: random numbers in [0, 1] that are often exactly 0 or 1, with a gradient to how often.

    s = sigmoid((log u - log(1 - u) + logits) / tau)     z = clip(s (zeta - gamma) + gamma, 0, 1)     u ~ uniform(0, 1)
    q(z > 0) = sigmoid(logits - tau log(-gamma / zeta))

Source: Louizos et al. 2018, arXiv:1712.01312; the threshold of :func:`decide` is that of van Baalen et al. 2020, arXiv:2005.07093.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GAMMA, ZETA, TAU = -0.1, 1.1, 2 / 3
SHIFT = TAU * math.log(-GAMMA / ZETA)


def sample(logits: Tensor) -> Tensor:
    """Return hard-concrete gates, shape of ``logits``."""
    u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((u.log() - (1 - u).log() + logits) / TAU)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def probability(logits: Tensor) -> Tensor:
    """Return q(z > 0)."""
    return torch.sigmoid(logits - SHIFT)


def decide(logits: Tensor) -> Tensor:
    """Return the gates of a finished network, 0 or 1."""
    return (1 - probability(logits) < 0.34).to(logits.dtype)
