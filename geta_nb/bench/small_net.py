"""The small convolutional network that the digits and the fashion benchmark share, and its multiply-accumulates.

In: a width, and what the images look like. Out: a fresh network. Six 3x3 convolutions with norms, three poolings, two linear layers.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from geta_nb.errors import InputError

CHANNELS, HIDDEN, CLASSES = (16, 16, 32, 32, 64, 64), 128, 10


def small_net(width: float = 1.0, *, in_channels: int = 3, stride: int = 1) -> nn.Sequential:
    """Return the network, freshly initialised: convolutions with bias, Kaiming-normal weights.

    Args:
        width: multiplier of every inner channel count, > 0; rounded, at least one channel a layer.
        in_channels: of the images.
        stride: of the first convolution.

    Raises:
        InputError: a width that is not positive.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, stage in enumerate(CHANNELS, start=1):
        out = _scaled(stage, width)
        conv = nn.Conv2d(channels, out, 3, padding=1, stride=stride if number == 1 else 1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers |= {f"conv{number}": conv, f"norm{number}": nn.BatchNorm2d(out), f"relu{number}": nn.ReLU()}
        if number % 2 == 0:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = out
    hidden = _scaled(HIDDEN, width)
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers |= {"hidden": nn.Linear(channels, hidden), "relu": nn.ReLU(), "classes": nn.Linear(hidden, CLASSES)}
    return nn.Sequential(layers)


def _scaled(channels: int, width: float) -> int:
    if not width > 0:
        raise InputError("small_net: a network needs channels.", expected="width > 0", got=f"width = {width}", hint="small_net(1.0)")
    return max(1, round(channels * width))
