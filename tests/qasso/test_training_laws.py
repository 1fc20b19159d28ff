"""Laws of the whole optimizer, through the façade: where there is nothing to do it is the inner optimizer, and what is projected stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import geta_nb as gt
from tests.qasso.training_setups import NETS, OPTIMIZERS, SCHEDULERS
from tests.small_nets import IMAGES, cnn, train

SCHEDULE = gt.Schedule(2, 6, 2, 8, 3)


def plain_run(optimizer: str, scheduler: str, *, wrapped: bool) -> dict[str, torch.Tensor]:
    """Twenty steps of a network, trained by an optimizer or by QASSO around it."""
    torch.manual_seed(0)
    model = cnn()
    geta = gt.GETA(model, IMAGES, quantize=None)
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters[::2]}, {"params": parameters[1::2], "lr": 3e-3, "weight_decay": 0.1}]
    chosen: torch.optim.Optimizer = OPTIMIZERS[optimizer](groups, lr=1e-2, weight_decay=1e-3)
    if wrapped:
        chosen = geta.qasso(chosen, budget=gt.Budget(0.0), schedule=SCHEDULE)
    make = SCHEDULERS[scheduler]
    steps = make(chosen, 21) if make else None
    for step in range(20):
        train(model, chosen, [step])
        if steps is not None:
            steps.step()
    return model.state_dict() | {f"state {i}": value for i, value in enumerate(tensors_of(chosen.state_dict()["state"]))}


def tensors_of(state: dict[int, dict[str, Any]]) -> list[torch.Tensor]:
    return [torch.as_tensor(value) for index in sorted(state) for value in state[index].values() if value is not None]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_nothing_to_prune_and_no_quantizer_a_run_is_the_inner_optimizers_bit_for_bit(optimizer: str) -> None:
    plain, wrapped = (plain_run(optimizer, "one cycle", wrapped=wrapped) for wrapped in (False, True))
    assert list(plain) == list(wrapped)
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)
    assert any(name.startswith("state") for name in plain) or optimizer == "sgd"


@pytest.mark.parametrize("bits", [(4, 8), (2, 16), (5, 5)])
@pytest.mark.parametrize("stop", [3, 9, 16, 18])
def test_projecting_a_trained_network_again_changes_nothing(bits: tuple[int, int], stop: int) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True, learn_activation_exponent=True))
    geta.calibrate([IMAGES])
    budget = gt.Budget(0.25, bit_range=bits, activation_bit_range=bits)
    optimizer = geta.qasso(torch.optim.Adam, lr=1e-2, lr_quant=1e-2, budget=budget, schedule=SCHEDULE)
    train(geta.model, optimizer, range(stop))
    before = {name: value.clone() for name, value in geta.model.state_dict().items()}
    optimizer.bank.keep_positive()
    optimizer.bank.constrain()
    once = {name: value.clone() for name, value in geta.model.state_dict().items()}
    optimizer.bank.constrain()
    assert all(torch.equal(before[name], once[name]) and torch.equal(once[name], geta.model.state_dict()[name]) for name in before)


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_masking_a_trained_network_again_changes_nothing(rules: str) -> None:
    net = NETS["attention"]
    geta = gt.GETA(net.build(), net.batch(4)[0])
    optimizer = geta.qasso(torch.optim.SGD, lr=1e-2, momentum=0.9, budget=gt.Budget(0.5), schedule=SCHEDULE, rules=rules)
    for _ in range(18):
        x, labels = net.batch(6)
        optimizer.zero_grad()
        net.loss(geta.model(x), labels).backward()
        optimizer.step()
    before = {name: value.clone() for name, value in geta.model.state_dict().items()}
    geta.mask([group for group, alive in zip(geta.groups, optimizer.group_mask, strict=True) if not alive])
    assert all(torch.equal(before[name], geta.model.state_dict()[name]) for name in before)
