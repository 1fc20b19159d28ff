"""The walk down to a cost: each step is the best there is, though only the best item is priced again, and costs are exact all the way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geta_nb.qasso.descent import Descent
from tests.qasso.nets import convolutional_cost

LAYERS = ("conv1", "conv2", "head")
FAMILIES = {"conv1": list(range(6)), "conv2": list(range(6, 14))}
MEASURES = ("relative_bops", "size_bytes")


def made_up(seed: int, bits=(2, 3, 4, 6, 8)):
    """Rises of weights, inputs and families, some of them not convex, some zero."""
    draw = np.random.default_rng(seed)
    curves, start = {}, {}
    for kind in ("weight", "input"):
        for layer in LAYERS:
            sizes = sorted(bits, reverse=True)
            steps = draw.exponential(1.0, len(sizes)) * draw.integers(0, 3, len(sizes)) / np.array(sizes) ** 2
            curves[kind, layer] = dict(zip(map(float, sizes), np.cumsum(steps).tolist(), strict=True))
            start[kind, layer] = 16.0
    gone = {}
    for name, groups in FAMILIES.items():
        order = draw.permutation(groups)
        counts = [1, 2, 4, len(groups) - 1]
        curves["family", name] = dict(
            zip([float(len(groups) - n) for n in counts], np.cumsum(draw.exponential(0.3, len(counts))).tolist(), strict=True)
        )
        gone[name] = {float(len(groups) - n): order[:n] for n in counts}
        start["family", name] = float(len(groups))
    return curves, gone, start


def best_by_looking_at_all(cost, measure, curves, gone, at, risen, alive):
    """The step of least price over all items and sizes, each priced from scratch."""

    def total(at, alive):
        bits = [{name: size for (kind, name), size in at.items() if kind == wanted} for wanted in ("weight", "input")]
        return cost.measure(measure, *bits)(alive)

    now, found = total(at, alive), []
    for item, known in curves.items():
        for size, rise in known.items():
            if size < at[item] and math.isfinite(rise):
                fewer = alive.copy()
                if item[0] == "family":
                    fewer[gone[item[1]][size]] = False
                saved = now - total({**at, item: size}, fewer)
                if saved > 1e-15 * max(now, 1):
                    found.append((max(rise - risen[item], 0.0) / saved, -saved, item, size))
    return min(found, default=None)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), measure=st.sampled_from(MEASURES))
def test_every_step_is_the_cheapest_there_is_and_costs_what_it_says(seed, measure):
    cost = convolutional_cost()
    curves, gone, start = made_up(seed)
    walk = Descent(cost, measure, curves, gone, start)
    at, risen, alive, prices = dict(start), dict.fromkeys(curves, 0.0), np.ones(14, dtype=bool), []
    before = walk.total
    for step in walk.steps():
        price, _, _, _ = best_by_looking_at_all(cost, measure, curves, gone, at, risen, alive)
        assert step.rise / step.saved == pytest.approx(price, rel=1e-6, abs=1e-12)
        item = (step.kind, step.name)
        assert step.before == at[item] and step.saved == pytest.approx(before - walk.total, rel=1e-9)
        at[item], risen[item] = step.after, risen[item] + step.rise
        if step.kind == "family":
            alive[gone[step.name][step.after]] = False
        bits = walk.bits()
        assert walk.total == pytest.approx(cost.measure(measure, *bits)(alive), rel=1e-9) and (walk.alive == alive).all()
        prices.append(step.rise / step.saved)
        before = walk.total
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in itertools.pairwise(prices)), "the price only rises"
    assert best_by_looking_at_all(cost, measure, curves, gone, at, risen, alive) is None


def test_it_goes_on_from_where_a_network_stands():
    cost = convolutional_cost()
    curves, gone, start = made_up(3)
    alive = np.ones(14, dtype=bool)
    alive[[0, 7, 8]] = False
    walk = Descent(cost, "relative_bops", curves, gone, {**start, ("weight", "conv2"): 4.0}, alive)
    assert walk.total == pytest.approx(cost.relative_bops(alive, {"conv1": 16, "conv2": 4, "head": 16}, dict.fromkeys(LAYERS, 16)))
    assert all(step.before <= 4 for step in walk.steps() if (step.kind, step.name) == ("weight", "conv2"))
    assert not walk.alive[[0, 7, 8]].any()


def test_what_a_step_would_be_and_what_groups_would_save_is_told_without_doing_it():
    cost = convolutional_cost()
    curves, gone, start = made_up(5)
    walk = Descent(cost, "size_bytes", curves, gone, start)
    before = walk.total
    step = walk.next_step(("family", "conv2"))
    saved = walk.saved_without(list(gone["conv2"][step.after]))
    assert walk.total == before and step.saved == pytest.approx(saved) and saved > 0
    assert walk.next_step(("input", "conv1")) is None, "inputs have no bytes"
