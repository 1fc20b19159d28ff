"""Overlays, selection, before and after, a subnet and a pair in a real JupyterLab: clicks reach the kernel, the kernel reaches the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import (
    browser_page,
    eventually,
    jupyterlab,
    kernel_value,
    need_browser,
    open_notebook,
    save_picture,
    start_cells,
    write_notebook,
)

pytestmark = pytest.mark.slow

MAKE = """
import torch, geta_nb as gt
from torch import nn
torch.manual_seed(0)
block = lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
net = nn.Sequential(nn.Linear(4, 8), block(), block(), nn.Linear(8, 2))
x = torch.randn(2, 4)
geta = gt.GETA(net, x)
geta.mask([group.index for group in list(geta.families[1].groups)[:8]])
subnet = geta.construct_subnet()
explorer = gt.Explorer(geta, budget=gt.Budget(0.5))
explorer
"""
BESIDE = "beside = gt.Explorer(geta, subnet=subnet, height=420)\nbeside"
PAIR = "pair = gt.compare(geta, gt.GETA(subnet, x), words=('before', 'after'), height=420)\npair"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: Any) -> Iterator[Any]:
    need_browser()
    folder: Path = tmp_path_factory.mktemp("compare")
    write_notebook(folder / "net.ipynb", [MAKE, BESIDE, PAIR])
    with jupyterlab(folder) as address, browser_page(width=1400, height=1000) as page:
        open_notebook(page, address, "net.ipynb")
        start_cells(page)
        page.wait_for_selector("[data-testid=geta-comparison] >> nth=1", timeout=240_000)
        page.wait_for_selector("[data-testid=geta-explorer] [role=treeitem]", timeout=240_000)
        yield page
        assert page.outside == [] and page.problems == []


def alone(page: Any) -> Any:
    """The explorer of the first cell."""
    return page.locator("[data-testid=geta-explorer]").first


def run(page: Any, code: str) -> str:
    return kernel_value(page, f"exec({code!r})")


def test_a_click_is_a_module_path_in_the_kernel(lab: Any) -> None:
    alone(lab).get_by_role("button", name="open one level").click()
    alone(lab).locator("[role=treeitem][data-vertex=linear_3]").first.click()
    lab.wait_for_timeout(300)
    assert eventually(lab, lambda: kernel_value(lab, "explorer.selected") == "('2.0',)")
    lab.keyboard.press("Escape")


def test_select_in_the_kernel_opens_selects_and_says_what_there_is_not(lab: Any) -> None:
    run(lab, "explorer.select('1.2')")
    alone(lab).locator("[role=treeitem][aria-selected=true][data-vertex=linear_2]").wait_for()
    assert eventually(lab, lambda: kernel_value(lab, "explorer.selected") == "('1.2',)")
    assert "did you mean" in run(lab, "explorer.select('1.22')")


def test_an_overlay_of_the_kernel_is_a_colour_of_the_page(lab: Any) -> None:
    explorer = alone(lab)
    menu, legend = explorer.get_by_test_id("geta-explorer-colour"), explorer.get_by_test_id("geta-explorer-legend")
    run(lab, "explorer.overlay({'1': -2, '2': 6}, name='mine')")
    legend.filter(has_text="no value").wait_for()
    assert eventually(lab, lambda: menu.input_value() == "mine" and {"-2", "6"} <= set(legend.inner_text().splitlines()))
    run(lab, "net(x).sum().backward(); explorer.overlay('gradient norms')")
    lab.wait_for_function("(menu) => menu.value === 'gradient norms'", arg=menu.element_handle())
    menu.select_option("mine")
    lab.wait_for_timeout(300)
    assert eventually(lab, lambda: kernel_value(lab, "explorer.colour") == "'mine'")
    save_picture(explorer, "overlay")
    run(lab, "explorer.overlay(None)")
    lab.wait_for_function("(menu) => menu.value === 'operator' && menu.options.length === 6", arg=menu.element_handle())


def test_the_switch_asks_the_kernel_and_the_budget_moves_what_is_shown(lab: Any) -> None:
    explorer = alone(lab)
    run(lab, "explorer.select('2.0')")
    explorer.get_by_test_id("geta-explorer-before-after").check()
    details = explorer.get_by_test_id("geta-explorer-details")
    details.filter(has_text="under the budget").wait_for()
    assert eventually(lab, lambda: kernel_value(lab, "explorer.before_after") == "True" and "channels, dense\t16" in details.inner_text())
    run(lab, "explorer.budget = gt.Budget(0.75, bit_range=(4, 4))")
    details.filter(has_text="4, 4 bit").wait_for()
    save_picture(explorer, "before_after")


def test_a_subnet_and_its_network_move_together_in_the_notebook(lab: Any) -> None:
    pair = lab.get_by_test_id("geta-comparison").first
    assert eventually(lab, lambda: pair.locator(".gx-title").all_inner_texts() == ["Sequential", "subnet"])
    run(lab, "beside.select('1.0')")
    details = pair.get_by_test_id("geta-explorer-details").locator("visible=true")
    details.filter(has_text="in the subnet").wait_for()
    assert eventually(lab, lambda: "in the subnet\t8, 16 bit" in details.inner_text())
    pair.get_by_test_id("geta-explorer-colour").locator("visible=true").select_option("bits")
    lab.wait_for_timeout(300)
    assert eventually(lab, lambda: kernel_value(lab, "beside.colour") == "'bits'")
    save_picture(pair, "subnet")


def test_both_kernels_explorers_of_a_pair_follow_one_click(lab: Any) -> None:
    pair = lab.get_by_test_id("geta-comparison").nth(1)
    assert eventually(lab, lambda: pair.locator(".gx-title").all_inner_texts() == ["before", "after"])
    run(lab, "pair.left.select('2.2')")
    pair.get_by_test_id("geta-explorer-details").locator("visible=true").filter(has_text="2.2.weight").wait_for()
    lab.wait_for_timeout(500)
    assert eventually(lab, lambda: kernel_value(lab, "pair.left.selected + pair.right.selected") == "('2.2', '2.2')")
    pair.get_by_test_id("geta-explorer-layer").locator("visible=true").get_by_role("radio", name="raw").click()
    lab.wait_for_timeout(500)
    assert eventually(lab, lambda: kernel_value(lab, "(pair.left.layer, pair.right.layer)") == "('raw', 'raw')")
    save_picture(pair, "pair")
