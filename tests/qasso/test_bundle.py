"""Claims about stepping many scalars as one vector: nobody can tell, but by the clock."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.qasso.bundle import ELEMENTWISE, Bundle
from tests.qasso.nets import BOTH, WEIGHTS, compress, parameters_of

OPTIONS = {
    torch.optim.SGD: {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    torch.optim.Adam: {"lr": 0.1, "amsgrad": True},
    torch.optim.RMSprop: {"lr": 0.1, "momentum": 0.5, "centered": True},
}


def scalars(n=5):
    return [nn.Parameter(torch.tensor(float(i + 1))) for i in range(n)]


def feed(params, step):
    for i, p in enumerate(params):
        p.grad = torch.tensor(float((i + 2) * (-1) ** step) / (step + 1))


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_a_vector_takes_the_steps_of_its_scalars(cls):
    options = OPTIONS.get(cls, {"lr": 0.1})
    one, many = scalars(), scalars()
    alone, together = cls(many, **options), cls(one, **options)
    bundle = Bundle.of(together, 0, one)
    for step in range(6):
        feed(one, step)
        feed(many, step)
        alone.step()
        assert bundle.gather()
        bundle.step(together.step)
        bundle.scatter()
        if step == 3:  # state goes out and comes back as that of the scalars
            bundle.unpack()
            assert together.state_dict()["state"].keys() == alone.state_dict()["state"].keys()
        # one instruction for eight numbers rounds as one for each does, to the last bit but one
        torch.testing.assert_close(torch.stack(one), torch.stack(many), rtol=1e-6, atol=0)
    assert [id(p) for p in together.param_groups[0]["params"]] == [id(p) for p in one]
    bundle.unpack()
    for p, q in zip(one, many, strict=True):
        ours, theirs = together.state[p], alone.state[q]
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-9)


def test_a_scalar_without_gradient_stays_out_of_the_vector():
    params = scalars()
    optimizer = torch.optim.Adam(params)
    bundle = Bundle.of(optimizer, 0, params)
    feed(params, 0)
    params[2].grad = None
    assert not bundle.gather()


def test_scalars_of_different_age_are_not_packed():
    params = scalars(3)
    optimizer = torch.optim.Adam(params)
    feed(params[:2], 0)
    optimizer.step()
    feed(params, 1)
    optimizer.step()
    bundle = Bundle.of(optimizer, 0, params)
    feed(params, 2)
    assert not bundle.gather() and set(optimizer.state) == set(params)


@pytest.mark.parametrize("optimizer", [torch.optim.Adagrad, torch.optim.LBFGS, type("Own", (torch.optim.SGD,), {})])
def test_an_optimizer_that_may_do_otherwise_gets_no_vector(optimizer):
    params = scalars()
    assert Bundle.of(optimizer(params), 0, params) is None


def test_the_rest_of_a_group_steps_along():
    weight, own = nn.Parameter(torch.ones(3)), scalars(3)
    optimizer = torch.optim.SGD([own[0], weight, *own[1:]], lr=1.0)
    bundle = Bundle.of(optimizer, 0, own)
    feed(own, 0)
    weight.grad = torch.ones(3)
    bundle.gather()
    bundle.step(optimizer.step)
    bundle.scatter()
    assert weight.tolist() == [0, 0, 0] and [p.item() for p in own] == [-1, -1, -1]
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in (own[0], weight, *own[1:])]


def test_an_error_in_the_step_leaves_the_group_as_it_was():
    params = scalars()
    optimizer = torch.optim.SGD(params, lr=1.0)
    bundle = Bundle.of(optimizer, 0, params)
    feed(params, 0)
    bundle.gather()
    with pytest.raises(ZeroDivisionError):
        bundle.step(lambda: 1 / 0)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in params]


BUILDS = {"adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-2), "sgd": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9)}


@pytest.mark.parametrize("config", [WEIGHTS, BOTH], ids=["weights", "both"])
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_whole_run_is_the_one_without_bundles(config, build):
    bundled, plain = compress(config=config, build=build), compress(config=config, build=build)
    assert bundled.optimizer._bundle is not None
    plain.optimizer._bundle = None
    for run in (bundled, plain):
        run.train(25)
    left, right = parameters_of(bundled.model), parameters_of(plain.model)
    assert bundled.optimizer.bit_widths() == plain.optimizer.bit_widths()
    for name in left:
        # rounding differs in a last bit here and there, and 25 steps carry it on
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-6)


def test_gradients_that_are_handed_on_reach_a_vector_that_holds_some_of_the_quantizers_only():
    # steps in one group, clip values and exponents in another, as a user may hand them over
    runs = []
    for bundles in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        geta = gt.GETA(model, torch.randn(4, 6), quantize=gt.QuantConfig(initial_bits=4))
        named = dict(model.named_parameters())
        steps = [p for name, p in named.items() if name.endswith("step_size")]
        rest = [p for name, p in named.items() if not name.endswith("step_size")]
        inner = torch.optim.SGD([{"params": rest}, {"params": steps, "lr": 1e-3}], lr=0.05)
        optimizer = geta.qasso(inner, budget=gt.Budget(group_sparsity=0.25, bit_range=(3, 4)), schedule=gt.Schedule(1, 4, 2, 4, 2))
        assert optimizer._bundle is not None and len(optimizer._bundle) < optimizer.bank.n_trained
        if not bundles:
            optimizer._bundle = None
        for step in range(14):
            x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        runs.append(parameters_of(model))
    for name, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][name], rtol=1e-4, atol=1e-6)  # as above


def test_state_is_that_of_the_parameters_whenever_somebody_looks():
    run = compress(config=WEIGHTS)
    run.train(3)
    step = run.quantizers.weights["conv1"].step_size
    assert run.optimizer.state[step]["exp_avg"].shape == ()
    before = copy.deepcopy(run.optimizer.state_dict())
    run.train(2)
    again = compress(config=WEIGHTS)
    again.optimizer.load_state_dict(before)
    assert again.optimizer.state[again.quantizers.weights["conv1"].step_size]["step"] == 3


def test_a_model_that_moves_to_float64_is_followed():
    run = compress(config=WEIGHTS)
    run.train(2)
    run.model.double()
    step = run.quantizers.weights["conv1"].step_size
    for p in run.optimizer.bank.parameters():
        p.grad = torch.ones_like(p)
    assert run.optimizer._bundle.gather() and run.optimizer._bundle.flat.dtype == step.dtype == torch.float64
