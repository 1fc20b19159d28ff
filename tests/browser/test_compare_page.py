"""Before and after, subnets, pairs, overlays and links on the standalone page, in a real browser that may ask nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.explorer_speed import find_chromium
from tests.browser import test_explorer_page as shared
from tests.browser.test_explorer_page import PAGE, PLACED, Blocks, drawn, until

browser, asked, page = shared.browser, shared.asked, shared.page  # fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]
LEFT, RIGHT = f"{PAGE}.views[0]", f"{PAGE}.views[1]"
BAD = "<img src=x onerror=alert(1)>"


def half_masked(model: nn.Module, inputs: torch.Tensor) -> gt.GETA:
    geta = gt.GETA(model, inputs)
    for family in geta.families:
        geta.mask([group.index for group in list(family.groups)[: len(family.groups) // 2]])
    return geta


@pytest.fixture(scope="module")
def blocks() -> gt.GETA:
    torch.manual_seed(0)
    return half_masked(Blocks(), torch.randn(2, 6))


@pytest.fixture(scope="module")
def subnet(blocks: gt.GETA) -> nn.Module:
    return blocks.construct_subnet()


def opened(page: Any, widget: Any, folder: Path, fragment: str = "") -> Any:
    address = widget.to_html(folder / "page.html").as_uri() + fragment
    page.goto(address)
    first = f"({PAGE}?.views?.[0] ?? {PAGE})"
    until(page, f"{first}?.firstPainted && document.querySelector('[role=treeitem]')")
    return page


def leaf(view: str, path: str) -> str:
    return f"[...{view}.picture.leaves.values()].find((l) => {view}.graph.modulePath(l.id) === '{path}')"


def words(page: Any, view: str, path: str) -> str:
    """Second line of a vertex as it is drawn."""
    return str(page.evaluate(f"{view}.painter.lines({leaf(view, path)})[1]"))


def middle(page: Any, view: str) -> list[float]:
    """Which thing is in the middle of a view's sight: the place there, as a share of the whole picture."""
    return list(page.evaluate(
        f"(() => {{ const {{ camera: c, width, height, root }} = {view};"
        " return [(c.x + width / c.scale / 2) / root.w, (c.y + height / c.scale / 2) / root.h, c.scale] })()"
    ))  # fmt: skip


def pixels(page: Any, view: str, path: str) -> list[list[int]]:
    """Colours of a vertex near its left and its right end, below its text."""
    item = leaf(view, path)
    return list(page.evaluate(f"""(() => {{
      const v = {view}; v._paint();
      const [x, y, w] = ({PLACED})({item}, v), r = v.ratio, s = v.camera.scale;
      const copy = Object.assign(document.createElement('canvas'), {{ width: v.canvas.width, height: v.canvas.height }});
      const g = copy.getContext('2d', {{ willReadFrequently: true }});
      g.drawImage(v.canvas, 0, 0);
      const at = (px) => [...g.getImageData(Math.round(px * r), Math.round((y + 34.5 * s) * r), 1, 1).data].slice(0, 3);
      return [at(x + 0.2 * w), at(x + w - 7)];
    }})()"""))


def test_the_switch_shows_channels_before_and_after_and_takes_them_back(page: Any, tmp_path: Path, blocks: gt.GETA) -> None:
    explorer = gt.Explorer(blocks, budget=gt.Budget(0.75, bit_range=(4, 4)))
    opened(page, explorer, tmp_path)
    page.evaluate(f"{PAGE}.selectGiven('module:blocks.3.body.0')")
    switch = page.get_by_test_id("geta-explorer-before-after")
    assert not switch.is_checked() and "→" not in words(page, PAGE, "blocks.3.body.0")
    switch.check()
    assert words(page, PAGE, "blocks.3.body.0").endswith("12 → 6 → 3, 4 bit")
    legend = page.get_by_test_id("geta-explorer-legend")
    assert {"gone", "goes under the budget"} <= set(legend.inner_text().splitlines())
    details = page.get_by_test_id("geta-explorer-details").inner_text()
    assert all(text in details for text in ("Before and after", "channels, dense\t12", "now\t6", "under the budget\t3, 4 bit"))
    page.evaluate(f"{PAGE}.select(null)")
    here, gone = pixels(page, PAGE, "blocks.3.body.0")
    assert here != gone, "the part that is gone is drawn as a ghost"
    switch.press("Space")
    assert "→" not in words(page, PAGE, "blocks.3.body.0") and "gone" not in legend.inner_text().splitlines()
    here, gone = pixels(page, PAGE, "blocks.3.body.0")
    assert here == gone


def test_a_subnet_stands_beside_its_network_and_both_move_together(page: Any, tmp_path: Path, blocks: gt.GETA, subnet: nn.Module) -> None:
    opened(page, gt.Explorer(blocks, subnet=subnet), tmp_path)
    titles = [page.get_by_test_id(f"geta-explorer-{side}").locator(".gx-title").inner_text() for side in ("left", "right")]
    assert titles == ["Blocks", "subnet"]
    assert [page.get_by_role("navigation", name=f"outline: {title}").count() for title in titles] == [1, 1]
    assert page.get_by_test_id("geta-explorer-layer").locator("visible=true").count() == 1
    page.evaluate(f"{LEFT}.selectGiven('module:blocks.5.body.0')")
    until(page, f"{RIGHT}.selected && {RIGHT}.graph.modulePath({RIGHT}.selected.id) === 'blocks.5.body.0'")
    assert words(page, LEFT, "blocks.5.body.0").endswith("· 12") and words(page, RIGHT, "blocks.5.body.0").endswith("12 → 6, 16 bit")
    assert middle(page, LEFT) == pytest.approx(middle(page, RIGHT), abs=1e-6)
    for act in ("zoom(1.7)", "pan(120, -60)", "deeper(1)", "deeper(-1)", "fit(true)"):
        page.evaluate(f"{RIGHT}.{act}")
        until(page, f"{LEFT}.camera.scale === {RIGHT}.camera.scale")
        page.wait_for_timeout(60)
        assert middle(page, LEFT) == pytest.approx(middle(page, RIGHT), abs=1e-6), act
    box = "{}.picture.boxes.find((b) => b.path === 'blocks.2')"
    for view, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        was = page.evaluate(f"{box.format(other)}.open")
        page.evaluate(f"{view}.toggle({box.format(view)})")
        until(page, f"{box.format(other)}.open !== {str(was).lower()}")
    page.get_by_test_id("geta-explorer-layer").locator("visible=true").get_by_role("radio", name="raw").click()
    until(page, f"{RIGHT}.layer === 'raw'")
    page.get_by_test_id("geta-explorer-colour").locator("visible=true").select_option("bits")
    until(page, f"{RIGHT}.schemeName === 'bits'")
    page.get_by_test_id("geta-explorer-search").locator("visible=true").fill("blocks.7.body.2")
    until(page, f"{RIGHT}.found.size > 0 && {RIGHT}.found.size === {LEFT}.found.size")


def test_in_the_subnet_what_is_gone_is_a_ghost_and_in_the_network_it_is_whole(
    page: Any, tmp_path: Path, blocks: gt.GETA, subnet: nn.Module
) -> None:
    for dark in (False, True):
        page.emulate_media(color_scheme="dark" if dark else "light")
        opened(page, gt.Explorer(blocks, subnet=subnet), tmp_path)
        page.evaluate(f"{LEFT}.selectGiven('module:blocks.5.body.0'); {LEFT}.zoom(1.5); {LEFT}.select(null)")
        until(page, f"!{RIGHT}.selected && {RIGHT}.camera.scale === {LEFT}.camera.scale")
        whole, ghost = pixels(page, LEFT, "blocks.5.body.0"), pixels(page, RIGHT, "blocks.5.body.0")
        assert whole[0] == whole[1] == ghost[0] != ghost[1]


class Fewer(Blocks):
    """The same network with fewer blocks, each narrower."""

    def __init__(self) -> None:
        super().__init__()
        del self.blocks[10:]
        for block in self.blocks:
            block.body = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))


def test_two_networks_move_together_though_one_lacks_a_part(page: Any, tmp_path: Path, blocks: gt.GETA) -> None:
    pair = gt.compare(gt.GETA(Blocks(), torch.randn(2, 6)), gt.GETA(Fewer(), torch.randn(2, 6)), words=("twelve", "ten"))
    opened(page, pair, tmp_path)
    assert "on this side only" in page.get_by_test_id("geta-explorer-legend").locator("visible=true").inner_text()
    page.evaluate(f"{LEFT}.selectGiven('module:blocks.4.body.0')")
    until(page, f"{RIGHT}.selected && {RIGHT}.graph.modulePath({RIGHT}.selected.id) === 'blocks.4.body.0'")
    assert words(page, RIGHT, "blocks.4.body.0").endswith("12 → 4") and words(page, LEFT, "blocks.4.body.0").endswith("· 12")
    for view in (LEFT, RIGHT):
        page.wait_for_timeout(60)
        x, y, w, width = page.evaluate(f"({PLACED})({leaf(view, 'blocks.4.body.0')}, {view})")
        assert 0 < x + w / 2 < width and 0 < y < page.evaluate(f"{view}.height")
    page.evaluate(f"{LEFT}.selectGiven('module:blocks.11.body.0')")
    until(page, f"!{RIGHT}.selected")
    missing = page.evaluate(f"[...{LEFT}.missing].map((l) => {LEFT}.graph.modulePath(l.id))")
    assert missing and all(path.startswith(("blocks.10", "blocks.11")) for path in missing)
    assert page.evaluate(f"{RIGHT}.missing.size") == 0


def test_overlays_are_chosen_in_the_menu_and_have_their_legend_and_labels(page: Any, tmp_path: Path, blocks: gt.GETA) -> None:
    explorer = gt.Explorer(blocks)
    explorer.overlay({f"blocks.{i}": float(i - 4) for i in range(12)}, name="depth")
    explorer.overlay({"blocks.1.body.0": "first", "head": BAD}, name=BAD)
    explorer.overlay({"blocks.0.body.0": float("nan"), "blocks.1.body.0": 2.0}, name="odd")
    explorer.colour = "depth"
    opened(page, explorer, tmp_path)
    menu, legend = page.get_by_test_id("geta-explorer-colour"), page.get_by_test_id("geta-explorer-legend")
    assert menu.locator("optgroup option").all_inner_texts() == ["depth", BAD, "odd"] and menu.input_value() == "depth"
    assert {"-4", "7", "no value"} <= set(legend.inner_text().splitlines())
    colours = [page.evaluate(f"{PAGE}.scheme.colour({leaf(PAGE, f'blocks.{i}.body.0')}.id)") for i in (0, 4, 11)]
    assert colours[1] == "rgb(150,150,150)" and len(set(colours)) == 3
    assert words(page, PAGE, "blocks.11.body.0").endswith("· 7")
    menu.select_option("odd")
    assert {"2", "NaN or infinite (1)"} <= set(legend.inner_text().splitlines())
    assert words(page, PAGE, "blocks.0.body.0").endswith("· NaN")
    menu.select_option(BAD)
    assert {"first", BAD} <= set(legend.inner_text().splitlines())
    assert page.locator("img").count() == 0
    menu.select_option("operator")
    assert "no value" not in legend.inner_text() and not words(page, PAGE, "blocks.11.body.0").endswith("· 7")


def test_a_link_opens_with_its_vertex_and_follows_what_is_selected(page: Any, tmp_path: Path, blocks: gt.GETA) -> None:
    opened(page, gt.Explorer(blocks), tmp_path, "#blocks.9.body.2")
    name = page.evaluate(f"{PAGE}.graph.name({PAGE}.selected.id)")
    assert page.get_by_test_id("geta-explorer-details").locator("h3").inner_text() == name
    assert page.evaluate(f"{PAGE}.graph.modulePath({PAGE}.selected.id)") == "blocks.9.body.2"
    x, y, w, width = page.evaluate(f"({PLACED})({PAGE}.selected, {PAGE})")
    assert x >= 0 and x + w <= width and 0 <= y <= page.evaluate(f"{PAGE}.height")
    until(page, "document.querySelector('[role=treeitem][aria-selected=true]')")
    link = page.get_by_test_id("geta-explorer-link")
    assert [link.get_attribute("href"), page.evaluate("location.hash")] == ["#blocks.9.body.2"] * 2
    page.evaluate(f"{PAGE}.select({leaf(PAGE, 'blocks.2.body.0')}, {{ reveal: true }})")
    assert [link.get_attribute("href"), page.evaluate("location.hash")] == ["#blocks.2.body.0"] * 2
    page.evaluate("location.hash = '#blocks.6'")
    until(page, f"{PAGE}.selected?.path === 'blocks.6'")
    page.evaluate(f"{PAGE}.select(null)")
    assert page.evaluate("location.hash") == ""
    page.evaluate("location.hash = '#no.such.thing'")
    page.wait_for_timeout(50)
    assert page.evaluate(f"{PAGE}.selected") is None
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(f"{PAGE}.selectGiven('module:blocks.6')")
    page.get_by_role("button", name="Copy link").click()
    until(page, "/copied|select the link/.test(document.querySelector('.gx-link').textContent)")


def test_what_python_selected_is_selected_when_the_page_opens(page: Any, tmp_path: Path, blocks: gt.GETA) -> None:
    explorer = gt.Explorer(blocks)
    explorer.select("blocks.8.body.0")
    opened(page, explorer, tmp_path)
    assert page.evaluate(f"{PAGE}.graph.modulePath({PAGE}.selected.id)") == "blocks.8.body.0"
    assert page.evaluate("location.hash") == "#blocks.8.body.0"


def test_a_pair_opens_with_what_its_address_or_python_selected_in_the_middle_of_both(
    page: Any, tmp_path: Path, blocks: gt.GETA, subnet: nn.Module
) -> None:
    explorer = gt.Explorer(blocks, subnet=subnet)
    for given in ("address", "python"):
        if given == "python":
            explorer.select("blocks.9.body.2")
        opened(page, explorer, tmp_path, "#blocks.9.body.2" if given == "address" else "")
        page.wait_for_timeout(200)
        for view in (LEFT, RIGHT):
            x, y, w, width = page.evaluate(f"({PLACED})({leaf(view, 'blocks.9.body.2')}, {view})")
            height, selected = page.evaluate(f"[{view}.height, {view}.graph.modulePath({view}.selected.id)]")
            assert selected == "blocks.9.body.2"
            assert abs(x + w / 2 - width / 2) < 2 and abs(y - height / 2) < 40, (given, view)


@pytest.mark.parametrize("width", [1300, 800, 500])
def test_a_pair_fits_narrow_pages(page: Any, tmp_path: Path, blocks: gt.GETA, subnet: nn.Module, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 720})
    opened(page, gt.Explorer(blocks, subnet=subnet), tmp_path)
    sides = [page.get_by_test_id(f"geta-explorer-{side}").bounding_box() for side in ("left", "right")]
    assert all(side["width"] >= 200 and side["height"] >= 120 for side in sides)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollHeight - document.documentElement.clientHeight") == 0
    details = page.get_by_test_id("geta-explorer-details").locator("visible=true").bounding_box()
    assert details["width"] >= 200 and details["height"] >= 100
    assert drawn(page) > 5
