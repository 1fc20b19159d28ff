"""Standalone pages of the explorer, one tab for all, and what tests do to them. A page asks nobody: that is checked after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.wording import clean
from geta_nb.widgets import exports
from tests.browser.lab import browser_page, need_browser
from tests.browser.test_explorer_page import PAGE, data_of, until, with_names
from tests.display.dummies import HOSTILE
from tests.small_nets import IMAGES, cnn

__all__ = [
    "FOCUSED", "IMAGES", "PAGE", "PLACE", "RESULTS", "SEARCH", "chosen", "found", "page_box", "pages_", "seek",
    "show_", "tab_", "until",
]  # fmt: skip

SEARCH, RESULTS = "geta-explorer-search", "geta-explorer-results"
FOCUSED = "document.activeElement.dataset.testid ?? document.activeElement.tagName"
PLACE = f"""(dx, dy) => {{
  const e = {PAGE}, [x, y] = e.place(e.selected), c = e.camera;
  return [(x + dx - c.x) * c.scale, (y + dy - c.y) * c.scale, e.width, e.height, e.selected.w, e.selected.h];
}}"""


def encoder(layers: int) -> nn.Module:
    """Transformer blocks, one after the other."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@pytest.fixture(scope="module", name="pages")
def pages_(tmp_path_factory: Any) -> dict[str, str]:
    """Addresses of standalone pages."""
    folder: Path = tmp_path_factory.mktemp("pages")
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True, initial_bits=4))
    geta.calibrate([IMAGES])
    geta.mask([group.index for group in list(geta.families[1].groups)[:4]])
    hostile = {**data_of(geta), "graph": with_names(data_of(geta)["graph"], [clean(name) for name in HOSTILE])}
    blocks = gt.GETA(encoder(6), torch.randn(2, 5, 16))
    return {
        "net": gt.Explorer(geta).to_html(folder / "net.html").as_uri(),
        "blocks": gt.Explorer(blocks).to_html(folder / "blocks.html").as_uri(),
        "hostile": exports.write_page(folder / "hostile.html", "hostile", hostile).as_uri(),
        "bare": exports.write_page(folder / "bare.html", "bare", data_of(geta)).as_uri(),
    }


@pytest.fixture(scope="module", name="tab")
def tab_() -> Iterator[Any]:
    need_browser()
    with browser_page(width=1300, height=800) as page:
        yield page


@pytest.fixture(name="show")
def show_(tab: Any, pages: dict[str, str]) -> Iterator[Any]:
    """Open a page; afterwards it has had no error, and asked for nothing but itself."""
    tab.problems.clear()
    tab.outside.clear()
    tab.set_viewport_size({"width": 1300, "height": 800})

    def opened(name: str) -> Any:
        tab.goto("about:blank")
        tab.goto(pages[name])
        until(tab, f"{PAGE}?.firstPainted && document.querySelector('[role=treeitem]')")
        return tab

    yield opened
    tab.evaluate("() => sessionStorage.clear()")
    assert tab.problems == []
    assert [address for address in tab.outside if not address.startswith("file:")] == []


def found(page: Any) -> list[str]:
    return list(page.eval_on_selector_all("[role=option]", "all => all.map((x) => x.dataset.vertex)"))


def seek(page: Any, text: str) -> Any:
    search = page.get_by_test_id(SEARCH)
    search.fill(text)
    return search


def chosen(page: Any, name: str) -> Any:
    seek(page, f"name:/^{name}$/").press("Enter")
    details = page.get_by_test_id("geta-explorer-details")
    assert details.locator("h3").inner_text() == name
    return details


def page_box(locator: Any) -> dict[str, float]:
    box = locator.bounding_box()
    assert box is not None
    return dict(box)
