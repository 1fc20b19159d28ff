"""The explorer's search and details in a real browser, on its standalone page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.explorer_pages import (  # noqa: F401 - fixtures
    FOCUSED,
    PAGE,
    PLACE,
    RESULTS,
    SEARCH,
    chosen,
    found,
    page_box,
    pages_,
    seek,
    show_,
    tab_,
    until,
)
from tests.browser.lab import save_picture
from tests.browser.test_explorer_page import contrast

pytestmark = pytest.mark.slow
MOST_READ = f"""() => {{
  const {{ edges }} = {PAGE}.graph.data.layers.raw, readers = new Map();
  for (let i = 0; i < edges.length; i += 2) readers.set(edges[i], (readers.get(edges[i]) ?? new Set()).add(edges[i + 1]));
  return [...readers].map(([node, all]) => [node, all.size]).sort((a, b) => b[1] - a[1])[0];
}}"""


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


def test_what_is_found_follows_what_training_changes(show: Any) -> None:
    page = show("net")
    seek(page, "type:conv bits<4").press("Enter")
    assert page.locator(".gx-count").inner_text() == "0 found"
    page.evaluate(f"(() => {{ const e = {PAGE}; e.state = {{ ...e.state, weight: [2, 4, 4] }}; e._findAnew() }})()")
    assert page.evaluate(f"[...{PAGE}.found].map((id) => {PAGE}.graph.name(id))") == ["conv2d"]
    assert page.locator(".gx-count").inner_text() == "1 found"


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


OURS = """async () => {
  const found = await axe.run(document.querySelector('.gx'), { resultTypes: ['violations'] });
  const page = new Set(['landmark-one-main', 'page-has-heading-one', 'region']); // of the page around, see test_legible
  return found.violations.filter((v) => !page.has(v.id)).map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(' | ')}`);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_lists_help_menu_details_and_presentation(show: Any, tab: Any, scheme: str) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    tab.emulate_media(color_scheme=scheme)
    page = show("blocks")
    page.evaluate(Path(package.__file__).with_name("axe.min.js").read_text())
    acts = [
        lambda: (seek(page, "type:linear"), page.keyboard.press("ArrowDown")),
        lambda: seek(page, "/(/"), lambda: seek(page, "nothing at all"),
        lambda: seek(page, "layers.3 type:linear").press("Enter"), lambda: (seek(page, ""), page.keyboard.press("ArrowDown")),
        lambda: page.get_by_test_id("geta-explorer-search-help").click(), lambda: page.get_by_test_id("geta-explorer-save").click(),
        lambda: (page.keyboard.press("Escape"), page.get_by_test_id("geta-explorer-present").click()),
    ]  # fmt: skip
    for act in acts:
        act()
        assert page.evaluate(OURS) == []
    tab.emulate_media(color_scheme="light")


# -- details -------------------------------------------------------------------------------------------------------------------------


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
