"""More whole nets in plain torch, as people write them outside the libraries. Part of the zoo.

Comes in: what registers a net. Goes out: nothing; the nets stand in the zoo. The first ones write by data or by mask, repeat, order, or
mask a weight; the others are kinds of nets that the zoo had none of.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.trap_parts import C, L, P, seq


class MaskedAutoregressive(nn.Module):
    """MADE: a mask times its weight, the mask first, in every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = L(6, 12), L(12, 10), L(10, 12)
        for name, layer in (("a", self.a), ("b", self.b), ("c", self.c)):
            rows, columns = (torch.arange(n) % 5 for n in layer.weight.shape)
            setattr(self, f"mask_{name}", nn.Buffer((columns[None] <= rows[:, None]).float()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(F.linear(x, self.mask_a * self.a.weight, self.a.bias))
        h = F.relu(F.linear(h, self.mask_b * self.b.weight, self.b.bias))
        mean, scale = F.linear(h, self.mask_c * self.c.weight, self.c.bias).chunk(2, 1)
        return (x - mean) * torch.exp(-scale), -scale.sum(1)


class EdgeNet(nn.Module):
    """Messages along edges: rows taken by number, added up by scatter_add, averaged by scatter_reduce, written back by number."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Buffer(torch.tensor([0, 1, 2, 3, 3, 4])), nn.Buffer(torch.tensor([1, 2, 0, 0, 4, 2]))
        self.own, self.message, self.update, self.root, self.out = L(6, 12), L(24, 10), L(10, 12), L(12, 12), L(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.own(x))
        m = F.relu(self.message(torch.cat([x[:, self.source], x[:, self.target]], -1)))
        index = self.target.view(1, -1, 1).expand(m.shape[0], -1, m.shape[-1])
        total = torch.zeros(*x.shape[:2], 10, dtype=x.dtype).scatter_add_(1, index, m)
        copies = self.target.view(1, -1, 1).repeat(m.shape[0], 1, 10)
        mean = torch.zeros_like(total).scatter_reduce(1, copies, m, "mean", include_self=False)
        x = x + self.update(total - mean)
        roots = torch.zeros_like(x)
        roots[:, [1, 3]] = self.root(x[:, :2])
        return self.out(x + roots)


class MaskWriter(nn.Module):
    """Writes where a mask or a number says: negative values, the diagonal of the scores, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qk, self.v, self.o, self.out = L(6, 12), L(12, 12, False), L(12, 12, False), L(12, 12), L(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h[h < 0] = 0
        qk, v = (layer(h).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (self.qk, self.v))
        scores, place = qk @ F.normalize(qk, dim=-1).mT, torch.arange(x.shape[1])
        scores[:, :, place, place] = -5e4
        h = h + self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        h[x[..., 0] > 1] = 0
        return self.out(h)


class Repeater(nn.Module):
    """Gates, filters and pooled values that are repeated, not expanded, to the width that they meet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.mix, self.out = C(3, 8, 3, padding=1), C(8, 1, 1), C(16, 10, 3, padding=1), C(10, 3, 1)
        self.blur = nn.Buffer(torch.tensor([[[[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]]]) / 16)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x * self.gate(x).sigmoid().repeat(1, x.shape[1], 1, 1)
        blurred = F.conv2d(x, self.blur.repeat(x.shape[1], 1, 1, 1), padding=1, groups=x.shape[1])
        x = F.relu(self.mix(torch.cat([blurred, x.mean((2, 3), keepdim=True).repeat(1, 1, 6, 6)], 1)))
        return self.out(x * (x.sum(1, keepdim=True) > 0).to(x.dtype).tile(1, 10, 1, 1))


class StatisticsPooling(nn.Module):
    """Speaker embedding: mean and deviation over time, the deviation kept off zero, side by side into one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = seq(nn.Conv1d(5, 12, 3), nn.ReLU(), nn.Conv1d(12, 10, 3, dilation=2), nn.ReLU())
        self.attend, self.embed, self.out = seq(nn.Conv1d(10, 6, 1), nn.Tanh(), nn.Conv1d(6, 1, 1)), L(20, 8), L(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frames(x)
        weights = self.attend(x).softmax(-1)
        mean = (x * weights).sum(-1)
        deviation = ((x * x * weights).sum(-1) - mean * mean).clamp(min=1e-4).sqrt()
        return self.out(F.relu(self.embed(torch.cat([mean, deviation], 1))))


class Ordered(nn.Module):
    """The largest, the middle and the ordered values over places, a running maximum, differences, windows by Tensor.unfold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.window, self.mix, self.out = L(5, 10), L(10, 8), L(8, 12), L(60, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.window(x.unfold(1, 3, 1).amax(-1))
        x = self.mix(F.relu(x.cummax(1)[0] + F.pad(x.diff(dim=1), (0, 0, 1, 0))))
        ends = [x.topk(2, dim=1)[0].flatten(1), x.sort(1)[0][:, 0], x.median(1)[0], x.kthvalue(2, 1)[0]]
        return self.out(torch.cat(ends, 1))


class CrossStage(nn.Module):
    """A detector's blocks: space to depth by slices, chunks that grow into a concatenation, three pools in a row, a head of bins."""

    def __init__(self) -> None:
        super().__init__()
        self.focus, self.first, self.last = C(12, 8, 3, padding=1), C(8, 10, 1), C(20, 8, 1)
        self.inner = nn.ModuleList(seq(C(5, 4, 3, padding=1), nn.SiLU(), C(4, 5, 3, padding=1)) for _ in range(2))
        self.narrow, self.wide, self.head, self.bins = C(8, 4, 1), C(16, 8, 1), C(8, 16, 1), nn.Buffer(torch.arange(4.0))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        parts = list(self.first(F.silu(self.focus(x))).chunk(2, 1))
        for block in self.inner:
            parts.append(parts[-1] + block(parts[-1]))
        x = F.silu(self.last(torch.cat(parts, 1)))
        pools = [self.narrow(x)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 3, 1, 1))
        x = F.silu(self.wide(torch.cat(pools, 1)))
        boxes = self.head(x).flatten(2).unflatten(1, (4, 4)).softmax(2)
        return (boxes * self.bins.to(x.dtype).view(1, 1, 4, 1)).sum(2), [x]


class Hierarchical(nn.Module):
    """Res2Net and GhostNet: splits that are added to one another in turn; cheap copies of channels, cropped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside, self.join = C(3, 16, 1), C(16, 12, 1), C(12, 16, 1)
        self.steps = nn.ModuleList(seq(C(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(3))
        self.ghost, self.cheap, self.out = C(16, 6, 1), C(6, 6, 3, padding=1, groups=6), C(11, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts, done = F.relu(self.inside(x)).split(3, 1), []
        for step, part in zip(self.steps, parts, strict=False):
            done.append(step(part + done[-1] if done else part))
        x = F.relu(x + self.join(torch.cat([*done, parts[-1]], 1)))
        ghost = F.relu(self.ghost(x))
        return self.out(torch.cat([ghost, F.relu(self.cheap(ghost))], 1)[:, :11])


class StateSpace(nn.Module):
    """Mamba written out: a causal depthwise convolution, a state for each channel, steps that depend on the input, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.conv, self.project = L(8, 28, False), nn.Conv1d(14, 14, 3, groups=14, padding=2), L(14, 10, False)
        self.step, self.a, self.d, self.back, self.out = L(2, 14), P(14, 4), P(14), L(14, 8, False), L(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, z = self.inside(x).chunk(2, -1)
        h = F.silu(self.conv(h.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, b, c = self.project(h).split([2, 4, 4], -1)
        step = F.softplus(self.step(step))
        decay = torch.exp(torch.einsum("bld,dn->bldn", step, -torch.exp(self.a)))
        drive = torch.einsum("bld,bln,bld->bldn", step, b, h)
        state, ys = torch.zeros_like(drive[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + drive[:, t]
            ys.append(torch.einsum("bdn,bn->bd", state, c[:, t]))
        return self.out(x + self.back((torch.stack(ys, 1) + h * self.d) * F.silu(z)))


class PointCloud(nn.Module):
    """PointNet: a small net makes a matrix that turns the points, a maximum over them is repeated and joined to each."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.turn = seq(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU()), seq(L(8, 10), nn.ReLU(), L(10, 9))
        self.a, self.b, self.join, self.out = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 12, 1), nn.Conv1d(18, 8, 1), nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        turn = self.turn(self.look(x).max(2)[0]) + torch.eye(3, dtype=x.dtype).flatten().repeat(x.shape[0], 1)
        a = F.relu(self.a(torch.bmm(x.transpose(1, 2), turn.view(-1, 3, 3)).transpose(1, 2)))
        whole = self.b(a).max(2, keepdim=True)[0].repeat(1, 1, x.shape[2])
        return self.out(F.relu(self.join(torch.cat([whole, a], 1)))).log_softmax(1)


class TokenMixing(nn.Module):
    """RWKV written out: each token mixed with the one before, an average that decays, a squared gate over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.decay, self.first, self.out = L(8, 12), P(3, 1, 1, 12), P(10), P(10), L(12, 4)
        self.k, self.v, self.r, self.back = L(12, 10, False), L(12, 10, False), L(12, 10, False), L(10, 12, False)
        self.up, self.gate, self.down = L(12, 16, False), L(12, 12, False), L(16, 12, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        before = F.pad(x, (0, 0, 1, -1))
        k, v, r = (f(x * m + before * (1 - m)) for f, m in zip((self.k, self.v, self.r), self.mix.unbind(0), strict=True))
        total = weight = torch.zeros_like(k[:, 0])
        out, decay = [], torch.exp(-torch.exp(self.decay))
        for t in range(x.shape[1]):
            now, kept = torch.exp(self.first + k[:, t]), torch.exp(k[:, t])
            out.append((total + now * v[:, t]) / (weight + now))
            total, weight = decay * total + kept * v[:, t], decay * weight + kept
        x = x + self.back(r.sigmoid() * torch.stack(out, 1))
        return self.out(x + self.gate(x).sigmoid() * self.down(F.relu(self.up(x)) ** 2))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "masked_autoregressive": (MaskedAutoregressive, ((6,),)),
    "edge_messages": (EdgeNet, ((5, 6),)),
    "mask_writer": (MaskWriter, ((5, 6),)),
    "repeater": (Repeater, ((3, 6, 6),)),
    "statistics_pooling": (StatisticsPooling, ((5, 12),)),
    "ordered": (Ordered, ((6, 5),)),
    "cross_stage": (CrossStage, ((3, 8, 8),)),
    "hierarchical": (Hierarchical, ((3, 6, 6),)),
    "state_space": (StateSpace, ((4, 8),)),
    "point_cloud": (PointCloud, ((3, 7),)),
    "token_mixing": (TokenMixing, ((4, 8),)),
}


def register(add: Callable[..., None]) -> None:
    """Put every net into the zoo."""
    for name, (make, shapes) in NETS.items():
        add(name, make, *shapes)
