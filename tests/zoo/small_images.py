"""Blocks of image networks from public repositories, in a few channels each: gates, pools, splits and joins as people write them.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. The smallest form of each kind: what is odd about a block
shows in eight channels, and all laws take about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.trap_parts import C, L, Net, P, seq

Parts = Callable[[], Mapping[str, Any]]
IMAGE = (3, 6, 6)
NETS: dict[str, Callable[[], nn.Module]] = {}


def net(name: str, function: Callable[[Any, Tensor], Tensor], parts: Parts) -> None:
    """Register a function of a net and an image, and what makes the net's parts."""
    NETS[name] = lambda: Net(function, parts())


def inside(name: str, block: Callable[[Any, Tensor], Tensor], parts: Parts) -> None:
    """Register a convolution, a block on its eight channels of 4 x 4, and a convolution."""
    net(name, lambda s, x: s.b(block(s, F.relu(s.a(x)))), lambda: {"a": C(3, 8, 3), "b": C(8, 4, 3), **parts()})


def headed(name: str, width: int, pool: Callable[[Any, Tensor], Tensor], parts: Parts = dict) -> None:
    """Register a convolution, a pool of its eight channels, and a linear layer that reads ``width`` numbers."""
    net(name, lambda s, x: s.b(pool(s, s.a(x))), lambda: {"a": C(3, 8, 3), "b": L(width, 4), **parts()})


# Gates. Of a removed channel the gate is a constant, or nothing at all: it meets a channel that is zero.
def squeezed(s: Any, x: Tensor) -> Tensor:
    """Mean over places, then two layers."""
    return s.up(F.relu(s.down(x.mean((2, 3), keepdim=True))))


def squeeze() -> dict[str, nn.Module]:
    return {"down": C(8, 4, 1), "up": C(4, 8, 1)}


def spread(x: Tensor) -> Tensor:
    return x[..., None, None]


def _channels_then_places(s: Any, x: Tensor) -> Tensor:
    y = x * squeezed(s, x).sigmoid()
    return y * s.c(torch.cat([y.mean(1, True), y.amax(1, True)], 1)).sigmoid()


def _coordinates(s: Any, x: Tensor) -> Tensor:
    rows, columns = F.hardswish(s.n(s.c(torch.cat([x.mean(3, True), x.mean(2, True).mT], 2)))).split([4, 4], 2)
    return x * s.h(rows).sigmoid() * s.w(columns.mT).sigmoid()


def _energy(s: Any, x: Tensor) -> Tensor:
    distance = (x - x.mean((2, 3), True)).square()
    return x * (distance / (4 * (distance.sum((2, 3), True) / 15 + 1e-4)) + 0.5).sigmoid()


def _response(s: Any, x: Tensor) -> Tensor:
    length = x.norm(dim=(2, 3), keepdim=True)
    return s.g * (x * length / (length.mean(1, True) + 1e-6)) + s.h + x


def _context(s: Any, x: Tensor) -> Tensor:
    seen = x.flatten(2) @ s.k(x).flatten(2).softmax(-1).mT
    return x + s.up(F.relu(s.n(s.down(seen.unsqueeze(-1)))))


inside("gate_hard_sigmoid", lambda s, x: x * F.hardsigmoid(squeezed(s, x)), squeeze)
inside("gate_relu6", lambda s, x: x * F.relu6(squeezed(s, x) + 3) / 6, squeeze)
inside("gate_clamped_line", lambda s, x: x * (0.2 * squeezed(s, x) + 0.5).clamp(0, 1), squeeze)
inside("gate_and_one", lambda s, x: x * (1 + squeezed(s, x).sigmoid()) + x * squeezed(s, x).tanh().expand_as(x), squeeze)
inside("gate_of_two_pools", lambda s, x: x * spread((s.m(x.mean((2, 3))) + s.m(x.amax((2, 3)))).sigmoid()),
       lambda: {"m": seq(L(8, 4), nn.ReLU(), L(4, 8))})  # fmt: skip
inside("gates_averaged", lambda s, x: x * (squeezed(s, x).sigmoid() + s.c(x.amax((2, 3), True)).sigmoid()) / 2,
       lambda: {**squeeze(), "c": C(8, 8, 1)})  # fmt: skip
inside("gates_the_larger", lambda s, x: torch.maximum(x * squeezed(s, x).sigmoid(), x * s.c(x).sigmoid()),
       lambda: {**squeeze(), "c": C(8, 1, 1)})  # fmt: skip
inside("gate_of_neighbours", lambda s, x: x * spread(s.c(x.mean((2, 3)).unsqueeze(1)).sigmoid().squeeze(1)),
       lambda: {"c": nn.Conv1d(1, 1, 3, padding=1, bias=False)})  # fmt: skip
inside("gate_of_channels_then_places", _channels_then_places, lambda: {**squeeze(), "c": C(2, 1, 3, padding=1)})
inside("gate_by_coordinates", _coordinates, lambda: {"c": C(8, 6, 1), "n": nn.BatchNorm2d(6), "h": C(6, 8, 1), "w": C(6, 8, 1)})
inside("gate_of_energy", _energy, dict)
inside("response_normalised", _response, lambda: {"g": P(1, 8, 1, 1), "h": P(1, 8, 1, 1)})
inside("context_added", _context, lambda: {**squeeze(), "k": C(8, 1, 1), "n": nn.GroupNorm(2, 4)})


# Branches that are chosen softly, kernels that are made for each image
def _selective(s: Any, x: Tensor) -> Tensor:
    both = torch.stack([F.relu(s.c(x)), F.relu(s.e(x))], 1)
    return (both * spread(s.f(F.relu(s.d(both.sum(1).mean((2, 3))))).unflatten(1, (2, 8)).softmax(1))).sum(1)


def _split_attention(s: Any, x: Tensor) -> Tensor:
    parts = F.relu(s.c(x)).view(-1, 2, 8, 4, 4)
    return (parts * s.f(F.relu(s.d(parts.sum(1).mean((2, 3), True)))).view(-1, 2, 8, 1, 1).softmax(1)).sum(1)


def _per_image(x: Tensor, kernels: Tensor) -> Tensor:
    """A convolution with other kernels for each image: images become groups."""
    return F.conv2d(x.reshape(1, -1, 4, 4), kernels.flatten(0, 1), padding=1, groups=x.shape[0]).view(-1, 8, 4, 4)


def _chosen_kernels(s: Any, x: Tensor) -> Tensor:
    return _per_image(x, torch.einsum("bk,koihw->boihw", s.r(x.mean((2, 3))).sigmoid(), s.w))


def _modulated_kernels(s: Any, x: Tensor) -> Tensor:
    kernels = s.w[None] * s.m(x.amax((2, 3)))[:, None, :, None, None]
    return _per_image(x, kernels * (kernels.square().sum((2, 3, 4), True) + 1e-8).rsqrt())


def _involution(s: Any, x: Tensor) -> Tensor:
    kernels = s.k(F.relu(s.r(x))).view(-1, 2, 1, 9, 4, 4)
    return (kernels * F.unfold(x, 3, padding=1).view(-1, 2, 4, 9, 4, 4)).sum(3).view_as(x)


inside("selective_kernels", _selective,
       lambda: {"c": C(8, 8, 3, padding=1), "e": C(8, 8, 3, padding=2, dilation=2), "d": L(8, 4), "f": L(4, 16)})  # fmt: skip
inside("split_attention", _split_attention, lambda: {"c": C(8, 16, 3, padding=1, groups=2), "d": C(8, 4, 1), "f": C(4, 16, 1)})
inside("chosen_kernels", _chosen_kernels, lambda: {"r": L(8, 3), "w": P(3, 8, 8, 3, 3)})
inside("modulated_kernels", _modulated_kernels, lambda: {"m": L(8, 8), "w": P(8, 8, 3, 3)})
inside("involution", _involution, lambda: {"r": C(8, 4, 1), "k": C(4, 18, 1)})


# Pools that keep a constant of a zero channel, or join what they pool
def _residuals(s: Any, x: Tensor) -> Tensor:
    shares = s.s(x).flatten(2).softmax(1)[:, :, None]
    return F.normalize((shares * (x.flatten(2)[:, None] - s.c[None, :, :, None])).sum(-1), dim=1).flatten(1)


def _second_order(s: Any, x: Tensor) -> Tensor:
    products = (x.flatten(2) @ s.c(x).flatten(2).mT).flatten(1)
    return F.normalize(products.sign() * (products.abs() + 1e-5).sqrt())


headed("pool_of_powers", 8, lambda s, x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))
headed("pool_of_a_learnt_power", 8, lambda s, x: F.avg_pool2d(x.clamp(min=1e-3).pow(s.p.abs() + 1), 4).flatten(1).pow(1 / (s.p.abs() + 1)),
       lambda: {"p": P(1)})  # fmt: skip
headed("pool_of_a_power_a_channel", 8, lambda s, x: (x.clamp(min=1e-3) ** spread(s.p.abs() + 1)).mean((2, 3)) ** (1 / (s.p.abs() + 1)),
       lambda: {"p": P(8)})  # fmt: skip
headed("pool_log_sum", 8, lambda s, x: x.exp().mean((2, 3)).log())
headed("pool_pyramid", 40, lambda s, x: torch.cat([F.adaptive_avg_pool2d(F.relu(x), n).flatten(1) for n in (1, 2)], 1))
headed("pool_second_order", 40, _second_order, lambda: {"c": C(8, 5, 1)})
headed("pool_of_residuals", 24, _residuals, lambda: {"s": C(8, 3, 1), "c": P(3, 8)})


# Joins: pyramids, paths, sums and shuffles
def _atrous(s: Any, x: Tensor) -> Tensor:
    h = F.relu(s.a(x))
    return s.b(torch.cat([s.p(h), s.q(h), s.r(h.mean((2, 3), True)).expand(-1, -1, 4, 4)], 1))


def _paths(s: Any, x: Tensor) -> Tensor:
    fine = F.relu(s.a(x))
    coarse = s.c(F.max_pool2d(fine, 2))
    fine = torch.cat([s.d(fine), F.interpolate(coarse, scale_factor=2.0)], 1)
    return s.b(F.relu(s.e(torch.cat([F.max_pool2d(fine, 2), coarse], 1))))


def _dual_path(s: Any, x: Tensor) -> Tensor:
    summed, joined = s.a(x).split([6, 4], 1)
    new = s.c(F.relu(torch.cat([summed, joined], 1)))
    return s.b(torch.cat([summed + new[:, :6], joined, new[:, 6:]], 1))


def _weighted(s: Any, x: Tensor) -> Tensor:
    w = F.relu(s.w + 1)
    return s.b(F.silu((w[0] * s.a(x) + w[1] * s.c(x) + w[2] * F.max_pool2d(s.d(x), 3, 1, 1)) / (w.sum() + 1e-4)))


def _attention_gate(s: Any, x: Tensor) -> Tensor:
    skip, coarse = s.a(x), s.c(x)
    return s.b(torch.cat([skip * s.p(F.relu(s.q(skip) + s.r(coarse))).sigmoid(), coarse], 1))


def _first_part_written(s: Any, x: Tensor) -> Tensor:
    x[:, :4] = s.c(x[:, :4])
    return x


net("atrous_pyramid", _atrous,
    lambda: {"a": C(3, 8, 3), "p": C(8, 4, 1), "q": C(8, 5, 3, padding=2, dilation=2), "r": C(8, 3, 1), "b": C(12, 4, 1)})  # fmt: skip
inside("hourglass", lambda s, x: x + F.interpolate(s.d(F.max_pool2d(F.relu(s.c(x)), 2)), scale_factor=2.0),
       lambda: {"c": C(8, 6, 3, padding=1), "d": C(6, 8, 3, padding=1)})  # fmt: skip
net("path_aggregation", _paths, lambda: {"a": C(3, 8, 3), "c": C(8, 6, 1), "d": C(8, 5, 1), "e": C(17, 7, 1), "b": C(7, 4, 1)})
net("dual_path", _dual_path, lambda: {"a": C(3, 10, 3), "c": C(10, 9, 1), "b": C(13, 4, 1)})
net("weighted_fusion", _weighted, lambda: {"w": P(3), "a": C(3, 8, 1), "c": C(3, 8, 1), "d": C(3, 8, 1), "b": C(8, 4, 1)})
net("attention_gate", _attention_gate,
    lambda: {"a": C(3, 8, 1), "c": C(3, 6, 1), "q": C(8, 5, 1), "r": C(6, 5, 1), "p": C(5, 1, 1), "b": C(14, 4, 1)})  # fmt: skip
inside("channel_shuffle_by_hand", lambda s, x: s.c(x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)),
       lambda: {"c": C(8, 8, 3, padding=1, groups=4)})  # fmt: skip
inside("inverted_bottleneck", lambda s, x: x + s.p(F.hardswish(s.n(s.d(F.hardswish(s.e(x)))))),
       lambda: {"e": C(8, 12, 1), "d": C(12, 12, 3, padding=1, groups=12), "n": nn.BatchNorm2d(12), "p": C(12, 8, 1)})  # fmt: skip
inside("branches_to_merge", lambda s, x: F.relu(s.m(s.d(x)) + s.n(s.e(x)) + s.o(x)),
       lambda: {"d": C(8, 8, 3, padding=1, bias=False), "e": C(8, 8, 1, bias=False), **{k: nn.BatchNorm2d(8) for k in "mno"}})  # fmt: skip
inside("shifted_channels", lambda s, x: torch.cat([x[:, :3].roll(1, 2), x[:, 3:6].roll(-1, 3), x[:, 6:]], 1), dict)
net("depth_to_space_and_back", lambda s, x: s.b(F.pixel_shuffle(s.d(F.relu(s.c(F.pixel_unshuffle(s.a(x), 2)))), 2)),
    lambda: {"a": C(3, 4, 3), "c": C(16, 8, 1), "d": C(8, 12, 1), "b": C(3, 2, 1)})  # fmt: skip
inside("channels_interleaved", lambda s, x: torch.stack([s.c(x[:, ::2]), x[:, 1::2]], 2).flatten(1, 2), lambda: {"c": C(4, 4, 1)})
inside("first_part_written", _first_part_written, lambda: {"c": C(4, 4, 3, padding=1)})


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, make in NETS.items():
        add(name, make, IMAGE)
