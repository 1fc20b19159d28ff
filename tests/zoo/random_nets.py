"""Random small nets for property tests: a drawn specification, and plain modules that interpret it.

Comes in: hypothesis. Goes out: ``nn.Module``s in eval mode whose ``repr`` is the line that builds them again, so a failing example can
be pasted into a test. :func:`example_input` gives the input that fits.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.zoo.catalogue import randomise
from tests.zoo.frozen_nets import Frozen, FrozenTurned

Op = tuple[str | int, ...]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    # zero stays zero
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    # zero becomes something else
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "hardsigmoid": nn.Hardsigmoid,
}
NORMS = ("batch", "batch_plain", "group", "instance", "layer", "frozen", "frozen_turned")
MAX_WIDTH = 24


def norm(kind: str, c: int) -> nn.Module:
    """Return a norm over ``c`` channels; groups of two or more where the width allows."""
    groups = next(g for g in (4, 3, 2, 1) if c % g == 0)
    return {
        "batch": lambda: nn.BatchNorm2d(c),
        "batch_plain": lambda: nn.BatchNorm2d(c, affine=False),
        "group": lambda: nn.GroupNorm(groups, c),
        "instance": lambda: nn.InstanceNorm2d(c, affine=True),
        "layer": lambda: nn.GroupNorm(1, c),
        "frozen": lambda: Frozen(c),
        "frozen_turned": lambda: FrozenTurned(c),
    }[kind]()


class Random(nn.Module):
    """A net interpreted from ``ops``: a running value and the list of values seen since the shape last changed.

    Args:
        ops: operations, e.g. ``("conv", 6)``, ``("add", 1)``; ``add``, ``cat`` and ``mul`` take the value that many steps back.
        head: ``"flatten"``, ``"mean"`` or ``"conv"`` (images), ``"linear"`` (vectors).
        seed: of the weights.
    """

    def __init__(self, ops: tuple[Op, ...], *, head: str, seed: int) -> None:
        super().__init__()
        self.ops, self.head, self.seed = ops, head, seed
        self.steps: list[tuple[str, int]] = []  # (what, index into the values)
        self.parts = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build()
            randomise(self).eval()

    def _build(self) -> None:
        conv = self.head != "linear"
        widths, side = [3 if conv else 6], 8
        for name, argument in (("dense", 6), *self.ops):
            c = widths[-1]
            source = -1 - int(argument) % len(widths) if name in ("add", "cat", "mul") else -1
            if name == "pool" and (not conv or side < 4):
                continue
            if name == "cat" and c + widths[source] > MAX_WIDTH:
                continue
            part, c = self._part(str(name), argument, c, widths[source], conv)
            self.parts.append(part)
            self.steps.append((str(name), source))
            if name == "pool":
                widths, side = [], side // 2
            widths.append(c)
        c = widths[-1]
        self.out = {
            "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(c * side * side, 3)),
            "linear": lambda: nn.Linear(c, 3),
            "mean": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 3)),
            "conv": lambda: nn.Conv2d(c, 3, 1),
        }[self.head]()

    def _part(self, name: str, argument: str | int, c: int, other: int, conv: bool) -> tuple[nn.Module, int]:
        """Return the module of one step and the width after it; ``other`` is the width of the second operand."""
        dense = (lambda i, o: nn.Conv2d(i, o, 3, padding=1)) if conv else nn.Linear
        if name == "dense":
            return dense(c, int(argument)), int(argument)
        if name == "grouped":
            groups = next(g for g in (int(argument), 2, 3, 1) if c % g == 0)
            return (nn.Conv2d(c, c, 3, padding=1, groups=groups), c) if conv else (nn.Linear(c, c, bias=False), c)
        if name == "depthwise":
            o = c * int(argument) if c * int(argument) <= MAX_WIDTH else c
            return (nn.Conv2d(c, o, 3, padding=1, groups=c), o) if conv else (nn.Linear(c, o), o)
        if name == "norm":
            return (norm(str(argument), c) if conv else nn.LayerNorm(c)), c
        if name == "act":
            return ACTIVATIONS[str(argument)](), c
        if name == "pool":
            return {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[str(argument)](2), c
        if name == "cat":
            return nn.Identity(), c + other
        if name in ("add", "mul"):
            return (nn.Identity() if c == other else dense(other, c)), c
        raise AssertionError(name)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (name, source), part in zip(self.steps, self.parts, strict=True):
            if name == "add":
                x = x + part(values[source])
            elif name == "mul":
                x = x * part(values[source])
            elif name == "cat":
                x = torch.cat([x, values[source]], 1)
            else:
                x = part(x)
            values = [x] if name == "pool" else [*values, x]
        return self.out(x)

    def __repr__(self) -> str:
        return f"Random({self.ops!r}, head={self.head!r}, seed={self.seed})"


def example_input(net: Random, batch: int = 2) -> Tensor:
    """Return a fixed random input, [B, 3, 8, 8] for conv nets and [B, 6] for MLPs."""
    return torch.randn((batch, 6) if net.head == "linear" else (batch, 3, 8, 8), generator=torch.Generator().manual_seed(net.seed))


def _ops(names: dict[str, st.SearchStrategy[str | int]], max_size: int) -> st.SearchStrategy[tuple[Op, ...]]:
    one = st.one_of(*(st.tuples(st.just(name), argument) for name, argument in names.items()))
    return st.lists(one, min_size=1, max_size=max_size).map(tuple)


_BACK = st.integers(0, 4)
_WIDTH = st.sampled_from([4, 6, 8, 12])
_ACT = st.sampled_from(sorted(ACTIVATIONS))
_SEED = st.integers(0, 99)


def random_conv_nets(max_ops: int = 8) -> st.SearchStrategy[Random]:
    """Conv nets with residual adds, products, concats, grouped and depthwise convolutions, norms, activations, pooling and three heads."""
    ops = _ops(
        {
            "dense": _WIDTH,
            "grouped": st.sampled_from([2, 3, 4]),
            "depthwise": st.sampled_from([1, 2]),
            "norm": st.sampled_from(NORMS),
            "act": _ACT,
            "add": _BACK,
            "mul": _BACK,
            "cat": _BACK,
            "pool": st.sampled_from(["max", "average"]),
        },
        max_ops,
    )
    return st.builds(lambda o, h, s: Random(o, head=h, seed=s), ops, st.sampled_from(["flatten", "mean", "conv"]), _SEED)


def random_mlps(max_ops: int = 6) -> st.SearchStrategy[Random]:
    """MLPs with residual adds, products, concats, layer norms and activations."""
    ops = _ops({"dense": _WIDTH, "norm": st.just("layer"), "act": _ACT, "add": _BACK, "mul": _BACK, "cat": _BACK}, max_ops)
    return st.builds(lambda o, s: Random(o, head="linear", seed=s), ops, _SEED)
