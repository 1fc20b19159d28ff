"""What every view promises, as functions: well-formed, self-contained, inert, one line of text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "br", "img", "link", "input", "hr"}
INERT = {
    "div",
    "span",
    "style",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "b",
    "details",
    "summary",
    "figure",
    "figcaption",
    "svg",
    "rect",
    "text",
    "title",
    "path",
    "polyline",
    "g",
}
ATTRIBUTES = {
    "class",
    "title",
    "role",
    "aria-label",
    "tabindex",
    "scope",
    "open",
    "width",
    "height",
    "viewbox",
    "xmlns",
    "x",
    "y",
    "rx",
    "d",
    "points",
    "fill",
    "fill-opacity",
    "opacity",
    "stroke-dasharray",
    "text-anchor",
    "shape-rendering",
}


@dataclass
class Page(HTMLParser):
    """Parsed HTML: tags with attributes, texts, and whether every tag was closed."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"} and self.cells:
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.open) and self.cells:
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        """All visible text."""
        return " ".join(self.texts)

    @property
    def titles(self) -> list[str]:
        """All title attributes."""
        return [attributes["title"] for _, attributes in self.tags if "title" in attributes]


def parse(html: str) -> Page:
    """Return the parsed page; fails when a tag is left open."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, f"left open: {page.open}"
    return page


def check_inert(html: str) -> Page:
    """Return the parsed fragment; fails on any tag, attribute or reference that could load or run something."""
    page = parse(html)
    for tag, attributes in page.tags:
        assert tag in INERT, tag
        assert set(attributes) <= ATTRIBUTES, attributes
    outside = re.sub(r'xmlns="http://www\.w3\.org/2000/svg"', "", html)
    styles = re.findall(r"<style>(.*?)</style>", outside, flags=re.S)
    for style in styles:
        assert not re.search(r"https?:|//|url\(|@import|expression\(", style)
        selectors = re.findall(r"([^{}]+)\{[^{}]*\}", style)
        assert all("geta-view" in one for one in selectors), selectors
    return page


def check_svg(svg: str) -> ElementTree.Element:
    """Return the root of a picture; fails when it is no well-formed, self-contained SVG whose shapes lie inside it."""
    check_inert(svg)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<(title|text|style)[^>]*>.*?</\1>|aria-label=\"[^\"]*\"", "", svg, flags=re.S))
    wide, high = float(root.get("width", "0")), float(root.get("height", "0"))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= wide + 0.2, (x, w, wide)  # coordinates are rounded to a tenth, twice
        assert y + h <= high + 0.2, (y, h, high)
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        left, right = text_span(text)
        assert left >= -1, (left, text_of(text))
        assert right <= wide + 1, (right, wide, text_of(text))
    return root


def text_of(text: ElementTree.Element) -> str:
    """Return the drawn text, without its tooltip."""
    return (text.text or "") + "".join(child.tail or "" for child in text)


def text_span(text: ElementTree.Element) -> tuple[float, float]:
    """Return the left and right end of a text, in pixels, by the advance of a monospaced font (0.602 em)."""
    size = 9 if "gv-small" in text.get("class", "") else 11
    long = 0.602 * size * sum(map(_columns, text_of(text)))
    x = float(text.get("x", "0"))
    left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")] * long
    return left, left + long


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def svg_texts(root: ElementTree.Element) -> list[str]:
    """Return every drawn text of a picture."""
    return [text_of(text) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def svg_titles(root: ElementTree.Element) -> list[str]:
    """Return every tooltip of a picture."""
    return [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]


def check_one_line(text: str) -> None:
    """Fail when a text form is more than one readable line."""
    assert text
    assert "\n" not in text
    assert len(text) < 600
    assert "0x" not in text, "an address would differ from run to run"
