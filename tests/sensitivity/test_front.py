"""Fronts: each plan costs what it says, costs less than the one before and is predicted to lose more; budgets mean their plan."""

from __future__ import annotations

import itertools
import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import geta_nb as gt
from geta_nb.display.sensitivity import curves_svg
from geta_nb.errors import ConfigError
from geta_nb.sensitivity.curves import link_of, linked, rise_at, steady
from geta_nb.sensitivity.probes import Probe
from geta_nb.sensitivity.result import Rise
from geta_nb.views import find_view
from tests.display.checks import check_inert, check_one_line, check_svg, svg_texts

BITS, KEPT = (2, 3, 4, 6, 8), (0.75, 0.5, 0.25)
COSTS = ("relative_bops", "relative_bops_full", "size_bytes")


class Attention(nn.Module):
    """Products of two inputs, a layer used twice, and a residual family."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.q, self.k, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.twice = nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.twice(self.twice(x).relu())
        weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(2)
        return self.out((weights @ x).mean(1))


def network(quantize=gt.QuantConfig(activations=True)):  # noqa: B008 - frozen
    torch.manual_seed(0)
    x = torch.randn(4, 5, 6)
    geta = gt.GETA(Attention().eval(), x, quantize=quantize)
    geta.calibrate([x])
    return geta


GETA = network()


def made_up(geta, seed):
    """Rises drawn at random, falling with size on the whole, some of them noise below 0."""
    draw = np.random.default_rng(seed)
    rises = {}
    for kind, names, sizes in (
        ("weight", geta.bit_widths(), BITS), ("input", geta.activation_bit_widths(), BITS),
        ("family", [family.name for family in geta.families], KEPT),
    ):  # fmt: skip
        for name in names:
            for at in sizes:
                rises[Probe(kind, name, float(at))] = Rise(float(draw.normal(0, 0.001) + draw.exponential(1.0) / (1 + at) ** 2))
    order = {family.name: tuple(group.index for group in family.groups) for family in geta.families}
    return gt.Sensitivity(0.5, rises, order, 4, "measured", {}).of(geta.cost, geta.groups.table)


def alive_of(geta, found, point):
    alive = np.ones(len(geta.groups), dtype=bool)
    for family, share in point.kept.items():
        groups = found.order[family]
        alive[list(groups[: len(groups) - math.ceil(share * len(groups) - 1e-9)])] = False
    return alive


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cost=st.sampled_from(COSTS))
def test_each_plan_costs_what_it_says_and_is_cheaper_and_riskier_than_the_last(seed, cost):
    found = made_up(GETA, seed)
    front = found.front(cost)
    for point in front.points:
        alive = alive_of(GETA, found, point)
        exact = getattr(GETA.cost, cost)(alive, point.bits, point.input_bits)
        assert point.cost == pytest.approx(exact, rel=1e-9)
        bits = ({layer: float(b) for layer, b in table.items()} for table in (point.bits, point.input_bits))
        assert point.rise == pytest.approx(math.fsum(found.predict(alive, *bits).values()), abs=1e-9)
    for before, after in itertools.pairwise(front.points):
        assert after.cost < before.cost and after.rise >= before.rise
        assert after.step.saved == pytest.approx(before.cost - after.cost, rel=1e-6, abs=1e-12)
        assert after.step.rise == pytest.approx(after.rise - before.rise, abs=1e-9)
    assert front.knee in front.points


def test_of_separate_layers_the_front_is_the_best_there_is():
    """Three layers whose costs add up: no combination of their bits is better than a plan of the front at its cost."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    geta = gt.GETA(model, torch.randn(2, 4), protect=("*",))
    curves = {"0": {8: 0.0, 4: 0.1, 2: 0.4}, "2": {8: 0.0, 4: 0.02, 2: 0.9}, "4": {8: 0.01, 4: 0.02, 2: 0.03}}
    rises = {Probe("weight", layer, float(b)): Rise(r) for layer, known in curves.items() for b, r in known.items()}
    found = gt.Sensitivity(0.5, rises, {}, 1, "measured", {}).of(geta.cost, geta.groups.table)
    everyone = np.ones(0, dtype=bool)
    plans = []
    for choice in itertools.product((16, 8, 4, 2), repeat=3):
        bits = dict(zip(curves, choice, strict=True))
        rise = sum(0.0 if b == 16 else curves[layer][b] for layer, b in bits.items())
        plans.append((geta.cost.relative_bops(everyone, bits, {}), rise))
    for point in found.front().points:
        # a plan on the lower convex hull: no other costs as little and loses less
        assert not any(cost <= point.cost * (1 - 1e-9) and rise <= point.rise - 1e-9 for cost, rise in plans)


def test_free_steps_come_first():
    found = made_up(GETA, 1)
    free = {probe: Rise(0.0) if probe.at >= 6 or probe.kind == "family" else rise for probe, rise in found.rises.items()}
    front = gt.Sensitivity(**{**vars(found), "rises": free}).front()
    steps = [point.step.rise for point in front.points[1:]]
    count = sum(rise == 0 for rise in steps)
    assert count > 5 and all(rise == 0 for rise in steps[:count])


@pytest.mark.parametrize("cost", ["relative_bops", "size_bytes"])
def test_a_budget_is_that_of_its_plan(cost):
    found = made_up(GETA, 3)
    for point in found.front(cost).points[::5]:
        budget = point.budget
        assert budget.target == (cost, pytest.approx(point.cost, rel=2e-5)) and budget.target[1] >= point.cost
        assert budget.allocation == "uniform"
        for layer, bits in point.bits.items():
            assert budget.weight_bits(layer) == (bits, 16)
        for layer, bits in point.input_bits.items():
            assert budget.activation_bits(layer) == (bits, 16)
        assert GETA.preview(budget).to_dict()[cost] <= budget.target[1]
    assert found.front(cost).points[3].budget == found.front(cost).points[3].budget


def test_a_suggestion_is_the_cheapest_plan_within_its_rise_and_a_run_meets_it():
    found = made_up(GETA, 5)
    front, most = found.front(), 0.1
    budget = found.suggest(most)
    within = [point for point in front.points if point.rise <= most]
    assert budget == min(within, key=lambda point: point.cost).budget and front.within(0.0).rise == 0.0
    geta = network()
    optimizer = geta.qasso(torch.optim.Adam, lr=1e-3, budget=budget, schedule=gt.Schedule.for_steps(40))
    x = torch.randn(8, 5, 6)
    for _ in range(40):
        optimizer.zero_grad()
        geta.model(x).square().mean().backward()
        optimizer.step()
    report = geta.report(geta.construct_subnet()).to_dict()
    assert report["relative_bops"] <= budget.relative_bops
    point = within[-1]
    assert all(bits >= point.bits[layer] for layer, bits in geta.bit_widths().items())


def test_a_preview_adds_what_the_budget_is_predicted_to_lose():
    found = made_up(GETA, 7)
    budget = gt.Budget(relative_bops=0.02)
    plain, priced = GETA.preview(budget), GETA.preview(budget, sensitivity=found)
    assert plain.predicted_rise is None and "predicted_rise" not in plain.to_dict()
    assert priced.predicted_rise == pytest.approx(math.fsum(priced.rises.values())) and priced.relative_bops <= 0.02
    assert list(priced.rises.values()) == sorted(priced.rises.values(), reverse=True)
    assert priced.to_dict()["predicted_rise"] == priced.predicted_rise and "where the loss rises least" in priced.assumption
    assert "predicted rise of the loss" in priced._repr_mimebundle_()["text/html"]
    chosen = GETA.preview(budget, groups=range(4), sensitivity=found)
    alive = np.ones(len(GETA.groups), dtype=bool)
    alive[:4] = False
    assert chosen.rises == dict(sorted(found.predict(alive, chosen.bit_widths, chosen.activation_bit_widths).items(), key=lambda p: -p[1]))


def test_what_a_budget_protects_stays_in_the_preview():
    found = made_up(GETA, 7)
    budget = gt.Budget(0.5, exceptions={"q": gt.LayerBudget(protect=True)})
    order = found.removal_order(budget)
    families = {GETA.groups[int(group)].family for group in order}
    held = {family.name for family in GETA.families if any(s.parameter == "q.weight" for s in family.groups[0].producers)}
    assert held and not held & families and len(set(order.tolist())) == len(order)
    ranks = {name: [list(found.order[name]).index(g) for g in order if g in found.order[name]] for name in families}
    assert all(rank == sorted(rank) for rank in ranks.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.front("seconds"), "no such cost"), (lambda s: s.suggest(-0.1), "max_rise"), (lambda s: s.suggest(True), "max_rise"),
        (lambda s: s.suggest(float("nan")), "max_rise"), (lambda s: s.front().at(1e-9), "no plan is so cheap"),
        (lambda s: s.front("relative_bops_full").points[2].budget, "no target of this cost"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(made_up(GETA, 2))


def test_at_a_cost_is_the_first_plan_that_is_as_cheap():
    front = made_up(GETA, 2).front()
    assert front.at(front.points[4].cost) is front.points[4] and front.at(1.0) is front.points[0]


@given(st.dictionaries(st.sampled_from([2.0, 3.0, 4.0, 6.0, 8.0]), st.floats(-1, 1), min_size=1), st.floats(2, 16))
def test_between_sizes_the_rise_lies_between_and_falls_with_size(rises, at):
    known = steady(rises)
    found = rise_at(rises, at, 16.0)
    assert found >= 0 and rise_at(rises, at + 0.5, 16.0) <= found + 1e-9 and rise_at(rises, 16.0, 16.0) == 0
    for size, rise in known.items():
        assert rise_at(rises, size, 16.0) == pytest.approx(rise, abs=1e-9)


@given(st.lists(st.tuples(st.floats(1e-6, 10), st.floats(-0.1, 10)), max_size=6), st.floats(0, 20), st.floats(0, 20))
def test_together_parts_lose_more_where_their_sum_is_more(pairs, one, other):
    link = link_of(pairs)
    low, high = sorted((one, other))
    assert linked(link, low) <= linked(link, high) * (1 + 1e-9) + 1e-12 and linked(link, 0.0) == 0
    for total, real in link:
        assert linked(link, total) == pytest.approx(real, rel=1e-6, abs=1e-9)


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data.strip())


@pytest.mark.parametrize("quantize", [gt.QuantConfig(activations=True), None], ids=["both", "pruning"])
def test_views_show_every_number(quantize):
    geta = GETA if quantize is not None else network(None)
    found = made_up(geta, 4)
    front = found.front()
    for shown in (found, front):
        view = find_view(shown)
        check_one_line(repr(shown))
        check_inert(view.html(shown))
        check_svg(view.svg(shown))
        assert view.html(shown) == view.html(shown)
    check_svg(curves_svg(found))
    check_one_line(repr(front.points[3]))
    cells = _Cells()
    cells.feed(find_view(found).html(found))
    assert {geta.families[0].name, "50 %"} <= {*cells.found}
    texts = svg_texts(ElementTree.fromstring(find_view(found).svg(found)))
    for probe, rise in found.rises.items():
        assert f"{rise.mean:.3f}".replace("-0.000", "0.000") in texts, probe
    assert "the whole network" in find_view(front).html(front) and "knee" in repr(front)


def test_nothing_asked_of_families_shows_too():
    found = made_up(GETA, 4)
    weights = {probe: rise for probe, rise in found.rises.items() if probe.kind == "weight"}
    only = gt.Sensitivity(**{**vars(found), "rises": weights})
    check_inert(find_view(only).html(only))
    empty = gt.Sensitivity(**{**vars(found), "rises": {}})
    check_svg(find_view(empty).svg(empty))
    assert len(empty.front().points) == 1 and empty.front().knee.rise == 0
