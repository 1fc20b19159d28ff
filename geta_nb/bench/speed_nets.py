"""The seven networks of the speed table, at their full size and with random weights, and a Llama of any depth.

In: a name. Out: a network and example inputs. The convolutional ones are plain torch; the transformers come from ``transformers``
(``pip install 'geta-nb[bench]'``), built from their published configurations: nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.errors import InputError


def imported(name: str) -> Any:
    """Import a module that only the benchmarks need.

    Raises:
        InputError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"bench: {name} is not installed.", expected="the extra of the benchmarks", got=str(error), hint="pip install 'geta-nb[bench]'"
        ) from error


def conv_bn(c_in: int, c_out: int, size: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    """Return convolution, batch norm and activation with same padding."""
    conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *([act()] if act is not None else []))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = 4 * width
        self.body = nn.Sequential(conv_bn(c_in, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, c_out, 1, act=None))
        self.shortcut = nn.Identity() if stride == 1 and c_in == c_out else conv_bn(c_in, c_out, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50, 25.6M parameters (He et al. 2016)."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c_in = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(count):
            layers.append(Bottleneck(c_in, width, 2 if stage and not block else 1))
            c_in = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def vgg16() -> nn.Module:
    """VGG-16, 138.4M parameters (Simonyan & Zisserman 2015)."""
    layers: list[nn.Module] = []
    c_in = 3
    for c_out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


class DenseLayer(nn.Module):
    """Adds 32 channels to those that come in."""

    def __init__(self, c_in: int, growth: int = 32) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, 4 * growth, 1, bias=False))
        self.grow = nn.Sequential(nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        return torch.cat([x, self.grow(self.squeeze(x))], 1)


def densenet121() -> nn.Module:
    """DenseNet-121, 8.0M parameters (Huang et al. 2017)."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for block, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            layers.append(DenseLayer(channels))
            channels += 32
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < 3:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; a shortcut where shapes allow."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c_in * expand
        first = [conv_bn(c_in, wide, 1, act=nn.ReLU6)] if expand > 1 else []
        self.body = nn.Sequential(*first, conv_bn(wide, wide, 3, stride, groups=wide, act=nn.ReLU6), conv_bn(wide, c_out, 1, act=None))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out: Tensor = self.body(x)
        return x + out if self.residual else out


def mobilenet_v2() -> nn.Module:
    """MobileNetV2, 3.5M parameters (Sandler et al. 2018)."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
    c_in = 32
    for expand, c_out, count, stride in rows:
        for block in range(count):
            layers.append(InvertedResidual(c_in, c_out, stride if not block else 1, expand))
            c_in = c_out
    layers += [conv_bn(c_in, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers)


def vit_b() -> nn.Module:
    """ViT-B/16, 86.6M parameters (Dosovitskiy et al. 2021)."""
    hf = imported("transformers")
    model: nn.Module = hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000))
    return model


def bert_base() -> nn.Module:
    """BERT-base, 109.5M parameters (Devlin et al. 2019)."""
    hf = imported("transformers")
    model: nn.Module = hf.BertForSequenceClassification(hf.BertConfig())
    return model


def llama(layers: int = 12) -> nn.Module:
    """A Llama of hidden size 768 and any depth, 12 heads; 134M parameters with 12 layers."""
    hf = imported("transformers")
    config = hf.LlamaConfig(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12, num_key_value_heads=12,
        vocab_size=32000, use_cache=False,
    )  # fmt: skip
    model: nn.Module = hf.LlamaForCausalLM(config)
    return model


def image() -> tuple[Tensor, ...]:
    """One picture, [1, 3, 224, 224]."""
    return (torch.randn(1, 3, 224, 224),)


def tokens() -> tuple[Tensor, ...]:
    """Token ids, [1, 64]."""
    return (torch.randint(0, 1000, (1, 64)),)


@dataclass(frozen=True)
class SpeedNet:
    """A network of the table.

    Attributes:
        label: what the table calls it.
        build: makes it, random weights.
        inputs: makes its example inputs.
        heads: number of attention heads per layer, 0 for none; torch-pruning wants to be told.
    """

    label: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    heads: int = 0


NETS: dict[str, SpeedNet] = {
    "resnet50": SpeedNet("ResNet50", resnet50, image),
    "vgg16": SpeedNet("VGG16", vgg16, image),
    "densenet121": SpeedNet("DenseNet121", densenet121, image),
    "mobilenet_v2": SpeedNet("MobileNetV2", mobilenet_v2, image),
    "vit_b": SpeedNet("ViT-B/16", vit_b, image, 12),
    "bert_base": SpeedNet("BERT-base", bert_base, tokens, 12),
    "llama12": SpeedNet("Llama, 12 layers", llama, tokens, 12),
}
