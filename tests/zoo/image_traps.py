"""Nets of images, each built around what usually breaks a pruner. Part of the zoo: ``traps`` registers them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.trap_parts import Attention, C, L, seq


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.up, self.tail = C(12, 8, 3, padding=1), C(8, 8, 3, padding=1), C(8, 32, 3, padding=1), C(2, 3, 1)
        self.act = nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(F.pixel_unshuffle(x, 2))
        h = h + self.body(self.act(h))
        return self.tail(F.pixel_shuffle(self.up(h), 4)) + F.interpolate(x, scale_factor=2.0, mode="bicubic")


class MixConv(nn.Module):
    """Depthwise kernels of several sizes on uneven parts of the channels, then dilated branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.parts = seq(C(3, 12, 1), nn.BatchNorm2d(12), nn.ReLU6()), [6, 4, 2]
        self.depthwise = nn.ModuleList(C(c, c, k, padding=k // 2, groups=c) for c, k in zip(self.parts, (1, 3, 5), strict=True))
        self.branches = nn.ModuleList([C(12, 5, 1), C(12, 5, 3, padding=2, dilation=2), C(12, 7, 3, padding=3, dilation=3)])
        self.pool, self.out = seq(nn.AdaptiveAvgPool2d(1), C(12, 4, 1), nn.Hardswish()), C(21, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + torch.cat([conv(part) for conv, part in zip(self.depthwise, x.split(self.parts, 1), strict=True)], 1)
        pooled = F.interpolate(self.pool(x), x.shape[2:], mode="nearest")
        return self.out(torch.cat([*(F.silu(branch(x)) for branch in self.branches), pooled], 1))


class Volume(nn.Module):
    """A 3-d U-net: strided and dilated down, transposed up, instance norm without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 6, 3, padding=1), nn.Conv3d(6, 10, 2, stride=2)
        self.c, self.up = nn.Conv3d(10, 8, 3, padding=2, dilation=2), nn.ConvTranspose3d(8, 5, 2, stride=2)
        self.norm, self.out = nn.InstanceNorm3d(6), nn.Conv3d(11, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norm(self.a(x)))
        return self.out(torch.cat([F.relu(self.up(F.relu(self.c(F.relu(self.b(a)))))), a], 1))


class DiffusionBlock(nn.Module):
    def __init__(self, i: int, o: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, i), nn.GroupNorm(2, o)
        self.conv1, self.conv2, self.time = C(i, o, 3, padding=1), C(o, o, 3, padding=1), L(time, o)
        self.skip = C(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[..., None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Diffusion(nn.Module):
    """A denoising U-net: sinusoidal time embedding, group norms, cross-attention to a context, skips that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(torch.tensor([1.0, 0.1, 0.01, 0.001]))
        self.time = seq(L(8, 12), nn.SiLU(), L(12, 10))
        self.stem, self.down, self.bottom = C(3, 8, 3, padding=1), DiffusionBlock(8, 8, 10), DiffusionBlock(8, 12, 10)
        self.pool, self.attention, self.norm = C(8, 8, 3, stride=2, padding=1), Attention(12, 6, 2, 4), nn.GroupNorm(3, 12)
        self.up, self.last, self.out = C(12, 12, 3, padding=1), DiffusionBlock(20, 8, 10), seq(nn.GroupNorm(2, 8), nn.SiLU(), C(8, 3, 1))

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        angle = time * self.frequencies
        t = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        a = self.down(self.stem(x), t)
        h = self.bottom(self.pool(a), t)
        b, c, height, width = h.shape
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        h = h + self.attention(tokens, context).transpose(1, 2).reshape(b, c, height, width)
        h = self.up(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.out(self.last(torch.cat([h, a], 1), t))


class Variational(nn.Module):
    """Encoder to mean and log-variance, a draw that is given, decoder by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = seq(C(3, 8, 4, 2, 1), nn.LeakyReLU(0.1), C(8, 12, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten())
        self.moments, self.start = L(12 * 4, 10), L(5, 12 * 4)
        self.decoder = seq(nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.moments(self.encoder(x)).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * noise
        return self.decoder(F.relu(self.start(z)).view(-1, 12, 2, 2)), mean, log_variance


class Reversible(nn.Module):
    """RevNet: two halves that are added to each other in turn, no norm on the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = C(3, 12, 3, padding=1), C(12, 4, 1)
        self.f = nn.ModuleList(seq(C(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), C(5, 6, 1)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, 1)
        for f, g in zip(self.f[::2], self.f[1::2], strict=True):
            a = a + f(b)
            b = b + g(a)
        return self.out(torch.cat([b, a], 1).relu())


class Pyramid(nn.Module):
    """A feature pyramid with one head on every scale; the outputs stand in a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([seq(C(3, 8, 3, 2, 1), nn.ReLU()), seq(C(8, 12, 3, 2, 1), nn.ReLU())])
        self.side, self.smooth = nn.ModuleList([C(8, 6, 1), C(12, 6, 1)]), C(6, 6, 3, padding=1)
        self.classes, self.boxes = C(6, 2 * 3, 3, padding=1), C(6, 2 * 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        small = self.down[1](large := self.down[0](x))
        top = self.side[1](small)
        merged = [F.relu(self.smooth(self.side[0](large) + F.interpolate(top, scale_factor=2.0))), F.relu(self.smooth(top))]
        boxes = [self.boxes(level).permute(0, 2, 3, 1).reshape(len(x), -1, 4) for level in merged]
        scores = [self.classes(level).permute(0, 2, 3, 1).reshape(len(x), -1, 3) for level in merged]
        return {"boxes": torch.cat(boxes, 1), "scores": torch.cat(scores, 1), "levels": merged[:1]}


class Folded(nn.Module):
    """Patches taken out by Unfold, changed one by one, put back by Fold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patch = C(3, 4, 3, padding=1), seq(L(16, 10), nn.ReLU(), L(10, 16))
        self.unfold, self.fold, self.out = nn.Unfold(2, stride=2), nn.Fold((8, 8), 2, stride=2), C(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fold(self.patch(self.unfold(self.stem(x)).transpose(1, 2)).transpose(1, 2)))


class Recurrence(nn.Module):
    """A convolutional LSTM written as a loop over frames: one weight, four gates of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gates, self.out = C(2, 5, 3, padding=1), C(11, 24, 3, padding=1), C(6, 2, 1)

    def forward(self, frames: Tensor) -> Tensor:
        h = c = frames.new_zeros(frames.shape[0], 6, 6, 6)
        for frame in frames.unbind(1):
            i, f, o, g = self.gates(torch.cat([F.relu(self.stem(frame)), h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)
