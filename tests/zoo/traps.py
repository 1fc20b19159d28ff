"""Whole nets in plain torch, each built around what usually breaks a pruner. Part of the zoo.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. Widths differ where two could be mistaken for one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

L, C = nn.Linear, nn.Conv2d


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Net(nn.Module):
    """A net written as one function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Buffer(part) if isinstance(part, Tensor) and not isinstance(part, nn.Parameter) else part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Attention of ``heads`` from x to context, projections without bias, all contractions written as einsum."""

    def __init__(self, width: int, context: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head**-0.5
        self.q, self.kv, self.out = L(width, heads * head, False), L(context, 2 * heads * head, False), L(heads * head, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.kv(context).chunk(2, -1))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) * self.scale).softmax(-1)
        return self.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(-2))


# Images


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


# Sequences and sets


class GluVariants(nn.Module):
    """GLU, GEGLU, ReGLU, SwiGLU and bilinear one after another on one residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = L(8, 12), L(12, 3)
        self.up, self.down = nn.ModuleList(L(12, 20) for _ in range(4)), nn.ModuleList(L(10, 12) for _ in range(4))
        self.w1, self.w2, self.w3 = L(12, 14, False), L(14, 12, False), L(12, 14, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            a, b = up(x).split(10, -1)
            x = x + down((F.glu(up(x), -1), F.gelu(a) * b, a * b.relu(), a * b)[i])
        return self.out(x + self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Splits(nn.Module):
    """Uneven splits, joined again in another order and nested, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.out = L(8, 16), L(8, 6), L(5, 4), L(11, 6), L(42, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.a(x).relu().split([5, 3, 8], 1)
        left = torch.cat([third, second], 1)
        inner = torch.cat([self.c(first), torch.cat([self.b(x), left[:, 2:]], 1)], 1)
        return self.out(torch.cat([inner, F.pad(self.d(left), (1, 0)), left, first], 1)[:, :42])


class Mixture(nn.Module):
    """Experts stacked in one tensor; routing softly, to the best by where, or by a one-hot dispatch tensor."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.stem, self.gate = way, L(6, 12), L(12, 3)
        self.w1, self.b1, self.w2, self.out = P(3, 12, 10), P(3, 10), P(3, 10, 12), L(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gates = self.gate(x).softmax(-1)
        if self.way == "soft":
            h = F.relu(torch.einsum("btd,edh->bteh", x, self.w1) + self.b1)
            y = torch.einsum("bte,bteh,ehd->btd", gates, h, self.w2)
        elif self.way == "where":
            best, y = gates.argmax(-1, keepdim=True), torch.zeros_like(x)
            for e, (w1, b1, w2) in enumerate(zip(self.w1, self.b1, self.w2, strict=True)):
                y = y + torch.where(best == e, gates.gather(-1, best) * (F.relu(x @ w1 + b1) @ w2), torch.zeros_like(x))
        else:
            dispatch = F.one_hot(gates.argmax(-1), 3).to(x.dtype)
            inside = torch.einsum("bte,btd->ebtd", dispatch, x)
            y = torch.einsum("ebth,ehd,bte->btd", F.relu(torch.einsum("ebtd,edh->ebth", inside, self.w1)), self.w2, gates)
        return self.out(x + y)


class Perceiver(nn.Module):
    """Latents that are parameters read the input, talk among themselves, and are read by queries that are parameters too."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.queries = P(5, 12), P(2, 10)
        self.read, self.think, self.write = Attention(12, 7, 2, 4), Attention(12, 12, 3, 4), Attention(10, 12, 2, 5)
        self.mlp, self.out = seq(nn.LayerNorm(12, elementwise_affine=False), L(12, 18), nn.GELU(), L(18, 12)), L(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.expand(x.shape[0], -1, -1)
        latents = latents + self.read(latents, x)
        latents = latents + self.mlp(latents)
        latents = latents + self.think(latents, latents)
        return self.out(self.write(self.queries.expand(x.shape[0], -1, -1), latents))


class GraphNet(nn.Module):
    """Two layers on a graph whose adjacency matrix is an input: a sum over neighbours, then attention among them."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.others, self.q, self.k, self.v, self.out = L(6, 12), L(6, 12, False), L(12, 8), L(12, 8), L(12, 10), L(10, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.abs().sum(-1, keepdim=True).clamp(min=1)
        x = F.elu(self.own(x) + adjacency @ self.others(x) / degree)
        scores = (self.q(x) @ self.k(x).mT).masked_fill(adjacency < 0, -1e9)
        return self.out((scores.softmax(-1) @ self.v(x)).relu())


class Hyper(nn.Module):
    """Weights that another net makes of the input, as a softmax-weighted sum of kernels and as a low-rank product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.route, self.kernels = L(6, 10), L(6, 3), P(3, 10, 8)
        self.left, self.right, self.out = L(6, 8 * 2), L(6, 2 * 9), L(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bi,bk,kio->bo", F.relu(self.stem(x)), self.route(x).softmax(-1), self.kernels).relu()
        left, right = self.left(x).view(-1, 8, 2), self.right(x).view(-1, 2, 9)
        return self.out(torch.einsum("bi,bir,bro->bo", h, left, right))


class Iterated(nn.Module):
    """One block that runs four times, its halting weight and its input injected each time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.halt, self.out = L(6, 12), seq(L(12, 20), nn.GELU(), L(20, 12)), L(12, 1), L(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = h = self.stem(x)
        total = torch.zeros_like(h)
        for _ in range(4):
            h = self.block(h + start).tanh()
            total = total + self.halt(h).sigmoid() * h
        return self.out(total)


class WaveNet(nn.Module):
    """Causal dilated convolutions, padded and cropped, with tanh times sigmoid, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv1d(2, 8, 1), seq(nn.ReLU(), nn.Conv1d(6, 7, 1), nn.ReLU(), nn.Conv1d(7, 3, 1))
        self.gates = nn.ModuleList(nn.Conv1d(8, 20, 2, dilation=d, padding=d) for d in (1, 2, 4))
        self.residual = nn.ModuleList(nn.Conv1d(10, 8, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(10, 6, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for gate, residual, skip in zip(self.gates, self.residual, self.skip, strict=True):
            a, b = gate(x)[..., : x.shape[-1]].chunk(2, 1)
            h = a.tanh() * b.sigmoid()
            skips.append(skip(h))
            x = x + residual(h)
        return self.out(torch.stack(skips).sum(0))


class Recurrent(nn.Module):
    """GRU, LSTM and Elman layers in both directions and several layers deep, each reading the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gru = L(5, 8), nn.GRU(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.lstm, self.rnn = nn.LSTM(12, 5, bidirectional=True, batch_first=True), nn.RNN(10, 7, nonlinearity="relu", batch_first=True)
        self.out = L(7 + 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(F.relu(self.stem(x)))[0]
        y, (last, _) = self.lstm(y)
        return self.out(torch.cat([self.rnn(y)[0][:, -1], last.transpose(0, 1).flatten(1)], 1))


class TiedLanguage(nn.Module):
    """Embeddings of tokens and places, a gated block, and the token table again as the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.up, self.down = nn.Embedding(20, 10), nn.Embedding(6, 10), L(10, 24), L(12, 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        a, b = self.up(x).chunk(2, -1)
        return F.linear(x + self.down(a.relu() * b), self.tokens.weight)


@dataclass
class Answer:
    """Output of :class:`Structured`, a class of its own."""

    logits: Tensor
    hidden: tuple[Tensor, dict[str, Tensor]]


torch.export.register_dataclass(Answer)


class Structured(nn.Module):
    """A nested tuple and a keyword-only dictionary go in, a dataclass comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.bilinear, self.out = L(6, 10), L(4, 9), L(3, 7), nn.Bilinear(10, 9, 7), L(7, 3)

    def forward(self, nested: tuple[Tensor, list[Tensor]], *, options: dict[str, Tensor]) -> Answer:
        first, (second, third) = nested
        a, b = F.relu(self.a(first)), self.b(second).tanh()
        h = self.bilinear(a, b).relu() * self.c(third) * options["scale"]
        return Answer(self.out(h), (h.sum(1), {"mask": options["mask"]}))


class Prototypes(nn.Module):
    """Few-shot: a support set of its own size, compared with each query by squared distance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = seq(L(6, 14), nn.ReLU(), L(14, 8)), L(8, 5, False)

    def forward(self, queries: Tensor, support: Tensor) -> Tensor:
        a, b = self.head(self.encoder(queries).relu()), self.head(self.encoder(support).relu())
        return -(a[:, None] - b[None]).pow(2).sum(-1)


class Buffers(nn.Module):
    """Buffers along every axis: a channel mask, an average of weights, a codebook that averages made, fixed frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.b, self.out = L(6, 12), L(12, 8), L(8, 3)
        self.mask, self.average = nn.Buffer((torch.arange(12) % 3 > 0).float()), nn.Buffer(torch.linspace(-1, 1, 96).view(8, 12))
        self.frequencies, self.f, self.codes = nn.Buffer(torch.randn(6, 5)), L(10, 12), nn.Buffer(torch.randn(4, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = x @ self.frequencies
        h = self.stem(x) * self.mask + self.f(torch.cat([angle.sin(), angle.cos()], -1))
        h = self.b(h.relu()) + 0.1 * F.linear(h.relu(), self.average)
        return self.out(h), self.codes[torch.cdist(h, self.codes).argmin(-1)]


class Reparametrized(nn.Module):
    """Spectral and weight norm as torch's own parametrizations compute them, between layers that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = L(6, 10), parametrizations.weight_norm(L(10, 8))
        self.c, self.d, self.out = L(8, 12), parametrizations.spectral_norm(L(12, 7)), L(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.d(self.c(self.b(self.a(x).relu()).relu()).relu()).relu())


class Mixer(nn.Module):
    """Tokens mixed by a linear layer over places, channels by another, gated over places; a patch convolution before."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.tokens, self.channels = C(3, 12, 4, 4), seq(L(4, 9), nn.GELU(), L(9, 4)), seq(L(12, 20), nn.GELU())
        self.spatial, self.down, self.scale, self.out = L(4, 4), L(10, 12), nn.Parameter(torch.ones(12)), L(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2) * self.scale
        u, v = self.channels(x).chunk(2, -1)
        return self.out((x + self.down(u * self.spatial(v.transpose(1, 2)).transpose(1, 2))).sum(1))


class SimpleViT(nn.Module):
    """A plain vision transformer: patches by reshaping, sines for places, fused projections, no class token."""

    def __init__(self) -> None:
        super().__init__()
        angle = torch.arange(4)[:, None] / 10.0 ** torch.linspace(0, 1, 8)
        self.embed, self.places = seq(nn.LayerNorm(48), L(48, 16)), nn.Buffer(torch.cat([angle.sin(), angle.cos()], 1))
        self.norm1, self.qkv, self.proj = nn.LayerNorm(16), L(16, 48, False), L(16, 16, False)
        self.mlp, self.head = seq(nn.LayerNorm(16), L(16, 28), nn.GELU(), L(28, 16)), seq(nn.LayerNorm(16), L(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = self.embed(x.view(b, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(b, 4, 48)) + self.places
        q, k, v = (part.view(b, 4, 4, 4).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, 4, 16))
        return self.head((x + self.mlp(x)).mean(1))


class EncoderDecoder(nn.Module):
    """torch's own transformer with both stacks, on inputs of two lengths, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target, self.out = L(5, 16), L(6, 16), L(16, 3)
        self.transformer = nn.Transformer(16, 4, 1, 1, 20, dropout=0.0, batch_first=True)
        self.mask = nn.Buffer(torch.ones(4, 4, dtype=torch.bool).triu(1))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.out(self.transformer(self.source(source), self.target(target), tgt_mask=self.mask, tgt_is_causal=True))


class Bags(nn.Module):
    """Bags of words of fixed length, summed, averaged and weighted, then a deep and a wide part."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.mean, self.table = nn.EmbeddingBag(20, 8, mode="sum"), nn.EmbeddingBag(20, 6), nn.Embedding(20, 5)
        self.deep, self.wide = seq(L(19, 12), nn.ReLU(), L(12, 3)), nn.Embedding(20, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = torch.cat([self.total(ids), self.mean(ids), self.table(ids[:, 0])], -1)
        return self.deep(h) + self.wide(ids).sum(1)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "super_resolution": (SuperResolution, ((3, 8, 8),)),
    "mix_conv": (MixConv, ((3, 8, 8),)),
    "volume": (Volume, ((2, 4, 4, 4),)),
    "diffusion_unet": (Diffusion, ((3, 8, 8), (1,), (3, 6))),
    "variational_autoencoder": (Variational, ((3, 8, 8), (5,))),
    "reversible": (Reversible, ((3, 6, 6),)),
    "feature_pyramid": (Pyramid, ((3, 8, 8),)),
    "fold_unfold": (Folded, ((3, 8, 8),)),
    "conv_lstm": (Recurrence, ((3, 2, 6, 6),)),
    "glu_variants": (GluVariants, ((8,),)),
    "uneven_splits": (Splits, ((8,),)),
    "mixture_soft": (lambda: Mixture("soft"), ((5, 6),)),
    "mixture_where": (lambda: Mixture("where"), ((5, 6),)),
    "mixture_dispatch": (lambda: Mixture("dispatch"), ((5, 6),)),
    "perceiver": (Perceiver, ((6, 7),)),
    "graph_net": (GraphNet, ((5, 6), (5, 5))),
    "hyper_network": (Hyper, ((6,),)),
    "iterated": (Iterated, ((6,),)),
    "wavenet": (WaveNet, ((2, 12),)),
    "recurrent": (Recurrent, ((4, 5),)),
    "buffers": (Buffers, ((6,),)),
    "reparametrized": (Reparametrized, ((6,),)),
    "mixer": (Mixer, ((3, 8, 8),)),
    "simple_vit": (SimpleViT, ((3, 8, 8),)),
    "encoder_decoder": (EncoderDecoder, ((5, 5), (4, 6))),
}


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, (make, shapes) in NETS.items():
        add(name, make, *shapes)
    for name, make in {"tied_language_model": TiedLanguage, "embedding_bags": Bags}.items():
        add(name, make, (5,), vocabulary=20)
    add("structured", Structured, kwargs=lambda b: {
        "nested": (torch.randn(b, 6), [torch.randn(b, 4), torch.randn(b, 3)]),
        "options": {"scale": torch.randn(b, 1), "mask": torch.rand(b, 2) > 0.5},
    })  # fmt: skip
    add("two_batch_sizes", Prototypes, kwargs=lambda b: {"queries": torch.randn(b, 6), "support": torch.randn(5, 6)})
