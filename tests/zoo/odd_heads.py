"""Attention written in the many ways people write it: what splits the heads, what rotates them, what is added to the scores.

Comes in: the way. Goes out: a net of one attention with a residual, for the laws.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Heads(nn.Module):
    """Attention of 4 heads of 4 in one of its many ways; ``key_heads``: heads of key and value."""

    def __init__(self, way: str, key_heads: int = 4) -> None:
        super().__init__()
        self.way, self.key_heads = way, key_heads
        self.e, self.b = nn.Linear(8, 16), nn.Linear(16, 3)
        self.q, self.k, self.v, self.o = nn.Linear(16, 16), nn.Linear(16, 4 * key_heads), nn.Linear(16, 4 * key_heads), nn.Linear(16, 16)
        if way.startswith("fused"):
            self.q, self.k, self.v, self.qkv = None, None, None, nn.Linear(16, 48)
        if way == "scaled_by_head":
            self.scale = nn.Parameter(torch.zeros(4, 1, 1))
        if way == "table":
            self.table, self.i = nn.Parameter(torch.zeros(9, 4)), nn.Buffer(torch.arange(5)[:, None] - torch.arange(5)[None] + 4)
        if way.startswith("rotary"):
            self.frequencies = nn.Buffer(torch.tensor([1.0, 0.3]))

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        b, t, _ = x.shape
        if self.way == "fused_outer":
            return tuple(self.qkv(x).view(b, t, 3, 4, 4).permute(2, 0, 3, 1, 4))
        if self.way == "fused_inner":
            return self.qkv(x).view(b, t, 4, 12).transpose(1, 2).chunk(3, -1)
        if self.way == "fused_innermost":
            return tuple(self.qkv(x).view(b, t, 4, 4, 3).permute(4, 0, 2, 1, 3))
        if self.way == "heads_inside":
            return tuple(layer(x).view(b, t, 4, 4).permute(0, 3, 1, 2) for layer in (self.q, self.k, self.v))
        if self.way == "batch_times_heads":
            return tuple(layer(x).transpose(0, 1).reshape(t, b * 4, 4).transpose(0, 1) for layer in (self.q, self.k, self.v))
        return tuple(layer(x).view(b, t, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))

    def _rotated(self, x: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(5, dtype=x.dtype), self.frequencies.to(x.dtype))
        if self.way == "rotary_pairs":
            even, odd = x[..., ::2], x[..., 1::2]
            return torch.stack([even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], -1).flatten(-2)
        angle = torch.cat([angle, angle], -1)
        return x * angle.cos() + torch.cat([-x[..., 2:], x[..., :2]], -1) * angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x)
        q, k, v = self._split(x)
        if self.way.startswith("rotary"):
            q, k = self._rotated(q), self._rotated(k)
        if self.key_heads not in (1, 4):
            k, v = (t.repeat_interleave(4 // self.key_heads, 1) for t in (k, v))
        if self.way == "linear":
            y = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ v)
        else:
            a = q @ k.transpose(-1, -2) / math.sqrt(4)
            if self.way == "table":
                a = a + self.table[self.i.view(-1)].view(5, 5, -1).permute(2, 0, 1)
            if self.way == "causal":
                a = a.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -math.inf)
            y = a.softmax(-1) @ v
        if self.way == "scaled_by_head":
            y = y * self.scale
        if self.way == "batch_times_heads":
            y = y.transpose(0, 1).reshape(5, -1, 16).transpose(0, 1)
        else:
            y = y.transpose(1, 2).flatten(2)
        return self.b(x + self.o(y))
