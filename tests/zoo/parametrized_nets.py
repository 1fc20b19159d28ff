"""Nets whose weights are computed by parametrizations that nobody has heard of, and in places that are hard to tell: who else reads a part.

Comes in: nothing. Goes out: :data:`NETS`, name -> how to build one; all take [B, 6].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization


class Gated(nn.Module):
    """w * sigmoid(g), a gate a row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(rows, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.sigmoid(self.gate)


class Symmetric(nn.Module):
    """The upper half, mirrored."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


class LowRank(nn.Module):
    """w + b a."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, columns)), nn.Parameter(torch.randn(rows, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


class Same(nn.Module):
    """Nothing at all."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight


class Shared(nn.Module):
    """w times a number that the network reads as well."""

    def __init__(self, scale: nn.Parameter) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale


class Halved(nn.Module):
    """Two originals, of which the sum is the weight."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight * 0.25, weight * 0.75


def linear(rows: int, columns: int, make: nn.Module) -> nn.Module:
    layer = nn.Linear(columns, rows)
    register_parametrization(layer, "weight", make)
    return layer


def between(layer: nn.Module, rows: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), layer, nn.ReLU(), nn.Linear(rows, 3))


class Twice(nn.Module):
    """One computed layer that runs twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = parametrizations.weight_norm(nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.first(x).relu()).relu())


class Tied(nn.Module):
    """Two layers that gate one matrix, each in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.b.weight = self.a.weight
        for layer in (self.a, self.b):
            register_parametrization(layer, "weight", Gated(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x).relu() + self.b(x).relu())


class Reader(nn.Module):
    """The number that makes a weight also scales the output."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.a, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        register_parametrization(self.a, "weight", Shared(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x).relu()) * self.scale


class Map(nn.Module):
    """Computed convolutions: grouped, transposed, and one along time."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 48)
        self.a = parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.b = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1, groups=2))
        self.c = parametrizations.weight_norm(nn.ConvTranspose2d(8, 6, 2), dim=1)
        self.head = parametrizations.weight_norm(nn.Linear(6, 3), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.up(x).view(-1, 3, 4, 4)).relu()).relu()
        return self.head(self.c(x).relu().mean((2, 3)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: between(linear(7, 8, Gated(7)), 7),
    "symmetric": lambda: between(linear(8, 8, Symmetric()), 8),
    "low_rank": lambda: between(linear(7, 8, LowRank(7, 8)), 7),
    "same": lambda: between(linear(7, 8, Same()), 7),
    "two_originals": lambda: between(linear(7, 8, Halved()), 7),
    "two_in_a_row": lambda: between(two_in_a_row(), 7),
    "root": lambda: parametrizations.weight_norm(nn.Linear(6, 5)),
    "twice": Twice,
    "tied": Tied,
    "reader": Reader,
    "map": Map,
}


def two_in_a_row() -> nn.Module:
    layer = linear(7, 8, Gated(7))
    register_parametrization(layer, "weight", LowRank(7, 8))
    return layer
