"""Layers by short names, a net written as one function, and attention by einsum: what the traps of the zoo are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

L, C = nn.Linear, nn.Conv2d


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Net(nn.Module):
    """A net written as one function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Buffer(part) if isinstance(part, Tensor) and not isinstance(part, nn.Parameter) else part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Attention of ``heads`` from x to context, projections without bias, all contractions written as einsum."""

    def __init__(self, width: int, context: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head**-0.5
        self.q, self.kv, self.out = L(width, heads * head, False), L(context, 2 * heads * head, False), L(heads * head, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.kv(context).chunk(2, -1))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) * self.scale).softmax(-1)
        return self.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(-2))
