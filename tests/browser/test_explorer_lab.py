"""The explorer in a real JupyterLab: cells run, clicks reach the kernel, what the kernel changes reaches the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import browser_page, jupyterlab, need_browser, open_notebook, start_cells, write_notebook

pytestmark = pytest.mark.slow

MAKE = """
import torch, geta_nb as gt
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
geta = gt.GETA(net, torch.randn(2, 3, 6, 6))
explorer = gt.Explorer(geta)
explorer
"""
SAY = "print('LINE', explorer.budget_state['line'], explorer.selection, explorer.selected, explorer.selected_family)"
CHANGE = """
geta.mask([group.index for group in list(geta.families[1].groups)[:4]])
explorer.refresh()
explorer.budget = gt.Budget(relative_bops=0.125)
explorer.selected = "conv2d"
"""


@pytest.fixture(scope="module", params=["light", "dark"])
def lab(request: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """A page with the notebook open and run; ``page.outside`` lists what it asked of other hosts."""
    need_browser()
    folder: Path = tmp_path_factory.mktemp(request.param)
    write_notebook(folder / "net.ipynb", [MAKE, SAY, ""])
    dark = request.param == "dark"
    with jupyterlab(folder, dark=dark) as address, browser_page(dark=dark, width=1400, height=900) as page:
        open_notebook(page, address, "net.ipynb")
        start_cells(page)
        page.wait_for_selector("[data-testid=geta-explorer] [role=treeitem]", timeout=240_000)
        page.theme = request.param
        yield page


def run_cell(page: Any, index: int) -> None:
    """Run one cell again; comes back when it is done."""
    chosen = "jupyterapp.shell.currentWidget.content.activeCellIndex = i"
    page.evaluate(f"async (i) => {{ {chosen}; await jupyterapp.commands.execute('notebook:run-cell') }}", index)


def line(page: Any) -> str:
    run_cell(page, 1)
    return str(page.locator(".jp-OutputArea-output", has_text="LINE").last.inner_text())


def test_clicks_reach_the_kernel(lab: Any) -> None:
    page = lab
    page.locator("[role=treeitem][data-vertex=conv2d_1]").click()
    page.get_by_test_id("geta-explorer-protect").click()
    budget = page.get_by_test_id("geta-explorer-budget")
    budget.filter(has_text="protect=True").wait_for()
    page.get_by_test_id("geta-explorer-bits-low").fill("6")
    page.get_by_test_id("geta-explorer-bits-high").fill("8")
    page.get_by_test_id("geta-explorer-set-bits").click()
    budget.filter(has_text="bit_range=(6, 8)").wait_for()
    assert "exceptions={'3': gt.LayerBudget(protect=True, bit_range=(6, 8))} vertex:conv2d_1 ('3',) 3" in line(page).replace("})", "}")
    page.get_by_test_id("geta-explorer-sparsity").fill("7")
    page.get_by_test_id("geta-explorer-set-sparsity").click()
    page.locator(".gx-note", has_text="max_sparsity is out of range").wait_for()
    assert page.outside == [] and page.problems == []


def test_it_wears_the_theme_of_the_page(lab: Any) -> None:
    page = lab
    background = page.evaluate("getComputedStyle(document.querySelector('.gx')).backgroundColor")
    levels = [int(value) for value in background[background.index("(") + 1 : -1].split(",")[:3]]
    assert (max(levels) < 80) == (page.theme == "dark")


def test_keys_typed_in_the_explorer_are_no_shortcuts_of_the_notebook(lab: Any) -> None:
    page = lab
    cells = page.locator(".jp-Cell").count()
    canvas, item = page.get_by_test_id("geta-explorer-canvas"), page.locator("[role=treeitem]").nth(2)
    for focus in (lambda: canvas.click(position={"x": 5, "y": 5}), item.click):
        focus()
        for key in ("0", "0", "b", "a"):
            page.keyboard.press(key)
        page.wait_for_timeout(300)
        assert page.locator(".jp-Cell").count() == cells
        assert page.locator(".jp-Dialog").count() == 0


def test_what_the_kernel_changes_reaches_the_page(lab: Any) -> None:
    page = lab
    page.evaluate("(code) => { jupyterapp.shell.currentWidget.content.widgets[2].model.sharedModel.setSource(code) }", CHANGE)
    run_cell(page, 2)
    page.get_by_test_id("geta-explorer-budget").filter(has_text="gt.Budget(relative_bops=0.125)").wait_for()
    page.get_by_test_id("geta-explorer-details").locator("h3", has_text="conv2d").wait_for()
    page.locator("[role=treeitem][data-vertex=conv2d_1]").click()
    page.get_by_test_id("geta-explorer-details").filter(has_text="50 %").wait_for()
    assert page.outside == [] and page.problems == []
