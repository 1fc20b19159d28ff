"""The paper's forget rate and step size: the formulas of one family and one layer, and the descent law in general."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geta_nb.budget import Budget
from geta_nb.qasso.forgetting import paper_rates
from geta_nb.qasso.members import Members
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from geta_nb.quantizers.parametrized import parameter_tensors
from tests.qasso.nets import WEIGHTS, compress, mixed_table, parameters_of

PAPER = Rules.preset("paper")
MODEL = compress("mixed", double=True).model


def elements_of(*groups):
    """The elements of some groups of ``mixed``; both weights are quantized, the biases are not."""
    members = Members(mixed_table(), dict(MODEL.named_parameters()))
    chosen = torch.zeros(13, dtype=torch.bool)
    chosen[list(groups)] = True
    return members.elements(chosen, {"project.weight": 0, "up.weight": 1})


def random_vectors(elements, seed, tilt):
    """c, R and s; ``tilt`` in -1 .. 1 turns c and R against or towards s, so that all signs of the cosines occur."""
    draw = torch.Generator().manual_seed(seed)
    c, s = (torch.randn(len(elements), generator=draw, dtype=torch.float64) for _ in range(2))
    residual = torch.rand(elements.n_quantized, generator=draw, dtype=torch.float64) - 0.5
    return c + tilt * s, (residual + tilt * s[: elements.n_quantized]).clamp(-0.5, 0.5), s * 10.0 ** float(torch.randn(1, generator=draw))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(-2, 2), st.integers(2, 8), st.integers(0, 12), st.floats(0.01, 1))
def test_the_step_descends_whatever_the_angles(seed, tilt, low, more, rate):
    elements = elements_of(0, 3, 7, 8, 12)
    c, residual, s = random_vectors(elements, seed, tilt)
    widest = torch.tensor([1.0, 3.0], dtype=torch.float64) / (2 ** (low - 1) - 1)
    finest = torch.tensor([1.0, 3.0], dtype=torch.float64) / (2 ** (low + more - 1) - 1)
    rates = paper_rates(elements, c, residual, s, rate=rate, widest=widest, finest=finest, rules=PAPER)
    assert rates.set_step.all() and (rates.gamma >= 0).all() and (rates.gamma <= 1).all()
    assert (rates.step_size >= finest).all() and (rates.step_size <= widest).all()
    shift = c.clone()
    shift[: elements.n_quantized] += rates.step_size[elements.layer] * residual
    step = -s - rates.gamma[elements.family] * shift
    bound = -PAPER.eta * (1 - PAPER.zeta) * float(s @ s)
    # sums of a hundred float64 products, relative to their size
    assert float(s @ step) <= bound + 1e-12 * float(s @ s)


def by_the_book(c, residual, g, alpha, *, rate, coarse, fine):
    """FACTS' rule for one family in one layer, with its loop, in plain numbers."""
    eta, zeta, beta = 0.999, 0.9, 0.8
    norm = math.sqrt(float(g @ g))
    cos_gamma = float(c @ g) / (math.sqrt(float(c @ c)) * norm)
    cos_d = float(residual @ g) / (math.sqrt(float(residual @ residual)) * norm)
    gamma = rate if cos_gamma >= 0 else -(1 - eta) * alpha * norm / (cos_gamma * math.sqrt(float(c @ c)))
    d = coarse if cos_d >= 0 else -zeta * eta * alpha * norm / (gamma * cos_d * math.sqrt(float(residual @ residual)))
    while d < fine:
        gamma, d = beta * gamma, d / beta
    return gamma, min(d, coarse)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(-0.3, 0.3), st.floats(1e-4, 1e-1))
def test_one_family_in_one_layer_follows_the_papers_formulas(seed, tilt, alpha):
    elements = elements_of(6, 9, 10)  # filters of ``up``; the biases' share of c, R and g is set to zero
    c, residual, g = random_vectors(elements, seed, tilt)
    c[elements.n_quantized :] = g[elements.n_quantized :] = 0
    fine, coarse = 1e-3, 0.1
    n_q = elements.n_quantized
    expected_gamma, expected_d = by_the_book(c[:n_q], residual, g[:n_q], alpha, rate=0.25, coarse=coarse, fine=fine)
    ends = {name: torch.full((2,), value, dtype=torch.float64) for name, value in (("widest", coarse), ("finest", fine))}
    rates = paper_rates(elements, c, residual, alpha * g, rate=0.25, rules=PAPER, **ends)
    assert rates.set_step.tolist() == [False, True]
    if expected_gamma <= 1:  # ours never takes away more than everything
        # powers of 0.8 by a loop or by pow: a few hundred float64 roundings at most
        assert float(rates.gamma[1]) == pytest.approx(expected_gamma, rel=1e-9)
        assert float(rates.step_size[1]) == pytest.approx(expected_d, rel=1e-9)


def test_only_a_group_without_weights_is_not_forgotten():
    elements = elements_of(1, 2)
    zeros, residual = torch.zeros(len(elements), dtype=torch.float64), torch.zeros(elements.n_quantized, dtype=torch.float64)
    ends = {"widest": torch.ones(2, dtype=torch.float64), "finest": torch.full((2,), 0.1, dtype=torch.float64)}
    assert paper_rates(elements, zeros, residual, zeros + 1, rate=0.5, rules=PAPER, **ends).gamma[0] == 0
    assert paper_rates(elements, zeros - 1, residual, zeros, rate=0.5, rules=PAPER, **ends).gamma[0] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_every_joint_step_of_a_real_run_descends(seed):
    rate, length = 0.05, 12
    run = compress(
        config=WEIGHTS, seed=seed, budget=Budget(0.5, (4, 8)), schedule=Schedule(0, 2, 1, length, 1), rules="paper", double=True,
        build=lambda ps: torch.optim.SGD(ps, lr=rate),
    )  # fmt: skip
    run.train(2)
    for _ in range(length - 1):  # the last step of a period cuts what is left
        before = parameters_of(run.model)
        run.train(1)
        after, names = parameters_of(run.model), [n for n in before if "conv" in n or "norm" in n]
        gradient = {n: p.grad for n, p in parameter_tensors(run.model).items()}
        along = sum(float((gradient[n] * (after[n] - before[n])).sum()) for n in names)
        square = sum(float(gradient[n].square().sum()) for n in names)
        # the step is the difference of weights near 1: 1e-15 each, some 800 of them
        assert along <= -0.999 * 0.1 * rate * square + 1e-12
