"""The explorer's first view of networks that people bring, as pictures for the documents: ``make first-view``.

In: nothing; BERT and Llama are built by ``transformers`` from configurations of real depth and small widths, the UNet here. Out: one SVG
for each network. What is drawn is what ``Explorer.static_svg`` gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import geta_nb as gt
from geta_nb.bench.speed_nets import imported
from geta_nb.widgets.exports import static_svg

LAYERS = 12


class ResBlock(nn.Module):
    """Two convolutions with norms, and a shortcut."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, i), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, o), nn.Conv2d(o, o, 3, padding=1)
        self.skip = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(y)))
        return out


class Attention(nn.Module):
    """Self-attention over all places of an image, with a shortcut."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(4, width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        y = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (part(y).view(n, h * w, self.heads, c // self.heads).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        out: Tensor = x + self.out(y).transpose(1, 2).reshape(n, c, h, w)
        return out


class Stage(nn.Module):
    """A residual block, and attention after it where the image is small."""

    def __init__(self, i: int, o: int, attend: bool) -> None:
        super().__init__()
        self.res = ResBlock(i, o)
        self.attention = Attention(o) if attend else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y: Tensor = self.attention(self.res(x))
        return y


class AttentionUNet(nn.Module):
    """A UNet of four resolutions with attention at the lower two; its stages stand in lists, as people write them."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        attend = [False, False, True, True]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        inputs = [width, *widths[:-1]]
        self.down = nn.ModuleList(Stage(i, o, a) for i, o, a in zip(inputs, widths, attend, strict=True))
        self.ds = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.mid = Stage(widths[-1], widths[-1], True)
        self.us = nn.ModuleList(nn.ConvTranspose2d(w, w, 2, 2) for w in widths[:0:-1])
        below = [widths[-1], *widths[:0:-1]]
        self.up = nn.ModuleList(Stage(b + w, w, a) for b, w, a in zip(below, widths[::-1], attend[::-1], strict=True))
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, kept = self.stem(x), []
        for i, stage in enumerate(self.down):
            x = stage(x)
            kept.append(x)
            x = self.ds[i](x) if i < len(self.ds) else x
        x = self.mid(x)
        for i, stage in enumerate(self.up):
            x = stage(torch.cat([x, kept.pop()], 1))
            x = self.us[i](x) if i < len(self.us) else x
        y: Tensor = self.head(x)
        return y


def bert(layers: int = LAYERS, width: int = 32) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """BERT-base's structure for classification, with a mask: network, inputs, named inputs."""
    hf = imported("transformers")
    config = hf.BertConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=4, vocab_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    tokens = torch.zeros(1, 8, dtype=torch.long)
    return hf.BertForSequenceClassification(config).eval(), (tokens,), {"attention_mask": torch.ones_like(tokens)}


def llama(layers: int = LAYERS, width: int = 32) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """Llama's structure for text: network, inputs, named inputs."""
    hf = imported("transformers")
    config = hf.LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=4, vocab_size=64, use_cache=False
    )
    return hf.LlamaForCausalLM(config).eval(), (torch.zeros(1, 8, dtype=torch.long),), {}


def unet(width: int = 8) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """A UNet with attention: network, inputs, named inputs."""
    return AttentionUNet(width).eval(), (torch.zeros(1, 3, 32, 32),), {}


NETS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]]] = {"bert": bert, "llama": llama, "unet": unet}


def analysed(name: str) -> gt.GETA:
    """Return the analysis of one of :data:`NETS`, weights quantized; the same each time."""
    torch.manual_seed(0)
    model, inputs, named = NETS[name]()
    return gt.GETA(model, inputs, example_kwargs=named, quantize=gt.QuantConfig())


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETS:
        (folder / f"first_view_{name}.svg").write_text(static_svg(analysed(name), dot=None), encoding="utf-8")


if __name__ == "__main__":
    main()
