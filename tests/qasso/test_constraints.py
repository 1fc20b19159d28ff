"""However people train, at the end exactly K groups are zero, each bit width is an integer in its range, and the subnet is the model.

Through the façade: ``gt.GETA``, ``qasso``, a loop as people write it, ``construct_subnet``; hypothesis draws the combinations.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import geta_nb as gt
from tests.qasso.training_setups import NETS, OPTIMIZERS, SCHEDULERS, Net, parameter_groups
from tests.small_nets import evaluate
from tests.zoo.laws import RTOL, RTOL_FLOAT32

# budgets at the edge leave one group of a family, and that is said
pytestmark = pytest.mark.filterwarnings("ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning")
CONFIGS = {"prune": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True, learn_activation_exponent=True)}
EXAMPLES = int(os.environ.get("GETA_EXAMPLES", "40"))  # of the slow test; raise it to search longer
SCHEDULE = gt.Schedule(1, 5, 2, 6, 3, 4, joint_start=4)


@dataclass(frozen=True)
class Setup:
    """One way to train; the defaults are the plainest."""

    net: str = "cnn"
    config: str = "both"
    optimizer: str = "adamw foreach"
    scheduler: str = "none"
    precision: str = "float32"
    accumulate: int = 1
    clip: bool = False
    frozen: bool = False
    decay: float = 0.0
    lrs: tuple[float, ...] = (1e-2,)
    sparsity: float = 0.5  # of what may go at most
    bits: tuple[int, int] = (4, 8)
    input_bits: tuple[int, int] = (4, 16)
    round_to: int = 1
    exceptions: dict[str, gt.LayerBudget] = field(default_factory=dict)
    rules: str = "default"
    lr_quant: float = 1e-3
    schedule: gt.Schedule = SCHEDULE  # the shortest that has everything
    set_to_none: bool = True
    seed: int = 0


def largest_sparsity(geta: gt.GETA, exceptions: dict[str, gt.LayerBudget]) -> float:
    """The share of groups that can go: one of each family stays, fewer go where an exception says so."""
    count = 0
    for family in geta.families:
        shares = [0.0 if e.protect else e.max_sparsity for name, e in exceptions.items() if name in _producers(family)]
        allowed = [math.floor(share * len(family.groups) + 1e-9) for share in shares if share is not None]
        count += min([len(family.groups) - 1, *allowed])
    return count / len(geta.groups)


def _producers(family: gt.Family) -> set[str]:
    return {part.parameter.rpartition(".")[0] for group in family.groups for part in group.producers}


def step(setup: Setup, net: Net, geta: gt.GETA, optimizer: Any, scaler: torch.amp.GradScaler | None) -> float:
    """One optimizer step as people write it: zero, accumulate, unscale, clip, step."""
    optimizer.zero_grad(set_to_none=setup.set_to_none)
    total = 0.0
    for _ in range(setup.accumulate):
        x, labels = net.batch(6)
        with torch.autocast("cpu", torch.bfloat16, enabled=setup.precision == "bfloat16"):
            loss = net.loss(geta.model(x), labels) / setup.accumulate
        (scaler.scale(loss) if scaler else loss).backward()
        total += loss.item()
    if setup.clip:
        if scaler:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(geta.model.parameters(), 0.5)
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    return total


def trained(setup: Setup) -> tuple[gt.GETA, gt.QASSO, gt.Budget]:
    torch.manual_seed(setup.seed)
    net = NETS[setup.net]
    model, example = net.build(), net.batch(4)[0]
    if setup.frozen:
        dict(model.named_parameters())[net.frozen].requires_grad_(False)
    geta = gt.GETA(model, example, quantize=CONFIGS[setup.config])
    geta.calibrate([net.batch(16)[0]])
    share = setup.sparsity * largest_sparsity(geta, setup.exceptions)
    budget = gt.Budget(
        math.floor(share * len(geta.groups)) / len(geta.groups), bit_range=setup.bits, activation_bit_range=setup.input_bits,
        round_to=setup.round_to, exceptions=setup.exceptions,
    )  # fmt: skip
    inner = OPTIMIZERS[setup.optimizer](parameter_groups(geta, setup.lrs, setup.decay), lr=setup.lrs[0])
    optimizer = geta.qasso(inner, budget=budget, schedule=setup.schedule, lr_quant=setup.lr_quant, rules=setup.rules)
    make = SCHEDULERS[setup.scheduler]
    total = setup.schedule.cool_down_start + 2
    scheduler = make(optimizer, total + 1) if make else None
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if setup.precision == "scaler" else None
    geta.model.train()
    while optimizer.steps_done < total:  # a scaler may skip some
        loss = step(setup, net, geta, optimizer, scaler)
        if scheduler is not None and (setup.scheduler != "plateau" or optimizer.steps_done):
            scheduler.step(*([loss] if setup.scheduler == "plateau" else []))
    return geta, optimizer, budget


def check_subnet(setup: Setup, geta: gt.GETA) -> None:
    """The subnet computes what the masked model does: exactly in float64, where no rounding flips a code, and to rounding in float32."""
    net = NETS[setup.net]
    x = net.batch(7)[0]
    twin = gt.GETA(copy.deepcopy(geta.model).double(), x.double(), quantize=geta.config)
    exact, subnet = twin.construct_subnet(), geta.construct_subnet()
    compare(exact, twin.model, x.double(), RTOL)
    assert [p.shape for p in subnet.parameters()] == [p.shape for p in exact.parameters()]
    if not geta.activation_bit_widths():  # one flip of a coarse activation code is worth more than any tolerance
        compare(subnet, geta.model, x, RTOL_FLOAT32)
    report = geta.report(subnet).to_dict()
    assert report["group_sparsity"] == report["target_group_sparsity"] == geta.group_sparsity()


def compare(subnet: nn.Module, model: nn.Module, x: Tensor, rtol: float) -> None:
    (masked,), (cut,) = evaluate(model, x), evaluate(subnet, x)
    assert masked.isfinite().all()
    torch.testing.assert_close(cut, masked, rtol=0, atol=rtol * max(float(masked.abs().max()), 1e-3))


def check(setup: Setup) -> None:
    geta, optimizer, budget = trained(setup)
    k = budget.n_redundant(len(geta.groups))
    assert optimizer.stage == "cool-down" and optimizer.n_redundant == k
    assert geta.group_sparsity() == k / max(len(geta.groups), 1) and int((~optimizer.group_mask).sum()) == k
    for widths, range_of in ((geta.bit_widths(), budget.weight_bits), (geta.activation_bit_widths(), budget.activation_bits)):
        for layer, bits in widths.items():
            low, high = range_of(layer)
            assert type(bits) is int and low <= bits <= high, (layer, bits)
    for family in geta.families:
        dead = int((~optimizer.group_mask[[group.index for group in family.groups]]).sum())
        assert dead < len(family.groups)
        for name, exception in setup.exceptions.items():
            if name in _producers(family) and (exception.protect or exception.max_sparsity is not None):
                assert dead <= (0 if exception.protect else (exception.max_sparsity or 0) * len(family.groups) + 1e-9)
    check_subnet(setup, geta)


@st.composite
def bit_ranges(draw: st.DrawFn) -> tuple[int, int]:
    low = draw(st.integers(2, 12))
    return low, low + draw(st.sampled_from([0, 0, 1, 4]))


@st.composite
def schedules(draw: st.DrawFn) -> gt.Schedule:
    warmup, projection, joint = draw(st.integers(0, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    start = draw(st.sampled_from([None, warmup + projection - min(projection, joint)]))
    return gt.Schedule(
        warmup, projection, draw(st.integers(1, projection)), joint, draw(st.integers(1, joint)), draw(st.integers(0, 5)), joint_start=start
    )


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    net = draw(st.sampled_from(sorted(NETS)))
    exception = st.builds(
        gt.LayerBudget, bit_range=st.none() | bit_ranges(), activation_bit_range=st.none() | bit_ranges(),
        max_sparsity=st.none() | st.sampled_from([0.0, 0.3, 1.0]), protect=st.booleans(),
    )  # fmt: skip
    return Setup(
        net=net,
        config=draw(st.sampled_from(sorted(CONFIGS))),
        optimizer=draw(st.sampled_from(sorted(OPTIMIZERS))),
        scheduler=draw(st.sampled_from(sorted(SCHEDULERS))),
        precision=draw(st.sampled_from(["float32", "bfloat16", "scaler"])),
        accumulate=draw(st.integers(1, 3)),
        clip=draw(st.booleans()),
        frozen=draw(st.booleans()),
        decay=draw(st.sampled_from([0.0, 1e-4, 0.1])),
        lrs=draw(st.lists(st.sampled_from([0.0, 1e-4, 1e-2]), min_size=1, max_size=3).map(tuple)),
        sparsity=draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1)),
        bits=draw(bit_ranges()),
        input_bits=draw(bit_ranges()),
        round_to=draw(st.sampled_from([1, 2, 4, 8])),
        exceptions=draw(st.just({}) | exception.map(lambda e: {NETS[net].layer: e})),
        rules=draw(st.sampled_from(["default", "paper"])),
        lr_quant=draw(st.sampled_from([0.0, 1e-4, 1e-1])),
        schedule=draw(schedules()),
        set_to_none=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_constraints_hold_with_every_optimizer(optimizer: str) -> None:
    check(Setup(optimizer=optimizer, decay=1e-2))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_constraints_hold_with_every_scheduler(scheduler: str) -> None:
    check(Setup("attention", optimizer="sgd momentum", scheduler=scheduler, lrs=(1e-2, 1e-3)))


@pytest.mark.parametrize("precision", ["bfloat16", "scaler"])
def test_constraints_hold_in_mixed_precision_with_accumulation_and_clipping(precision: str) -> None:
    check(Setup(precision=precision, accumulate=2, clip=True))


@pytest.mark.parametrize("bits", [(2, 2), (16, 16)])
@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_constraints_hold_at_the_edges_of_a_budget(bits: tuple[int, int], sparsity: float) -> None:
    check(Setup("residual", bits=bits, input_bits=bits, sparsity=sparsity))


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(setups())
def test_constraints_hold_in_any_combination(setup: Setup) -> None:
    check(setup)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(setups())
def test_constraints_hold_in_many_more_combinations(setup: Setup) -> None:
    check(setup)
