"""Claims about the scripts of widgets: a page holds each once, and every widget finds it, closed or not."""

from __future__ import annotations

import json

import ipywidgets
import pytest

import geta_nb as gt
from geta_nb.widgets.explorer import Explorer
from geta_nb.widgets.page_script import PageScript, PageWidget, loader
from geta_nb.widgets.panel_assets import joined_module, panel_style
from tests.small_nets import IMAGES, cnn


@pytest.fixture
def geta():
    return gt.GETA(cnn(), (IMAGES,))


def size_of(widget):
    """Bytes of the state that travels with one widget, without the graph, which is its own."""
    return sum(len(value) if isinstance(value, bytes | str) else len(json.dumps(value, default=str)) for name, value in
               widget.get_state().items() if name != "graph")


def test_forty_widgets_carry_one_script(geta):
    made = [Explorer(geta) for _ in range(20)] + [gt.BudgetPanel(geta) for _ in range(20)]
    assert len({id(widget.script) for widget in made}) == 2
    assert {widget.script_key for widget in made[:20]} != {widget.script_key for widget in made[20:]}
    script = len(joined_module("budget.js"))
    assert max(map(size_of, made)) < script / 2 and script > 5000
    assert made[-1].script.code == joined_module("budget.js") and made[-1].script.style == panel_style()


def test_every_widget_sends_the_loader_alone(geta):
    assert {Explorer(geta).get_state()["_esm"], gt.BudgetPanel(geta).get_state()["_esm"]} == {loader()}
    assert "http" not in loader() and "innerHTML" not in loader()


def test_a_script_that_was_closed_is_made_again(geta):
    first = gt.BudgetPanel(geta)
    ipywidgets.Widget.close_all()
    second = gt.BudgetPanel(geta)
    assert second.script is not first.script and second.script_key == first.script_key
    assert second.script.comm is not None


def test_a_page_without_the_script_is_told_it(geta):
    panel, sent = gt.BudgetPanel(geta), []
    panel.send = sent.append
    panel._handle_custom_msg({"kind": "script"}, [])
    assert sent == [{"kind": "script", "code": joined_module("budget.js"), "style": panel_style()}]


def test_a_widget_that_was_closed_opens_again_when_it_is_displayed(geta):
    panel = gt.BudgetPanel(geta)
    name = panel.model_id
    panel.close()
    assert panel.comm is None and panel.layout.comm is None
    panel.budget = gt.Budget(group_sparsity=0.25)  # lives on in Python
    bundle = panel._repr_mimebundle_()
    assert panel.comm is not None and panel.layout.comm is not None and panel.script.comm is not None
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id == name
    assert "0.25" in panel.get_state()["result"]["code"]


def test_what_a_page_says_beside_a_dictionary_is_nothing(geta):
    panel = gt.BudgetPanel(geta)
    before = panel.get_state()
    for content in (None, 3, "script", [{"kind": "script"}]):
        panel._handle_custom_msg(content, [])
    assert panel.get_state() == before


def test_a_class_without_assets_cannot_be_shown():
    with pytest.raises(NotImplementedError):
        PageWidget()
    assert PageScript().get_state()["_esm"] == "export default {};"
