"""Blocks of sequence, token, graph and generative networks, and heads that compare, in a few channels each. Part of the zoo.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. One function each, as in ``small_images``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.trap_parts import L, Net, P

Parts = Callable[[], Mapping[str, Any]]
VECTOR, SEQUENCE, SIGNAL = (6,), (5, 6), (3, 10)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {}


def net(name: str, shapes: tuple[Any, ...], function: Callable[..., Any], parts: Parts) -> None:
    """Register a function of a net and its inputs, one shape or several, and what makes the net's parts."""
    NETS[name] = (lambda: Net(function, parts()), shapes if isinstance(shapes[0], tuple) else (shapes,))


def between(name: str, step: Callable[[Any, Tensor], Tensor], parts: Parts = dict, *, shape: tuple[int, ...] = VECTOR) -> None:
    """Register Linear(6, 12), a step on its output, Linear(12, 4)."""
    net(name, shape, lambda s, x: s.b(step(s, s.a(x))), lambda: {"a": L(6, 12), "b": L(12, 4), **parts()})


# Attention of two heads of four dimensions over five places
def heads(x: Tensor) -> Tensor:
    """(B, T, 2 * D) as (B, 2, T, D)."""
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def weighed(scores: Tensor, v: Tensor) -> Tensor:
    return scores.softmax(-1) @ v


def attended(name: str, attend: Callable[..., Tensor], parts: Parts = dict) -> None:
    """Register a stem, attention with one projection for all, added to it, and a head."""

    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        y = attend(s, *map(heads, s.qkv(h).chunk(3, -1)))
        out: Tensor = s.b(h + s.o(y.transpose(1, 2).flatten(2)))
        return out

    net(name, SEQUENCE, run, lambda: {"a": L(6, 10), "qkv": L(10, 24), "o": L(8, 10), "b": L(10, 3), **parts()})


def _linear(s: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.mT @ v) / (q * k.sum(2, True)).sum(-1, True)


def _random_features(s: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = ((t @ s.w - t.square().sum(-1, True) / 2).exp() for t in (q, k))
    return q @ (k.mT @ v) / ((q * k.sum(2, True)).sum(-1, True) + 1e-6)


def _talking(s: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhij,hg->bgij", q @ k.mT, s.before)
    return torch.einsum("bhij,hg->bgij", scores.softmax(-1), s.after) @ v


def _windows(s: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (F.pad(t, (0, 0, 0, 1)).unflatten(2, (3, 2)) for t in (q, k, v))
    return weighed(q @ k.mT, v).flatten(2, 3)[:, :, :5]


def _inducing(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    points = weighed(s.i @ s.k(h).mT, h)
    return s.b(h + weighed(s.q(h) @ s.k(points).mT, points))


def _across(s: Any, x: Tensor, y: Tensor) -> Tensor:
    h = s.a(x)
    q, k, v = map(heads, (s.q(h), s.k(y), s.v(y)))
    return s.b(h + s.o(weighed(q @ k.mT, v).transpose(1, 2).flatten(2)))


attended("attention_talking_heads", _talking, lambda: {"before": P(2, 2), "after": P(2, 2)})
attended("attention_linear", _linear)
attended("attention_random_features", _random_features, lambda: {"w": torch.randn(4, 5)})
attended("attention_of_distances", lambda s, q, k, v: weighed(-torch.cdist(q, k), v))
attended("attention_windows", _windows)
attended("attention_with_a_sink", lambda s, q, k, v: torch.cat([q @ k.mT, s.z.expand(q.shape[0], -1, 5, -1)], -1).softmax(-1)[..., :-1] @ v,
         lambda: {"z": P(2, 1, 1)})  # fmt: skip
net("attention_across", (SEQUENCE, (4, 7)), _across,
    lambda: {"a": L(6, 10), "q": L(10, 8), "k": L(7, 8), "v": L(7, 6), "o": L(6, 10), "b": L(10, 3)})  # fmt: skip
net("attention_additive", (SEQUENCE, VECTOR), lambda s, x, q: s.b((s.e(torch.tanh(s.k(x) + s.q(q)[:, None])).softmax(1) * s.v(x)).sum(1)),
    lambda: {"k": L(6, 8), "q": L(6, 8), "e": L(8, 1, bias=False), "v": L(6, 7), "b": L(7, 3)})  # fmt: skip
net("inducing_points", SEQUENCE, _inducing, lambda: {"a": L(6, 9), "i": P(3, 7), "q": L(9, 7), "k": L(9, 7), "b": L(9, 3)})


# Gates, mixers, filters, recurrences
def _highway(s: Any, h: Tensor) -> Tensor:
    gate = s.t(h).sigmoid()
    return gate * s.h(h).relu() + (1 - gate) * h


def _causal(s: Any, x: Tensor) -> Tensor:
    h = F.relu(s.a(F.pad(x, (2, 0))))
    return s.b(F.relu(s.c(F.relu(s.d(F.pad(h, (4, 0))))) + s.r(x))[..., -1])


def _sources(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    masks = s.m(F.relu(h)).unflatten(1, (2, 8)).sigmoid()
    return s.d((h[:, None] * masks).flatten(0, 1)).unflatten(0, (-1, 2))


between("highway", _highway, lambda: {"t": L(12, 12), "h": L(12, 12)})
between("gated_by_the_other_half", lambda s, h: s.c(h[..., :6] * (s.t(F.layer_norm(h[..., 6:], (6,)).mT).mT + 1)),
        lambda: {"t": L(5, 5), "c": L(6, 12)}, shape=SEQUENCE)  # fmt: skip
between("scaled_and_shifted", lambda s, h: (lambda c: h * (1 + c[..., :12]) + c[..., 12:])(s.c(h.mean(1, True).tanh())),
        lambda: {"c": L(12, 24)}, shape=SEQUENCE)  # fmt: skip
between("layer_scaled_and_dropped", lambda s, h: h + s.g * s.p(F.dropout(F.gelu(s.u(h)), 0.2, s.training)),
        lambda: {"u": L(12, 9), "p": L(9, 12), "g": P(12)})  # fmt: skip
between("filter_of_frequencies", lambda s, h: torch.fft.irfft(torch.fft.rfft(h, dim=1) * torch.view_as_complex(s.w), n=5, dim=1),
        lambda: {"w": P(3, 12, 2)}, shape=SEQUENCE)  # fmt: skip
between("diagonal_states", lambda s, h: torch.einsum("dn,nt,btd->bd", s.c, (-s.n.exp()[:, None] * torch.arange(5)).exp(), h),
        lambda: {"c": P(12, 3), "n": P(3)}, shape=SEQUENCE)  # fmt: skip
net("causal_convolutions", SIGNAL, _causal,
    lambda: {"a": nn.Conv1d(3, 8, 3), "d": nn.Conv1d(8, 7, 3, dilation=2), "c": nn.Conv1d(7, 6, 1), "r": nn.Conv1d(3, 6, 1),
             "b": L(6, 3)})  # fmt: skip
net("separated_sources", SIGNAL, _sources,
    lambda: {"e": nn.Conv1d(3, 8, 4, 2, bias=False), "m": nn.Conv1d(8, 16, 1), "d": nn.ConvTranspose1d(8, 1, 4, 2)})  # fmt: skip


# Experts, low ranks, functions of coordinates
def _experts(s: Any, h: Tensor) -> Tensor:
    return (s.g(h).softmax(-1).unsqueeze(-2) * torch.stack([F.relu(expert(h)) for expert in s.e], -1)).sum(-1)


def _splines(s: Any, h: Tensor) -> Tensor:
    return torch.einsum("bik,iko->bo", (-(h.unsqueeze(-1) - s.t).square()).exp(), s.w) + s.c(F.silu(h))


def _capsules(s: Any, h: Tensor) -> Tensor:
    h = h.view(-1, 3, 4)
    length = h.square().sum(-1, True)
    return (h * (length / (1 + length) / (length + 1e-8).sqrt())).flatten(1)


def _both_ends(s: Any, h: Tensor) -> Tensor:
    pairs = h.view(-1, 6, 2)
    return s.c(torch.cat([pairs.amax(2), pairs.amin(2)], 1))


between("experts_weighed", _experts, lambda: {"g": L(12, 3), "e": nn.ModuleList(L(12, 12) for _ in range(3))})
between("adapters", lambda s, h: F.linear(h, s.w + s.l.t() @ s.r * 0.5) + s.u(F.relu(s.d(h))),
        lambda: {"w": P(12, 12), "l": P(2, 12), "r": P(2, 12), "d": L(12, 3), "u": L(3, 12)})  # fmt: skip
between("splines", _splines, lambda: {"t": torch.linspace(-1, 1, 4), "w": P(12, 4, 12), "c": L(12, 12)})
between("crossed_with_itself", lambda s, h: h * (h @ s.w) + s.c + h * s.e(h), lambda: {"w": P(12, 1), "c": P(12), "e": L(12, 12)})
between("sines", lambda s, h: torch.sin(30 * s.c(torch.sin(h))) + torch.sinc(h) - 1, lambda: {"c": L(12, 12)})
between("random_frequencies", lambda s, h: s.c(torch.cat([(h @ s.w).sin(), (h @ s.w).cos(), h], -1)),
        lambda: {"w": torch.randn(12, 4), "c": L(20, 12)})  # fmt: skip
between("largest_and_least_of_pairs", _both_ends, lambda: {"c": L(12, 12)})
between("capsules", _capsules)


# Generators, flows, pairs, heads that compare
def _coupled(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    kept, changed = x.chunk(2, 1)
    scale, shift = s.b(F.relu(s.a(kept))).chunk(2, 1)
    return torch.cat([kept, changed * scale.tanh().exp() + shift], 1), scale.tanh().sum(1)


def _siamese(s: Any, x: Tensor, y: Tensor) -> Tensor:
    u, v = (s.c(F.relu(s.a(t))) for t in (x, y))
    return s.b((u - v).abs() * s.w + u * v)


def _margin(s: Any, x: Tensor) -> Tensor:
    cosine = F.linear(F.normalize(F.relu(s.a(x))), F.normalize(s.w))
    return 16 * (cosine * 0.8 - (1 - cosine * cosine).clamp(min=1e-6).sqrt() * 0.6)


def _styled(s: Any, x: Tensor) -> Tensor:
    h, (scale, shift) = s.a(x), s.m(x.mean((2, 3)))[..., None, None].chunk(2, 1)
    return s.b(F.leaky_relu((h - h.mean((2, 3), True)) / (h.var((2, 3), keepdim=True) + 1e-5).sqrt() * (1 + scale) + shift))


def _denoiser(s: Any, x: Tensor, t: Tensor) -> Tensor:
    angle = t[:, None] * s.w
    return s.b(F.silu(s.a(x) + s.e(F.silu(s.t(torch.cat([angle.sin(), angle.cos()], 1))))))


net("coupled_flow", VECTOR, _coupled, lambda: {"a": L(3, 8), "b": L(8, 6)})
net("siamese", (VECTOR, VECTOR), _siamese, lambda: {"a": L(6, 8), "c": L(8, 7), "w": P(7), "b": L(7, 1)})
net("two_towers", (VECTOR, (4,)),
    lambda s, x, y: F.normalize(s.c(F.relu(s.a(x)))) @ F.normalize(s.d(F.relu(s.e(y)))).t() * s.t.exp(),
    lambda: {"a": L(6, 8), "c": L(8, 5), "e": L(4, 7), "d": L(7, 5), "t": P()})  # fmt: skip
net("angular_margin", VECTOR, _margin, lambda: {"a": L(6, 8), "w": P(4, 8)})
net("prototypes_learnt", VECTOR, lambda s, x: -(s.c(F.relu(s.a(x)))[:, None] - s.w).square().sum(-1) / 2,
    lambda: {"a": L(6, 8), "c": L(8, 5), "w": P(4, 5)})  # fmt: skip
net("styled_channels", (3, 6, 6), _styled, lambda: {"a": nn.Conv2d(3, 8, 3), "m": L(3, 16), "b": nn.Conv2d(8, 3, 1)})
net("denoiser", (VECTOR, ()), _denoiser,
    lambda: {"a": L(6, 9), "w": torch.linspace(0.1, 2, 3), "t": L(6, 7), "e": L(7, 9), "b": L(9, 6)})  # fmt: skip


# Graphs, sets, points
def _graph_attention(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    h = s.a(x)
    scores = F.leaky_relu(s.u(h) + s.v(h).mT, 0.2).masked_fill(edges < -1, -1e9)
    return s.b((scores.softmax(-1) @ h).relu())


def _graph_pooled(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    h, shares = F.relu(s.a(x)), s.s(x).softmax(-1)
    return s.b(shares.mT @ edges @ shares @ s.c(shares.mT @ h))


def _set(s: Any, x: Tensor) -> Tensor:
    h = F.elu(s.a(x))
    return s.b(F.relu(s.r(h - h.mean(1, True) + s.g * h.amax(1, True))).sum(1))


def _neighbours(s: Any, x: Tensor) -> Tensor:
    near, own = x[:, None, :3].expand(-1, 5, -1, -1), x[:, :, None].expand(-1, -1, 3, -1)
    return s.b(F.leaky_relu(s.c(torch.cat([near - own, own], -1))).amax(2))


net("graph_attention", (SEQUENCE, (5, 5)), _graph_attention, lambda: {"a": L(6, 8), "u": L(8, 1), "v": L(8, 1), "b": L(8, 3)})
net("graph_pooled", (SEQUENCE, (5, 5)), _graph_pooled, lambda: {"a": L(6, 8), "s": L(6, 3), "c": L(8, 7), "b": L(7, 2)})
net("deep_set", SEQUENCE, _set, lambda: {"a": L(6, 8), "g": P(8), "r": L(8, 7), "b": L(7, 3)})
net("relations", SEQUENCE, lambda s, x: s.b(F.relu(s.c((s.a(x)[:, :, None] + s.d(x)[:, None]).relu())).sum((1, 2))),
    lambda: {"a": L(6, 8), "d": L(6, 8), "c": L(8, 7), "b": L(7, 3)})  # fmt: skip
net("neighbours", SEQUENCE, _neighbours, lambda: {"c": L(12, 8), "b": L(8, 3)})


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, (make, shapes) in NETS.items():
        add(name, make, *shapes)
