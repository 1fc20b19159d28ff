"""Whole nets in plain torch, each built around what usually breaks a pruner. Part of the zoo.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. Widths differ where two could be mistaken for one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.zoo.image_traps import (
    Diffusion,
    Folded,
    MixConv,
    Pyramid,
    Recurrence,
    Reversible,
    SuperResolution,
    Variational,
    Volume,
)
from tests.zoo.trap_parts import Attention, C, L, P, seq


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
