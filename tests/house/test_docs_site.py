"""``make docs`` builds the site without a warning; links lead somewhere, nothing is fetched, every public name and tutorial is there."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import geta_nb as gt
from tests.browser import lab as lab_browser
from tests.browser import legible
from tests.house import imports as house

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Collects what a page refers to, its anchors, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.raw = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag != "a":
            self.fetched += [values[name] for name in ("href", "src") if values.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site, pages):
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are those of a server's top
        for link in page.links + page.fetched:
            if re.match(r"[a-z]+:|#?$", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            found = (path.parent / target.partition("?")[0]).resolve() if target else path
            if not found.is_file() or (anchor and found in pages and anchor not in pages[found].anchors):
                broken.append((path.relative_to(site).as_posix(), link))
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(pages):
    remote = {link for page in pages.values() for link in page.fetched if re.match(r"(https?:)?//", link)}
    assert remote == set()
    for page in pages.values():
        assert not re.search(r"(from|import)\s*\(?\s*[\"'`]https?:|@import|url\([\"']?https?:", page.raw)


def test_every_public_name_is_documented(pages):
    anchors = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "reference"))
    missing = [name for name in gt.__all__ if not any(re.fullmatch(rf"geta_nb(\.\w+)*\.{name}", anchor) for anchor in anchors)]
    assert missing == []


def test_every_public_function_and_class_of_the_package_says_what_it_is():
    silent, seen = [], 0
    for dotted in house.modules():
        if house.place(dotted) in house.OUTSIDE:
            continue  # these want every extra
        module = importlib.import_module(dotted)
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == dotted and callable(value):
                seen += 1
                silent += [] if value.__doc__ else [f"{dotted}.{name}"]
    assert silent == [] and seen > 300


@pytest.mark.parametrize("path", sorted((ROOT / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_is_a_page_with_its_pictures_and_formulas(path, site, pages):
    page = pages[site / "tutorials" / f"{path.stem}.html"]
    assert page.tags >= {"svg"} or "data:image/png" in page.raw
    visible = re.sub(r"<(pre|script|style|svg|code)\b[\s\S]*?</\1>", "", page.raw)
    assert not re.search(r"\$[^$\n<>]{1,80}\$", visible)
    solutions = path.read_text().count('"source_hidden": true')
    assert page.raw.count('<details class="solution">') == solutions > 0
    if re.search(r"\$\\\\|\$\$", path.read_text()):
        assert "math" in page.tags


def test_all_notebooks_and_pages_of_the_project_are_in_the_site(site, pages):
    wanted = [path for folder in ("tutorials", "notebooks") for path in (ROOT / folder).glob("*.ipynb")]
    assert [path.name for path in wanted if site / path.parent.name / f"{path.stem}.html" not in pages] == []


OF_THE_THEME = {"landmark-unique": False}  # its navigation names one part of itself twice
PLAIN = ("index", "baselines")


@pytest.mark.parametrize(("desktop", "more"), [("light", Path("reference", "configuration")), ("dark", Path("tutorials", "10_in_your_ci"))])
def test_axe_finds_no_violation_of_our_own(desktop, more, site):
    """On prose, a wide table, a page of the reference, and a notebook with a traceback."""
    lab_browser.need_browser()
    with lab_browser.browser_page(dark=desktop == "dark") as page:
        for name in (*PLAIN, more):
            page.goto((site / f"{name}.html").as_uri(), wait_until="load")
            assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[desktop]
            assert legible.axe_violations(page, rules=OF_THE_THEME) == [], name


@pytest.mark.parametrize("desktop", ["light", "dark"])
def test_every_text_of_the_tutorials_and_the_reference_is_legible(desktop, site):
    """Code, tracebacks and views, in the site's own light and dark, which mkdocs-jupyter's mark of a light notebook does not change."""
    lab_browser.need_browser()
    views = 0
    with lab_browser.browser_page(dark=desktop == "dark") as page:
        for path in sorted([*(site / "tutorials").glob("*.html"), site / "any_network.html", site / "reference" / "artefacts.html"]):
            page.goto(path.as_uri())
            assert legible.contrasts(page, ".md-content")["low"] == [], path.stem
            views += page.locator(".geta-view").count()
    assert views > 30


def test_what_scrolls_takes_the_focus_and_only_while_it_scrolls(site):
    lab_browser.need_browser()
    boxes = "() => [...document.querySelectorAll('[data-reached]')].map((box) => [box.tabIndex, box.getAttribute('aria-label')])"
    with lab_browser.browser_page(width=420) as page:
        page.goto((site / "baselines.html").as_uri(), wait_until="load")
        narrow = page.evaluate(boxes)
        assert [0, "table"] in narrow
        page.set_viewport_size({"width": 2400, "height": 1000})
        page.wait_for_function("() => [...document.querySelectorAll('[data-reached]')].some((box) => box.tabIndex === -1)")
        assert len(page.evaluate(boxes)) == len(narrow)


def test_search_works_on_pages_opened_from_a_folder(site):
    lab_browser.need_browser()
    with lab_browser.browser_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "reference" / "parts.html").as_uri())
        page.wait_for_function("typeof __index === 'object'")
        page.locator(".md-search__input").press_sequentially("forget rate")  # keys: a field filled at once may pass unseen
        page.wait_for_selector(".md-search-result__link", state="attached", timeout=20_000)
        assert page.locator(".md-search-result__link").count() >= 3
        assert not [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))]
