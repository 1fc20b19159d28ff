"""A cut graph computes what the masked one computes, whatever sizes its operators carry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.subnet.rescaling import rescale_norms
from geta_nb.subnet.rewrite import Cut, cut_graph
from tests.small_nets import assert_same, evaluate, leaves
from tests.zoo import laws
from tests.zoo.catalogue import randomise
from tests.zoo.odd_nets import ODD

X = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear layer of 12, any function, and a linear layer on what is left."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function = nn.Linear(6, 12), function
        with torch.no_grad():
            self.last = nn.Linear(function(self.first(X[:2].float())).shape[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(F.relu(self.first(x))))


SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "view with a number": lambda x: x.view(-1, 12),
    "heads": lambda x: x.view(x.shape[0], 3, 4).transpose(1, 2).reshape(x.shape[0], 12),
    "flattened": lambda x: x.unflatten(1, (4, 3)).flatten(1),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 5, 12).mean(1),
    "broadcast_to": lambda x: x.unsqueeze(1).broadcast_to(x.shape[0], 2, 12).sum(1),
    "slice": lambda x: x[:, 2:9],
    "slice from the end": lambda x: x[:, -5:],
    "strided slice": lambda x: x[:, 1::3],
    "narrow": lambda x: x.narrow(1, 3, 6),
    "split": lambda x: torch.cat([part * (i + 1.0) for i, part in enumerate(x.split(5, 1))], 1),
    "split by sizes": lambda x: torch.cat(x.split([2, 7, 3], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "chunk and cat": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "select": lambda x: x.view(-1, 3, 4).select(2, 1),
    "unbind": lambda x: torch.stack(x.view(-1, 3, 4).unbind(2)[1:], 2).flatten(1),
    "padded": lambda x: F.pad(x, (2, 3)),
    "repeat": lambda x: x.repeat(1, 2),
    "roll": lambda x: x.roll(2, 1),
    "index": lambda x: x[:, torch.tensor([3, 1, 7])],
    "new zeros": lambda x: torch.cat([x, x.new_zeros(x.shape[0], 12)], 1),
    "permuted": lambda x: x.view(-1, 2, 6).permute(2, 0, 1).permute(1, 2, 0).reshape(-1, 12),
    "movedim": lambda x: x.view(-1, 4, 3).movedim(1, 2).reshape(-1, 12),
    "outer product": lambda x: (x.unsqueeze(2) * x.unsqueeze(1)).mean(2),
}


def made(function: Callable[[Tensor], Tensor]) -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(Net(function).double(), X, quantize=None)


@pytest.mark.parametrize("name", SIZES)
def test_a_cut_graph_computes_what_the_masked_model_computes(name: str) -> None:
    geta = made(SIZES[name])
    analysis, count = geta._analysis, len(geta.groups)
    assert count or name in {"roll", "index"}
    before = {key: tensor.clone() for key, tensor in geta.model.state_dict().items()}
    for removed in ([0], list(range(0, count, 2)), list(range(1, count))) if count else ():
        geta.model.load_state_dict(before)
        geta.mask(removed)
        alive = np.ones(count, dtype=bool)
        alive[removed] = False
        cut = Cut(analysis.state, analysis.table, alive).filled()
        tensors = {**dict(geta.model.named_parameters()), **dict(geta.model.named_buffers())}
        rescale_norms(cut, analysis.names, {})  # no scale here: means over fewer channels are multiplied in the graph
        net = cut_graph(cut, geta.qadg, analysis.names, tensors, {})
        # a dozen float64 terms of size one in another order: 12 * 1e-16, two layers
        assert_same(evaluate(net, X), evaluate(geta.model, X), atol=1e-13)
        size = sum(p.numel() for p in net.parameters())
        assert size == sum(p.numel() for p in geta.model.parameters()) - sum(geta.groups[i].size for i in np.flatnonzero(~cut.alive))


def test_a_piece_that_would_be_left_empty_keeps_one_group() -> None:
    geta = made(SIZES["split by sizes"])  # pieces of 2, 7 and 3
    first_piece = [g.index for g in geta.groups if g.producers[0].indices[0] < 2]
    geta.mask([*first_piece, 11])
    subnet = geta.construct_subnet()
    assert subnet.get_parameter("first.weight").shape[0] == 12 - 2
    assert geta.report(subnet).to_dict()["group_sparsity"] == 3 / 12
    assert_same(evaluate(subnet, X), evaluate(geta.model, X), atol=1e-13)


def test_what_stays_whole_is_left_as_it_is() -> None:
    geta = made(SIZES["heads"])
    analysis = geta._analysis
    cut = Cut(analysis.state, analysis.table, np.ones(len(geta.groups), dtype=bool))
    net = cut_graph(cut, geta.qadg, analysis.names, dict(geta.model.named_parameters()), {})
    assert_same(evaluate(net, X), evaluate(geta.model, X))
    assert all(old == new for pairs in cut.sizes.values() for old, new in pairs)


def test_the_traced_graph_is_not_changed_by_a_cut() -> None:
    geta = made(SIZES["strided slice"])
    code = geta.trace.module.code
    geta.mask([0])
    subnet = geta.construct_subnet()
    assert geta.trace.module.code == code
    assert_same(leaves(geta.trace.module(X)), evaluate(subnet, X), atol=1e-13)


def test_sizes_that_changed_are_noted_for_the_native_cut() -> None:
    geta = made(SIZES["view with a number"])
    analysis = geta._analysis
    cut = Cut(analysis.state, analysis.table, np.arange(12) > 2)
    cut_graph(cut, geta.qadg, analysis.names, dict(geta.model.named_parameters()), {})
    assert (12, 9) in cut.sizes[""] and (12, 9) in cut.sizes["first"] | cut.sizes["last"]


@pytest.mark.parametrize("name", ["stride_two", "stride_with_bounds", "numbered_by_code", "heads_with_slopes"])
def test_numbers_that_a_cut_writes_down_are_cut_again(name: str) -> None:
    torch.manual_seed(0)
    geta = laws.geta_of(randomise(ODD[name].build()).double().eval(), (torch.randn(2, *ODD[name].shapes[0], dtype=torch.float64),))
    with laws.weights_restored(geta.model):
        geta.mask(laws.some_groups(geta, seed=3))
        subnet = geta.construct_subnet()
    laws.check_second_compression(geta, subnet)
