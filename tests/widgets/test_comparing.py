"""Before and after in the explorer, a subnet beside its network, and ``gt.compare``: what the page is told, and the static pictures."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError
from geta_nb.widgets import vertex_widths
from tests.display.checks import check_inert, check_svg
from tests.small_nets import IMAGES, ROWS, Literal, cnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries, when they are first imported
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    Explorer = gt.Explorer


def half_masked(model: nn.Module, inputs: torch.Tensor) -> gt.GETA:
    geta = gt.GETA(model, inputs)
    family = geta.families[0]
    geta.mask([group.index for group in list(family.groups)[: len(family.groups) // 2]])
    return geta


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_nothing_is_counted_until_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    geta = half_masked(cnn(), IMAGES)
    counted: list[Any] = []
    plain = vertex_widths.Widths
    monkeypatch.setattr("geta_nb.widgets.before_after.Widths", lambda geta: counted.append(geta) or plain(geta))
    explorer = Explorer(geta)
    explorer.refresh()
    explorer.budget = gt.Budget(0.75)
    assert (explorer.compare_state, counted) == ({}, [])
    explorer.before_after = True
    assert len(counted) == 1 and set(explorer.compare_state) == {"nodes", "dense", "now", "budget", "bits"}
    explorer.budget = gt.Budget(0.25)
    explorer.refresh()
    assert len(counted) == 1, "which vertices there are is found once"


def test_what_is_shown_follows_the_budget_and_the_model() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    explorer = Explorer(geta, before_after=True, budget=gt.Budget(0.0))
    assert explorer.compare_state["budget"] == explorer.compare_state["now"] == explorer.compare_state["dense"]
    explorer.budget = gt.Budget(0.5)
    assert sum(explorer.compare_state["budget"]) < sum(explorer.compare_state["dense"])
    geta.mask([geta.families[0].groups[0].index])
    explorer.refresh()
    assert sum(explorer.compare_state["now"]) < sum(explorer.compare_state["dense"])
    explorer.budget = gt.Budget(relative_bops=1e-9)
    assert "budget" not in explorer.compare_state and "relative_bops" in explorer.compare_state["refused"]


@pytest.mark.parametrize(("model", "inputs"), [(cnn, IMAGES), (Literal, ROWS)])
def test_a_subnet_stands_beside_its_network_in_the_page_and_in_the_picture(model: Any, inputs: torch.Tensor, tmp_path: Path) -> None:
    geta = half_masked(model(), inputs)
    subnet = geta.construct_subnet()
    explorer = Explorer(geta, subnet=subnet)
    assert explorer.subnet_state["kept"][0] == 0.5 and explorer.shows_widths
    counted = zip(explorer.compare_state["dense"], explorer.compare_state["subnet"], strict=True)
    assert min(after / before for before, after in counted) == 0.5
    drawn = explorer.static_svg()
    check_svg(drawn)
    dense, kept = (12, 6) if model is Literal else (8, 4)
    assert {type(geta.model).__name__, "subnet", "gone"} <= set(texts(drawn))
    assert any(text.endswith(f"· {dense} → {kept}, 16 bit") for text in texts(drawn))
    assert drawn.count('class="gv-box"') == 2 * len(geta.qadg.vertices)
    page = explorer.to_html(tmp_path / "page.html").read_text()
    data = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.S)[0])
    assert data["subnet_state"] == explorer.subnet_state and data["compare_state"]["subnet"] == explorer.compare_state["subnet"]


def test_before_and_after_in_a_static_picture_says_now_and_the_budget() -> None:
    geta = half_masked(cnn(), IMAGES)
    explorer = Explorer(geta, before_after=True, budget=gt.Budget(relative_bops=0.02))
    drawn = explorer.static_svg()
    first = explorer.compare_state
    i = explorer.widths().names.index("conv2d")
    said = f"8 → {first['now'][i]} → {first['budget'][i]}, {first['bits']['budget'][0]:g} bit"
    assert any(text.endswith(said) for text in texts(drawn)) and {"gone", "goes under the budget"} <= set(texts(drawn))
    bundle = explorer._repr_mimebundle_()
    check_inert((bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"])
    explorer.before_after = False
    assert explorer.static_svg(dot=None) == Explorer(geta).static_svg(dot=None)


def test_a_large_network_is_drawn_by_module_with_the_share_that_is_left() -> None:
    layers = list(cnn())
    geta = half_masked(nn.Sequential(nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:])), IMAGES)
    drawn = Explorer(geta, subnet=geta.construct_subnet()).static_svg(max_boxes=4)
    assert drawn.count('class="gv-box"') <= 8
    assert "3 operators · 50 % of the channels" in texts(drawn)


@pytest.mark.parametrize("stranger", [cnn(), "subnet", gt.GETA])
def test_only_a_subnet_of_this_network_stands_beside_it(stranger: Any) -> None:
    with pytest.raises(InputError, match="not a subnet"):
        Explorer(gt.GETA(cnn(), IMAGES), subnet=stranger)


def test_two_networks_are_compared_in_one_picture_and_one_page(tmp_path: Path) -> None:
    geta = half_masked(cnn(), IMAGES)
    wider = gt.GETA(nn.Sequential(*cnn(), nn.ReLU()), IMAGES)
    pair = gt.compare(wider, gt.Explorer(geta), words=("before", "after"))
    drawn = pair.static_svg()
    check_svg(drawn)
    assert {"before", "after", "gone", "on this side only"} <= set(texts(drawn))
    assert any(text.endswith("8 → 4, 16 bit") for text in texts(drawn))
    data = pair.page_data()
    assert [one["graph"]["title"] for one in data["pair"]] == ["Sequential", "Sequential"] and data["words"] == ["before", "after"]
    page = pair.to_html(tmp_path / "pair.html").read_text()
    assert "<title>before and after</title>" in page
    assert pair.to_html(tmp_path / "again.html").read_text() == page
    bundle = pair._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    check_inert(bundle["text/html"])
    assert bundle["text/plain"].startswith("Comparison(Explorer(") and "application/vnd.jupyter.widget-view+json" in bundle


def test_networks_of_one_class_are_told_apart() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    assert gt.compare(geta, geta).words == ["a: Sequential", "b: Sequential"]
    assert gt.compare(geta, gt.GETA(Literal(), ROWS)).words == ["Sequential", "Literal"]


def test_what_cannot_be_compared_is_refused() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    explorer = Explorer(geta)
    with pytest.raises(ConfigError, match="the same explorer twice"):
        gt.compare(explorer, explorer)
    with pytest.raises(InputError, match=r"compare(.|\n)*expected: +a gt\.GETA"):
        gt.compare(geta, cnn())
    with pytest.raises(ConfigError, match="words are what both sides are called"):
        gt.compare(geta, geta, words=("one",))  # type: ignore[arg-type]
