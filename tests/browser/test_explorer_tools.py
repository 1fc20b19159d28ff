"""Search, details, pictures and presentation of the explorer in a real browser, on its standalone page, which asks nobody."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.wording import clean
from geta_nb.widgets import exports
from tests.browser.lab import browser_page, need_browser, save_picture
from tests.browser.test_explorer_page import PAGE, contrast, data_of, until, with_names
from tests.display.dummies import HOSTILE
from tests.small_nets import IMAGES, cnn

pytestmark = pytest.mark.slow
SEARCH, RESULTS = "geta-explorer-search", "geta-explorer-results"
TEXT = "{http://www.w3.org/2000/svg}text"
PLACE = f"""(dx, dy) => {{
  const e = {PAGE}, [x, y] = e.place(e.selected), c = e.camera;
  return [(x + dx - c.x) * c.scale, (y + dy - c.y) * c.scale, e.width, e.height, e.selected.w, e.selected.h];
}}"""
LEAVES = f"""() => {{
  let many = 0;
  const walk = (box) => box.children.forEach((child) => (!child.leaf && child.open ? walk(child) : (many += 1)));
  walk({PAGE}.root);
  return many;
}}"""
MOST_READ = f"""() => {{
  const {{ edges }} = {PAGE}.graph.data.layers.raw, readers = new Map();
  for (let i = 0; i < edges.length; i += 2) readers.set(edges[i], (readers.get(edges[i]) ?? new Set()).add(edges[i + 1]));
  return [...readers].map(([node, all]) => [node, all.size]).sort((a, b) => b[1] - a[1])[0];
}}"""
FOCUSED = "document.activeElement.dataset.testid ?? document.activeElement.tagName"


def encoder(layers: int) -> nn.Module:
    """Transformer blocks, one after the other."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: Any) -> dict[str, str]:
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


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    need_browser()
    with browser_page(width=1300, height=800) as page:
        yield page


@pytest.fixture
def show(tab: Any, pages: dict[str, str]) -> Iterator[Any]:
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


# -- search --------------------------------------------------------------------------------------------------------------------------


def test_what_was_found_is_a_list_of_name_type_bits_and_kept_share(show: Any) -> None:
    page = show("net")
    seek(page, "type:conv bits<8")
    assert found(page) == ["conv2d", "conv2d_1"]
    rows = page.get_by_test_id(RESULTS).get_by_role("option")
    assert re.sub(r"\s+", " ", rows.nth(1).inner_text()) == "3 conv2d_1 conv2d W 4 A 4 50 % kept"
    assert page.locator(".gx-count").inner_text() == "2 found"
    save_picture(page, "explorer-search")


def test_a_click_on_a_result_selects_it_and_brings_it_to_the_middle(show: Any) -> None:
    page = show("blocks")
    seek(page, "layers.4 type:linear")
    rows = page.get_by_test_id(RESULTS).get_by_role("option")
    wanted = rows.nth(1).get_attribute("data-vertex")
    rows.nth(1).click()
    assert page.locator("[role=treeitem][aria-selected=true]").get_attribute("data-vertex") == wanted
    assert page.get_by_test_id("geta-explorer-details").locator("h3").inner_text() == wanted
    x, y, sight_w, sight_h, w, h = page.evaluate(f"({PLACE})(0, 0)")
    scale = page.evaluate(f"{PAGE}.camera.scale")
    assert [x + w * scale / 2, y + h * scale / 2] == pytest.approx([sight_w / 2, sight_h / 2], abs=1)
    assert not page.get_by_test_id(RESULTS).is_visible()


def test_the_keyboard_walks_through_the_results_and_leaves(show: Any) -> None:
    page = show("net")
    page.evaluate(f"{PAGE}.canvas.focus()")
    page.keyboard.press("/")
    page.keyboard.type("type:conv")
    search = page.get_by_test_id(SEARCH)
    assert search.get_attribute("aria-expanded") == "true"
    for key, at in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowDown", 1), ("ArrowUp", 0), ("ArrowDown", 1)):
        page.keyboard.press(key)
        active = page.locator(f"#{search.get_attribute('aria-activedescendant')}")
        assert (active.get_attribute("data-at"), active.get_attribute("aria-selected")) == (str(at), "true")
    page.keyboard.press("Enter")
    assert page.evaluate(f"{PAGE}.graph.name({PAGE}.selected.id)") == "conv2d_1"
    assert page.locator(".gx-count").inner_text() == "2 of 2"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{PAGE}.graph.name({PAGE}.selected.id)") == "conv2d", "Enter again goes to the next"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.evaluate(FOCUSED) == "geta-explorer-canvas"
    assert not page.get_by_test_id(RESULTS).is_visible()
    assert search.input_value() == "type:conv", "it is left, not lost"
    search.focus()
    page.keyboard.press("Escape")
    assert (search.input_value(), page.evaluate(f"{PAGE}.found.size")) == ("", 0)


def test_a_bad_expression_says_so_in_words_and_breaks_nothing(show: Any) -> None:
    page = show("net")
    bad = {
        "/conv(/": "not understood", "/conv": "between two strokes", "colour:red": "There is no filter “colour”",
        "bits<few": "“few” is no number",
    }  # fmt: skip
    for text, words in bad.items():
        seek(page, text)
        assert words in page.locator(".gx-problem").inner_text()
        assert page.locator(".gx-count").inner_text() == "not understood"
        assert page.get_by_test_id(SEARCH).get_attribute("aria-invalid") == "true"
    seek(page, "/^conv2d_\\d$/")
    assert found(page) == ["conv2d_1"]
    assert page.get_by_test_id(SEARCH).get_attribute("aria-invalid") is None


def test_the_help_of_the_language_is_one_click_away_and_fills_in(show: Any) -> None:
    page = show("net")
    seek(page, "bits<8")
    page.get_by_test_id("geta-explorer-search-help").click()
    page.locator(".gx-help button", has_text="kept<50%").click()
    assert page.get_by_test_id(SEARCH).input_value() == "bits<8 kept<50%"
    assert page.evaluate(FOCUSED) == SEARCH
    assert page.locator(".gx-count").inner_text() == "0 found"
    page.get_by_test_id("geta-explorer-search-help").click()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert page.evaluate(FOCUSED) == "geta-explorer-search-help"


def test_the_search_is_kept_when_the_page_is_shown_again_and_earlier_ones_are_offered(show: Any) -> None:
    page = show("net")
    for text in ("type:conv", "protected", "kept<60%"):
        seek(page, text).press("Enter")
    page.reload()
    until(page, f"{PAGE}?.firstPainted && document.querySelector('[role=treeitem]')")
    assert page.get_by_test_id(SEARCH).input_value() == "kept<60%"
    assert page.locator(".gx-count").inner_text().endswith("found")
    assert page.evaluate(f"{PAGE}.found.size") > 0
    assert not page.get_by_test_id(RESULTS).is_visible()
    search = seek(page, "")
    search.press("ArrowDown")
    assert page.get_by_test_id(RESULTS).get_by_role("option").all_inner_texts() == ["kept<60%", "protected", "type:conv"]
    search.press("ArrowDown")
    search.press("Enter")
    assert search.input_value() == "protected"


def test_thousands_of_results_come_as_they_are_reached(show: Any) -> None:
    page = show("blocks")
    page.get_by_test_id("geta-explorer-layer").get_by_role("radio", name="raw").click()
    search = seek(page, "/./")
    total = page.evaluate(f"{PAGE}.hits.length")
    assert total > 300
    assert 0 < len(found(page)) < total
    search.press("ArrowUp")
    last = page.locator(f"#{search.get_attribute('aria-activedescendant')}")
    assert int(str(last.get_attribute("data-at"))) == total - 1


# -- details -------------------------------------------------------------------------------------------------------------------------


def chosen(page: Any, name: str) -> Any:
    seek(page, f"name:/^{name}$/").press("Enter")
    details = page.get_by_test_id("geta-explorer-details")
    assert details.locator("h3").inner_text() == name
    return details


def test_a_weight_shows_its_values_with_every_level_of_its_quantizer(show: Any) -> None:
    details = chosen(show("net"), "conv2d_1")
    picture = details.get_by_test_id("geta-explorer-histogram")
    assert picture.locator(".gx-levels").get_attribute("data-levels") == "16"
    assert len(re.findall("M", picture.locator(".gx-levels").get_attribute("d"))) == 16
    words = details.get_by_test_id("geta-explorer-weight").inner_text()
    assert "50 % exactly 0, not drawn" in words
    assert "16 levels (4 bits)" in words
    assert words == words.strip() and picture.get_attribute("aria-label") in words.replace("\n", "; ").replace("Values of weight; ", "")
    bars = page_box(picture.locator(".gx-bars"))
    frame = page_box(picture)
    assert bars["x"] >= frame["x"] - 1 and bars["x"] + bars["width"] <= frame["x"] + frame["width"] + 1


def page_box(locator: Any) -> dict[str, float]:
    box = locator.bounding_box()
    assert box is not None
    return dict(box)


def test_the_input_tells_its_range_and_the_operator_what_it_was_told(show: Any) -> None:
    details = chosen(show("net"), "conv2d_1")
    assert re.search(r"range\s+0 … [\d.]+\s+from\s+calibrated", details.get_by_test_id("geta-explorer-input").inner_text())
    attributes = details.get_by_test_id("geta-explorer-attributes").inner_text()
    assert re.search(r"stride\s+1, 1\s+padding\s+1, 1\s+dilation\s+1, 1\s+groups\s+1", attributes)


def test_what_feeds_and_reads_a_vertex_is_a_click_away(show: Any) -> None:
    page = show("net")
    details = chosen(page, "conv2d_1")
    source = details.get_by_test_id("geta-explorer-sources").get_by_role("button")
    assert re.sub(r"\s+", " ", source.inner_text()) == "relu 2 2 × 8 × 6 × 6"
    source.click()
    assert details.locator("h3").inner_text() == "relu"
    details.get_by_test_id("geta-explorer-readers").get_by_role("button").click()
    assert details.locator("h3").inner_text() == "conv2d_1"


def test_a_module_tells_what_feeds_and_reads_it_and_a_long_list_opens(show: Any) -> None:
    page = show("blocks")
    page.evaluate(f"{PAGE}.select({PAGE}.picture.boxes.find((b) => b.path === 'layers.2'), {{ reveal: true }})")
    details = page.get_by_test_id("geta-explorer-details")
    outside = details.get_by_test_id("geta-explorer-sources").get_by_role("button")
    assert outside.count() == 1 and "layers.1" in str(outside.get_attribute("title"))
    page.get_by_test_id("geta-explorer-layer").get_by_role("radio", name="raw").click()
    node, readers = page.evaluate(MOST_READ)
    assert readers > 6
    page.evaluate(f"{PAGE}.selectNode({node})")
    list_ = details.get_by_test_id("geta-explorer-readers")
    list_.get_by_role("button", name=re.compile(r"\d+ more")).click()
    assert list_.get_by_role("button").count() == readers
    assert page.evaluate("document.activeElement.closest('ul')?.dataset.testid") == "geta-explorer-readers"


def test_the_groups_stand_in_order_and_are_told_one_by_one(show: Any) -> None:
    page = show("net")
    details = chosen(page, "conv2d_1")
    strip = details.get_by_test_id("geta-explorer-strip")
    words = details.get_by_test_id("geta-explorer-groups").inner_text()
    assert "8 groups: 4 kept, 4 zero" in words
    assert "no optimizer yet, so no saliency: the norm of each group" in words
    strip.focus()
    note = details.locator(".gx-cell")
    page.keyboard.press("Home")
    assert re.fullmatch(r"group [0-3], place 1: 0, zero", note.inner_text())
    page.keyboard.press("End")
    assert re.fullmatch(r"group [4-7], place 8: [\d.]+, kept", note.inner_text())
    box = page_box(strip)
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 5)
    assert "place 8" in note.inner_text()


def test_the_shapes_of_its_edges_are_written_at_a_selected_vertex(show: Any) -> None:
    page = show("net")
    chosen(page, "linear")
    drawn = """() => {
      const e = document.getElementById('geta-explorer-page').explorer, g = e.painter.context, texts = [], real = g.fillText;
      g.fillText = (text, ...at) => { texts.push(text); real.call(g, text, ...at); };
      e._paint();
      delete g.fillText;
      return texts;
    }"""
    assert {"2×8", "2×3"} <= set(page.evaluate(drawn))


def test_a_page_without_the_heavy_data_shows_the_rest(show: Any) -> None:
    details = chosen(show("bare"), "conv2d_1")
    assert details.get_by_test_id("geta-explorer-histogram").count() == 0
    assert details.get_by_test_id("geta-explorer-sources").get_by_role("button").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 800, 500])
def test_nothing_is_cut_off_at_any_width_and_texts_are_legible(show: Any, tab: Any, width: int, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    page = show("net")
    page.set_viewport_size({"width": width, "height": 700})
    details = chosen(page, "conv2d_1")
    inside = page_box(details)
    for hook in ("histogram", "strip", "sources"):
        box = page_box(details.get_by_test_id(f"geta-explorer-{hook}"))
        assert inside["x"] <= box["x"] and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
    colours = "(q) => { const s = getComputedStyle(document.querySelector(q)); return [s.color, s.fill] }"
    ground = page.evaluate("getComputedStyle(document.querySelector('.gx')).backgroundColor")
    assert contrast(page.evaluate(colours, ".gx-slot .gx-dim")[0], ground) >= 4.5
    assert contrast(page.evaluate(colours, ".gx-bars")[1], ground) >= 3
    assert contrast(page.evaluate(colours, ".gx-tick")[1], ground) >= 4.5
    save_picture(page, f"explorer-details-{width}-{scheme}")
    seek(page, "2")
    results = page_box(page.get_by_test_id(RESULTS))
    assert results["x"] >= 0 and results["x"] + results["width"] <= width
    save_picture(page, f"explorer-results-{width}-{scheme}")
    page.keyboard.press("Escape")
    tab.emulate_media(color_scheme="light")


# -- pictures and presentation -------------------------------------------------------------------------------------------------------


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
