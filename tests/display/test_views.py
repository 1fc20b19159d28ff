"""Every view keeps the same promises: one line of text, inert self-contained HTML and SVG, hostile names stay text, same in, same out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from geta_nb.budget import Budget, LayerBudget
from geta_nb.config import QuantConfig
from geta_nb.display import config, cost, geta, groups, optimizer, qadg, quantizers, report, subnet, trace
from geta_nb.display.markup import fragment
from geta_nb.display.wording import clean
from geta_nb.qasso.schedule import Schedule
from tests.display import dummies
from tests.display.checks import check_inert, check_one_line, check_svg, svg_texts, svg_titles

VGG, ENCODER = dummies.vgg7(), dummies.transformer()
FACADE = dummies.geta_of(VGG, dummies.vgg7_graph())
QUANTIZERS = SimpleNamespace(weights={"c": dummies.quantizer()}, activations={}, excluded={"emb.weight": "skipped"})
Made = tuple[Any, Callable[[Any], str], Callable[[Any], str], Callable[[Any], str] | None]

VIEWS: dict[str, Made] = {
    "quantization": (QuantConfig(skip=("head.*",)), config.quant_text, config.quant_html, None),
    "budget": (Budget(relative_bops=0.03, exceptions={"a.*": LayerBudget(protect=True)}), config.budget_text, config.budget_html, None),
    "exception": (LayerBudget(bit_range=(8, 8), max_sparsity=0.3), config.layer_budget_text, config.layer_budget_html, None),
    "schedule": (Schedule.for_steps(1000), config.schedule_text, config.schedule_html, config.schedule_svg),
    "trace": (dummies.trace_of(dummies.vgg7_graph()), trace.trace_text, trace.trace_html, None),
    "group": (dummies.groups_of(VGG)[3], groups.group_text, groups.group_html, None),
    "family": (dummies.groups_of(VGG).families[1], groups.family_text, groups.family_html, None),
    "groups": (dummies.groups_of(VGG), groups.groups_text, groups.groups_html, None),
    "protected": (dummies.protected_of(VGG), groups.protected_text, groups.protected_html, None),
    "qadg": (dummies.vgg7_graph(), qadg.qadg_text, qadg.qadg_html, qadg.qadg_svg),
    "qadg of an encoder": (dummies.transformer_graph(3), qadg.qadg_text, qadg.qadg_html, qadg.qadg_svg),
    "quantizer": (dummies.quantizer(3, 1.5, 0.8), quantizers.quantizer_text, quantizers.quantizer_html, quantizers.quantizer_svg),
    "fresh quantizer": (dummies.quantizer(float("nan")), quantizers.quantizer_text, quantizers.quantizer_html, quantizers.quantizer_svg),
    "unsigned quantizer": (
        dummies.quantizer(3, signed=False), quantizers.quantizer_text, quantizers.quantizer_html, quantizers.quantizer_svg,
    ),
    "quantizer of channels": (
        dummies.quantizer(3, channels=5), quantizers.quantizer_text, quantizers.quantizer_html, quantizers.quantizer_svg,
    ),
    "quantizers": (QUANTIZERS, quantizers.quantizers_text, quantizers.quantizers_html, None),
    "vertex": (dummies.vgg7_graph().vertices[1], qadg.vertex_text, lambda _: fragment("none"), None),
    "branch": (dummies.vgg7_graph().branches[0], qadg.branch_text, lambda _: fragment("none"), None),
    "optimizer": (dummies.optimizer_of(VGG), optimizer.optimizer_text, optimizer.optimizer_html, None),
    "costs": (dummies.costs_of(VGG), cost.costs_text, cost.costs_html, cost.costs_svg),
    "dense costs": (dummies.costs_of(VGG).dense, cost.costs_text, cost.totals_html, None),
    "preview of an encoder": (dummies.costs_of(ENCODER), cost.costs_text, cost.preview_html, cost.costs_svg),
    "report": (dummies.report_of(VGG, {"accuracy": 0.9257}), report.report_text, report.report_html, report.report_svg),
    "report of an encoder": (dummies.report_of(ENCODER), report.report_text, report.report_html, report.report_svg),
    "subnet": (dummies.subnet_of(VGG), subnet.subnet_text, subnet.subnet_html, None),
    "facade": (FACADE, geta.geta_text, geta.geta_html, geta.geta_svg),
}


@pytest.mark.parametrize("key", VIEWS)
def test_the_text_is_one_line(key: str) -> None:
    shown, text, _, _ = VIEWS[key]
    check_one_line(text(shown))


@pytest.mark.parametrize("key", VIEWS)
def test_the_html_is_inert_and_its_style_stays_inside(key: str) -> None:
    shown, _, html, _ = VIEWS[key]
    page = check_inert(html(shown))
    assert page.tags[0] == ("div", {"class": "geta-view"})


@pytest.mark.parametrize("key", [key for key, made in VIEWS.items() if made[3]])
def test_the_picture_is_well_formed_and_nothing_leaves_it(key: str) -> None:
    shown, _, _, svg = VIEWS[key]
    assert svg
    check_svg(svg(shown))


@pytest.mark.parametrize("key", VIEWS)
def test_the_same_object_gives_the_same_view(key: str) -> None:
    shown, _, html, svg = VIEWS[key]
    assert html(shown) == html(shown)
    assert svg is None or svg(shown) == svg(shown)


def hostile_objects(bad: str) -> dict[str, Made]:
    """Every kind of object with a name that means harm."""
    row = {**VGG.layers[0], "layer": bad, "operator": bad, "module_path": bad}
    net = dummies.Net(bad, [row, VGG.layers[1]])
    graph = dummies.vgg7_graph()
    graph.vertices[1] = dummies.vertex(bad, bad, bad, family=bad, weight_quantizer=bad)
    graph.edges[:] = [(bad if a == "op0" else a, bad if b == "op0" else b) for a, b in graph.edges]
    graph.branches[:] = [SimpleNamespace(name=bad, kind=bad, nodes=(bad,), entry=bad, exit=bad, operator=bad)]
    facade = dummies.geta_of(net, graph)
    protected = [dummies.Entry(bad, bad, bad)]
    quants = SimpleNamespace(weights={bad: dummies.quantizer()}, activations={bad: dummies.quantizer()}, excluded={bad: bad})
    budget = Budget(exceptions={bad: LayerBudget(protect=True)})
    return {
        "quantization": (QuantConfig(skip=(bad,)), config.quant_text, config.quant_html, None),
        "budget": (budget, config.budget_text, config.budget_html, None),
        "trace": (dummies.trace_of(graph), trace.trace_text, trace.trace_html, None),
        "group": (dummies.group_of(bad, bad, 0, 0), groups.group_text, groups.group_html, None),
        "groups": (dummies.groups_of(net), groups.groups_text, groups.groups_html, None),
        "family": (dummies.groups_of(net).families[0], groups.family_text, groups.family_html, None),
        "protected": (protected, groups.protected_text, groups.protected_html, None),
        "qadg": (graph, qadg.qadg_text, qadg.qadg_html, qadg.qadg_svg),
        "quantizers": (quants, quantizers.quantizers_text, quantizers.quantizers_html, None),
        "optimizer": (dummies.optimizer_of(net), optimizer.optimizer_text, optimizer.optimizer_html, None),
        "preview": (dummies.costs_of(net, assumptions=(bad,)), cost.costs_text, cost.preview_html, cost.costs_svg),
        "report": (dummies.report_of(net, {bad: bad}), report.report_text, report.report_html, report.report_svg),
        "subnet": (dummies.subnet_of(net), subnet.subnet_text, subnet.subnet_html, None),
        "facade": (facade, geta.geta_text, geta.geta_html, geta.geta_svg),
    }


@pytest.mark.parametrize("key", hostile_objects("x"))
@pytest.mark.parametrize("bad", dummies.HOSTILE, ids=range(len(dummies.HOSTILE)))
def test_a_hostile_name_stays_text(key: str, bad: str) -> None:
    shown, text, html, svg = hostile_objects(bad)[key]
    assert "\n" not in text(shown)
    page = check_inert(html(shown))
    whole = clean(bad)
    found = [*page.texts, *page.titles]
    assert any(whole in one or one.startswith(whole[:8]) for one in found), "the name is shown, or its beginning with the whole as a title"
    html(shown).encode()
    if svg:
        root = check_svg(svg(shown))
        assert any(whole in one for one in [*svg_texts(root), *svg_titles(root)])


def test_importing_the_views_loads_no_plotting_and_no_widgets() -> None:
    heavy = ("matplotlib", "ipywidgets", "anywidget", "IPython", "graphviz")
    code = f"import sys, geta_nb.display; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "shown", [Budget(0.3), QuantConfig(), Schedule.for_steps(100), LayerBudget(protect=True)], ids=lambda s: type(s).__name__
)
def test_registered_objects_show_html_in_a_notebook(shown: Any) -> None:
    import geta_nb.display  # noqa: F401  fills the registry

    bundle = shown._repr_mimebundle_()
    check_inert(bundle["text/html"])
    check_one_line(bundle["text/plain"])
