"""Nets with frozen norms, whose numbers are buffers, in the forms in which detectors write them. Part of the zoo.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. All convolutions behind them are padded, so that no bias can
take over what a removed channel's shift would give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

C = nn.Conv2d


class Frozen(nn.Module):
    """Four buffers: the scale is made of weight and variance, the shift of bias and mean (torchvision, Detectron2, DETR)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(torch.rand(channels) + 0.5), nn.Buffer(torch.randn(channels))
        self.running_mean, self.running_var = nn.Buffer(torch.randn(channels)), nn.Buffer(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w, b, m, v = (t.reshape(1, -1, 1, 1) for t in (self.weight, self.bias, self.running_mean, self.running_var))
        scale = w * (v + 1e-5).rsqrt()
        return x * scale + (b - m * scale)


class FrozenTurned(Frozen):
    """The same, every product the other way round, and the mean taken off before."""

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.running_var + 1e-5).rsqrt()[:, None, None]
        return self.bias[:, None, None] + (x - self.running_mean[:, None, None]) * scale * self.weight[:, None, None]


class FrozenCall(Frozen):
    """The same by torch's own operator, which then gets buffers (timm)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, 1e-5)


class FrozenAffine(nn.Module):
    """Scale and shift as they are left when a norm is folded: ActNorm, a fixed LayerScale with a shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Buffer(torch.rand(channels, 1, 1) + 0.5), nn.Buffer(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def plain(norm: Callable[[int], nn.Module]) -> nn.Module:
    """Two convolutions with a frozen norm each, then the one that reads them; all padded."""
    first, second, third = C(3, 8, 3, padding=1, bias=False), C(8, 6, 3, padding=1), C(6, 4, 3, padding=1)
    return nn.Sequential(first, norm(8), nn.ReLU(), second, norm(6), nn.ReLU(), third)


class Bottleneck(nn.Module):
    """A residual block with three frozen norms, and a fourth on a shortcut that changes the width."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = C(inputs, inner, 1, bias=False), Frozen(inner)
        self.conv2, self.bn2 = C(inner, inner, 3, padding=1, bias=False), Frozen(inner)
        self.conv3, self.bn3 = C(inner, outputs, 1, bias=False), Frozen(outputs)
        self.down = nn.Sequential(C(inputs, outputs, 1, bias=False), Frozen(outputs)) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + self.down(x)).relu()


class Detector(nn.Module):
    """A frozen backbone of residual blocks, a projection to tokens, and an encoder layer over them, as DETR has it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.pool = C(3, 8, 3, padding=1, bias=False), Frozen(8), nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Bottleneck(8, 5, 12), Bottleneck(12, 6, 12), Bottleneck(12, 5, 12))
        self.project, self.encoder = C(12, 16, 1), nn.TransformerEncoderLayer(16, 4, 20, dropout=0.0, batch_first=True)
        self.boxes = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(self.norm(self.stem(x)).relu()))
        return self.boxes(self.encoder(self.project(x).flatten(2).transpose(1, 2))).sigmoid()


NETS: dict[str, Callable[[], nn.Module]] = {
    "frozen_norm": lambda: plain(Frozen),
    "frozen_norm_turned": lambda: plain(FrozenTurned),
    "frozen_norm_call": lambda: plain(FrozenCall),
    "frozen_affine": lambda: plain(FrozenAffine),
    "frozen_detector": Detector,
}


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, make in NETS.items():
        add(name, make, (3, 8, 8))
