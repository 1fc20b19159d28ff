"""How the plan of a run shows itself: in one line, as a table, in the optimizer's view, in a report, in a live run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.allocation import allocation_html, allocation_text, comes_to, reasons_part, what
from geta_nb.qasso.allocation import Allocation, AllocationRow, Move
from geta_nb.widgets.live_static import run_html
from geta_nb.widgets.live_view import LiveView
from tests.display.checks import check_inert, check_one_line

ROWS = (
    AllocationRow("weight", "conv<1>", 3, 16, 0.004, Move(4, 3, 0.003, 0.021), Move(3, 2, 0.012, 0.02)),
    AllocationRow("input", "conv<1>", 8, 8, 0.0, None, Move(8, 7, 1e-6, 0.001)),
    AllocationRow("family", "conv<1>", 3, 8, 0.02, Move(4, 3, 0.01, 0.1), None),
)
PLAN = Allocation(120, "relative_bops", 0.016, 0.0159, 128, ROWS)


def test_the_plan_is_one_line_and_one_table_with_names_escaped() -> None:
    line = allocation_text(PLAN)
    check_one_line(line)
    assert "step 120" in line and "1.59 % of at most 1.60 %" in line and "0.024" in line and "3 of 8 groups" in line
    page = allocation_html(PLAN)
    check_inert(page)
    assert "conv&lt;1&gt;" in page and "<1>" not in page
    assert page.index("groups of conv") < page.index("weights of conv") < page.index("input of conv"), "the largest rise first"
    for words in ("4 to 3: +0.003", "2.10 % of the cost", "3 to 2: +0.012", "3 bits", "3 of 8 groups"):
        assert words in page
    assert [what(row) for row in ROWS] == ["weights of conv<1>", "input of conv<1>", "groups of conv<1>"]
    assert [comes_to(row) for row in ROWS] == ["3 bits", "8 bits", "3 of 8 groups"]


def test_without_the_size_of_a_batch_a_rise_says_that_it_is_relative() -> None:
    line = allocation_text(Allocation(1, "size_bytes", 2000, 1990, None, ROWS))
    assert "relative" in line and "kB" in line


def test_why_is_said_in_words_also_where_nothing_was_taken_or_nothing_is_left() -> None:
    assert [row.why for row in ROWS] == [
        "3 bits: 4 to 3 cost 0.003 of the loss for 2.1 % of the cost; 2 would cost 0.012 of the loss for 2 % of the cost",
        "8 bits: nothing was taken; 7 would cost 1e-06 of the loss for 0.1 % of the cost",
        "3 groups: 4 to 3 cost 0.01 of the loss for 10 % of the cost; the low end",
    ]
    assert AllocationRow("weight", "a", 8, 8, 0.0, None, None).why == "8 bits: nothing was taken, for there is nothing to take"


def test_reasons_of_a_report_are_a_folded_table_and_nothing_where_there_are_none() -> None:
    assert reasons_part({}, None) == ""
    part = reasons_part({"a<b": {"bits": 3, "why": "3 bits: because", "input_bits": 4, "input_why": "4 bits: for"}}, 0.25)
    check_inert(part)
    assert "weights of a&lt;b" in part and "input of a&lt;b" in part and "0.25" in part


@pytest.fixture(scope="module")
def finished() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    geta = gt.GETA(model, torch.randn(2, 6))
    budget = gt.Budget(relative_bops=0.04, bit_range=(2, 16))
    optimizer = geta.qasso(torch.optim.Adam, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(30))

    def step(_: int) -> dict[str, float]:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.randint(3, (16,)))
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    run = gt.LiveRun(step, geta, optimizer, total_steps=30, every=10)
    run.start()
    run.wait()
    assert run.state == "finished", run.error
    return run, geta, optimizer


def test_optimizer_live_run_and_report_say_why(finished: Any) -> None:
    run, geta, optimizer = finished
    rows = LiveView(run).setup["plan"]
    assert sorted(rows) == sorted([what(row), comes_to(row), row.why] for row in optimizer.plan.rows)
    report = geta.report(geta.construct_subnet())
    assert report.to_dict()["predicted_rise"] == optimizer.plan.rise > 0
    assert report.to_dict()["allocation"] == optimizer.plan.by_layer()
    for page in (optimizer._repr_mimebundle_()["text/html"], run_html(run), report._repr_mimebundle_()["text/html"]):
        check_inert(page)
        assert "Why each layer has its" in page and "weights of 0" in page


def test_before_a_plan_there_is_nothing_to_say() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    geta = gt.GETA(model, torch.randn(2, 6))
    assert geta.report(geta.construct_subnet()).to_dict()["allocation"] == {}
    optimizer = geta.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(relative_bops=0.1), schedule=gt.Schedule.for_steps(30))
    assert optimizer.plan is None and "Why" not in optimizer._repr_mimebundle_()["text/html"]
    assert LiveView(gt.LiveRun(lambda _: {}, geta, optimizer, total_steps=30)).setup["plan"] == []
