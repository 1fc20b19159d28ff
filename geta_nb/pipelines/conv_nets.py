"""The small convolutional networks of the paper's CIFAR-10 rows, at any width.

In: number of classes and width. Out: a freshly initialised network for images [B, 3, 32, 32].
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Identity() if stride == 1 and c_in == c_out else _projection(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, [B, C_out, H / stride, W / stride]."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def _projection(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class ResidualNet(nn.Module):
    """A CIFAR residual network: three stages of n blocks, 6 n + 2 layers (He et al. 2016, arXiv:1512.03385, section 4.2).

    Shortcuts that change shape are 1x1 convolutions.

    Args:
        blocks: n, blocks in each stage.
        classes: number of classes.
        width: channels of the first stage; the next ones have two and four times as many.
    """

    def __init__(self, blocks: int, *, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages: list[nn.Module] = []
        c_in = width
        for stage in range(3):
            c_out = width * 2**stage
            for block in range(blocks):
                stages.append(BasicBlock(c_in, c_out, 2 if stage and not block else 1))
                c_in = c_out
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, [B, classes]."""
        features: Tensor = self.blocks(self.stem(x))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


def resnet20(classes: int = 10, *, width: int = 16) -> nn.Module:
    """Return ResNet20: 0.27M parameters at width 16, 41M MACs on 32 x 32."""
    return ResidualNet(3, classes=classes, width=width)


def vgg7(classes: int = 10, *, width: int = 128) -> nn.Module:
    """Return VGG7: six 3x3 convolutions of w, w, 2w, 2w, 4w, 4w channels, each pair halving the image, and two linear layers.

    With width 128 it is the network of Ternary Weight Networks (Li et al. 2016, arXiv:1605.04711) that the rival papers' rows name too.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    c_in = 3
    for number, c_out in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width), start=1):
        layers[f"conv{number}"] = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        layers |= {f"norm{number}": nn.BatchNorm2d(c_out), f"relu{number}": nn.ReLU()}
        if number % 2 == 0:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        c_in = c_out
    hidden = 8 * width
    layers |= {"flatten": nn.Flatten(), "hidden": nn.Linear(c_in * 16, hidden), "relu": nn.ReLU(), "classes": nn.Linear(hidden, classes)}
    net = nn.Sequential(layers)
    for module in net:
        if isinstance(module, nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net
