"""Layers that get no gradient: frozen, or not in the loss. Their groups go by the size of their weights, and the user is told once."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import GetaWarning
from geta_nb.qasso.saliency import without_gradient

STEPS = 40


class TwoHeads(nn.Module):
    """Two branches; the loss sees the first one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen = (nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.seen(x), self.unseen(x)


def train(model, *, set_to_none=True, budget=gt.Budget(0.5), **options):  # noqa: B008 - frozen
    """Train with the loss of the first output; return GETA and the warnings about gradients."""
    torch.manual_seed(1)
    x, y = torch.randn(64, 8), torch.randint(0, 4, (64,))
    geta = gt.GETA(model, x[:2])
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-3, budget=budget, schedule=gt.Schedule.for_steps(STEPS), **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none)
            out = geta.model(x)
            nn.functional.cross_entropy(out[0] if isinstance(out, tuple) else out, y).backward()
            optimizer.step()
    return geta, [str(w.message) for w in said if issubclass(w.category, GetaWarning) and "no gradient" in str(w.message)]


def deep(frozen: int) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
    for layer in model[: 2 * frozen : 2]:
        layer.requires_grad_(False)
        with torch.no_grad():
            layer.weight[:12] *= 10  # plainly the important half
            layer.bias[:12] *= 10
    return model


def kept(layer: nn.Linear) -> set[int]:
    return set(torch.nonzero(layer.weight.detach().abs().sum(1)).flatten().tolist())


@pytest.mark.parametrize("saliency", ["fisher", "taylor"])
def test_a_frozen_backbone_loses_its_small_weights_and_not_its_first_rows(saliency):
    geta, said = train(deep(2), saliency=saliency)
    assert geta.group_sparsity() == 0.5
    for layer in (geta.model[0], geta.model[2]):
        assert len(kept(layer)) >= 6 and (kept(layer) <= {*range(12)} or kept(layer) >= {*range(12)})
    assert len(said) == 1 and re.search(r"at: +0, 2, step \d+", said[0]) and "2 of 2 families" in said[0] and 'protect=("0",)' in said[0]


def test_one_frozen_layer_shares_the_loss_with_the_others():
    geta, said = train(deep(1))
    assert len(said) == 1 and re.search(r"at: +0, step", said[0]) and "1 of 2 families" in said[0]
    assert geta.group_sparsity() == 0.5
    # both are measured in units of their family's mean: neither is emptied for the other
    assert min(len(kept(geta.model[0])), len(kept(geta.model[2]))) >= 6
    assert kept(geta.model[0]) <= {*range(12)} or kept(geta.model[0]) >= {*range(12)}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_head_that_the_loss_does_not_see_is_named_whatever_its_gradient_is_called(set_to_none):
    geta, said = train(TwoHeads(), set_to_none=set_to_none)
    assert len(said) == 1 and re.search(r"at: +unseen\.0, step", said[0])
    assert geta.group_sparsity() == 0.5 and len(kept(geta.model.unseen[0])) >= 6


def test_a_cost_target_is_met_too():
    geta, said = train(deep(1), budget=gt.Budget(relative_bops=0.05))
    report = geta.report(geta.construct_subnet()).to_dict()
    assert report["relative_bops"] <= 0.05 and len(said) == 1


@pytest.mark.parametrize("model", [deep(0), TwoHeads().seen])
def test_where_all_get_a_gradient_nothing_is_said(model):
    assert train(model)[1] == []


def test_protected_layers_are_not_named():
    torch.manual_seed(1)
    x = torch.randn(16, 8)
    geta = gt.GETA(deep(1), x[:2], protect=("0",))
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-3, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetaWarning)
        for _ in range(STEPS):
            optimizer.zero_grad()
            geta.model(x).square().mean().backward()
            optimizer.step()
    assert kept(geta.model[0]) == {*range(24)}


def test_a_dead_channel_among_others_is_no_layer_without_gradient():
    family_of = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    average = torch.tensor([0.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.7])
    alive = torch.tensor([True] * 6 + [False])
    assert without_gradient(average, family_of, alive, 4).tolist() == [False, True, True, False]


def test_on_the_way_to_a_cost_target_frozen_and_unseen_layers_are_no_free_prey():
    """No rise of theirs was measured: their groups count as much as others', the important half stays, and bits do not go for nothing."""
    budget = gt.Budget(relative_bops=0.06, bit_range=(2, 16))
    model = deep(1)
    geta, said = train(model, budget=budget)
    assert len(said) == 1 and len(kept(model[0])) > 1
    assert kept(model[0]) <= set(range(12)) or kept(model[0]) >= set(range(12)), "by the size of their weights"
    rows = {(row.kind, row.name): row for row in geta._optimizer.plan.rows}
    assert rows["weight", "0"].rise > 0, "a frozen weight is rounded at a price: its step size has a gradient"
    two = TwoHeads()
    train(two, budget=budget)
    assert len(kept(two.unseen[0])) > 1
