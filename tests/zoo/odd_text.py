"""Odd nets of one trap each that language models brought: writes into slices, numbers per head, stacks of experts, heads that share.

Comes in: nothing. Goes out: more entries of ``ODD``. Hidden layer ``a``, reader ``b``, as there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.odd_nets import SEQUENCE, VECTOR, L, P, between, odd


def _written(s: Any, h: Tensor) -> Tensor:
    """Halves change places by assignment."""
    y = torch.zeros_like(h)
    y[:, :8], y[:, 8:] = h[:, 8:], F.relu(h[:, :8])
    return y


def _stepped(s: Any, h: Tensor) -> Tensor:
    """Position by position, as a recurrence writes it."""
    y = torch.empty_like(h)
    for t in range(h.shape[1]):
        y[:, t] = h[:, t] * (t + 1)
    return y


def _heads(s: Any, x: Tensor, slopes: Tensor | None = None) -> Tensor:
    q, k, v = (layer(x).view(x.shape[0], 5, -1, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
    scores = q @ k.transpose(-1, -2)
    if slopes is not None:
        scores = scores + slopes.view(-1, 1, 1) * torch.arange(5, dtype=x.dtype)
    return s.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _normed_heads(s: Any, x: Tensor) -> Tensor:
    """Query and key normalised over all heads at once: their heads stay, dimensions of the value go."""
    q, k, v = (t.view(-1, 5, 4, 4).transpose(1, 2) for t in (s.n(s.q(x)) * s.g, s.n(s.k(x)) * s.g, s.v(x)))
    return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _looked_up(s: Any, x: Tensor) -> Tensor:
    """Scores taken at relative positions, batch and heads in one axis."""
    q, v = (layer(x).view(-1, 5, 4, 4).transpose(1, 2).reshape(-1, 5, 4) for layer in (s.q, s.v))
    where = (torch.arange(5)[:, None] - torch.arange(5)[None] + 4).unsqueeze(0).expand(q.shape[0], 5, 5)
    table = s.t.view(9, 4, 4).transpose(0, 1).repeat(x.shape[0], 1, 1)
    scores = torch.gather(q @ table.transpose(1, 2), -1, where)
    return s.o((scores.softmax(-1) @ v).view(-1, 4, 5, 4).transpose(1, 2).flatten(2))


def _picked(s: Any, h: Tensor) -> Tensor:
    """Two heads of queries and, by number from the end, one of keys."""
    parts = h.view(-1, 4, 4)
    return torch.cat([F.relu(parts[:, :-1]), parts[:, [-1]] * 2], 1).flatten(1)


def _experts(s: Any, x: Tensor) -> Tensor:
    """Every row goes through the expert that a router picks, weights gathered."""
    chosen = s.r(x).argmax(-1)
    hidden = F.relu(torch.bmm(s.u[chosen], x.unsqueeze(-1)) + s.c[chosen].unsqueeze(-1))
    return torch.bmm(s.d[chosen], hidden).squeeze(-1)


def _four(**more: Any) -> dict[str, Any]:
    return {key: L(8, 16) for key in "qkv"} | {"o": L(16, 3)} | more


between("halves_written", 8, _written)
between("positions_written", 16, _stepped, shape=SEQUENCE)
between("added_at_positions", 16, lambda s, h: h.index_add(1, torch.tensor([0, 2]), h[:, 3:]), shape=SEQUENCE)
between("scattered", 0, lambda s, h: torch.zeros_like(h).scatter(1, h.argsort(1), h), blamed="argsort")
between("joined_with_nothing", 16, lambda s, h: torch.cat([h, h[:, :0]], 1))
between("cast_like_another", 16, lambda s, h: F.relu(h).type_as(s.m), m=lambda: P(3, 5))
between("picked_by_number", 4, _picked)
between("numbered_by_code", 16, lambda s, h: F.relu(h) * torch.arange(1, 17))
between("transformed_along_positions", 16, lambda s, h: torch.fft.fft(h, dim=1).real, shape=SEQUENCE)
odd("heads_with_slopes", SEQUENCE, 4, lambda s, x: _heads(s, x, 0.5 ** torch.arange(1, 5)), _four)
odd("heads_that_share_all_but_queries", SEQUENCE, 4, _heads, lambda: _four(k=L(8, 4), v=L(8, 4)))
odd("heads_normed_together", SEQUENCE, 4, _normed_heads, lambda: _four(n=nn.RMSNorm(16, elementwise_affine=False), g=P(16)))
odd("heads_looked_up", SEQUENCE, 4, _looked_up, lambda: _four(t=P(9, 16)) | {"k": None})
odd("experts_gathered", VECTOR, 6, _experts, lambda: {"r": L(8, 3), "u": P(3, 6, 8), "c": P(3, 6), "d": P(3, 4, 6)})
