"""SimpleViT: a vision transformer with fixed positions and a mean instead of a class token (Beyer et al. 2022, arXiv:2205.01580).

In: images [B, 3, H, W] of one size. Out: logits. Written from the paper's description.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb.errors import ConfigError


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed positions, [rows * columns, width]: a quarter of the width each for sine and cosine of column and row.

    Frequencies fall from 1 to 1/10000 in equal ratios.
    """
    if width % 4 or width < 8:
        raise ConfigError("sine_positions: a width that cannot be quartered.", expected="a multiple of 4, at least 8", got=width)
    frequencies = 10_000.0 ** -(torch.arange(width // 4) / (width // 4 - 1))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (x, y)]
    return torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], 1)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside the identity."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, [B, tokens, width]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        inner: Tensor = self.shrink(F.gelu(self.grow(self.norm2(x))))
        return x + inner


class SimpleViT(nn.Module):
    """A vision transformer.

    Args:
        image_size, patch_size: sides, in pixels; the second divides the first.
        width, depth, heads: of the transformer; heads divide the width.
        classes: number of classes.

    Raises:
        ConfigError: patches that do not fit the image.
    """

    def __init__(
        self, *, image_size: int = 224, patch_size: int = 16, width: int = 384, depth: int = 12, heads: int = 6, classes: int = 1000
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ConfigError("SimpleViT: patches do not fit the image.", expected=f"a multiple of {patch_size}", got=image_size)
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        side = image_size // patch_size
        self.register_buffer("positions", sine_positions(side, side, width))
        self.blocks = nn.Sequential(*[Block(width, heads, 4 * width) for _ in range(depth)])
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [B, classes]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(1))
        return logits
