"""The hand-written nets of the zoo, as small modules. Comes in: widths. Goes out: ``nn.Module``s with torch's own initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(i: int, o: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, bias: bool = False) -> list[nn.Module]:
    return [nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=bias), nn.BatchNorm2d(o)]


def vgg7(width: int = 16) -> nn.Sequential:
    """The digits benchmark net: three pairs of conv3x3-BN-ReLU with biases, then two linear layers."""
    layers: list[nn.Module] = []
    i = 3
    for o in (width, 2 * width, 4 * width):
        layers += [*conv_bn(i, o, bias=True), nn.ReLU(), *conv_bn(o, o, bias=True), nn.ReLU(), nn.MaxPool2d(2)]
        i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 8 * width), nn.ReLU(), nn.Linear(8 * width, 10))


def plain(i: int, mid: int, o: int, *, head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, mid, 3, padding=1), nn.ReLU(), nn.Conv2d(mid, o, 3, padding=1), nn.ReLU(), head)


def basic(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(i, o, stride=stride), nn.ReLU(), *conv_bn(o, o))


def bottleneck(i: int, o: int, stride: int, groups: int = 1) -> nn.Sequential:
    mid = o // 2
    return nn.Sequential(*conv_bn(i, mid, 1), nn.ReLU(), *conv_bn(mid, mid, stride=stride, groups=groups), nn.ReLU(), *conv_bn(mid, o, 1))


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); ``shortcut="pad"`` is option A of the CIFAR ResNets: strided slice, zero channels appended."""

    def __init__(self, body: nn.Module, i: int, o: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.body, self.stride, self.extra = body, stride, o - i
        needs_conv = shortcut == "conv" and (stride > 1 or i != o)
        self.shortcut = nn.Sequential(*conv_bn(i, o, 1, stride=stride)) if needs_conv else None

    def forward(self, x: Tensor) -> Tensor:
        skip = self.shortcut(x) if self.shortcut else F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(self.body(x) + skip)


class ResNet(nn.Module):
    """Residual blocks of the given widths; the stride is 2 where the width grows."""

    def __init__(
        self, blocks: Sequence[Callable[[int, int, int], nn.Module]], widths: Sequence[int], *, stem: int, shortcut: str = "conv"
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, stem), nn.ReLU())
        inputs = [stem, *widths[:-1]]
        strides = [1] + [2 if o > i else 1 for i, o in zip(inputs[1:], widths[1:], strict=True)]
        self.layers = nn.Sequential(
            *(Residual(b(i, o, s), i, o, s, shortcut) for b, i, o, s in zip(blocks, inputs, widths, strides, strict=True))
        )
        self.fc = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(self.stem(x)).mean((2, 3)))


class DenseNet(nn.Module):
    """Two dense blocks (BN-ReLU-conv, concatenated) with a transition between them."""

    def __init__(self, stem: int, growth: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)

        def layer(i: int) -> nn.Sequential:
            return nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, growth, 3, padding=1, bias=False))

        middle = stem + growth * depth
        half = middle // 2
        self.first = nn.ModuleList(layer(stem + growth * k) for k in range(depth))
        self.transition = nn.Sequential(nn.BatchNorm2d(middle), nn.ReLU(), nn.Conv2d(middle, half, 1), nn.AvgPool2d(2))
        self.second = nn.ModuleList(layer(half + growth * k) for k in range(depth))
        self.norm = nn.BatchNorm2d(half + growth * depth)
        self.fc = nn.Linear(half + growth * depth, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.second:
            x = torch.cat([x, layer(x)], 1)
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class InvertedResidual(nn.Module):
    def __init__(self, i: int, o: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = i * expand
        self.add = stride == 1 and i == o
        self.conv = nn.Sequential(
            *conv_bn(i, mid, 1), nn.ReLU6(), *conv_bn(mid, mid, stride=stride, groups=mid), nn.ReLU6(), *conv_bn(mid, o, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.add else self.conv(x)


def mobilenet_v2(width: int) -> nn.Sequential:
    blocks = [InvertedResidual(width, width, 1, 2), InvertedResidual(width, 2 * width, 2, 3), InvertedResidual(2 * width, 2 * width, 1, 3)]
    return nn.Sequential(
        *conv_bn(3, width),
        nn.ReLU6(),
        *blocks,
        *conv_bn(2 * width, 32, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, 10),
    )


class UNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

        def double(i: int, o: int) -> nn.Sequential:
            return nn.Sequential(*conv_bn(i, o), nn.ReLU(), *conv_bn(o, o), nn.ReLU())

        self.down1, self.down2, self.bottom = double(3, width), double(width, 2 * width), double(2 * width, 4 * width)
        self.up2, self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge2, self.merge1 = double(4 * width, 2 * width), double(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.bottom(F.max_pool2d(b, 2))
        x = self.merge2(torch.cat([b, self.up2(x)], 1))
        return self.out(self.merge1(torch.cat([a, self.up1(x)], 1)))


class Shuffle(nn.Module):
    """ShuffleNet's unit: half of the channels through a branch, concatenated and shuffled over two groups."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Sequential(*conv_bn(3, width), nn.ReLU())
        self.branch = nn.Sequential(
            *conv_bn(half, half, 1), nn.ReLU(), *conv_bn(half, half, groups=half), *conv_bn(half, half, 1), nn.ReLU()
        )
        self.out = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        keep, use = self.stem(x).chunk(2, 1)
        x = torch.cat([keep, self.branch(use)], 1)
        n, c, h, w = x.shape
        return self.out(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1), nn.Sigmoid())
        self.out = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        return self.out(x * self.gate(x))


class SharedConv(nn.Module):
    """The same convolution twice, with an activation between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.shared(F.relu(self.stem(x))))
        return self.out(F.relu(self.shared(x)))


class TiedLinear(nn.Module):
    """Two linear modules with one weight and two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.out = nn.Linear(6, 10), nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.b(F.relu(self.a(F.relu(self.stem(x)))))))


class TiedAutoencoder(nn.Module):
    """Encoder and decoder share one matrix, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.bias = nn.Linear(12, 8), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.encode(x)), self.encode.weight.t(), self.bias)


def mlp(widths: Sequence[int], activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), activation]
    return nn.Sequential(*layers[:-1])


class Plus(nn.Module):
    """relu(x) + constant: a zeroed neuron still reaches its consumer."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + self.constant


class Gated(nn.Module):
    """silu(a) * b with a and b the halves of one linear layer."""

    def __init__(self, i: int, mid: int, o: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(i, 2 * mid), nn.Linear(mid, o)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(x).chunk(2, -1)
        return self.down(F.silu(a) * b)


class BareParameter(nn.Module):
    """Matrices that no layer owns: x @ w, then an einsum."""

    def __init__(self, i: int, mid: int, o: int) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(i, mid)), nn.Parameter(torch.randn(o, mid))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bm,om->bo", F.relu(x @ self.w), self.v)


class ManyInputs(nn.Module):
    """Two positional inputs and a keyword one; a dictionary with a nested tuple comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out, self.side = nn.Linear(8, 10), nn.Linear(6, 10), nn.Linear(10, 3), nn.Linear(20, 2)

    def forward(self, x: Tensor, y: Tensor, *, scale: Tensor) -> dict[str, object]:
        a, b = F.relu(self.left(x)) * scale, F.relu(self.right(y))
        return {"sum": self.out(a + b), "rest": (self.side(torch.cat([a, b], 1)), scale * 2)}


class Attention(nn.Module):
    """Self-attention with explicit head views and softmax, and a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        q, k, v = (layer(x).view(b, s, self.heads, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(b, s, self.heads * self.head_dim))


class MultiheadBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lstm, self.head = (
            nn.Linear(6, 8),
            nn.LSTM(8, 6, batch_first=True),
            nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(F.relu(self.stem(x)))[0][:, -1])
