"""The ten defects of the official optimizer that experiments showed: each test fails on the defective behaviour."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geta_nb.budget import Budget
from geta_nb.qasso.forgetting import paper_rates
from geta_nb.qasso.members import Members
from geta_nb.qasso.optimizer import QASSO
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from tests.qasso.nets import BOTH, SHORT, WEIGHTS, Convolutional, compress, convolutional_table, parameters_of, table, zero_groups

ROUNDING = 1e-4  # of a float32 logarithm near 16 bits, with room


def test_1_activation_bit_widths_are_projected_too():
    run = compress(config=BOTH, budget=Budget(0.0, (4, 16), (4, 8)), schedule=Schedule(0, 4, 1, 2, 1), lr_quant=1e-6)
    assert max(run.optimizer.activation_bit_widths().values()) > 15
    run.train(1)
    assert max(run.optimizer.activation_bit_widths().values()) <= 8 + ROUNDING
    run.train(5)
    assert all(4 <= bits <= 8 for bits in run.optimizer.activation_bit_widths().values())


def test_2_layers_of_one_parameter_group_keep_their_own_step_size():
    run = compress(config=WEIGHTS, schedule=SHORT)
    with torch.no_grad():
        run.model.conv1.parametrizations.weight.original.mul_(1000)
        run.quantizers.weights["conv1"].set_range(run.quantizers.weights["conv1"].clip_max.detach() * 1000)

    def look():
        if run.optimizer.steps_done > 2:
            assert all(4 - ROUNDING <= bits <= 16 + ROUNDING for bits in run.optimizer.bit_widths().values())

    run.train(24, after=look)
    steps = {layer: q.step_size.item() for layer, q in run.quantizers.weights.items()}
    assert steps["conv1"] > 100 * steps["conv2"]


@pytest.mark.filterwarnings("ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning")
@pytest.mark.filterwarnings("ignore:QASSO. layers get no gradient:geta_nb.errors.GetaWarning")  # behind a ReLU all is dead
def test_3_groups_of_negative_mean_are_forgotten():
    run = compress("mixed", config=WEIGHTS, build=lambda ps: torch.optim.SGD(ps, lr=0.0), schedule=Schedule(0, 1, 1, 4, 1))
    with torch.no_grad():
        for name, p in run.model.named_parameters():
            if name.endswith(("original", "bias")):
                p.copy_(-p.abs() - 0.01)
    run.train(2)
    fading = run.optimizer.pruner.redundant
    norms = run.optimizer.pruner.members.square_sums()[0]
    run.train(1)
    after = run.optimizer.pruner.members.square_sums()[0]
    assert fading.sum() == 7
    assert (after[fading] < 0.9 * norms[fading]).all()


def test_3_the_papers_rate_is_positive_whatever_the_sign_of_the_mean():
    members = Members(convolutional_table(), dict(Convolutional().double().named_parameters()))
    chosen = torch.zeros(14, dtype=torch.bool)
    chosen[[0, 7]] = True
    elements = members.elements(chosen, {"conv1.weight": 0, "conv2.weight": 1})
    ends = {"widest": torch.ones(2).double(), "finest": torch.full((2,), 1e-3).double()}
    for sign in (1, -1):
        c = torch.full((len(elements),), -0.1).double()
        rates = paper_rates(elements, c, c[: elements.n_quantized], sign * c, rate=0.5, rules=Rules.preset("paper"), **ends)
        assert (rates.gamma > 0).all()


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_4_heads_and_transposed_filters_reach_zero_whole(rules):
    run = compress("mixed", config=WEIGHTS, rules=rules)
    run.train(SHORT.cool_down_start)
    weights, dead = parameters_of(run.model), ~run.optimizer.group_mask
    assert dead[:6].any() and dead[6:].any()
    rows = torch.tensor(np.repeat(dead[:6], 2))
    assert not weights["project.weight"][rows].any() and not weights["project.bias"][rows].any()
    assert weights["project.weight"][~rows].any(1).all()
    filters = torch.tensor(dead[6:])
    assert not weights["up.weight"][:, filters].any() and weights["up.weight"][:, ~filters].any(0).any(1).all()


def test_5_redundant_groups_are_taken_by_score_also_after_earlier_ones_are_gone():
    run = compress(build=lambda ps: torch.optim.SGD(ps, lr=0.0), schedule=Schedule(0, 1, 1, 12, 4), budget=Budget(8 / 14))
    taken = []

    def look():
        dead = ~run.optimizer.group_mask
        if dead.sum() > sum(map(len, taken)):
            taken.append(np.setdiff1d(np.flatnonzero(dead), np.concatenate([[], *taken])))

    scores = []
    choose = run.optimizer.pruner._scores
    run.optimizer.pruner._scores = lambda: scores.append(choose()) or scores[-1]
    run.train(13, after=look)
    assert [len(t) for t in taken] == [2, 2, 2, 2]
    gone = np.zeros(14, dtype=bool)
    for score, groups in zip(scores, taken, strict=True):
        gone[groups.astype(int)] = True
        # families of 6 and 8 lose at most 8 in all; none is down to its last group before the end
        assert score[groups].max() <= score[~gone].min() or min(np.bincount(run.table.family_of[~gone])) == 1
    assert sorted(np.flatnonzero(gone).tolist()) != list(range(8))


@pytest.mark.parametrize(("steps", "periods"), [(9, 3), (10, 3), (7, 5), (5, 5), (11, 4)])
def test_6_the_bound_falls_exactly_once_a_period_and_never_below_the_lower_one(steps, periods):
    run = compress(config=WEIGHTS, budget=Budget(0.0, (4, 16)), schedule=Schedule(1, steps, periods, 2, 1, 3), lr_quant=1e-7)
    bounds, widths = [16], []

    def look():
        bounds.append(run.optimizer.progress()["bit_bound"])
        widths.append(max(run.optimizer.bit_widths().values()))

    run.train(steps + 4, after=look)
    expected = [16 - 3 * fall for fall in range(periods + 1)]
    assert sorted(set(bounds), reverse=True) == sorted({max(4, b) for b in expected}, reverse=True)
    falls = -np.diff(bounds)
    assert (falls > 0).sum() == min(periods, 4) and bounds[1 + steps] == max(4, 16 - 3 * periods)
    # with so small a learning rate d only moves when the bound makes it
    np.testing.assert_allclose(widths[1:], bounds[2:], atol=0.01)


def test_7_adams_moments_start_at_one_minus_beta_times_the_gradient():
    run = compress()
    run.train(1)
    weight = run.model.conv2.weight
    torch.testing.assert_close(run.optimizer.state[weight]["exp_avg"], 0.1 * weight.grad, rtol=1e-6, atol=0)  # 1 - 0.9 in floating point
    torch.testing.assert_close(run.optimizer.state[weight]["exp_avg_sq"], 0.001 * weight.grad**2, rtol=1e-4, atol=0)  # 1 - 0.999


@pytest.mark.parametrize("stop", range(11, 21))
def test_8_resuming_inside_the_joint_stage_keeps_the_pruned_set(stop):
    first, second = compress(config=WEIGHTS), compress(config=WEIGHTS, seed=3)
    first.train(stop)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    already = zero_groups(first)
    second.train(SHORT.cool_down_start - stop)
    assert zero_groups(second)[already].all() and zero_groups(second).sum() == 7


class _Count(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def calls_of_a_joint_step(width, rules):
    model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
    groups = np.arange(width)
    maps = [("0.weight", 0, groups, True), ("0.bias", 0, groups, True), ("2.weight", 1, groups, False)]
    optimizer = QASSO(
        torch.optim.SGD(model.parameters(), lr=0.1), table=table({"0": width}, maps, [10]), parameters=dict(model.named_parameters()),
        budget=Budget(0.5), schedule=Schedule(0, 1, 1, 8, 2), rules=rules,
    )  # fmt: skip
    for step in range(4):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().mean().backward()
        with _Count() as count:
            optimizer.step()
        assert step or optimizer.stage == "joint"
    return count.calls


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_9_a_joint_step_does_not_loop_over_groups(rules):
    assert calls_of_a_joint_step(8, rules) == calls_of_a_joint_step(256, rules)


def test_10_what_is_pruned_fades_and_is_not_cut_at_a_periods_end():
    length = 8
    run = compress(config=WEIGHTS, budget=Budget(0.5, (8, 16)), schedule=Schedule(0, 1, 1, length, 1), lr=1e-4)
    norms = []

    def look():
        norms.append(run.optimizer.pruner.members.square_sums()[0].sqrt())

    run.train(1 + length, after=look)
    dead = torch.tensor(~run.optimizer.group_mask)
    assert dead.sum() == 7
    for k in range(1, length + 1):
        # a step takes an equal portion of 1/T; training (lr 1e-4, 8-bit rounding) moves a norm by a tenth of that at most
        portion = (norms[k - 1] - norms[k])[dead] / norms[0][dead]
        assert (portion < 1.3 / length).all() and (portion > 0.7 / length).all()
