"""Pictures of the explorer's view, and its presentation, in a real browser on the standalone page."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.browser.explorer_pages import FOCUSED, PAGE, PLACE, RESULTS, chosen, pages_, seek, show_, tab_  # noqa: F401 - fixtures
from tests.browser.lab import save_picture

pytestmark = pytest.mark.slow
TEXT = "{http://www.w3.org/2000/svg}text"
LEAVES = f"""() => {{
  let many = 0;
  const shown = (box) => box.children.filter((_, i) => (box.layout.only ?? i) === i); // a stack may show one of its blocks
  const walk = (box) => shown(box).forEach((child) => (!child.leaf && child.open ? walk(child) : (many += 1)));
  walk({PAGE}.root);
  return many;
}}"""


def saved(page: Any, kind: str, path: Path) -> tuple[str, bytes]:
    page.get_by_test_id("geta-explorer-save").click()
    with page.expect_download() as download:
        page.locator(f"[data-picture={kind}]").click()
    download.value.save_as(path)
    return download.value.suggested_filename, path.read_bytes()


def test_the_view_is_saved_as_pixels_twice_as_fine_with_its_legend(show: Any, tmp_path: Path) -> None:
    page = show("net")
    page.get_by_test_id("geta-explorer-colour").select_option("bits")
    name, data = saved(page, "png", tmp_path / "view.png")
    assert name == "Sequential-QADG.png"
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    seen = page.evaluate(f"[{PAGE}.width, {PAGE}.height]")
    assert width == 2 * seen[0]
    assert height > 2 * seen[1], "the legend stands under it"


def test_the_view_is_saved_as_vectors_at_the_same_places(show: Any, tmp_path: Path) -> None:
    page = show("net")
    chosen(page, "conv2d_1")
    name, data = saved(page, "svg", tmp_path / "view.svg")
    root = ElementTree.fromstring(data)
    texts = {element.text: element for element in root.iter(TEXT)}
    assert name == "Sequential-QADG.svg"
    assert root.find(".//{http://www.w3.org/2000/svg}image") is None, "no bitmap"
    assert {"conv2d", "batch_norm", "W 4", "linear", "2×8×6×6", "Sequential · QADG · operator"} <= set(texts)
    x, y = page.evaluate(f"({PLACE})(13, 16)")[:2]
    placed = [(float(e.get("x", 0)), float(e.get("y", 0))) for e in root.iter(TEXT) if e.text == "conv2d"]
    assert any((px, py) == pytest.approx((x, y), abs=0.02) for px, py in placed)
    page.goto((tmp_path / "view.svg").as_uri())
    assert page.locator("text", has_text="batch_norm").count() >= 1, "a browser reads it"


def test_all_that_is_open_is_saved_whole(show: Any, tmp_path: Path) -> None:
    page = show("blocks")
    page.get_by_role("button", name="open one level").click()
    page.evaluate(f"{PAGE}.select(null), {PAGE}.zoom(3)")
    _, view = saved(page, "svg", tmp_path / "view.svg")
    name, whole = saved(page, "svg-all", tmp_path / "all.svg")
    assert name.endswith("-all.svg")
    leaves = page.evaluate(LEAVES)
    texts = list(ElementTree.fromstring(whole).iter(TEXT))
    assert len(texts) >= 2 * leaves
    assert len(texts) > len(list(ElementTree.fromstring(view).iter(TEXT)))


def test_hostile_names_are_text_in_lists_and_pictures_too(show: Any, tmp_path: Path) -> None:
    page = show("hostile")
    seek(page, "/./")
    assert page.get_by_test_id(RESULTS).get_by_role("option").count() > 5
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    for kind in ("svg", "svg-all"):
        root = ElementTree.fromstring(saved(page, kind, tmp_path / "hostile.svg")[1])
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "defs", "clipPath", "path", "g", "text"}
    assert page.locator("img, iframe, [onerror]").count() == 0
    assert page.evaluate("document.scripts.length") == 2


def test_the_menu_of_pictures_is_reached_by_the_keyboard(show: Any) -> None:
    page = show("net")
    button = page.get_by_test_id("geta-explorer-save")
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.picture") == "png"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.picture") == "svg-all"
    page.keyboard.press("Escape")
    assert page.evaluate(FOCUSED) == "geta-explorer-save"
    assert button.get_attribute("aria-expanded") == "false"


def test_a_presentation_is_large_fills_the_window_and_escape_leaves(show: Any) -> None:
    page = show("net")
    before = page.evaluate(f"({{ ...{PAGE}.camera }})")
    text = "document.querySelector('.gx-details h3').getBoundingClientRect().height"
    small = page.evaluate(text)
    page.get_by_test_id("geta-explorer-present").click()
    box = page.get_by_test_id("geta-explorer").bounding_box()
    assert box == {"x": 0, "y": 0, "width": 1300, "height": 800}
    assert page.evaluate(text) > 1.3 * small
    assert page.evaluate(f"{PAGE}.camera.scale") > before["scale"]
    save_picture(page, "explorer-presentation")
    seek(page, "conv")
    page.keyboard.press("Escape")
    assert page.evaluate(f"{PAGE}.presentation.on"), "the first Escape leaves the list"
    page.keyboard.press("Escape")
    assert not page.evaluate(f"{PAGE}.presentation.on")
    assert page.evaluate(f"({{ ...{PAGE}.camera }})") == before
    page.evaluate(f"{PAGE}.canvas.focus()")
    page.keyboard.press("p")
    assert page.evaluate(f"{PAGE}.presentation.on")
    for _ in range(40):
        page.keyboard.press("Tab")
        assert page.evaluate("Boolean(document.activeElement.closest('.gx'))"), "the focus stays in what is seen"
    page.get_by_test_id("geta-explorer-present").click()
    assert page.get_by_test_id("geta-explorer").get_attribute("popover") is None
