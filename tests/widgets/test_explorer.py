"""The explorer's Python side: what the page is told, what it asks for, and the forms without a kernel."""

from __future__ import annotations

import gzip
import json
import warnings
from typing import Any

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import BudgetError, ConfigError, InputError
from geta_nb.widgets.graph_data import graph_data, live_state
from tests.display.checks import check_inert, check_one_line
from tests.small_nets import IMAGES, Residual, cnn, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries, when they are first imported
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    Explorer = gt.Explorer


@pytest.fixture
def geta() -> gt.GETA:
    return gt.GETA(cnn(), IMAGES)


@pytest.fixture
def explorer(geta: gt.GETA) -> Any:
    return Explorer(geta, budget=gt.Budget(0.3))


def ask(explorer: Any, **content: Any) -> None:
    """Send what the page would send, through the widget's own message handler."""
    explorer._handle_custom_msg(content, [])


def test_the_page_is_given_the_graph_once_packed_and_the_same_each_time(geta: gt.GETA, explorer: Any) -> None:
    assert json.loads(gzip.decompress(explorer.graph)) == json.loads(json.dumps(graph_data(geta)))
    assert Explorer(geta).graph == explorer.graph
    assert len(explorer.graph) < len(gzip.decompress(explorer.graph)) / 3


def test_refresh_sends_bits_and_kept_shares_and_not_the_graph(geta: gt.GETA, explorer: Any) -> None:
    sent: list[set[str]] = []
    explorer.observe(lambda change: sent.append({change["name"]}), names=["graph", "live_state"])
    geta.mask([group.index for group in list(geta.families[0].groups)[:4]])
    explorer.refresh()
    assert sent == [{"live_state"}]
    assert explorer.live_state == live_state(geta) and explorer.live_state["kept"] == [0.5, 1.0]


def test_refresh_takes_the_optimizers_snapshot(geta: gt.GETA, explorer: Any) -> None:
    optimizer = geta.qasso(torch.optim.SGD, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(1, 2, 1, 2, 1))
    train(geta.model, optimizer, range(8))
    explorer.refresh(optimizer.progress())
    assert explorer.live_state["weight"] == [float(bits) for bits in optimizer.progress()["bits"].values()]
    assert explorer.live_state["kept"] == live_state(geta)["kept"] != [1.0, 1.0]


def test_a_click_on_protect_reaches_the_budget_and_the_preview(geta: gt.GETA, explorer: Any) -> None:
    seen: list[gt.Budget] = []
    explorer.observe(lambda change: seen.append(change["new"]), names="budget")
    ask(explorer, kind="protect", family=1, on=True)
    assert explorer.budget == gt.Budget(0.3, exceptions={"3": gt.LayerBudget(protect=True)})
    assert seen == [explorer.budget]
    assert (explorer.budget_state["protect"], explorer.message) == ([False, True], "3 is protected")
    assert eval(explorer.budget_state["line"], {"gt": gt}) == explorer.budget
    dense = {row.layer: row.channels for row in geta.cost.dense.layers}
    kept = {row.layer: row.channels for row in geta.preview(explorer.budget).layers}
    assert kept["3"] == dense["3"] and kept["0"] < dense["0"]
    ask(explorer, kind="protect", family=1, on=False)
    assert explorer.budget == gt.Budget(0.3)


def test_bits_and_sparsity_are_set_and_taken_back(explorer: Any) -> None:
    ask(explorer, kind="bits", family=0, low=8, high=8)
    ask(explorer, kind="sparsity", family=0, share=0.25)
    assert explorer.budget.exceptions == {"0": gt.LayerBudget(bit_range=(8, 8), max_sparsity=0.25)}
    assert explorer.budget_state["bits"][0] == [8, 8] and explorer.budget_state["sparsity"] == [0.25, None]
    ask(explorer, kind="sparsity", family=0, share=None)
    assert explorer.budget.exceptions == {"0": gt.LayerBudget(bit_range=(8, 8))}
    ask(explorer, kind="reset", family=0)
    assert explorer.budget == gt.Budget(0.3)


def test_bits_of_a_residual_family_hold_for_all_layers_that_make_it() -> None:
    explorer = Explorer(gt.GETA(Residual(), IMAGES))
    budget = explorer.set_bits(explorer.geta.families[0].name, 4, 6)
    assert {layer: budget.weight_bits(layer) for layer in ("stem", "body", "head")} == {"stem": (4, 6), "body": (4, 6), "head": (4, 16)}


def test_what_cannot_be_is_said_and_changes_nothing(explorer: Any) -> None:
    before = explorer.budget
    bad: list[dict[str, Any]] = [
        {"kind": "bits", "family": 0, "low": 8, "high": 4}, {"kind": "bits", "family": 0, "low": None, "high": 4},
        {"kind": "sparsity", "family": 0, "share": 7}, {"kind": "protect", "family": 99, "on": True}, {"kind": "protect", "family": 0},
        {"kind": "delete", "family": 0}, {"kind": "protect", "family": "0", "on": True}, {},
    ]  # fmt: skip
    for content in bad:
        explorer.message = ""
        ask(explorer, **content)
        assert explorer.message != ""
    explorer._handle_custom_msg("not even a request", [])
    assert explorer.budget == before


def test_protection_by_a_wider_pattern_is_not_silently_kept(geta: gt.GETA) -> None:
    explorer = Explorer(geta, budget=gt.Budget(0.3, exceptions={"*": gt.LayerBudget(protect=True)}))
    with pytest.raises(BudgetError, match="another exception of the budget protects this family"):
        explorer.protect("0", False)
    assert explorer.budget.exceptions == {"*": gt.LayerBudget(protect=True)}


def test_the_budget_may_be_set_from_python(explorer: Any) -> None:
    explorer.budget = gt.Budget(relative_bops=0.03)
    assert explorer.budget_state["line"] == "gt.Budget(relative_bops=0.03)"


def test_a_network_without_values_is_explored_too() -> None:
    with torch.device("meta"):
        explorer = Explorer(gt.GETA(cnn(), torch.empty(2, 3, 6, 6)))
    assert explorer.live_state == {"weight": [16.0, 16.0, 16.0], "input": [], "kept": [1.0, 1.0]}


@pytest.mark.parametrize(("options", "what"), [({"layer": "cooked"}, "no such layer"), ({"colour": "taste"}, "no such colour")])
def test_an_option_that_there_is_not_is_named(geta: gt.GETA, options: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Explorer(geta, **options)


def test_only_a_geta_is_explored() -> None:
    with pytest.raises(InputError, match=r"expected: +a gt\.GETA"):
        Explorer(cnn())


def test_the_cell_shows_text_and_a_picture_beside_the_widget(explorer: Any) -> None:
    shown = explorer._repr_mimebundle_()
    bundle = shown[0] if isinstance(shown, tuple) else shown
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    check_one_line(bundle["text/plain"])
    page = check_inert(bundle["text/html"])
    assert "conv2d" in page.texts and "W 16" in page.texts
