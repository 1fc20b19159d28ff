"""The laws of QASSO: what holds at the end, what holds at each step, and that it is the inner optimizer where it has nothing to do."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geta_nb.budget import Budget
from geta_nb.errors import ConfigError, NonFiniteError, PruningSpaceError
from geta_nb.qasso.optimizer import QASSO
from geta_nb.qasso.schedule import Schedule
from geta_nb.quantizers.parametrized import parameter_tensors
from tests.qasso.nets import BOTH, COLLAPSES, END, SHORT, WEIGHTS, assert_equal, compress, parameters_of, zero_groups

OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-2, foreach=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=1e-2),
    "fused": lambda ps: torch.optim.Adam(ps, lr=1e-2, fused=True),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=1e-3, momentum=0.5),
}


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam", "fused"])
def test_with_nothing_to_prune_and_no_quantizer_it_is_the_inner_optimizer_bit_for_bit(name):
    run = compress(budget=Budget(0.0), build=OPTIMIZERS[name])
    plain = compress(budget=Budget(0.0), build=OPTIMIZERS[name])
    plain.optimizer.step, inner = None, plain.optimizer.inner
    plain.optimizer.step = inner.step
    run.train(30)
    plain.train(30)
    assert_equal(parameters_of(run.model), parameters_of(plain.model))
    assert run.optimizer.steps_done == 30 and run.optimizer.stage == "cool-down"


@pytest.mark.filterwarnings(COLLAPSES)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_at_the_end_exactly_k_groups_are_zero_and_every_bit_width_is_an_integer_in_its_range(data):
    projection, joint = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    schedule = Schedule(
        data.draw(st.integers(0, 2)), projection, data.draw(st.integers(1, projection)), joint, data.draw(st.integers(1, joint)),
        data.draw(st.integers(0, 5)),
    )  # fmt: skip
    low, wide = data.draw(st.integers(2, 8)), data.draw(st.integers(0, 8))
    net = data.draw(st.sampled_from(["convolutional", "mixed"]))
    budget = Budget(data.draw(st.floats(0, 0.8)), (low, low + wide), (3, 7))
    run = compress(
        net, seed=data.draw(st.integers(0, 99)), config=data.draw(st.sampled_from([None, WEIGHTS, BOTH])), budget=budget,
        schedule=schedule, build=OPTIMIZERS[data.draw(st.sampled_from(sorted(OPTIMIZERS)))],
        rules=data.draw(st.sampled_from(["default", "paper"])),
    )  # fmt: skip
    run.train(schedule.cool_down_start)
    for extra in (0, 2):
        run.train(extra)
        assert zero_groups(run).sum() == budget.n_redundant(run.table.n_groups)
        assert (zero_groups(run) == ~run.optimizer.group_mask).all()
        for kind, (lower, upper), widths in (
            ("weights", budget.bit_range, run.optimizer.bit_widths()),
            ("activations", budget.activation_bit_range, run.optimizer.activation_bit_widths()),
        ):
            for layer, quantizer in (getattr(run.quantizers, kind) if run.quantizers else {}).items():
                assert type(widths[layer]) is int and lower <= widths[layer] <= upper
                # d, q_m and t are float32: their logarithm is off by some 1e-6 of a bit
                assert quantizer.bit_width().item() == pytest.approx(widths[layer], abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_by_name_before_anything_changes(value):
    run = compress(config=WEIGHTS)
    run.train(13)
    before, state = parameters_of(run.model), json.dumps(run.optimizer.progress())
    moments = {p: run.optimizer.state[p]["exp_avg"].clone() for p in run.optimizer.state}
    run.model.conv2.parametrizations.weight.original.grad[3, 1, 2, 0] = value
    with pytest.raises(NonFiniteError, match=r"conv2\.weight, step 13"):
        run.optimizer.step()
    assert_equal(parameters_of(run.model), before)
    assert json.dumps(run.optimizer.progress()) == state
    assert all(torch.equal(run.optimizer.state[p]["exp_avg"], moment) for p, moment in moments.items())


def test_a_gradient_of_a_quantizer_that_is_not_finite_is_named_by_its_layer():
    run = compress(config=WEIGHTS)
    run.train(1)
    run.quantizers.weights["conv1"].step_size.grad.fill_(math.nan)
    with pytest.raises(NonFiniteError, match=r"conv1 \(weight quantizer, step_size\)"):
        run.optimizer.step()


def test_a_huge_but_finite_gradient_is_let_through():
    run = compress()
    run.train(1)
    run.model.conv2.weight.grad.fill_(1e30)  # its norm overflows float32
    run.optimizer.step()
    assert run.optimizer.steps_done == 2


def test_a_closure_whose_loss_is_nan_is_refused():
    run = compress()
    before = parameters_of(run.model)
    with pytest.raises(NonFiniteError, match="loss = nan"):
        run.optimizer.step(lambda: torch.tensor(math.nan))
    assert_equal(parameters_of(run.model), before)


@pytest.mark.filterwarnings(COLLAPSES)
@pytest.mark.parametrize("rules", ["default", "paper"])
def test_a_closure_does_what_a_plain_step_does(rules):
    with_closure, without = compress(config=WEIGHTS, rules=rules), compress(config=WEIGHTS, rules=rules)
    with_closure.train(24, use_closure=True)
    without.train(24)
    assert_equal(parameters_of(with_closure.model), parameters_of(without.model))


def test_an_optimizer_that_calls_its_closure_many_times_meets_the_budget_too():
    run = compress(build=lambda ps: torch.optim.LBFGS(ps, lr=0.1, max_iter=4))
    run.train(END, use_closure=True)
    assert zero_groups(run).sum() == 7


def test_an_optimizer_of_one_group_trains_the_quantizers_only_when_it_was_given_them():
    with pytest.raises(ConfigError, match=r"(?s)LBFGS trains one parameter group.*geta\.model\.parameters"):
        compress(config=WEIGHTS, build=lambda ps: torch.optim.LBFGS(ps))
    run = compress(config=WEIGHTS)
    inner = torch.optim.LBFGS(run.model.parameters(), lr=0.01, max_iter=2)
    run.optimizer = QASSO(
        inner, table=run.table, parameters=parameter_tensors(run.model), quantizers=run.quantizers, budget=Budget(0.5), schedule=SHORT
    )
    before = run.quantizers.weights["conv1"].step_size.item()  # the clip value has no gradient yet

    def closure():
        run.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(run.model(torch.ones(4, 3, 8, 8)), torch.arange(4))
        loss.backward()
        return loss

    run.optimizer.step(closure)
    assert run.quantizers.weights["conv1"].step_size.item() != before


def test_dead_groups_are_zero_after_every_step_and_never_return():
    run = compress(config=WEIGHTS)
    seen = []

    def look():
        alive = run.optimizer.group_mask
        assert zero_groups(run)[~alive].all()
        seen.append((~alive).sum())

    run.train(26, after=look)
    # K = 7 over 3 periods: floor(7 p / 3) after each; the joint stage is steps 11 .. 20, its periods end after 14, 17 and 21 steps
    assert seen == [0] * 13 + [2] * 3 + [4] * 4 + [7] * 6


def test_a_group_fades_by_equal_portions_when_nothing_else_moves_it():
    run = compress(build=lambda ps: torch.optim.SGD(ps, lr=0.0), schedule=Schedule(0, 1, 1, 4, 1))
    start = parameters_of(run.model)["conv1.weight"]
    fading = []
    run.train(5, after=lambda: fading.append(parameters_of(run.model)["conv1.weight"] / start))
    gone = ~run.optimizer.group_mask[:6]
    for k, ratio in enumerate(fading):
        # a product of at most four float32 factors
        torch.testing.assert_close(ratio[gone], torch.full_like(ratio[gone], 1 - k / 4), rtol=1e-6, atol=0)
        assert (ratio[~gone] == 1).all()


def test_schedulers_and_hooks_see_one_optimizer():
    run = compress(config=WEIGHTS)
    qasso = run.optimizer
    assert qasso.param_groups is qasso.inner.param_groups and qasso.state is qasso.inner.state
    calls = []
    qasso.register_step_post_hook(lambda *_: calls.append("outer"))
    qasso.inner.register_step_pre_hook(lambda *_: calls.append("inner"))
    scheduler = torch.optim.lr_scheduler.StepLR(qasso, 1, gamma=0.5)
    rates = [group["lr"] for group in qasso.param_groups]
    run.train(1)
    scheduler.step()
    assert [group["lr"] for group in qasso.inner.param_groups] == [rate / 2 for rate in rates]
    assert calls == ["inner", "outer"]
    qasso.load_state_dict(qasso.state_dict())
    assert qasso.param_groups is qasso.inner.param_groups and qasso.state is qasso.inner.state
    scheduler.step()
    assert qasso.inner.param_groups[0]["lr"] == rates[0] / 4


def test_quantizer_parameters_get_a_group_of_their_own_without_decay():
    run = compress(config=BOTH, inner=torch.optim.AdamW, lr_quant=3e-4)
    *_, group = run.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-4, 0.0)
    # d, q_m, t of three weights; d and q_m of three inputs, whose t is fixed
    assert len(group["params"]) == 3 * 3 + 3 * 2


def test_quantizer_parameters_that_the_user_grouped_are_not_doubled():
    torch.manual_seed(0)
    run = compress(config=WEIGHTS, build=lambda ps: torch.optim.SGD(ps, lr=0.1))
    everything = list(run.model.parameters())
    inner = torch.optim.SGD(everything, lr=0.1)
    again = QASSO(inner, table=run.table, parameters=parameter_tensors(run.model), quantizers=run.quantizers,
                  budget=Budget(0.5), schedule=SHORT)  # fmt: skip
    assert len(again.param_groups) == 1 and len(again.param_groups[0]["params"]) == len(everything)


def test_a_grad_scaler_may_skip_steps():
    run = compress(config=WEIGHTS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
    for poisoned in (False, True, False):
        run.optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(run.model(x), y)).backward()
        if poisoned:
            run.model.head.bias.grad.fill_(math.inf)
        scaler.step(run.optimizer)
        scaler.update()
    assert run.optimizer.steps_done == 2


def test_frozen_parameters_and_sparse_gradients_are_tolerated():
    run = compress()
    run.model.conv1.weight.requires_grad_(False)
    run.model.norm.bias.requires_grad_(False)
    run.train(END)
    assert zero_groups(run).sum() == 7
    frozen_but_pruned = ~run.optimizer.group_mask[:6]
    assert not run.model.conv1.weight[frozen_but_pruned].any()


def test_stages_and_progress_tell_where_a_run_stands():
    run = compress(config=BOTH)
    stages = []
    run.train(23, after=lambda: stages.append(run.optimizer.stage))
    assert stages == ["warm-up"] + ["projection"] * 9 + ["joint"] * 10 + ["cool-down"] * 3
    progress = run.optimizer.progress()
    assert json.loads(json.dumps(progress)) == progress
    assert (progress["step"], progress["stage"], progress["bit_bound"]) == (23, "cool-down", 4)
    assert progress["bits"] == {"conv1": 4, "conv2": 4, "head": 4} == progress["activation_bits"]
    assert progress["zero_groups"] == 7 and progress["fading_groups"] == 0 and progress["n_groups"] == 14
    assert sum(share * size for share, size in zip(progress["kept"].values(), (6, 8), strict=True)) == pytest.approx(7)
    assert progress["target"] == {"group_sparsity": 0.5, "zero_groups": 7}
    assert run.optimizer.schedule_spans() == SHORT.spans()


def test_survivors_train_on_in_the_cool_down():
    run = compress(config=WEIGHTS)
    run.train(END)
    before, clip = parameters_of(run.model), run.quantizers.weights["conv2"].clip_max.item()
    run.train(3)
    moved = (parameters_of(run.model)["conv2.weight"] != before["conv2.weight"]).flatten(1).any(1).numpy()
    assert (moved == run.optimizer.group_mask[6:]).all()
    assert run.quantizers.weights["conv2"].clip_max.item() != clip


def test_a_step_size_smaller_than_the_learning_rate_never_leaves_a_valid_width():
    run = compress(config=BOTH, lr_quant=1e-2, schedule=Schedule(6, 4, 1, 4, 1))

    def look():
        widths = [*run.optimizer.bit_widths().values(), *run.optimizer.activation_bit_widths().values()]
        assert all(q.step_size.item() > 0 for q in (*run.quantizers.weights.values(), *run.quantizers.activations.values()))
        # the step of 32 bits in float32
        assert all(2 - 1e-4 <= bits <= 32 + 1e-4 for bits in widths)

    run.train(16, after=look)


def test_the_loss_goes_down_through_all_stages():
    run = compress(config=BOTH, schedule=Schedule(2, 20, 4, 30, 3, 3), lr=3e-2, budget=Budget(0.3))
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 4
    x += y.float()[:, None, None, None]
    losses = []
    for _ in range(150):
        run.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(run.model(x), y)
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0] and run.optimizer.stage == "cool-down"


def test_arguments_of_the_wrong_kind_are_refused():
    run = compress()
    common = {"table": run.table, "parameters": dict(run.model.named_parameters()), "budget": Budget(), "schedule": SHORT}
    inner = torch.optim.SGD(run.model.parameters(), lr=0.1)
    for bad in ({"budget": 0.5}, {"schedule": 100}, {"lr_quant": -1}, {"lr_quant": math.nan}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            QASSO(inner, **(common | bad))
    with pytest.raises(ConfigError, match="inner"):
        QASSO(torch.optim.SGD, **common)
    with pytest.raises(PruningSpaceError, match=r"conv1\.weight"):
        QASSO(inner, **(common | {"parameters": {}}))
    with pytest.raises(ConfigError, match="cost model"):
        QASSO(inner, **(common | {"budget": Budget(relative_bops=0.1)}))
