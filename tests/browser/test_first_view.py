"""The first view of BERT, Llama and a UNet with attention (real depth, small widths) in a real browser: what a newcomer sees, and does.

Pictures are left in the folder that the environment variable GETA_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from geta_nb.bench.explorer_speed import find_chromium, launch
from geta_nb.bench.first_view import LAYERS, NETS, analysed
from geta_nb.display.wording import clean
from tests.browser.test_explorer_page import PAGE, PLACED, data_of, drawn, items, opened, until, with_names
from tests.display.dummies import HOSTILE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]
STACK = f"{PAGE}.picture.boxes.find((box) => box.stack)"
MASK = f"{PAGE}.picture.boxes.find((box) => box.group === 'quiet' && /mask/.test(box.label))"
HELD = f"""(() => {{
  const all = [], walk = (box) => (box.leaf ? all.push(box.id) : box.children.forEach(walk));
  walk({PAGE}.root);
  return all;
}})()"""
IN_SIGHT = f"""(() => {{
  const e = {PAGE}, found = [];
  const walk = (box) => {{
    for (const child of box.stack && box.peek >= 0 ? [box.children[box.peek]] : box.children) {{
      if (!child.leaf && child.open) walk(child); else found.push(child.local || child.label);
    }}
  }};
  walk(e.root);
  return found;
}})()"""


@cache
def page_data(name: str) -> dict[str, Any]:
    """What a page of one of the networks is told; tests only read it."""
    if name != "unet":
        pytest.importorskip("transformers", reason="the extra 'bench' is not installed")
    return data_of(analysed(name))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with sync.sync_playwright() as playwright:
            browser = launch(playwright, str(find_chromium()))
            yield browser
            browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page whose errors fail the test."""
    context, wrong = chromium.new_context(viewport={"width": 1300, "height": 800}), []
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    yield page
    context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 800, 500])
@pytest.mark.parametrize("name", NETS)
def test_the_first_view_can_be_read_at_once(tab: Any, tmp_path: Path, name: str, width: int, scheme: str) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.emulate_media(color_scheme=scheme)
    opened(tab, tmp_path, page_data(name))
    sizes = f"(({{ camera, root, width, height }}) => [camera.scale, root.w, root.h, width, height])({PAGE})"
    scale, wide, high, room, tall = tab.evaluate(sizes)
    assert scale >= 0.55 and wide * scale <= room, "names can be read, and no box is beside the picture"
    assert high * scale <= tall or (name, width) == ("unet", 500), "only the UNet on a phone is scrolled"
    seen = tab.evaluate(IN_SIGHT)
    assert 8 <= len(seen) <= 40
    assert drawn(tab) > 20
    if folder := os.environ.get("GETA_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(Path(folder) / f"first_view_{name}_{width}_{scheme}.png"))


@pytest.mark.parametrize(("name", "label", "parts"), [
    ("bert", "encoder.layer", {"mask", "embeddings", "intermediate"}), ("llama", "layers", {"mask, positions", "self_attn", "mlp", "norm"}),
])  # fmt: skip
def test_a_transformer_is_one_mask_and_one_stack_that_shows_a_block(
    tab: Any, tmp_path: Path, name: str, label: str, parts: set[str]
) -> None:
    opened(tab, tmp_path, page_data(name))
    assert tab.evaluate(f"[{STACK}.label, {STACK}.open, {STACK}.peek, {STACK}.children.length]") == [label, True, 0, LAYERS]
    assert tab.evaluate(f"{STACK}.children[0].open") and not tab.evaluate(f"{MASK}.open")
    assert parts <= set(tab.evaluate(IN_SIGHT))
    row = tab.locator("[role=treeitem][data-module*=' … '] > .gx-row", has_text=f"{label} × {LAYERS}")
    assert row.count() == 1 and "wide" in row.inner_text() and "16 bit" in row.inner_text()
    assert tab.locator("[role=treeitem][aria-expanded=false] > .gx-row", has_text="steps, no cost").count() >= 1


def test_a_unet_reads_down_and_up_again(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("unet"))
    seen = tab.evaluate(IN_SIGHT)
    assert [name for name in seen if name.startswith(("down", "ds"))] == [
        "down.0.res", "ds.0", "down.1.res", "ds.1", "down.2", "ds.2", "down.3",
    ]  # fmt: skip
    assert items(tab).index("down.1.res") > items(tab).index("down.0.res")
    places = dict(zip(seen, tab.evaluate(f"{PAGE}.root.children.map((child) => [...{PAGE}.place(child), child.h])"), strict=True))
    assert places["up.3.res"][1] < places["up.0"][1] and places["down.0.res"][1] < places["down.3"][1]
    assert places["down.0.res"][0] < places["up.3.res"][0]


def test_what_is_searched_for_opens_what_hides_it(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("bert"))
    search = tab.get_by_test_id("geta-explorer-search")
    search.fill("layer.7.output.dense")
    search.press("Enter")
    until(tab, f"{STACK}.peek === 7")
    assert "bert.encoder.layer.7.output.dense.weight" in tab.get_by_test_id("geta-explorer-details").inner_text()
    x, y, _, room = tab.evaluate(f"({PLACED})({PAGE}.selected, {PAGE})")
    assert 0 <= x <= room and y >= 0
    assert tab.locator("[role=treeitem][aria-selected=true]").get_attribute("data-vertex") == tab.evaluate(f"{PAGE}.selected.name")
    names = page_data("bert")["graph"]["nodes"]["name"]
    inside = tab.evaluate(f"{MASK}.children.filter((child) => child.leaf).map((child) => child.name)")
    hidden = next(name for name in inside if sum(name in other for other in names) == 1)
    search.fill(hidden)
    search.press("Enter")
    until(tab, f"{MASK}.open")
    assert tab.get_by_test_id("geta-explorer-details").locator("h3").inner_text() == hidden


def test_a_selected_stack_says_what_it_holds_and_leads_to_each_block(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("bert"))
    x, y, *_ = tab.evaluate(f"({PLACED})({STACK}, {PAGE})")
    tab.get_by_test_id("geta-explorer-canvas").click(position={"x": x + 60, "y": y + 8})
    details = tab.get_by_test_id("geta-explorer-details")
    text = details.inner_text()
    assert "12, of one structure" in text and "32–128" in text and "bert.encoder.layer.0 … bert.encoder.layer.11" in text and "16" in text
    details.get_by_role("button", name="layer.5", exact=True).click()
    until(tab, f"{STACK}.peek === 5 && {PAGE}.selected.label === 'layer.5'")
    tab.evaluate(f"{PAGE}.select({MASK})")
    assert "no family and no cost" in details.inner_text()


def test_a_stack_opens_block_by_block_with_the_mouse(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("llama"))
    canvas = tab.get_by_test_id("geta-explorer-canvas")

    def click_pill() -> None:
        x, y, w, _ = tab.evaluate(f"({PLACED})({STACK}, {PAGE})")
        canvas.click(position={"x": x + w - 30, "y": y + 8})

    click_pill()
    until(tab, f"{STACK}.peek === -1")
    block = f"{STACK}.children[9]"
    assert len(tab.evaluate(IN_SIGHT)) > LAYERS and not tab.evaluate(f"{block}.open")
    tab.evaluate(f"{PAGE}.select({block}, {{ reveal: true }})")
    x, y, w, _ = tab.evaluate(f"({PLACED})({block}, {PAGE})")
    canvas.dblclick(position={"x": x + w / 2, "y": y + 10})
    until(tab, f"{block}.open")
    tab.evaluate(f"{PAGE}.select({STACK}, {{ reveal: true }})")
    tab.get_by_test_id("geta-explorer-spread").click()
    until(tab, f"{STACK}.peek >= 0")


def test_a_stack_opens_block_by_block_with_the_keyboard(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("bert"))
    tab.locator("[data-module='bert.encoder.layer.4']").focus()
    tab.keyboard.press("ArrowRight")
    until(tab, f"{STACK}.peek === 4 && {STACK}.children[4].open")
    until(tab, "document.querySelector('[data-module=\"bert.encoder.layer.4\"]').getAttribute('aria-expanded') === 'true'")
    assert "attention" in tab.evaluate(f"{STACK}.children[4].children.map((child) => child.label)")
    tab.locator("[data-module='bert.encoder.layer.0'] [data-module$='intermediate']").focus()
    tab.keyboard.press("Enter")
    until(tab, f"{STACK}.peek === 0 && {PAGE}.selected.label === 'intermediate'")


def test_fully_open_bert_is_a_chain_of_equal_layers_with_ports(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("bert"))
    tab.evaluate(f"""(() => {{
      const e = {PAGE};
      for (const box of e.picture.boxes) Object.assign(box, {{ open: true, peek: -1 }});
      e.engine.run(e.root); e._changed(); e.fit(true); e._paint();
    }})()""")
    edges = tab.evaluate(f"{STACK}.ports.edges.map(([a, b]) => b - a)")
    tags = tab.evaluate(f"{STACK}.ports.tags.map(([place, words, source]) => [place, words, source])")
    layouts = tab.evaluate(f"new Set({STACK}.children.map((block) => block.layout)).size")
    assert edges == [1] * (LAYERS - 1), "layer to layer, and no line from the mask"
    assert tags == [[place, "mask", False] for place in range(LAYERS)]
    assert layouts == 1, "equal layers are laid out once"
    columns = f"new Set({STACK}.layout.places.map(([x]) => Math.round(x))).size"
    wide, high, columns = tab.evaluate(f"[{STACK}.w, {STACK}.h, {columns}]")
    assert wide / high < 2.5 and high / wide < 2.5 and columns <= 8, "columns, not a staircase"
    assert drawn(tab) > 20


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_stacks_stand_in_every_layer_and_stay_where_they_were_turned(tab: Any, tmp_path: Path, name: str) -> None:
    opened(tab, tmp_path, page_data(name))
    tab.evaluate(f"{PAGE}.select({STACK}.children[6], {{ reveal: true }})")
    for layer in ("raw", "branches", "QADG"):
        tab.get_by_test_id("geta-explorer-layer").get_by_role("radio", name=layer).click()
        assert tab.evaluate(f"[{STACK}.children.length, {STACK}.open, {STACK}.peek]") == [LAYERS, True, 6]
        held = tab.evaluate(HELD)
        assert sorted(held) == sorted(page_data(name)["graph"]["layers"][layer]["nodes"])
        assert drawn(tab) > 20


@pytest.mark.parametrize("colour", ["operator", "family", "bits", "kept", "cost", "protected"])
def test_every_colour_is_drawn_on_a_stack(tab: Any, tmp_path: Path, colour: str) -> None:
    opened(tab, tmp_path, {**page_data("llama"), "colour": colour})
    tab.evaluate(f"{PAGE}.toggle({STACK})")
    tab.evaluate(f"{PAGE}._paint()")
    mixture = tab.evaluate(f"{PAGE}.painter.mixture({STACK})")
    assert sum(share for _, share in mixture) == pytest.approx(1) and drawn(tab) > 20


def test_a_family_inside_a_stack_marks_it(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("llama"))
    family = next(i for i, row in enumerate(page_data("llama")["graph"]["families"]) if "layers.3.mlp" in row["name"])
    tab.evaluate(f"{PAGE}.selectFamily({family})")
    tab.evaluate(f"{PAGE}._paint()")
    inside = tab.evaluate(f"[{STACK}, {MASK}].map((box) => {PAGE}.painter._isIn(box, {PAGE}.marked))")
    assert inside == [True, False]
    assert "mlp" in tab.get_by_test_id("geta-explorer-details").inner_text()


def test_a_family_inside_a_stack_is_protected_from_there(tab: Any, tmp_path: Path) -> None:
    """The page here stands for one with a kernel: what it would ask Python is written down."""
    opened(tab, tmp_path, page_data("llama"))
    tab.evaluate(f"Object.assign({PAGE}.host, {{ live: true, send: (message) => (window.sent = message) }})")
    tab.get_by_test_id("geta-explorer-search").fill("layers.8.mlp.up_proj")
    tab.get_by_test_id("geta-explorer-search").press("Enter")
    until(tab, f"{STACK}.peek === 8")
    tab.get_by_test_id("geta-explorer-protect").click()
    sent = tab.evaluate("window.sent")
    assert (sent["kind"], sent["on"]) == ("protect", True)
    assert page_data("llama")["graph"]["families"][sent["family"]]["name"].startswith("model.layers.8.mlp")


def test_one_level_more_and_one_less_end_where_they_began(tab: Any, tmp_path: Path) -> None:
    opened(tab, tmp_path, page_data("unet"))
    before = tab.evaluate(IN_SIGHT)
    more, less = (tab.get_by_role("button", name=f"{word} one level") for word in ("open", "close"))
    more.click()
    assert len(tab.evaluate(IN_SIGHT)) > len(before)
    less.click()
    assert tab.evaluate(IN_SIGHT) == before


def test_hostile_names_of_stacks_and_plain_steps_are_text(tab: Any, tmp_path: Path) -> None:
    bad = [clean(name) for name in HOSTILE]
    data = page_data("bert")
    graph = with_names(data["graph"], bad)
    layers = {
        name: {**layer, "groups": [{**group, "label": bad[i % len(bad)]} for i, group in enumerate(layer["groups"])]}
        for name, layer in graph["layers"].items()
    }
    graph["modules"]["path"] = data["graph"]["modules"]["path"]
    graph["modules"] = {**graph["modules"], "called": data["graph"]["modules"]["called"]}
    opened(tab, tmp_path, {**data, "graph": {**graph, "layers": layers}})
    for box in (STACK, f"{PAGE}.picture.boxes.find((box) => box.group === 'quiet')"):
        tab.evaluate(f"{PAGE}.select({box}, {{ reveal: true }})")
    tab.evaluate(f"{PAGE}.spread({STACK})")
    canvas = tab.get_by_test_id("geta-explorer-canvas").bounding_box()
    for step in range(10):
        tab.mouse.move(canvas["x"] + 60 * step, canvas["y"] + 50 * step)
    assert tab.locator("img, iframe, b b, [onerror]").count() == 0 and tab.evaluate("document.scripts.length") == 2
    assert "<img src=x onerror=alert(1)>" in tab.locator("body").inner_text()
