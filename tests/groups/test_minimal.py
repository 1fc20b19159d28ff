"""Law 3, minimal: brute force finds no proper part of a group that could be removed alone.

Each net's forward takes its sizes from its tensors, so that any slices can be taken out of them and the net be run: what is removable is
found by trying, not by rules. A part is removable when the net runs without it and computes what the net computes with its producing
slices at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import geta_nb as gt
from tests.zoo import laws
from tests.zoo.catalogue import randomise
from tests.zoo.odd_nets import Net

Atom = tuple[str, int, int]


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def _heads(s: Any, x: Tensor) -> Tensor:
    q, k, v = ((x @ w.t()).unflatten(-1, (-1, 2)).transpose(1, 2) for w in (s.q, s.k, s.v))
    return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2) @ s.o.t()


def _batch_norm(s: Any, x: Tensor) -> Tensor:
    return F.linear(F.batch_norm(F.linear(x, s.a), s.mean, s.var, s.scale, s.shift).relu(), s.b)


# name -> (input shape, forward, parts). Axes that can be cut are longer than 2, so that a wrong cut cannot broadcast.
NETS: dict[str, tuple[tuple[int, ...], Callable[..., Any], dict[str, Any]]] = {
    "two_layers": ((3,), lambda s, x: F.linear(F.linear(x, s.a, s.c).relu(), s.b), {"a": P(4, 3), "c": P(4), "b": P(2, 4)}),
    "residual": ((3,), lambda s, x: F.linear((h := F.linear(x, s.a)) + F.linear(h.relu(), s.c), s.b),
                 {"a": P(4, 3), "c": P(4, 4), "b": P(2, 4)}),
    "joined": ((3,), lambda s, x: F.linear(torch.cat([F.linear(x, s.a), F.linear(x, s.c)], -1), s.b),
               {"a": P(3, 3), "c": P(4, 3), "b": P(2, 7)}),
    "gated": ((3,), lambda s, x: F.linear((h := F.linear(x, s.a).chunk(2, -1))[0] * h[1].sigmoid(), s.b), {"a": P(8, 3), "b": P(2, 4)}),
    "norm_groups": ((3,), lambda s, x: F.linear(F.group_norm((h := F.linear(x, s.a)), h.shape[1] // 2, s.c), s.b),
                    {"a": P(8, 3), "c": P(8), "b": P(2, 8)}),
    "heads": ((5, 3), _heads, {"q": P(6, 3), "k": P(6, 3), "v": P(6, 3), "o": P(2, 6)}),
    "depthwise": ((3, 4, 4), lambda s, x: F.conv2d(F.conv2d(F.conv2d(x, s.a), s.d, groups=s.d.shape[0]).relu(), s.b),
                  {"a": P(4, 3, 1, 1), "d": P(4, 1, 3, 3), "b": P(2, 4, 1, 1)}),
    "flattened": ((3, 2, 2), lambda s, x: F.linear(F.conv2d(x, s.a).relu().flatten(1), s.b), {"a": P(4, 3, 1, 1), "b": P(2, 16)}),
    "batch_norm": ((3,), _batch_norm, {"a": P(4, 3), "b": P(2, 4), "scale": P(4), "shift": P(4), "mean": torch.linspace(-1, 1, 4),
                                       "var": torch.linspace(0.5, 2, 4)}),
    "low_rank": ((3,), lambda s, x: F.linear(F.linear(x, s.p @ s.q).relu(), s.b), {"p": P(4, 3), "q": P(3, 3), "b": P(2, 4)}),
}  # fmt: skip


def _without(tensors: dict[str, Tensor], atoms: Iterable[Atom]) -> dict[str, Tensor]:
    result = dict(tensors)
    for name, axis in {(name, axis) for name, axis, _ in atoms}:
        gone = {index for n, a, index in atoms if (n, a) == (name, axis)}
        result[name] = result[name].index_select(axis, torch.tensor([i for i in range(tensors[name].shape[axis]) if i not in gone]))
    return result


def _zeroed(tensors: dict[str, Tensor], atoms: Iterable[Atom]) -> dict[str, Tensor]:
    result = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, axis, index in atoms:
        result[name].select(axis, index).zero_()
    return result


def _removable(model: nn.Module, tensors: dict[str, Tensor], x: Tensor, atoms: tuple[Atom, ...], producing: set[Atom]) -> bool:
    try:
        cut = functional_call(model, _without(tensors, atoms), (x,))
    except (RuntimeError, ValueError):
        return False
    masked = functional_call(model, _zeroed(tensors, producing & set(atoms)), (x,))
    return cut.shape == masked.shape and torch.allclose(cut, masked, rtol=1e-9, atol=1e-9)  # float64, three layers: 1e-15 of order one


def _atoms(parts: Iterable[gt.groups.Slice]) -> list[Atom]:
    return [(part.parameter, part.axis, index) for part in parts for index in part.indices]


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_no_part_of_a_group_can_be_removed_alone(name: str) -> None:
    shape, function, parts = NETS[name]
    torch.manual_seed(0)
    model = randomise(Net(function, parts)).double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    geta = laws.geta_of(model, (x,))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert len(geta.groups) >= 3
    for group in {family.name: family.groups[0] for family in geta.families}.values():
        atoms, producing = _atoms(group.slices), set(_atoms(group.producers))
        assert len(atoms) > 1
        assert _removable(model, tensors, x, tuple(atoms), producing), "the group itself is not removable"
        proper = chain.from_iterable(combinations(atoms, size) for size in range(1, len(atoms)))
        assert [part for part in proper if _removable(model, tensors, x, part, producing)] == []
