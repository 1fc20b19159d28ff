"""The graph for other tools and readers: each export is offline, the same each time, and shows names as text."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.widgets import exports
from geta_nb.widgets.graph_data import budget_state, graph_data, live_state
from tests.display.checks import check_svg
from tests.small_nets import IMAGES, ROWS, cnn

BAD = "<img src=x onerror=alert(1)> & \\N href=x"


@pytest.fixture(scope="module")
def geta() -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(cnn(), IMAGES)


@pytest.fixture(scope="module")
def hostile() -> gt.GETA:
    model = nn.Sequential()
    model.add_module(BAD.replace("\\N ", ""), nn.Linear(6, 8))
    model.add_module("last", nn.Linear(8, 2))
    return gt.GETA(model, ROWS)


def page_of(geta: gt.GETA) -> str:
    values = {"live_state": live_state(geta), "budget_state": budget_state(geta, gt.Budget()), "layer": "QADG", "colour": "operator"}
    return exports.page("a </title> of <b>", {"graph": graph_data(geta), **values})


class Parts(HTMLParser):
    """Tags with their attributes, and the texts inside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside == "script" and data.strip():
            self.scripts.append(data)


def addresses(page: str) -> list[str]:
    """Whatever a browser would fetch: src and href of any tag, url() and @import of any style."""
    outside = re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    found = re.findall(r"""(?:\bsrc|\bhref|\bsrcset|\bposter|\baction)\s*=\s*["']?([^"'\s>]+)""", outside)
    styles = "".join(re.findall(r"<style\b[^>]*>(.*?)</style>", page, flags=re.S))
    found += [*re.findall(r"url\(([^)]*)\)", styles), *re.findall(r"@import[^;]*", styles)]
    return [one for one in found if not one.strip("'\"").startswith("data:")]


def test_the_page_allows_its_own_two_texts_and_nothing_else(geta: gt.GETA) -> None:
    page = page_of(geta)
    parts = Parts(page)
    policy = next(attrs["content"] for tag, attrs in parts.tags if tag == "meta" and attrs.get("http-equiv"))
    own = r"script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; img-src data:"
    assert policy and re.fullmatch(rf"default-src 'none'; {own}; base-uri 'none'; form-action 'none'", policy)
    script = parts.scripts[1]
    assert exports._hash(script) in policy
    assert addresses(page) == []
    assert not any(key.startswith("on") or key == "style" for _, attrs in parts.tags for key in attrs)


def test_hostile_names_stay_inside_the_pages_data(hostile: gt.GETA) -> None:
    page = page_of(hostile)
    parts = Parts(page)
    assert not [tag for tag, _ in parts.tags if tag in {"img", "b"}]
    assert any("onerror" in path for path in json.loads(parts.scripts[0])["graph"]["modules"]["path"])


def test_the_page_is_the_same_each_time(geta: gt.GETA) -> None:
    assert page_of(geta) == page_of(geta)


def test_static_svg_is_drawn_with_and_without_dot(geta: gt.GETA) -> None:
    own = exports.static_svg(geta, dot=None)
    check_svg(own)
    assert exports.static_svg(geta, dot="no-such-program") == own
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed: only our own drawing was tested")
    drawn = exports.static_svg(geta)
    assert drawn != own and drawn == exports.static_svg(geta)
    root = ElementTree.fromstring(drawn)
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum("conv2d" in text for text in texts) == 2 and sum("W 16" in text for text in texts) == 3


def test_hostile_names_stay_text_in_every_picture(hostile: gt.GETA) -> None:
    for dot in [None, *(["dot"] if shutil.which("dot") else [])]:
        root = ElementTree.fromstring(exports.static_svg(hostile, dot=dot))
        assert not [element for element in root.iter() if element.tag.endswith("img")]
        assert "onerror" in "".join(root.itertext()) + "".join(str(element.attrib) for element in root.iter())


def test_a_large_network_is_drawn_by_module(geta: gt.GETA) -> None:
    count = exports.static_svg(geta, dot=None).count('class="gv-box"')
    assert exports.static_svg(geta, dot=None, max_boxes=3).count('class="gv-box"') <= len(geta.qadg.vertices) == count


def test_to_graphviz_has_every_vertex_and_edge(geta: gt.GETA) -> None:
    pytest.importorskip("graphviz", reason="the extra 'notebook' is not installed")
    graph = gt.to_graphviz(geta)
    assert type(graph).__name__ == "Digraph"
    assert len(re.findall(r"^n\d+ \[", graph.source, flags=re.M)) == len(geta.qadg.vertices)
    assert graph.source.count(" -> ") == len(geta.qadg.edges)
    assert graph.source == gt.to_graphviz(geta).source


def test_a_name_is_never_an_escape_of_dots_own() -> None:
    assert exports._dot('a\\N "b" &lt;\n') == '"a\\\\N \\"b\\" &amp;lt;\\n"'


def test_to_pyvis_is_offline_fixed_and_the_same_each_time(geta: gt.GETA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvis", reason="the extra 'notebook' is not installed")
    monkeypatch.chdir(tmp_path)
    network = gt.to_pyvis(geta)
    page = network.generate_html()
    assert addresses(page) == [] and "cdn" not in re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    assert page == gt.to_pyvis(geta).generate_html()
    assert all(not node["physics"] and {"x", "y"} <= set(node) for node in network.nodes)
    assert '"enabled": false' in json.dumps(json.loads(network.options.to_json())["physics"])
    assert (len(network.nodes), len(network.edges)) == (len(geta.qadg.vertices), len(geta.qadg.edges))
    network.save("graph.html")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.html"]
    assert (tmp_path / "graph.html").read_text(encoding="utf-8") == page


def test_a_hostile_name_does_not_switch_pyvis_to_html_tooltips(hostile: gt.GETA) -> None:
    pytest.importorskip("pyvis", reason="the extra 'notebook' is not installed")
    page = gt.to_pyvis(hostile).generate_html()
    assert "popup" not in re.sub(r"<script>.*?vis-network.*?</script>|<style>.*?</style>", "", page, flags=re.S).split("vis.DataSet")[-1]
    assert "<img src=x" not in page


def test_the_front_end_carries_the_licences_of_what_it_bundles() -> None:
    text = exports.asset("explorer.LICENSES.txt")
    assert "@dagrejs/dagre 3." in text and "@dagrejs/graphlib 4." in text
    assert text.count("Permission is hereby granted") == 2
    assert "explorer.LICENSES.txt" in exports.asset("explorer.js")[:200]
