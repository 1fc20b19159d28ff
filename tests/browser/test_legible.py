"""Every view can be read wherever it stands: on light and dark pages, with a light and a dark desktop, in what shows notebooks.

axe-core looks at whole pages; ``contrasts`` at every text, in pictures too. Both are shown to see what the issue saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.markup import fragment, note
from geta_nb.display.page import standalone_page
from geta_nb.pipelines.tables import Table
from geta_nb.views import find_view
from geta_nb.widgets import exports
from tests.browser.lab import browser_page, need_browser
from tests.browser.legible import axe_violations, contrasts, hosts, page_of
from tests.browser.test_explorer_page import PAGE, Blocks, data_of, until
from tests.display.test_real import whole_pipeline
from tests.widgets.live_runs import Training

pytestmark = pytest.mark.slow
DESKTOPS = ("light", "dark")
CANNOT_KNOW = "says nothing, dark"
SIDES = """(selector) => [document.querySelector(selector), document.body].map((element) => {
    let ground = element;
    while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
    const probe = document.documentElement.appendChild(document.createElement('i'));
    probe.style.color = ground ? getComputedStyle(ground).backgroundColor : 'Canvas';
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
    probe.remove();
    return r + g + b < 384 ? 'dark' : 'light';
})"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    need_browser()
    with browser_page() as page:
        yield page
        assert page.problems == [], "a script failed"


@pytest.fixture(scope="module")
def views() -> str:
    """Every view of every registered class, HTML and picture, every folded part unfolded."""
    made = whole_pipeline()
    run = Training(40)
    widgets = [gt.BudgetPanel(made["geta"]), gt.Explorer(made["geta"]), gt.LiveRun(run.step, run.geta, run.optimizer, total_steps=40)]
    parts = [one._repr_mimebundle_() for one in widgets]
    shown = [(part[0] if isinstance(part, tuple) else part)["text/html"] for part in parts]
    for one in [*made["shown"], Table("A table", ("a", "b"), (("1", "2"),))]:
        view = find_view(one)
        assert view, type(one)
        shown += [form(one) for form in (view.html, view.svg) if form]
    shown.append(exports.static_svg(made["geta"]))
    return "".join(f'<section aria-label="view {i}">{one}</section>' for i, one in enumerate(shown)).replace("<details>", "<details open>")


def opened(page: Any, file: Path, html: str) -> Any:
    file.write_text(html, encoding="utf-8")
    page.goto(file.as_uri())
    return page


def on_every_page(page: Any, file: Path, content: str, look: Callable[[str, str], None]) -> None:
    """Show ``content`` on a page of each kind, with a light and with a dark desktop."""
    for name, kind in hosts().items():
        opened(page, file, page_of(content, **kind))
        for desktop in DESKTOPS:
            page.emulate_media(color_scheme=desktop)
            look(name, desktop)


def test_the_checks_see_what_is_not_legible(page: Any, tmp_path: Path) -> None:
    """Before, a view took its text's colour from the desktop, and its ground from the page."""
    page.emulate_media(color_scheme="dark")
    opened(page, tmp_path / "page.html", page_of('<div class="geta-view" style="color:#e8e8e8">text</div>'))
    assert contrasts(page, ".geta-view")["low"] == ["1.23: text"]
    assert [line.partition(" ")[0] for line in axe_violations(page)] == ["color-contrast"]
    picture = '<rect width="90" height="20" fill="#777"/><text y="12" fill="#888">text</text>'
    opened(page, tmp_path / "page.html", page_of(f'<svg class="geta-view" width="90" height="20">{picture}</svg>'))
    assert len(contrasts(page, ".geta-view")["low"]) == 3


def test_every_text_of_every_view_is_legible_on_every_page(page: Any, tmp_path: Path, views: str) -> None:
    low = {}

    def look(name: str, desktop: str) -> None:
        found = contrasts(page, "section")
        assert found["texts"] > 1000
        if found["low"]:
            low[name, desktop] = found["low"][:5]

    on_every_page(page, tmp_path / "page.html", views, look)
    assert low == {}


def test_a_view_is_as_light_or_dark_as_its_page(page: Any, tmp_path: Path) -> None:
    """Whatever the desktop is; a page that is dark and says so nowhere gets a light view, with its own ground."""
    found = {}
    view = fragment("A view", note("seen"))

    def look(name: str, desktop: str) -> None:
        found[name, desktop] = tuple(page.evaluate(SIDES, ".geta-view"))

    on_every_page(page, tmp_path / "page.html", view, look)
    differing = {key: sides for key, sides in found.items() if sides[0] != sides[1]}
    assert differing == {(CANNOT_KNOW, desktop): ("light", "dark") for desktop in DESKTOPS}


@pytest.mark.parametrize("kind", ["says nothing", "says dark"])
def test_axe_finds_no_violation_in_any_view(kind: str, page: Any, tmp_path: Path, views: str) -> None:
    opened(page, tmp_path / "page.html", page_of(views, **hosts()[kind]))
    for desktop in DESKTOPS:
        page.emulate_media(color_scheme=desktop)
        assert axe_violations(page) == []


def test_a_page_of_views_and_a_picture_alone_follow_the_desktop(page: Any, tmp_path: Path) -> None:
    view = find_view(gt.Schedule.for_steps(100))
    assert view
    assert view.html
    assert view.svg
    for desktop in DESKTOPS:
        page.emulate_media(color_scheme=desktop)
        opened(page, tmp_path / "page.html", standalone_page("A page", [view.html(gt.Schedule.for_steps(100))]))
        assert page.evaluate(SIDES, ".geta-view") == [desktop, desktop]
        assert axe_violations(page) == []
        opened(page, tmp_path / "picture.svg", view.svg(gt.Schedule.for_steps(100)))
        fill = page.evaluate("() => getComputedStyle(document.querySelector('.gv-ground')).fill")
        assert fill == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 22)"}[desktop]


# -- the explorer's own page --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explorer(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page of a network whose every module is open and of which a vertex with a family is selected."""
    data = data_of(gt.GETA(Blocks(), torch.randn(2, 6)))
    page.goto(exports.write_page(tmp_path_factory.mktemp("explorer") / "page.html", "a <network>", data).as_uri())
    until(page, f"{PAGE}?.firstPainted && document.querySelector('[role=treeitem]')")
    page.evaluate(f"""() => {{
        const explorer = {PAGE};
        explorer.deeper(1);
        explorer.select([...explorer.picture.leaves.values()].find((leaf) => explorer.graph.families(leaf.id).length), {{reveal: true}});
    }}""")
    until(page, "document.querySelectorAll('[role=treeitem]').length > 60")
    return page


def test_axe_finds_no_violation_in_the_page_of_the_explorer(explorer: Any) -> None:
    for desktop in DESKTOPS:
        explorer.emulate_media(color_scheme=desktop)
        assert axe_violations(explorer, rules={"label-content-name-mismatch": True}) == []
        assert contrasts(explorer, ".gx")["low"] == []


def test_the_page_of_the_explorer_has_a_heading_a_main_landmark_and_items_named_as_they_read(explorer: Any) -> None:
    assert explorer.locator("main h1").inner_text() == "a <network>"
    session = explorer.context.new_cdp_session(explorer)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    spoken = [node["name"]["value"] for node in nodes if not node["ignored"] and node["role"]["value"] == "treeitem"]
    seen = explorer.eval_on_selector_all("[role=treeitem] > .gx-row", "rows => rows.map((row) => row.innerText.trim())")
    assert sorted(spoken) == sorted(seen)
    assert len(seen) > 60


def test_the_explorer_follows_the_page_that_it_stands_in(explorer: Any) -> None:
    explorer.emulate_media(color_scheme="light")
    for text, ground, kind in (("#cccccc", "#1f1f1f", "vscode-dark"), ("#3b3b3b", "#ffffff", "vscode-light")):
        explorer.evaluate(
            """([text, ground, kind]) => {
                document.documentElement.style.setProperty('--vscode-editor-foreground', text);
                document.documentElement.style.setProperty('--vscode-editor-background', ground);
                document.body.dataset.vscodeThemeKind = kind;
            }""",
            [text, ground, kind],
        )
        until(explorer, f"{PAGE}.theme.dark === {json.dumps(kind.endswith('dark'))}")
        assert explorer.evaluate(f"{PAGE}.scheme.hues[0]") == ("#4c9fd6" if kind.endswith("dark") else "#0072b2")
        assert explorer.evaluate(f"{PAGE}.theme.dim").startswith(("rgb", "color("))
        assert contrasts(explorer, ".gx")["low"] == []
    explorer.evaluate("() => { document.documentElement.removeAttribute('style'); delete document.body.dataset.vscodeThemeKind; }")


# -- the panels ---------------------------------------------------------------------------------------------------------------------------

_MOUNT = """async ([script, style, state]) => {
    document.head.append(Object.assign(document.createElement('style'), {textContent: style}));
    const module = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
    const nothing = () => {};
    const model = {get: (name) => state[name], set: nothing, on: nothing, off: nothing, send: nothing, save_changes: nothing};
    await module.default.initialize?.({model});
    await module.default.render({model, el: document.getElementById('here')});
}"""


@pytest.mark.parametrize("panel", ["budget", "live"])
def test_the_panels_are_legible_on_every_page_and_axe_finds_no_violation(panel: str, page: Any, tmp_path: Path) -> None:
    training = Training(40)
    if panel == "budget":
        shown: Any = gt.BudgetPanel(gt.GETA(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6)))
    else:
        run = gt.LiveRun(training.step, training.geta, training.optimizer, total_steps=40, evaluate=training.evaluate, every=10)
        run.start().wait()
        shown = run.view
    state = json.loads(json.dumps({name: value for name, value in shown.get_state().items() if not name.startswith("_")}, default=str))
    for name, kind in hosts().items():
        page.emulate_media(color_scheme="dark")
        opened(page, tmp_path / "page.html", page_of('<div id="here"></div>', **kind))
        page.evaluate(_MOUNT, [*shown.assets(), state])
        page.wait_for_function("() => document.querySelector('.gp-panel')")
        found = contrasts(page, ".gp-panel")
        assert found["texts"] > 15
        assert found["low"] == [], name
        if name in ("says nothing", "says dark"):
            assert axe_violations(page) == []
            assert set(page.evaluate(SIDES, ".gp-panel")) == {"light" if name == "says nothing" else "dark"}
