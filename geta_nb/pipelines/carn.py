"""CARN, the cascading residual network for super-resolution (Ahn et al. 2018, arXiv:1803.08664), written from its description.

In: images [B, 3, H, W] in [0, 1]. Out: images ``scale`` times as large. Everything a cascade has computed so far is concatenated and
mixed by a 1x1 convolution, inside blocks and between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb.errors import ConfigError


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of its input."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Cascade(nn.Module):
    """Three stages; what goes into each is mixed from the outputs of all before it."""

    def __init__(self, channels: int, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.mixers = nn.ModuleList(nn.Conv2d((i + 2) * channels, channels, 1) for i in range(len(stages)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last mix, of the shape of the input."""
        known = mixed = x
        for stage, mixer in zip(self.stages, self.mixers, strict=True):
            known = torch.cat([known, stage(mixed)], 1)
            mixed = F.relu(mixer(known))
        return mixed


class CARN(nn.Module):
    """Entry, three cascades of three blocks, enlargement by pixel shuffle, exit.

    Args:
        channels: width; the published one is 64.
        scale: 2, 3 or 4.
        residual: learn the difference to bicubic enlargement, where a short training can begin; the published network does not.

    Raises:
        ConfigError: any other scale.
    """

    def __init__(self, channels: int = 64, *, scale: int = 2, residual: bool = False) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ConfigError("CARN: no such scale.", expected="2, 3 or 4", got=scale)
        self.scale, self.residual = scale, residual
        self.entry = nn.Conv2d(3, channels, 3, padding=1)
        self.body = Cascade(channels, [Cascade(channels, [ResidualBlock(channels) for _ in range(3)]) for _ in range(3)])
        self.enlarge = nn.Sequential()
        for factor in (2, 2) if scale == 4 else (scale,):
            self.enlarge.extend([nn.Conv2d(channels, factor**2 * channels, 3, padding=1), nn.ReLU(), nn.PixelShuffle(factor)])
        self.exit = nn.Conv2d(channels, 3, 3, padding=1)
        if residual:  # begins as the bicubic enlargement, exactly
            nn.init.zeros_(self.exit.weight)
            nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return enlarged images, [B, 3, scale H, scale W]; a half is subtracted inside, so that values are centred."""
        image: Tensor = self.exit(self.enlarge(self.body(self.entry(x - 0.5))))
        if self.residual:
            return image + F.interpolate(x, scale_factor=float(self.scale), mode="bicubic", align_corners=False)
        return image + 0.5
