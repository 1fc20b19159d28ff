"""The views over what the pipeline really makes: every registered class is met, and keeps the promises of a view."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.groups import protected_html
from geta_nb.display.qadg import qadg_svg
from geta_nb.display.training import training_picture
from geta_nb.latency.table import LatencyRow, LatencyTable
from geta_nb.qasso.allocation import Allocation, AllocationRow, Move
from geta_nb.qasso.rules import Rules
from geta_nb.views import VIEWS, find_view
from tests.display.checks import check_inert, check_one_line, check_svg, svg_texts

STEPS = 8


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """A small net through the whole pipeline, once."""
    return whole_pipeline()


def whole_pipeline() -> dict[str, Any]:
    """Return an object of every registered class of the core, under "shown", and what they were made of."""
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    geta = gt.GETA(model, inputs, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([inputs])
    schedule, budget = gt.Schedule.for_steps(STEPS), gt.Budget(0.5)
    optimizer = geta.qasso(torch.optim.SGD, budget=budget, schedule=schedule, lr=0.01)
    history = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        history.append({**optimizer.progress(), "loss": loss.item()})
    subnet: Any = geta.construct_subnet()
    report = geta.report(subnet, metrics={"accuracy": {"dense": 0.9, "subnet": 0.88}})
    quantizer = next(iter(geta.quantizers.weights.values())) if geta.quantizers else None
    sensitivity = geta.sensitivity([inputs], lambda net, x: net(x).square().mean(), bits=(2, 4), kept=(0.5,))
    shown = [
        geta, geta.config, budget, gt.LayerBudget(protect=True), schedule, Rules(), geta.trace, geta.trace.nodes[0], geta.qadg,
        geta.qadg.vertices[1], geta.qadg.branches[0], geta.groups, geta.groups[0], geta.families[0], geta.protected, geta.quantizers,
        quantizer, geta.preview(budget), report.costs, report.costs.dense, optimizer, report, subnet.geta_info,
        next(iter(subnet.geta_info.formats.values())), sensitivity, sensitivity.front(), sensitivity.front().knee,
        Allocation(3, "relative_bops", 0.1, 0.09, 2, (AllocationRow("weight", "0", 4, 16, 0.1, Move(5, 4, 0.05, 0.2), None),)),
        gt.center(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.LayerNorm(4)), torch.randn(2, 3)),
        LatencyTable((LatencyRow("torch", 1, 2.0, 1.0, 2.0, 2.0, 0.0),), 1, 1, "wall", {}, {}),
    ]  # fmt: skip
    return {"geta": geta, "history": history, "schedule": schedule, "report": report, "shown": shown}


def test_every_registered_class_is_met_here(made: dict[str, Any]) -> None:
    core = {cls for cls in VIEWS if not cls.__module__.startswith("geta_nb.pipelines.")}  # tables and pictures have tests of their own
    assert {cls for cls in core if not any(isinstance(one, cls) for one in made["shown"])} == set()


def test_every_object_of_the_pipeline_shows_itself(made: dict[str, Any]) -> None:
    for one in made["shown"]:
        view = find_view(one)
        assert view is not None, type(one)
        check_one_line(view.text(one))
        if view.html:
            check_inert(view.html(one))
        if view.svg:
            check_svg(view.svg(one))


def test_the_graph_carries_the_bits_of_its_quantizers(made: dict[str, Any]) -> None:
    geta = made["geta"]
    svg = qadg_svg(geta.qadg, weight_bits=geta.bit_widths(), activation_bits=geta.activation_bit_widths())
    texts = svg_texts(check_svg(svg))
    for mark, widths in (("W", geta.bit_widths()), ("A", geta.activation_bit_widths())):
        assert [text for text in texts if text.startswith(f"{mark} ")] == [f"{mark} {bits}" for bits in widths.values()]


def test_the_run_is_drawn_from_real_snapshots(made: dict[str, Any]) -> None:
    texts = svg_texts(check_svg(training_picture(made["history"], made["schedule"], total_steps=STEPS)))
    assert {"weight bits", "activation bits", "kept share per family", "upper bound", "50 %"} <= set(texts)


def test_a_report_read_back_from_json_looks_the_same(made: dict[str, Any]) -> None:
    import json
    from types import SimpleNamespace

    values = json.loads(json.dumps(made["report"].to_dict()))
    view = find_view(made["report"])
    assert view
    assert view.html
    assert view.html(SimpleNamespace(to_dict=lambda: values)) == view.html(made["report"])


def test_what_layer_norms_hold_names_the_way_out() -> None:
    body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2))
    assert "gt.center(model, example_inputs)" in protected_html(gt.GETA(body, torch.randn(2, 4), quantize=None).protected)
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert "gt.center" not in protected_html(gt.GETA(plain, torch.randn(2, 4), quantize=None).protected)
