"""The networks of the latency table, random weights: two VGG7 of the digits, ResNet20, MobileNetV2, a small ViT and BERT-mini.

In: a name. Out: a network in eval mode, example inputs, and its subnet at half the groups and 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.bench.digits import digits_net
from geta_nb.bench.speed_nets import conv_bn, imported, mobilenet_v2
from geta_nb.config import QuantConfig
from geta_nb.geta import GETA

BITS, SPARSITY, ROUND_TO = 8, 0.5, 8


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(c_in, c_out, 3, stride), conv_bn(c_out, c_out, 3, act=None))
        self.shortcut = nn.Identity() if stride == 1 and c_in == c_out else conv_bn(c_in, c_out, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet20() -> nn.Module:
    """ResNet20 for 32x32 pictures, 0.27M parameters (He et al. 2016)."""
    layers: list[nn.Module] = [conv_bn(3, 16, 3)]
    c_in = 16
    for c_out, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(Basic(c_in, c_out, 1 if block else stride))
            c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def small_vit() -> nn.Module:
    """A ViT for 32x32 pictures: width 192, 6 layers, 3 heads, 64 patches; 2.7M parameters."""
    hf = imported("transformers")
    config = hf.ViTConfig(
        image_size=32, patch_size=4, hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3, num_labels=10,
        attn_implementation="sdpa",
    )  # fmt: skip
    model: nn.Module = hf.ViTForImageClassification(config)
    return model


def bert_mini() -> nn.Module:
    """BERT-mini: width 256, 4 layers, 4 heads, 11.2M parameters (Turc et al. 2019)."""
    hf = imported("transformers")
    config = hf.BertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, attn_implementation="sdpa", num_labels=2
    )
    model: nn.Module = hf.BertForSequenceClassification(config)
    return model


def picture(size: int) -> Callable[[int], Tensor]:
    """Return what draws pictures, [B, 3, size, size]."""
    return lambda batch: torch.randn(batch, 3, size, size)


def tokens(batch: int) -> Tensor:
    """Return token ids, [B, 64]."""
    return torch.randint(1000, 30000, (batch, 64))


@dataclass(frozen=True)
class LatencyNet:
    """A network of the table.

    Attributes:
        label: what the table calls it.
        build: makes it.
        inputs: batch size -> example input.
        wanted: speed-ups asked for, over dense eager torch and over the dense network in the same runtime.
    """

    label: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    wanted: tuple[float, float]


CNN, TRANSFORMER = (5.0, 3.0), (3.0, 2.0)
NETS: dict[str, LatencyNet] = {
    "vgg7": LatencyNet("VGG7, 128 to 512 channels, 16x16", lambda: digits_net(8.0), picture(16), CNN),
    "digits": LatencyNet("digits network, 16 to 64 channels, 16x16", digits_net, picture(16), CNN),
    "resnet20": LatencyNet("ResNet20, 32x32", resnet20, picture(32), CNN),
    "mobilenet_v2": LatencyNet("MobileNetV2, 96x96", mobilenet_v2, picture(96), CNN),
    "vit": LatencyNet("ViT, width 192, 6 layers, 65 tokens", small_vit, picture(32), TRANSFORMER),
    "bert_mini": LatencyNet("BERT-mini, 64 tokens", bert_mini, tokens, TRANSFORMER),
}


def built(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return the dense network, its subnet (half of each family, 8 bits for weights and inputs, channels of 8), and one example of two.

    The numbers do not matter for speed, so nothing is trained; norms get statistics so that activations have a usual size.
    """
    net = NETS[name]
    torch.manual_seed(0)
    model, example = net.build(), net.inputs(2)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(net.inputs(8))
    model.eval()
    geta = GETA(model, example, quantize=QuantConfig(activations=True, initial_bits=BITS))
    geta.calibrate([net.inputs(8)])
    geta.mask(half_of_each_family(geta))
    return model, geta.construct_subnet(round_to=ROUND_TO), example


def half_of_each_family(geta: GETA) -> list[Any]:
    """Return half of the groups of each family, rounded down; one stays where there is one."""
    return [group for family in geta.families for group in family.groups[: int(SPARSITY * len(family.groups))]]
