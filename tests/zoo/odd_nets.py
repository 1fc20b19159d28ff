"""Nets that are odd in one way each: the traps of dependency analysis, in two or three layers.

Comes in: nothing. Goes out: ``ODD``, name -> :class:`Odd`: what builds it, and how many groups it has when its rule is right. A net with no
group names the operator that must be blamed. The hidden layer is called ``a``, the layer that reads it ``b``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.odd_heads import Heads

Build = Callable[[], nn.Module]


class Odd(NamedTuple):
    """One odd net: its builder, the shapes of its inputs (float) or ``"ids"``, its number of groups, and who protects what."""

    build: Build
    shapes: tuple[tuple[int, ...], ...]
    groups: int
    blamed: str = ""


class Net(nn.Module):
    """A net written as one function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], parts: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Buffer(part) if isinstance(part, Tensor) and not isinstance(part, nn.Parameter) else part)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


ODD: dict[str, Odd] = {}
L, C = nn.Linear, nn.Conv2d
VECTOR, SEQUENCE, IMAGE = (8,), (5, 8), (3, 8, 8)


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def odd(
    name: str, shape: tuple[int, ...], groups: int, function: Callable[..., Any], parts: Callable[[], dict[str, Any]], *, blamed: str = ""
) -> None:
    """Register a net of one input."""
    ODD[name] = Odd(lambda: Net(function, parts()), (shape,), groups, blamed)


def between(
    name: str, groups: int, step: Callable[..., Tensor], *, width: int = 16, shape: tuple[int, ...] = VECTOR, blamed: str = "", **more: Any
) -> None:
    """Register Linear(8, 16), a step on its output, Linear(width, 4)."""
    parts = {"a": lambda: L(8, 16), "b": lambda: L(width, 4), **more}
    odd(name, shape, groups, lambda s, x: s.b(step(s, s.a(x))), lambda: {key: make() for key, make in parts.items()}, blamed=blamed)


def images(name: str, groups: int, *layers: Callable[[], nn.Module], blamed: str = "") -> None:
    """Register a sequence of layers on images."""
    ODD[name] = Odd(lambda: nn.Sequential(*(layer() for layer in layers)), (IMAGE,), groups, blamed)


# what a removed channel still gives is a constant: the reader's bias takes it over, where it has one of its own and sees nothing else
between("buffer_added", 16, lambda s, h: h + s.m, m=lambda: torch.linspace(-1, 1, 16))
between("scalar_added", 16, lambda s, h: h + s.m, m=lambda: P())
between("clamped_off_zero", 16, lambda s, h: h.clamp(0.1, 1))
between("equality", 16, lambda s, h: (h.relu() == s.c(h).relu()).to(h.dtype), c=lambda: L(16, 16))
between("sigmoid_of_sigmoid", 16, lambda s, h: (2 * h.sigmoid() - 0.3).sigmoid() + h.sigmoid().cos(), shape=SEQUENCE)
between("sigmoid_read_without_bias", 0, lambda s, h: h.sigmoid(), b=lambda: nn.Linear(16, 4, bias=False), blamed="sigmoid")
between("sigmoid_read_by_a_shared_layer", 0, lambda s, h: s.c(s.c(h.sigmoid()).relu()), c=lambda: L(16, 16), blamed="sigmoid")
between("sigmoid_at_some_positions", 0, lambda s, h: torch.cat([h.sigmoid(), h], 1), shape=SEQUENCE, blamed="sigmoid")
between("sigmoid_summed_over_positions", 0, lambda s, h: h.sigmoid().cumsum(1), shape=SEQUENCE, blamed="sigmoid")
between("sigmoid_scaled_by_position", 0, lambda s, h: h.sigmoid() * s.p, p=lambda: P(5, 1), shape=SEQUENCE, blamed="sigmoid")
images("sigmoid_conv", 8, lambda: nn.Conv2d(3, 8, 3), nn.Sigmoid, lambda: nn.MaxPool2d(2), lambda: nn.Conv2d(8, 4, 2))
images("sigmoid_conv_padded", 0, lambda: nn.Conv2d(3, 8, 3), nn.Sigmoid, lambda: nn.Conv2d(8, 4, 3, padding=1), blamed="sigmoid")
images("sigmoid_conv_transposed", 0, lambda: nn.Conv2d(3, 8, 3), nn.Sigmoid, lambda: nn.ConvTranspose2d(8, 4, 3), blamed="sigmoid")
images("sigmoid_flat", 8, lambda: nn.Conv2d(3, 8, 3), nn.Softplus, nn.Flatten, lambda: nn.Linear(8 * 36, 4))
images("norm_without_scale", 8, lambda: nn.Conv2d(3, 8, 3), lambda: nn.BatchNorm2d(8, affine=False), lambda: nn.Conv2d(8, 4, 3))

# what no rule understands, or what ties a channel to its number or to all others: nothing may go, and the operator is named
between("fft", 0, lambda s, h: torch.fft.fft(h).real, blamed="_fft_r2c")
between("sort", 0, lambda s, h: h.sort(-1).values, blamed="sort")
between("topk", 0, lambda s, h: h.topk(4, -1).values, width=4, blamed="topk")
between("roll", 0, lambda s, h: h.roll(3, -1), blamed="roll")
between("roll_flat", 0, lambda s, h: h.roll(3), blamed="roll")
between("flip", 0, lambda s, h: h.flip(-1), blamed="flip")
between("cumsum", 0, lambda s, h: h.cumsum(-1), blamed="cumsum")
between("softmax", 0, lambda s, h: h.softmax(-1), blamed="softmax")
between("mean_kept", 16, lambda s, h: h * h.mean(-1, keepdim=True))
between("maximum_kept", 0, lambda s, h: h * h.amax(-1, keepdim=True), blamed="amax")
between("index_select", 0, lambda s, h: h.index_select(1, s.i), width=4, i=lambda: torch.tensor([3, 2, 1, 0]), blamed="index_select")
between("index_list", 0, lambda s, h: h[:, [3, 2, 1, 0]], width=4, blamed="index")
between("index_mask", 0, lambda s, h: h[:, s.i], width=8, i=lambda: torch.arange(16) % 2 == 0, blamed="index")
between("gather", 0, lambda s, h: h.gather(1, s.i.expand(h.shape[0], -1)), width=4, i=lambda: torch.tensor([[3, 2, 1, 0]]), blamed="gather")
between("scatter", 0, lambda s, h: torch.zeros_like(h).scatter(1, s.i.expand(h.shape[0], -1), h), i=lambda: torch.arange(16)[None],
        blamed="scatter")
between("select", 0, lambda s, h: h + h[:, 3:4] + h[:, 5].unsqueeze(-1), blamed="slice")
between("zero_over_zero", 0, lambda s, h: h / h.norm(dim=1, keepdim=True), shape=SEQUENCE, blamed="div")
between("zero_times_infinity", 0, lambda s, h: h * (h.abs() ** -0.5).clamp(max=1e300), blamed="pow")
between("weights_on_a_diagonal", 22, lambda s, h: F.linear(h.relu(), torch.block_diag(s.v, s.w)), width=6, v=lambda: P(2, 8),
        w=lambda: P(4, 8))
# columns that are only read, but measured first: they are zeroed with their group
between("unit_rows_of_a_weight", 22, lambda s, h: F.linear(h.relu(), F.normalize(s.w)), width=6, w=lambda: P(6, 16))
between("angles_to_classes", 16, lambda s, h: F.linear(F.normalize(h), F.normalize(s.w)), width=5, w=lambda: P(5, 16),
        b=lambda: nn.Softmax(-1))
between("weight_over_its_row_sums", 22, lambda s, h: F.linear(h, s.w) / (s.w.abs().sum(1) + 1), width=6, w=lambda: P(6, 16))
between("distances_to_scaled_rows", 16, lambda s, h: torch.cdist(h, s.w * 2), width=6, w=lambda: P(6, 16))
between("cosine", 16, lambda s, h: torch.cat([h.sin(), h.cos()], 1), width=32)
between("pad_cropped", 0, lambda s, h: F.pad(h, (-2, 3)), width=17, blamed="pad")
between("pad_ones", 0, lambda s, h: F.pad(h, (2, 0), value=1.0), width=18, blamed="pad")
between("lstm_projected", 0, lambda s, h: s.r(h)[0], width=3, shape=SEQUENCE, r=lambda: nn.LSTM(16, 6, proj_size=3, batch_first=True),
        blamed="lstm")
odd("gram", SEQUENCE, 0, lambda s, x: s.b((s.a(x).transpose(1, 2) @ s.a(x)).flatten(1)),
    lambda: {"a": L(8, 6), "b": L(36, 3)}, blamed="view")
odd("outer_sum", VECTOR, 0, lambda s, x: s.b((s.a(x)[:, :, None] + s.c(x)[:, None]).flatten(1)),
    lambda: {"a": L(8, 4), "c": L(8, 5), "b": L(20, 4)}, blamed="add")
odd("complement_gate", VECTOR, 16, lambda s, x: s.b(s.g(x).sigmoid() * s.a(x) + (1 - s.g(x).sigmoid()) * s.d(s.a(x)).relu()),
    lambda: {"a": L(8, 16), "d": L(16, 16), "g": L(8, 16), "b": L(16, 4)})
odd("spatial_attention", IMAGE, 0, lambda s, x: s.b(s.a(x) * s.c(torch.cat([s.a(x).mean(1, True), s.a(x).amax(1, True)], 1)).sigmoid()),
    lambda: {"a": C(3, 8, 3), "c": C(2, 1, 3, padding=1), "b": C(8, 4, 1)}, blamed="amax")
odd("batch_norm_across", SEQUENCE, 0, lambda s, x: s.b(s.n(s.a(x))),
    lambda: {"a": L(8, 16), "n": nn.BatchNorm1d(5), "b": L(16, 4)}, blamed="_native_batch_norm_legit_no_training")
odd("weight_norm_parametrized", VECTOR, 16, lambda s, x: s.b(s.a(x)),
    lambda: {"a": nn.utils.parametrizations.weight_norm(L(8, 16)), "b": L(16, 4)})
odd("weight_exponential", VECTOR, 0, lambda s, x: s.b(F.linear(x, s.a.exp())), lambda: {"a": P(16, 8), "b": L(16, 4)}, blamed="exp")

# axes that are only moved, cut, repeated or joined
between("stride_two", 16, lambda s, h: h[:, ::2], width=8)
between("stride_with_bounds", 16, lambda s, h: h[:, 1:-2:3], width=5)
between("slice_beyond_the_end", 16, lambda s, h: h[:, -6:10**9], width=6)
between("halves_added", 8, lambda s, h: h[:, :8] + h[:, 8:], width=8)
between("overlapping_slices_added", 6, lambda s, h: h[:, :10] + h[:, 6:], width=10)
between("repeated", 16, lambda s, h: h.repeat(1, 2), width=32)
between("repeated_in_place", 16, lambda s, h: h.repeat_interleave(2, 1), width=32)
between("expanded_before", 16, lambda s, h: h.unsqueeze(1).expand(-1, 3, -1).reshape(-1, 48), width=48)
between("expanded_after", 16, lambda s, h: h.unsqueeze(2).expand(-1, -1, 3).reshape(-1, 48), width=48)
between("unbound_outer", 4, lambda s, h: sum(h.view(-1, 4, 4).unbind(1)), width=4)
between("unbound_inner", 4, lambda s, h: sum(h.view(-1, 4, 4).unbind(2)), width=4)
between("stacked", 16, lambda s, h: torch.stack([h, s.c(h)], 1), c=lambda: L(16, 16))
between("stacked_last", 16, lambda s, h: torch.stack([h, s.c(h)], -1).flatten(1), width=32, c=lambda: L(16, 16))
between("pad_joint_outer", 4, lambda s, h: F.pad(h.view(-1, 4, 4), (0, 0, 1, 1)).flatten(1), width=24)
between("pad_joint_inner", 4, lambda s, h: F.pad(h.view(-1, 4, 4), (1, 1)).flatten(1), width=24)
between("cumsum_of_rows", 4, lambda s, h: h.view(-1, 4, 4).cumsum(1).flatten(1))
between("two_granularities", 2, lambda s, h: (h.view(-1, 4, 4) * h.view(-1, 4, 4).sum(2, True)).flatten(1)
        + (h.view(-1, 2, 8) * h.view(-1, 2, 8).mean(1, True)).flatten(1))  # fmt: skip
between("glu", 8, lambda s, h: F.glu(h), width=8)
between("prelu", 16, lambda s, h: s.p(h), p=lambda: nn.PReLU(16))
between("maxout", 8, lambda s, h: h.view(-1, 8, 2).amax(-1), width=8)
between("complex_numbers", 8, lambda s, h: torch.view_as_real(torch.view_as_complex(h.reshape(-1, 8, 2)) ** 2).flatten(1))
between("split_unevenly", 16, lambda s, h: s.c(h[:, :3]) + h[:, 3:], width=13, c=lambda: L(3, 13))
between("sum_kept", 16, lambda s, h: h * h.sum(-1, keepdim=True))
between("sum_of_positions", 16, lambda s, h: h.sum(-2), shape=SEQUENCE)
between("rows_normalised", 16, lambda s, h: F.normalize(h, dim=1), shape=SEQUENCE)
between("buffer_multiplied", 16, lambda s, h: h * s.m, m=lambda: torch.linspace(-1, 1, 16))
between("scalars_multiplied", 16, lambda s, h: h * s.m + s.n * h, m=lambda: P(), n=lambda: P(1))
between("position_added", 16, lambda s, h: h + s.m, shape=SEQUENCE, m=lambda: P(1, 5, 16))
between("outer_vector_added", 4, lambda s, h: h.view(-1, 4, 4).add(s.m).flatten(1), m=lambda: P(4, 1))
between("inner_vector_multiplied", 4, lambda s, h: h.view(-1, 4, 4).mul(s.m).flatten(1), m=lambda: P(1, 4))
between("sine", 16, lambda s, h: torch.sin(30 * h))
between("both_signs", 16, lambda s, h: torch.cat([h.relu(), (-h).relu()], 1), width=32)
between("feature_scale_and_shift", 16, lambda s, h: h.relu() * (1 + s.c(h)[:, :16]) + s.c(h)[:, 16:], c=lambda: L(16, 32))
between("token_where_one_channel_says_so", 15, lambda s, h: torch.where(h[..., :1] > 0, s.t, h), t=lambda: P(16), shape=SEQUENCE)
odd("joined_then_split_elsewhere", VECTOR, 16,
    lambda s, x: (lambda h: s.b(h[:, :6]) + s.d(h[:, 6:]))(torch.cat([s.a(x), s.c(x)], 1)),
    lambda: {"a": L(8, 8), "c": L(8, 8), "b": L(6, 4), "d": L(10, 4)})
odd("joined_with_itself", VECTOR, 16, lambda s, x: s.b(torch.cat([s.a(x), x, s.a(x)], 1)), lambda: {"a": L(8, 16), "b": L(40, 4)})
odd("joined_with_a_parameter", VECTOR, 20, lambda s, x: s.b(torch.cat([s.a(x), s.p.expand(x.shape[0], -1)], 1)),
    lambda: {"a": L(8, 16), "p": P(1, 4), "b": L(20, 4)})
odd("prefix_added", VECTOR, 16, lambda s, x: s.b(s.a(x) + F.pad(s.c(x), (0, 8))), lambda: {"a": L(8, 16), "c": L(8, 8), "b": L(16, 4)})
odd("transposed_linear", SEQUENCE, 7, lambda s, x: s.b(s.c(F.gelu(s.a(x.transpose(1, 2)))).transpose(1, 2)),
    lambda: {"a": L(5, 7), "c": L(7, 6), "b": L(8, 4)})
odd("chunked_gate_over_tokens", SEQUENCE, 8,
    lambda s, x: (lambda u, v: s.b(u * s.t(v.transpose(1, 2)).transpose(1, 2)))(*s.a(x).chunk(2, -1)),
    lambda: {"a": L(8, 16), "t": L(5, 5), "b": L(8, 4)})
odd("outer_product", VECTOR, 9, lambda s, x: ((s.a(x)[:, :, None] * s.c(x)[:, None]) @ s.w).transpose(1, 2) @ s.v,
    lambda: {"a": L(8, 4), "c": L(8, 5), "w": P(5, 3), "v": P(4, 2)})

# parameters that meet one another before they meet the data: they are zeroed together
odd("low_rank_added", VECTOR, 19, lambda s, x: s.b(F.linear(x, s.w + s.p @ s.q)),
    lambda: {"w": P(16, 8), "p": P(16, 3), "q": P(3, 8), "b": L(16, 4)})
odd("weights_stacked", VECTOR, 16, lambda s, x: s.b(F.linear(x, torch.stack([s.w, s.v]).sum(0))),
    lambda: {"w": P(16, 8), "v": P(16, 8), "b": L(16, 4)})
odd("weights_joined", VECTOR, 16, lambda s, x: s.b(F.linear(x, torch.cat([s.w, s.v]), torch.cat([s.p, s.q]))),
    lambda: {"w": P(6, 8), "v": P(10, 8), "p": P(10), "q": P(6), "b": L(16, 4)})
odd("weights_shared_in_part", VECTOR, 16, lambda s, x: s.b(F.linear(x, s.w[:10])) + s.c(F.linear(x, s.w[6:])),
    lambda: {"w": P(16, 8), "b": L(10, 4), "c": L(10, 4)})
odd("weights_masked", VECTOR, 16, lambda s, x: s.b(F.linear(x, s.w * s.m)),
    lambda: {"w": P(16, 8), "m": (torch.arange(128).view(16, 8) % 3 > 0).double(), "b": L(16, 4)})
odd("weights_made_by_a_net", VECTOR, 27, lambda s, x: s.b(F.linear(x, s.c(F.relu(s.a(s.e))).view(16, 8))),
    lambda: {"e": P(5), "a": L(5, 6), "c": L(6, 128), "b": L(16, 4)})
odd("weights_standardised", IMAGE, 8,
    lambda s, x: s.b(F.conv2d(x, (s.w - s.w.mean((1, 2, 3), True)) / (s.w.std((1, 2, 3), keepdim=True) + 1e-5) * s.g, s.c).relu()),
    lambda: {"w": P(8, 3, 3, 3), "g": P(8, 1, 1, 1), "c": P(8), "b": C(8, 4, 1)})
odd("weights_modulated", IMAGE, 18,
    lambda s, x: (lambda w: s.b(F.conv2d(s.a(x).reshape(1, -1, 6, 6), w.flatten(0, 1), groups=x.shape[0]).view(x.shape[0], -1, 4, 4)))(
        s.w[None] * (1 + s.c(x.mean((2, 3))))[:, None, :, None, None]),
    lambda: {"a": C(3, 8, 3), "w": P(10, 8, 3, 3), "c": L(3, 8), "b": C(10, 4, 1)})  # fmt: skip
odd("weight_used_both_ways", VECTOR, 16, lambda s, x: F.linear(F.relu(F.linear(x, s.w)), s.w.t()), lambda: {"w": P(16, 8)})
odd("weight_used_twice", VECTOR, 12, lambda s, x: s.b(F.linear(F.relu(F.linear(s.a(x), s.w)), s.w)),
    lambda: {"a": L(8, 12), "w": P(12, 12), "b": L(12, 4)})
odd("weight_squeezed", IMAGE, 18,
    lambda s, x: s.b(F.linear(s.a(x).flatten(2).transpose(1, 2), s.w.squeeze()).transpose(1, 2).reshape(-1, 10, 6, 6)),
    lambda: {"a": C(3, 8, 3), "w": P(10, 8, 1, 1), "b": C(10, 4, 1)})
odd("layer_scale", VECTOR, 36, lambda s, x: s.b(s.a(x) + s.g * s.c(F.gelu(s.d(s.a(x))))),
    lambda: {"a": L(8, 16), "d": L(16, 20), "c": L(20, 16), "g": P(16), "b": L(16, 4)})
odd("mixture_of_experts", VECTOR, 10,
    lambda s, x: (torch.einsum("bei,eoi->beo", F.relu(torch.einsum("bi,ehi->beh", x, s.w)), s.v) * s.g(x).softmax(-1).unsqueeze(-1)).sum(1),
    lambda: {"w": P(3, 10, 8), "v": P(3, 4, 10), "g": L(8, 3)})
odd("einsum_of_three", VECTOR, 32, lambda s, x: s.b(torch.einsum("bi,ij,jk->bk", s.a(x), s.w, s.v)),
    lambda: {"a": L(8, 16), "w": P(16, 10), "v": P(10, 6), "b": L(6, 4)})
odd("einsum_with_ellipsis", SEQUENCE, 26, lambda s, x: s.b(torch.einsum("...i,ij->...j", s.a(x), s.w)),
    lambda: {"a": L(8, 16), "w": P(16, 10), "b": L(10, 4)})
odd("einsum_with_implicit_output", VECTOR, 26, lambda s, x: s.b(torch.einsum("bi,ij", s.a(x), s.w)),
    lambda: {"a": L(8, 16), "w": P(16, 10), "b": L(10, 4)})
odd("einsum_of_one", SEQUENCE, 16, lambda s, x: s.b(torch.einsum("bti->bi", s.a(x))), lambda: {"a": L(8, 16), "b": L(16, 4)})
odd("einsum_with_diagonal", VECTOR, 26, lambda s, x: s.b(torch.einsum("bi,ii,ij->bj", s.a(x), s.w, s.v)),
    lambda: {"a": L(8, 16), "w": P(16, 16), "v": P(16, 10), "b": L(10, 4)})
odd("einsum_that_sums_one_alone", VECTOR, 29, lambda s, x: s.b(torch.einsum("bi,ij,k->bj", s.a(x), s.w, s.v)),
    lambda: {"a": L(8, 16), "w": P(16, 10), "v": P(3), "b": L(10, 4)})
odd("written_over_by_number", SEQUENCE, 16,
    lambda s, x: s.b(s.a(x).slice_scatter(s.c(x[:, :2]), 1, 1, 3).select_scatter(s.d(x[:, 0]), 1, 0)),
    lambda: {"a": L(8, 16), "c": L(8, 16), "d": L(8, 16), "b": L(16, 4)})
odd("linear_by_group", VECTOR, 4, lambda s, x: s.b(torch.einsum("bgi,goi->bgo", s.a(x).view(-1, 4, 4), s.w).flatten(1)),
    lambda: {"a": L(8, 16), "w": P(4, 5, 4), "b": L(20, 4)})
odd("recurrence_unrolled", SEQUENCE, 10, lambda s, x: s.b(s.c(s.a(x[:, 1]) + s.c(s.a(x[:, 0])).tanh()).tanh()),
    lambda: {"a": L(8, 10), "c": L(10, 10), "b": L(10, 4)})

odd("dimensions_where_heads_stay", SEQUENCE, 8,
    lambda s, x: (lambda q, k, v, gate: s.b(((q @ k.mT * gate).softmax(-1) @ v).transpose(1, 2).flatten(2)))(
        *(layer(x).view(-1, 5, 4, 4).transpose(1, 2) for layer in (s.q, s.k, s.v)), x.view(-1, 5, 4, 2).sum(-1).transpose(1, 2)[..., None]),
    lambda: {"q": L(8, 16), "k": L(8, 16), "v": L(8, 16), "b": L(16, 4)})  # fmt: skip
odd("gru", SEQUENCE, 22, lambda s, x: s.b(s.r(s.a(x))[0]), lambda: {"a": L(8, 16), "r": nn.GRU(16, 6, batch_first=True), "b": L(6, 4)})
odd("lstm_of_two_layers_both_ways", SEQUENCE, 22, lambda s, x: s.b(s.r(s.a(x))[0]),
    lambda: {"a": L(8, 16), "r": nn.LSTM(16, 6, 2, bidirectional=True, bias=False), "b": L(12, 4)})
odd("recurrence_from_a_given_state", SEQUENCE, 16, lambda s, x: s.b(s.r(s.a(x), s.c(x[:, 0]).sigmoid()[None])[0]),
    lambda: {"a": L(8, 16), "c": L(8, 6), "r": nn.RNN(16, 6, batch_first=True), "b": L(6, 4)})
odd("recurrence_from_a_learnt_state", SEQUENCE, 22, lambda s, x: s.b(s.r(s.a(x), s.h.expand(-1, x.shape[0], -1))[0]),
    lambda: {"a": L(8, 16), "h": P(1, 1, 6), "r": nn.RNN(16, 6, batch_first=True), "b": L(6, 4)})

# norms and convolutions
images("norm_group_per_channel", 8, lambda: C(3, 8, 3), lambda: nn.GroupNorm(8, 8), nn.ReLU, lambda: C(8, 4, 3))
images("batch_norm_of_this_batch", 8, lambda: C(3, 8, 3), lambda: nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU, lambda: C(8, 4, 3))
images("instance_norm_with_statistics", 8, lambda: C(3, 8, 3), lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
       lambda: C(8, 4, 3))
images("instance_norm_unaffine_with_statistics", 0, lambda: C(3, 8, 3), lambda: nn.InstanceNorm2d(8, track_running_stats=True),
       lambda: C(8, 4, 3),
       blamed="instance_norm")  # fmt: skip
images("flattened_then_batch_norm", 10, lambda: C(3, 4, 3), nn.Flatten, lambda: nn.BatchNorm1d(144), lambda: L(144, 6), nn.ReLU,
       lambda: L(6, 2))
odd("bilinear", VECTOR, 25, lambda s, x: s.b(s.m(s.a(x), s.c(x).tanh())),
    lambda: {"a": L(8, 10), "c": L(8, 9), "m": nn.Bilinear(10, 9, 6), "b": L(6, 4)})
odd("distance_to_a_codebook", SEQUENCE, 16, lambda s, x: torch.cdist(s.a(x), s.w), lambda: {"a": L(8, 16), "w": P(5, 16)})
odd("grid_of_each_head", IMAGE, 4,
    lambda s, x: s.b(F.grid_sample(s.a(x).view(-1, 2, 6, 6), s.g(x.mean((2, 3))).view(-1, 3, 3, 2).tanh(), align_corners=False)
                     .view(x.shape[0], 8, 3, 3)),
    lambda: {"a": C(3, 8, 3), "g": L(3, 4 * 18), "b": C(8, 2, 1)})
odd("folded", IMAGE, 4, lambda s, x: s.b(F.fold(s.a(x.flatten(2).transpose(1, 2)).transpose(1, 2), (9, 9), 2)),
    lambda: {"a": L(3, 16), "b": C(4, 2, 1)})
images("transposed_grouped", 4, lambda: C(3, 8, 3), nn.ReLU, lambda: nn.ConvTranspose2d(8, 12, 3, groups=4), nn.ReLU,
       lambda: nn.ConvTranspose2d(12, 4, 3))
images("transposed_depthwise", 8, lambda: C(3, 8, 3), lambda: nn.ConvTranspose2d(8, 16, 3, groups=8), nn.ReLU, lambda: C(16, 4, 1))
images("depthwise_times_three", 8, lambda: C(3, 8, 3), nn.ReLU, lambda: C(8, 24, 3, groups=8), nn.ReLU, lambda: C(24, 4, 1))
images("padded_same_grouped", 8, lambda: C(3, 8, 3, padding="same"), nn.ReLU, lambda: C(8, 8, 3, padding="same", groups=2), lambda: C(8,
       4, 3))
images("padded_by_copies", 8, lambda: C(3, 8, 3, padding=1, padding_mode="circular"), lambda: nn.ReflectionPad2d(1), lambda: C(8, 4, 3))
images("pixel_shuffle", 12, lambda: C(3, 16, 3), lambda: nn.PixelShuffle(2), nn.ReLU, lambda: C(4, 8, 3), nn.ReLU, lambda: C(8, 2, 1))
images("pixel_unshuffle", 14, lambda: C(3, 6, 3), lambda: nn.PixelUnshuffle(2), nn.ReLU, lambda: C(24, 8, 3), nn.ReLU, lambda: C(8, 2, 1))
images("channel_shuffle", 4, lambda: C(3, 8, 3), lambda: nn.ChannelShuffle(2), nn.ReLU, lambda: C(8, 4, 3))
images("resampled", 8, lambda: C(3, 8, 3), lambda: nn.Upsample(scale_factor=2, mode="bilinear"), lambda: nn.MaxPool2d(2), lambda: C(8, 4,
       1))
odd("norm_groups_then_added", IMAGE, 4, lambda s, x: s.b(s.n(s.c(F.relu(s.a(x)))) + s.a(x)),
    lambda: {"a": C(3, 8, 3, padding=1), "c": C(8, 8, 3, padding=1), "n": nn.GroupNorm(4, 8), "b": C(8, 2, 1)})
odd("unfolded", IMAGE, 8, lambda s, x: s.b(F.unfold(s.a(x), 3).transpose(1, 2)), lambda: {"a": C(3, 8, 3), "b": L(72, 4)})
odd("coordinates_joined", IMAGE, 8,
    lambda s, x: s.b(torch.cat([s.a(x), torch.linspace(0, 1, 6, dtype=x.dtype).view(1, 1, 1, 6).expand(x.shape[0], 1, 6, 6)], 1)),
    lambda: {"a": C(3, 8, 3), "b": C(9, 4, 1)})
odd("space_to_depth", IMAGE, 8, lambda s, x: s.b(s.a(x).view(-1, 8, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 32, 3, 3)),
    lambda: {"a": C(3, 8, 3), "b": C(32, 4, 1)})

# language
odd("language_model", (), 24, lambda s, x: s.b(F.relu(s.a(s.e(x)))), lambda: {"e": nn.Embedding(20, 8), "a": L(8, 16), "b": L(16, 20)})
odd("language_model_tied", (), 24, lambda s, x: F.linear(s.e(x) + s.b(F.relu(s.a(s.e(x)))), s.e.weight),
    lambda: {"e": nn.Embedding(20, 8), "a": L(8, 16), "b": L(16, 8)})
odd("embedding_bag", (), 8, lambda s, x: s.b(s.e(x)), lambda: {"e": nn.EmbeddingBag(20, 8), "b": L(8, 4)})
odd("embedding_bag_maximum", (), 8, lambda s, x: s.b(s.e(x)), lambda: {"e": nn.EmbeddingBag(20, 8, mode="max"), "b": L(8, 4)})


# 16 channels of the residual stream, and 4 heads (2 where two query heads share a key head)
for _way in ("plain", "fused_outer", "fused_inner", "fused_innermost", "heads_inside", "batch_times_heads", "scaled_by_head", "table",
             "causal", "linear", "rotary", "rotary_pairs"):  # fmt: skip
    ODD[f"heads_{_way}"] = Odd(lambda way=_way: Heads(way), (SEQUENCE,), 20)
ODD["heads_in_pairs"] = Odd(lambda: Heads("plain", 2), (SEQUENCE,), 18)
ODD["heads_in_pairs_rotary"] = Odd(lambda: Heads("rotary", 2), (SEQUENCE,), 18)
ODD["heads_with_one_key"] = Odd(lambda: Heads("plain", 1), (SEQUENCE,), 20)  # 4 heads of queries and of columns that read them


import tests.zoo.odd_more  # noqa: E402
import tests.zoo.odd_text  # noqa: E402, F401  (they register their nets here)
