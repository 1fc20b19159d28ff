"""The explorer in a real browser, on its standalone page: every request is refused and counted, and there is none."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.explorer_speed import find_chromium, launch
from geta_nb.display.wording import clean
from geta_nb.widgets import exports
from geta_nb.widgets.graph_data import budget_state, graph_data, live_state
from tests.display.dummies import HOSTILE
from tests.small_nets import IMAGES, cnn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]
PAGE = "document.getElementById('geta-explorer-page').explorer"
PLACED = """(item, e) => {
  const [x, y] = e.place(item), c = e.camera;
  return [(x - c.x) * c.scale, (y - c.y) * c.scale, item.w * c.scale, e.width];
}"""


class Block(nn.Module):
    """A branch with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Blocks(nn.Module):
    """Twelve equal blocks: more than fit at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(12)), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def until(page: Any, condition: str, seconds: float = 120.0) -> None:
    """Wait until an expression holds. Playwright's own waiting evaluates in the page, which the page's policy forbids."""
    for _ in range(int(50 * seconds)):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"it never came true: {condition}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with sync.sync_playwright() as playwright:
            browser = launch(playwright, str(find_chromium()))
            yield browser
            browser.close()


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def page(browser: Any, asked: list[str]) -> Iterator[Any]:
    """A page that may open files alone; what else it asks for, and every error, is written down and fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(("file:", "data:")) else route.abort())
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(f"error: {error}"))
    page.on("console", lambda message: asked.append(f"console: {message.text}") if message.type in {"error", "warning"} else None)
    page.on("dialog", lambda dialog: (asked.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield page
    context.close()
    assert asked == []


def data_of(geta: gt.GETA, **more: Any) -> dict[str, Any]:
    values = {"live_state": live_state(geta), "budget_state": budget_state(geta, gt.Budget()), "layer": "QADG", "colour": "operator"}
    return {"graph": graph_data(geta), **values, **more}


def opened(page: Any, folder: Path, data: dict[str, Any]) -> Any:
    page.goto(exports.write_page(folder / "page.html", "a network", data).as_uri())
    until(page, f"{PAGE}?.firstPainted && document.querySelector('[role=treeitem]')")
    return page


@pytest.fixture(scope="module")
def blocks() -> dict[str, Any]:
    return data_of(gt.GETA(Blocks(), torch.randn(2, 6)))


@pytest.fixture(scope="module")
def convolutions() -> dict[str, Any]:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([IMAGES])
    return data_of(geta)


def drawn(page: Any) -> int:
    """How many different colours the canvas has: more than a few when something is drawn."""
    return int(page.evaluate("""() => {
      const c = document.querySelector('[data-testid=geta-explorer-canvas]'), copy = document.createElement('canvas');
      Object.assign(copy, { width: c.width, height: c.height });
      const g = copy.getContext('2d', { willReadFrequently: true }), seen = new Set();
      g.drawImage(c, 0, 0);
      const data = g.getImageData(0, 0, c.width, c.height).data;
      for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return seen.size;
    }"""))


def items(page: Any) -> list[str]:
    return list(page.eval_on_selector_all("[role=treeitem]", "all => all.map((x) => x.dataset.vertex ?? x.dataset.module)"))


def test_the_first_sight_has_the_graph_the_tree_and_every_hook(page: Any, tmp_path: Path, blocks: dict[str, Any]) -> None:
    opened(page, tmp_path, blocks)
    for hook in ("", "-search", "-layer", "-colour", "-details", "-legend", "-canvas", "-tree"):
        assert page.get_by_test_id(f"geta-explorer{hook}").count() == 1
    assert page.get_by_role("tree").count() == 1
    assert drawn(page) > 20
    sight = page.evaluate(f"(() => {{ const e = {PAGE}; return [e.camera.scale, e.root.w * e.camera.scale, e.width] }})()")
    assert sight[0] >= 0.5 and sight[1] <= sight[2]


def test_search_finds_counts_and_reveals(page: Any, tmp_path: Path, blocks: dict[str, Any]) -> None:
    opened(page, tmp_path, blocks)
    search = page.get_by_test_id("geta-explorer-search")
    search.fill("blocks.7.body.2")
    assert page.locator(".gx-count").inner_text() == "1 found"
    search.press("Enter")
    until(page, "document.querySelector('[role=treeitem][aria-selected=true]')")
    assert "blocks.7.body.2.weight" in page.get_by_test_id("geta-explorer-details").inner_text()
    x, y, _, w = page.evaluate(f"({PLACED})({PAGE}.selected, {PAGE})")
    assert 0 <= x <= w and y >= 0
    search.fill("no such thing")
    assert page.locator(".gx-count").inner_text() == "0 found"


def test_modules_open_and_close_in_the_picture_and_in_the_tree(page: Any, tmp_path: Path, blocks: dict[str, Any]) -> None:
    opened(page, tmp_path, blocks)
    box = f"{PAGE}.picture.boxes.find((b) => b.path === 'blocks.3')"
    was = page.evaluate(f"{box}.open")
    if was:
        page.evaluate(f"{PAGE}.toggle({box})")
        until(page, "document.querySelector('[data-module=\"blocks.3\"]').getAttribute('aria-expanded') === 'false'")
    before = len(items(page))
    page.evaluate(f"{PAGE}.select({box}, {{ reveal: true }})")
    place = f"({PLACED})({box}, {PAGE})"
    x, y, w, _ = page.evaluate(place)
    canvas = page.get_by_test_id("geta-explorer-canvas")
    canvas.dblclick(position={"x": x + w / 2, "y": y + 10})
    until(page, "document.querySelector('[data-module=\"blocks.3\"]').getAttribute('aria-expanded') === 'true'")
    assert len(items(page)) > before
    assert page.evaluate(place)[:2] == pytest.approx([x, y], abs=0.5), "the module stays where it was"
    x, y, *_ = page.evaluate(place)
    canvas.click(position={"x": x + 10, "y": y + 12})
    until(page, "document.querySelector('[data-module=\"blocks.3\"]').getAttribute('aria-expanded') === 'false'")
    assert len(items(page)) == before


def test_the_tree_is_walked_with_the_keyboard_alone(page: Any, tmp_path: Path, blocks: dict[str, Any]) -> None:
    opened(page, tmp_path, blocks)
    assert page.eval_on_selector_all('[role=treeitem][tabindex="0"]', "all => all.length") == 1
    page.locator('[role=treeitem][tabindex="0"]').focus()
    focused = "document.activeElement.dataset.vertex ?? document.activeElement.dataset.module"
    walked = [page.evaluate(focused)]
    for _ in range(4):
        page.keyboard.press("ArrowDown")
        walked.append(page.evaluate(focused))
    assert walked == items(page)[:5]
    page.keyboard.press("Home")
    assert page.evaluate(focused) == items(page)[0]
    module = page.locator("[role=treeitem][aria-expanded]").first
    module.focus()
    before = module.get_attribute("aria-expanded")
    page.keyboard.press("ArrowLeft" if before == "true" else "ArrowRight")
    until(page, f"document.querySelector('[role=treeitem][aria-expanded]').getAttribute('aria-expanded') !== '{before}'")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.get_by_test_id("geta-explorer-details").locator("h3").inner_text() == "output"


def test_the_three_layers_are_pictures_of_the_same_network(page: Any, tmp_path: Path, convolutions: dict[str, Any]) -> None:
    opened(page, tmp_path, convolutions)
    layers = page.get_by_test_id("geta-explorer-layer")
    counts = {}
    for name in ("raw", "branches", "QADG"):
        layers.get_by_role("radio", name=name).click()
        assert layers.locator("[aria-checked=true]").inner_text() == name
        counts[name] = page.evaluate(f"{PAGE}.picture.leaves.size")
        assert drawn(page) > 20
    assert {name: len(convolutions["graph"]["layers"][name]["nodes"]) for name in counts} == counts
    layers.get_by_role("radio", name="branches").click()
    until(page, "[...document.querySelectorAll('[role=treeitem]')].some((x) => /weight quantizer/.test(x.textContent))")


@pytest.mark.parametrize(("colour", "words"), [
    ("operator", "multiplies"), ("family", "no family"), ("bits", "16 bits"), ("kept", "100 % kept"), ("cost", "of BOPs"),
    ("protected", "an output of the network"),
])  # fmt: skip
def test_every_colour_has_its_legend_and_changes_the_picture(
    page: Any, tmp_path: Path, convolutions: dict[str, Any], colour: str, words: str
) -> None:
    opened(page, tmp_path, convolutions)
    page.get_by_test_id("geta-explorer-colour").select_option(colour)
    assert words in page.get_by_test_id("geta-explorer-legend").inner_text()
    of = f"(() => {{ const e = {PAGE}; return [...e.picture.leaves.keys()].map((id) => e.scheme.colour(id)) }})()"
    assert len(set(page.evaluate(of))) > 1


def test_a_click_selects_the_whole_family_everywhere(page: Any, tmp_path: Path, convolutions: dict[str, Any]) -> None:
    opened(page, tmp_path, convolutions)
    leaf = f"[...{PAGE}.picture.leaves.values()].find((leaf) => {PAGE}.graph.name(leaf.id) === 'conv2d_1')"
    x, y, *_ = page.evaluate(f"({PLACED})({leaf}, {PAGE})")
    page.get_by_test_id("geta-explorer-canvas").click(position={"x": x + 15, "y": y + 15})
    details = page.get_by_test_id("geta-explorer-details").inner_text()
    assert "Family 3" in details and "3.weight" in details and "8.weight" in details and "weight bits" in details
    names = page.evaluate(f"[...{PAGE}.marked].map((id) => {PAGE}.graph.name(id))")
    assert {"conv2d_1", "relu_1", "linear", "3.weight"} <= set(names) and "conv2d" not in names
    assert page.locator("[role=treeitem][aria-selected=true]").get_attribute("data-vertex") == "conv2d_1"
    page.keyboard.press("Escape")
    assert page.evaluate(f"{PAGE}.marked") is None


def test_the_wheel_scrolls_the_page_until_the_explorer_is_asked(page: Any, tmp_path: Path, blocks: dict[str, Any]) -> None:
    opened(page, tmp_path, blocks)
    canvas = page.get_by_test_id("geta-explorer-canvas").bounding_box()
    page.mouse.move(canvas["x"] + 200, canvas["y"] + 200)
    scale = f"{PAGE}.camera.scale"
    before = page.evaluate(scale)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(50)
    assert page.evaluate(scale) == before
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    until(page, f"{scale} > {before}")
    page.evaluate(f"{PAGE}.canvas.focus()")
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.dataset.testid") == "geta-explorer-search"


def test_it_follows_the_dark_and_stays_readable(page: Any, tmp_path: Path, convolutions: dict[str, Any]) -> None:
    opened(page, tmp_path, convolutions)
    light = page.evaluate(f"{PAGE}.theme.bg")
    page.emulate_media(color_scheme="dark")
    until(page, f"{PAGE}.theme.bg !== '{light}'")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        until(page, f"{PAGE}.theme.dark === {str(scheme == 'dark').lower()}")
        fg, bg, dim = page.evaluate(f"(() => {{ const {{ fg, bg, dim }} = {PAGE}.theme; return [fg, bg, dim] }})()")
        assert contrast(fg, bg) >= 7 and contrast(dim, bg) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours as a browser writes them."""

    def light(colour: str) -> float:
        if colour.startswith("#"):
            full = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
            parts = [int(full[i : i + 2], 16) for i in (0, 2, 4)]
        else:
            told = re.findall(r"[0-9.]+", colour)[:3]
            parts = [float(v) * (255 if colour.startswith("color(srgb") else 1) for v in told]  # a mixture of colours is told in shares
        linear = [v / 255 / 12.92 if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def with_names(graph: dict[str, Any], bad: list[str]) -> dict[str, Any]:
    """The same graph with a hostile text wherever a text is shown."""
    names = [bad[i % len(bad)] for i in range(10_000)]
    paths = [path and names[i].replace(".", "") + str(i) for i, path in enumerate(graph["modules"]["path"])]
    families = [
        {**family, "name": names[i], "slices": [[name, *rest] for name, (_, *rest) in zip(bad, family["slices"], strict=False)]}
        for i, family in enumerate(graph["families"])
    ]
    return {
        **graph,
        "title": bad[1],
        "nodes": {**graph["nodes"], "name": names[: len(graph["nodes"]["name"])]},
        "texts": names[: len(graph["texts"])],
        "families": families,
        "tensors": [[names[i], shape, why] for i, (_, shape, why) in enumerate(graph["tensors"])],
        "reasons": [[bad[0], bad[1]] for _ in graph["reasons"]],
        "branches": [[bad[0], kind, bad[1]] for _, kind, _ in graph["branches"]],
        "modules": {"path": paths, "type": [bad[1]] * len(paths)},
    }


def test_hostile_names_are_text_wherever_they_are_shown(page: Any, tmp_path: Path, convolutions: dict[str, Any]) -> None:
    opened(page, tmp_path, {**convolutions, "graph": with_names(convolutions["graph"], [clean(name) for name in HOSTILE])})
    for layer in ("raw", "branches", "QADG"):
        page.get_by_test_id("geta-explorer-layer").get_by_role("radio", name=layer).click()
        leaves = f"[...{PAGE}.picture.leaves.values()].slice(0, 30)"
        page.evaluate(f"(() => {{ for (const leaf of {leaves}) {PAGE}.select(leaf, {{ reveal: true }}) }})()")
        canvas = page.get_by_test_id("geta-explorer-canvas").bounding_box()
        for step in range(12):
            page.mouse.move(canvas["x"] + 50 * step, canvas["y"] + 30 * step)
    for colour in ("family", "protected"):
        page.get_by_test_id("geta-explorer-colour").select_option(colour)
    assert page.locator("img, iframe, b b, [onerror]").count() == 0
    assert page.evaluate("document.scripts.length") == 2
    assert "<img src=x onerror=alert(1)>" in page.locator("body").inner_text()


def test_ten_thousand_letters_do_not_burst_a_box(page: Any, tmp_path: Path, convolutions: dict[str, Any]) -> None:
    graph = {**convolutions["graph"], "texts": ["W" * 10_000 for _ in convolutions["graph"]["texts"]]}
    opened(page, tmp_path, {**convolutions, "graph": graph})
    assert page.evaluate(f"Math.max(...[...{PAGE}.picture.leaves.values()].map((leaf) => leaf.w))") < 360
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0


def test_a_pyvis_page_opens_without_any_request(page: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyvis", reason="the extra 'notebook' is not installed")
    gt.to_pyvis(gt.GETA(cnn(), IMAGES)).save(tmp_path / "network.html")
    page.goto((tmp_path / "network.html").as_uri())
    page.wait_for_selector("#mynetwork canvas")


def test_dot_is_where_the_static_picture_says_it_is() -> None:
    assert (shutil.which("dot") is None) or exports._by_dot("digraph { a -> b }", "dot")
