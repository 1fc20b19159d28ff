"""Deep copies: model, façade and optimizer copied together go on as the originals do, and share nothing with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import NonFiniteError
from tests.small_nets import IMAGES, assert_same, cnn, evaluate, train


def started() -> tuple[gt.GETA, gt.QASSO]:
    torch.manual_seed(0)
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([IMAGES])
    options: dict[str, Any] = {"budget": gt.Budget(0.5, (4, 8), (4, 8)), "schedule": gt.Schedule(2, 4, 2, 8, 2)}
    return geta, geta.qasso(torch.optim.AdamW, lr=1e-2, **options)


@pytest.mark.parametrize("optimizer_first", [False, True])
def test_a_copy_in_the_middle_of_a_run_goes_on_with_the_same_bytes(optimizer_first: bool) -> None:
    geta, optimizer = started()
    train(geta.model, optimizer, range(9))
    before = {name: tensor.clone() for name, tensor in geta.model.state_dict().items()}
    if optimizer_first:
        optimizer_2, geta_2 = copy.deepcopy((optimizer, geta))
    else:
        geta_2, optimizer_2 = copy.deepcopy((geta, optimizer))
    train(geta_2.model, optimizer_2, range(9, 18))
    assert all(torch.equal(geta.model.state_dict()[name], before[name]) for name in before)
    train(geta.model, optimizer, range(9, 18))
    mine, theirs = geta.model.state_dict(), geta_2.model.state_dict()
    assert list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert optimizer.progress() == optimizer_2.progress() and optimizer.stage == "cool-down"
    subnet = geta_2.construct_subnet()
    assert geta_2.report(subnet).to_dict()["target_group_sparsity"] == 0.5
    assert_same(evaluate(subnet, IMAGES), evaluate(geta.construct_subnet(), IMAGES))


def test_a_copied_optimizer_knows_its_own_parameters_by_name_and_steps_each_once() -> None:
    geta, optimizer = copy.deepcopy(started())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimizer._bundle is not None and optimizer._bundle.ids <= held
    geta.model(IMAGES).sum().backward()
    geta.model[0].bias.grad[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"at: +0\.bias"):
        optimizer.step()
