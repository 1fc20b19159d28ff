"""Bits and groups at one price: laws of what comes out, the measure behind it, the plan as data, and a run that goes on elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

import geta_nb as gt
from geta_nb.budget import Budget, LayerBudget
from geta_nb.errors import BudgetError, CheckpointError
from geta_nb.qasso import FAMILY, reasons
from geta_nb.qasso.allocation import Allocation
from geta_nb.qasso.rises import FITTED, Rises
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from geta_nb.quantizers import fake_quantize, largest_code
from tests.qasso.nets import BOTH, COLLAPSES, WEIGHTS, assert_equal, compress, convolutional_cost, zero_groups

LAYERS = ("conv1", "conv2", "head")
SCHEDULES = (Schedule(2, 9, 3, 10, 3, 4), Schedule(0, 12, 6, 12, 4, 2, joint_start=3), Schedule(1, 4, 2, 9, 1, 1), Schedule(0, 0, 0, 6, 2))


def reach(measure: str, low: int) -> tuple[float, float]:
    """The least and the most that the hand-made network can cost, all bits at the low end."""
    cost, bits, least = convolutional_cost(), dict.fromkeys(LAYERS, low), np.zeros(14, dtype=bool)
    least[[0, 6]] = True
    few, many = (getattr(cost, measure)(alive, bits, bits) for alive in (least, np.ones(14, dtype=bool)))
    return few, many


def price(run, zero, measure):
    optimizer = run.optimizer
    return getattr(convolutional_cost(), measure)(~zero, optimizer.bit_widths(), optimizer.activation_bit_widths())


@settings(max_examples=25, deadline=None)
@given(
    measure=st.sampled_from(["relative_bops", "size_bytes"]), share=st.floats(0.02, 3.0), low=st.integers(2, 6), both=st.booleans(),
    schedule=st.sampled_from(SCHEDULES), seed=st.integers(0, 99), round_to=st.sampled_from([1, 1, 2]),
)
@pytest.mark.filterwarnings(COLLAPSES)
def test_the_target_is_met_within_one_group_and_every_width_is_whole_and_in_its_range(measure, share, low, both, schedule, seed, round_to):
    few, many = reach(measure, low)
    target = few + share * (many - few)
    target = min(target, 1.0) if measure == "relative_bops" else target
    exceptions = {"conv1": LayerBudget(bit_range=(low + 1, 12)), "conv2": LayerBudget(activation_bit_range=(7, 9), max_sparsity=0.5)}
    ranges = dict.fromkeys(("bit_range", "activation_bit_range"), (low, 16))
    budget = Budget(**{measure: target}, **ranges, exceptions=exceptions if both else {}, round_to=round_to)
    try:
        run = compress(config=BOTH if both else WEIGHTS, seed=seed, schedule=schedule, budget=budget)
    except BudgetError:  # exceptions may put it out of reach
        assume(False)
    run.train(schedule.cool_down_start + 1)
    optimizer, zero = run.optimizer, zero_groups(run)
    assert (~zero == optimizer.group_mask).all() and price(run, zero, measure) <= target
    for kind, bits in (("weight", optimizer.bit_widths()), ("activation", optimizer.activation_bit_widths())):
        for layer, width in bits.items():
            lowest, highest = getattr(optimizer.budget, f"{kind}_bits")(layer)
            assert width == int(width) and lowest <= width <= highest
    assert zero[6:].sum() <= (4 if both else 7)
    if zero.any() and round_to == 1:
        assert max(price(run, zero & (np.arange(14) != group), measure) for group in np.flatnonzero(zero)) > target
    plan = optimizer.plan
    kept = {row.name: row.size for row in plan.rows if row.kind == FAMILY}
    assert kept == {"conv1": int((~zero[:6]).sum()), "conv2": int((~zero[6:]).sum())}
    assert plan.cost == pytest.approx(price(run, zero, measure), rel=1e-12)
    assert plan.target == target and plan.bits() == optimizer.bit_widths() and plan.bits("input") == optimizer.activation_bit_widths()


def test_bits_fall_further_where_that_costs_less_loss():
    """Two layers of the same cost, one of which the loss hardly depends on."""
    torch.manual_seed(0)
    x = torch.randn(256, 16)
    y = (x[:, :4] * 3).argmax(1)

    class Damped(nn.Module):
        def __init__(self):
            super().__init__()
            self.strong, self.weak = (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)) for _ in range(2))

        def forward(self, x):
            return self.strong(x) + 1e-3 * self.weak(x)

    geta = gt.GETA(Damped(), x[:2], protect=("*",))
    schedule = Schedule(0, 60, 6, 60, 3, 2, joint_start=20)
    optimizer = geta.qasso(torch.optim.Adam, lr=3e-3, budget=Budget(relative_bops=0.1, bit_range=(2, 16)), schedule=schedule)
    for step in range(125):
        rows = slice(step % 4 * 64, step % 4 * 64 + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(geta.model(x[rows]), y[rows]).backward()
        optimizer.step()
    bits = optimizer.bit_widths()
    assert bits["weak.0"] < bits["strong.0"] and bits["weak.2"] < bits["strong.2"]
    assert geta.cost.relative_bops(optimizer.group_mask, bits, {}) <= 0.1
    assert max(row.rise for row in optimizer.plan.rows if row.name.startswith("weak")) < optimizer.plan.rise / 100


class TestRises:
    def made(self):
        torch.manual_seed(1)
        run = compress(config=BOTH, budget=Budget(relative_bops=0.02, bit_range=(2, 16), activation_bit_range=(2, 16)))
        run.train(6)
        return run

    def test_what_the_step_size_says_is_the_sum_of_squares_of_the_gradient(self):
        """E of inputs comes from dL/dd; on weights, where the gradient itself is there, both are the same."""
        run = self.made()
        found, exact = torch.zeros(3), torch.zeros(3)
        tensors = [run.optimizer.bank.weight(i) for i in range(3)]
        for _ in range(300):
            run.optimizer.zero_grad()
            with torch.no_grad():  # each time another place of every value between two levels, and none above the highest
                for weight, quantizer in zip(tensors, run.quantizers.weights.values(), strict=True):
                    quantizer.clip_max.copy_(weight.abs().max())
                    quantizer.step_size.copy_(quantizer.clip_max ** quantizer.exponent / 200 * (1 + 0.1 * torch.rand(())))
            nn.functional.cross_entropy(run.model(torch.randn(8, 3, 8, 8)), torch.randint(4, (8,))).backward()
            found += torch.stack([12 * q.step_size.grad.square() for q in run.quantizers.weights.values()])
            exact += torch.stack([w.grad.square().sum() for w in tensors])
        assert ((found / exact).log().abs() < np.log(2.5)).all(), found / exact

    def test_rises_rank_as_the_products_that_they_stand_for(self):
        run = self.made()
        bank, rises = run.optimizer.bank, Rises(run.optimizer.bank)
        direct = {(i, b): 0.0 for i in range(3) for b in FITTED}
        for _ in range(60):
            run.optimizer.zero_grad()
            nn.functional.cross_entropy(run.model(torch.randn(8, 3, 8, 8)), torch.randint(4, (8,))).backward()
            rises.take_in(rises.read(), 0.98)
            for i, bits in direct:
                weight = bank.weight(i)
                clip = weight.detach().abs().max() * (0.6 if bits < 4 else 1.0)
                delta = fake_quantize(weight, clip / largest_code(bits, signed=True), clip, torch.tensor(1.0)) - weight
                direct[i, bits] += float((delta.detach() * weight.grad).sum() ** 2)
        estimated = {(i, b): rise for i, known in enumerate(rises.at([FITTED] * len(bank))[:3]) for b, rise in known.items()}
        assert spearmanr([direct[key] for key in direct], [estimated[key] for key in direct]).statistic > 0.85

    def test_a_bit_less_never_costs_less_and_a_layer_without_gradient_costs_nothing(self):
        run = self.made()
        for quantizer in run.quantizers.activations.values():
            quantizer.step_size.grad = None
        rises = Rises(run.optimizer.bank)
        rises.take_in(rises.read(), 0.0)
        for known in rises.at([range(2, 17)] * 6):
            values = [known[b] for b in range(2, 17)]
            assert values == sorted(values, reverse=True)
        assert all(rise == 0 for known in rises.at([(2, 8)] * 6)[3:] for rise in known.values())


@pytest.mark.parametrize("stop", [1, 4, 7, 12, 15, 20, 23])
@pytest.mark.parametrize("schedule", [Schedule(0, 12, 6, 12, 4, 2, joint_start=3), Schedule(2, 9, 3, 10, 3, 4)])
@pytest.mark.filterwarnings(COLLAPSES)
def test_a_run_stopped_at_any_step_goes_on_with_the_same_plan_and_bits(stop, schedule):
    budget = Budget(relative_bops=0.015, bit_range=(2, 16), activation_bit_range=(3, 16))
    whole, first, second = (compress(config=BOTH, budget=budget, schedule=schedule, seed=seed) for seed in (0, 0, 5))
    whole.train(25)
    first.train(stop)
    file = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.stream.set_state(first.stream.get_state())
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    assert second.optimizer.progress() == first.optimizer.progress() and second.optimizer.bank.bound == first.optimizer.bank.bound
    second.train(25 - stop)
    assert_equal(dict(second.model.state_dict()), dict(whole.model.state_dict()))
    assert second.optimizer.plan == whole.optimizer.plan


def planned(**options):
    run = compress(config=BOTH, budget=Budget(relative_bops=0.015, bit_range=(2, 16), activation_bit_range=(2, 16)), **options)
    run.train(22)
    return run


DAMAGES = {
    "rises": lambda joint: joint.update(rises=joint["rises"][:2]),
    "bound_bits": lambda joint: joint.update(bound_bits=[1.5] * 6),
    "gone": lambda joint: joint["gone"].pop("conv1"),
    "samples": lambda joint: joint.update(samples=-1),
    "plan": lambda joint: joint["plan"]["rows"][0].pop("rise"),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.filterwarnings(COLLAPSES)
def test_a_damaged_plan_is_refused_before_anything_is_loaded(name):
    run = planned()
    state = copy.deepcopy(run.optimizer.state_dict())
    DAMAGES[name](state["qasso"]["joint"])
    before = copy.deepcopy(run.optimizer.state_dict()["qasso"])
    run.optimizer.steps_done -= 1
    with pytest.raises(CheckpointError, match=name if name != "plan" else "damaged plan"):
        run.optimizer.load_state_dict(state)
    assert run.optimizer.steps_done == before["step"] - 1
    assert run.optimizer.state_dict()["qasso"]["joint"]["plan"] == before["joint"]["plan"]


@pytest.mark.filterwarnings(COLLAPSES)
def test_a_state_of_another_allocation_is_refused():
    run = planned()
    budget = dataclasses.replace(run.optimizer.budget, allocation="uniform")
    with pytest.raises(CheckpointError, match=r"budget\.allocation"):
        compress(config=BOTH, budget=budget).optimizer.load_state_dict(run.optimizer.state_dict())


@pytest.mark.filterwarnings(COLLAPSES)
def test_the_plan_is_plain_data_and_says_why():
    optimizer = planned().optimizer
    plan = optimizer.plan
    assert Allocation.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert optimizer.progress()["plan"] == plan.to_dict()
    assert plan.cost <= plan.target and plan.rise == pytest.approx(sum(row.rise for row in plan.rows))
    assert {(row.kind, row.name) for row in plan.rows} == {
        *((kind, layer) for kind in ("weight", "input") for layer in LAYERS), (FAMILY, "conv1"), (FAMILY, "conv2"),
    }  # fmt: skip
    for row in plan.rows:
        assert row.why.startswith(f"{row.size} ") and row.rise >= 0
        assert (row.last is None) == (row.size == row.whole) or row.kind == FAMILY
        for move in (row.last, row.next):
            assert move is None or (move.before > move.after and move.rise >= 0 and move.saved > 0)
        if row.last is not None:
            assert f"{row.last.before} to {row.last.after} cost" in row.why
    assert reasons(optimizer) == plan.by_layer() and set(reasons(optimizer)["conv2"]) == {"bits", "why", "input_bits", "input_why"}


def test_without_a_price_the_reason_is_the_range():
    exceptions = {"head": LayerBudget(bit_range=(6, 8))}
    run = compress(config=WEIGHTS, budget=Budget(0.5, exceptions=exceptions))
    assert run.optimizer.plan is None and run.optimizer.progress()["plan"] is None
    run.train(22)
    found = reasons(run.optimizer)
    assert {layer: row["bits"] for layer, row in found.items()} == run.optimizer.bit_widths()
    assert "low end" in found["conv1"]["why"] and "exception" in found["head"]["why"] and "6 to 8" in found["head"]["why"]


@pytest.mark.parametrize("options", [{"rules": "paper"}, {"saliency": "taylor"}, {"rules": Rules(refit=False)}])
@pytest.mark.filterwarnings(COLLAPSES)
def test_rules_that_measure_nothing_split_by_cost_alone(options):
    budget = Budget(relative_bops=0.015, bit_range=(3, 16), activation_bit_range=(3, 16))
    run = compress(config=BOTH, budget=budget, **options)
    run.train(22)
    assert run.optimizer.plan is None and len(set(run.optimizer.bit_widths().values())) > 1
    assert "costs little" in " ".join(row["why"] for row in reasons(run.optimizer).values())


class TestSamples:
    def trained(self, rows=(32,), **budget):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        geta = gt.GETA(model, torch.randn(2, 6))
        optimizer = geta.qasso(
            torch.optim.SGD, lr=0.1, budget=Budget(**(budget or {"relative_bops": 0.1})), schedule=Schedule(0, 3, 1, 4, 2, 8, joint_start=1)
        )
        hooked = len(model._forward_pre_hooks)
        for _ in range(6):
            optimizer.zero_grad()
            for count in rows:
                (nn.functional.cross_entropy(model(torch.randn(count, 6)), torch.randint(3, (count,))) / len(rows)).backward()
            optimizer.step()
            assert len(model._forward_pre_hooks) == 0
        return geta, optimizer, hooked

    @pytest.mark.parametrize("rows", [(32,), (8, 8, 8, 8), (20, 12)])
    def test_the_samples_of_one_step_are_counted_over_its_passes(self, rows):
        _, optimizer, hooked = self.trained(rows)
        assert optimizer.plan.samples == 32 and hooked == 1
        _, optimizer, hooked = self.trained(group_sparsity=0.5)
        assert optimizer.plan is None and hooked == 0

    def test_evaluation_and_copies_do_not_count(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        geta, schedule = gt.GETA(model, torch.randn(2, 6)), Schedule(0, 3, 1, 4, 2, 8, joint_start=1)
        optimizer = geta.qasso(torch.optim.SGD, lr=0.1, budget=Budget(relative_bops=0.1), schedule=schedule)
        with torch.no_grad():
            model(torch.randn(100, 6))
        model.eval()(torch.randn(100, 6))
        copied = copy.deepcopy(model.train())
        copied(torch.randn(100, 6))
        torch.save(model.state_dict(), io.BytesIO())
        assert geta.construct_subnet()(torch.randn(50, 6)).shape == (50, 3)
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
        assert optimizer.plan.samples == 4

    def test_rises_do_not_depend_on_the_size_of_a_batch(self):
        """Of the same data, batches of 16 and of 64 predict the same rise of the mean loss: that is what the number of samples is for."""
        found = []
        for size in (16, 64):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
            geta = gt.GETA(model, torch.randn(2, 6))
            schedule = Schedule(0, 150, 1, 160, 2, 12, joint_start=140)
            optimizer = geta.qasso(torch.optim.SGD, lr=1e-4, budget=Budget(relative_bops=0.08), schedule=schedule)
            for _ in range(149):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(torch.randn(size, 6)), torch.randint(3, (size,))).backward()
                optimizer.step()
            found.append(optimizer.plan.rise)
        assert 0.5 < found[0] / found[1] < 2
