"""Nets whose weights are computed from other tensors: weight norm, spectral norm and orthogonal ones, in torch's new and old form.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. Convolutions are padded; a linear layer reads what they pool.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations

Wrap = Callable[[nn.Module], nn.Module]


def legacy(wrap: Wrap) -> Wrap:
    """The old form of torch: a hook computes a plain attribute before each forward. Torch says that it is old."""

    def wrapped(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return wrap(layer)

    return wrapped


def net(wrap: Wrap) -> nn.Module:
    """Three convolutions, of which two are computed, and a computed linear layer between plain ones."""
    first, second, third = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 7, 3, padding=1), nn.Conv2d(7, 6, 3, padding=1)
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(wrap(first), nn.ReLU(), second, nn.ReLU(), wrap(third), *pooled, wrap(nn.Linear(6, 9)), nn.ReLU(), nn.Linear(9, 4))


WRAPS: dict[str, Wrap] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm_legacy": legacy(utils.weight_norm),
    "weight_norm_whole": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm_legacy": legacy(utils.spectral_norm),
    "orthogonal": parametrizations.orthogonal,
    "orthogonal_cayley": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley"),
}


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, wrap in WRAPS.items():
        add(name, lambda wrap=wrap: net(wrap), (3, 8, 8))
