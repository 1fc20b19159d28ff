"""Details, search and presentation in a real JupyterLab: asked of the kernel at the click, also while a run trains and a cell is busy."""

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
    run_cells,
    save_picture,
    write_notebook,
)

pytestmark = pytest.mark.slow

MAKE = """
import torch, geta_nb as gt
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
x = torch.randn(4, 3, 6, 6)
geta = gt.GETA(net, x, quantize=gt.QuantConfig(activations=True, initial_bits=6))
geta.calibrate([x])
optimizer = geta.qasso(torch.optim.SGD, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(10, 20, 2, 10**6, 4))
def step(i):
    optimizer.zero_grad()
    loss = net(x).square().mean()
    loss.backward()
    optimizer.step()
    return {"loss": loss.detach()}
explorer = gt.Explorer(geta)
run = gt.LiveRun(step, geta, optimizer, total_steps=10**7)
explorer
"""
AGAIN = "explorer"
BUSY = "import pathlib, time\nwhile not pathlib.Path('enough').exists():\n    time.sleep(0.1)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: Any) -> Iterator[Any]:
    """A page with the notebook open, its first cell run."""
    need_browser()
    folder: Path = tmp_path_factory.mktemp("details")
    write_notebook(folder / "net.ipynb", [MAKE, ""])
    with jupyterlab(folder) as address, browser_page(width=1400, height=1000) as page:
        open_notebook(page, address, "net.ipynb")
        run_cells(page)
        page.wait_for_selector("[data-testid=geta-explorer] [role=treeitem]", timeout=240_000)
        page.folder = folder
        yield page


def details(page: Any, name: str) -> Any:
    page.locator(f"[role=treeitem][data-vertex={name}]").first.click()
    found = page.get_by_test_id("geta-explorer-details").first
    found.locator("h3", has_text=name).wait_for()
    return found


def write_cell(page: Any, code: str) -> None:
    page.evaluate("(code) => { jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.setSource(code) }", code)
    page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 1; jupyterapp.commands.execute('notebook:run-cell') }")


def test_a_click_is_answered_by_the_kernel(lab: Any) -> None:
    found = details(lab, "conv2d_1")
    found.get_by_test_id("geta-explorer-histogram").wait_for()
    assert eventually(lab, lambda: "64 levels (6 bits)" in found.get_by_test_id("geta-explorer-weight").inner_text())
    words = found.get_by_test_id("geta-explorer-groups").inner_text()
    assert "8 groups: 8 kept, 0 zero" in words
    assert "the optimizer has no saliency of this family yet: the norm of each group" in words
    save_picture(lab.get_by_test_id("geta-explorer"), "explorer-details-lab")


def test_what_is_typed_and_focused_survives_what_the_kernel_changes(lab: Any) -> None:
    page = lab
    found = details(page, "conv2d_1")
    low = found.get_by_test_id("geta-explorer-bits-low")
    low.fill("5")
    kernel_value(page, "(explorer.refresh(), geta.mask([geta.families[1].groups[0].index]), explorer.refresh())")
    found.filter(has_text="88 %").wait_for()  # 7 of 8 groups
    assert low.input_value() == "5"
    assert page.evaluate("document.activeElement.dataset.testid") == "geta-explorer-bits-low"
    protect = found.get_by_test_id("geta-explorer-protect")
    protect.focus()
    page.keyboard.press("Enter")
    found.get_by_test_id("geta-explorer-budget").filter(has_text="protect=True").wait_for()
    assert eventually(page, lambda: protect.inner_text() == "Unprotect")
    assert page.evaluate("document.activeElement.dataset.testid") == "geta-explorer-protect"
    page.keyboard.press("Enter")
    found.get_by_role("button", name="read again").first.click()
    found.get_by_test_id("geta-explorer-groups").filter(has_text="7 kept, 1 zero").wait_for()


def test_a_run_that_trains_in_its_thread_goes_on_while_details_are_read(lab: Any) -> None:
    page = lab
    kernel_value(page, "run.start()")
    before = 0
    for name in ("conv2d", "conv2d_1", "linear"):
        found = details(page, name)
        found.get_by_test_id("geta-explorer-histogram").wait_for()
        found.get_by_test_id("geta-explorer-input").filter(has_text="then learned for").wait_for()
        now = int(kernel_value(page, "run.step_count"))
        assert now > before
        before = now
    found = details(page, "conv2d_1")
    found.get_by_role("button", name="read again").first.click()
    found.get_by_test_id("geta-explorer-groups").filter(has_text="the optimizer's saliency").wait_for()
    assert kernel_value(page, "(run.state, run.error)") == "('running', None)"
    kernel_value(page, "run.stop()")


def test_a_click_is_answered_while_a_cell_is_busy(lab: Any) -> None:
    page = lab
    write_cell(page, BUSY)
    prompt = page.locator(".jp-Cell").nth(1).locator(".jp-InputPrompt")  # the kernel's status flickers with every message of the page
    busy = prompt.filter(has_text="[*]")
    busy.wait_for()
    try:
        details(page, "linear").get_by_test_id("geta-explorer-histogram").wait_for()
        assert busy.count() == 1
    finally:
        (page.folder / "enough").touch()
    prompt.filter(has_not_text="[*]").wait_for()


def test_the_search_is_kept_by_the_explorer_wherever_it_is_shown_again(lab: Any) -> None:
    page = lab
    search = page.get_by_test_id("geta-explorer-search").first
    search.fill("type:conv bits<8")
    search.press("Enter")
    known = "('type:conv bits<8', ['type:conv bits<8'])"
    assert eventually(page, lambda: kernel_value(page, "(explorer.query, explorer.queries[:1])") == known)
    write_cell(page, AGAIN)
    second = page.get_by_test_id("geta-explorer").nth(1)
    second.locator("[role=treeitem]").first.wait_for()
    again = second.get_by_test_id("geta-explorer-search")
    assert eventually(page, lambda: again.input_value() == "type:conv bits<8")
    assert eventually(page, lambda: second.locator(".gx-count").inner_text() == "2 found")
    kernel_value(page, "setattr(explorer, 'query', 'type:linear')")
    second.locator(".gx-count", has_text="1 found").wait_for()
    assert eventually(page, lambda: again.input_value() == "type:linear")


def test_a_presentation_fills_the_window_over_the_notebook_and_escape_leaves(lab: Any) -> None:
    page = lab
    explorer = page.get_by_test_id("geta-explorer").first
    before = explorer.bounding_box()
    explorer.get_by_test_id("geta-explorer-present").click()
    assert explorer.bounding_box() == {"x": 0, "y": 0, "width": 1400, "height": 1000}
    on_top = "document.elementsFromPoint(700, 12)[0].closest('[data-testid=geta-explorer]') !== null"
    assert page.evaluate(on_top), "nothing of the notebook lies over it"
    save_picture(page, "explorer-presentation-lab")
    page.keyboard.press("Escape")
    assert explorer.bounding_box()["width"] == before["width"]
    assert page.evaluate("document.activeElement.dataset.testid") == "geta-explorer-present"


def test_the_view_is_saved_from_the_notebook_and_nobody_else_is_asked(lab: Any, tmp_path: Path) -> None:
    page = lab
    explorer = page.get_by_test_id("geta-explorer").first
    for kind, begin in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        explorer.get_by_test_id("geta-explorer-save").click()
        with page.expect_download() as download:
            explorer.locator(f"[data-picture={kind}]").click()
        download.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(begin)
    assert page.outside == []
    assert page.problems == []
