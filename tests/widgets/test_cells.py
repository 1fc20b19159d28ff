"""Claims about cells that run again: what nobody sees any longer is closed, and nothing else."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import ipywidgets
import pytest

import geta_nb as gt
from geta_nb.widgets import cells
from tests.small_nets import IMAGES, cnn


class Shell:
    """As much of a kernel's shell as cells need: which cell runs, the how-manieth run it is, and what hears of its end."""

    def __init__(self):
        self.execution_count, self.cell = 0, None
        self.events = SimpleNamespace(callbacks={"post_run_cell": []}, register=lambda name, act: self.events.callbacks[name].append(act))

    def get_parent(self):
        kind = "execute_request" if self.cell else "comm_msg"
        return {"header": {"msg_type": kind}, "metadata": {"cellId": self.cell} if self.cell else {}}

    def run(self, cell, act):
        self.execution_count, self.cell = self.execution_count + 1, cell
        count = self.execution_count
        shown = act()
        if hasattr(shown, "_repr_mimebundle_"):
            shown._repr_mimebundle_()
        for heard in list(self.events.callbacks["post_run_cell"]):
            heard(SimpleNamespace(info=SimpleNamespace(cell_id=cell), execution_count=count))
        self.cell = None
        return shown


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    monkeypatch.setattr(cells, "_shell", lambda: made)
    return made


@pytest.fixture
def geta():
    return gt.GETA(cnn(), (IMAGES,))


def test_the_widget_of_a_cell_that_runs_again_is_closed(shell, geta):
    first = shell.run("a", lambda: gt.BudgetPanel(geta))
    second = shell.run("a", lambda: gt.BudgetPanel(geta))
    assert first.comm is None and second.comm is not None


def test_thirty_runs_of_a_cell_leave_the_widgets_of_one(shell, geta):
    first = weakref.ref(shell.run("a", lambda: gt.BudgetPanel(geta)))
    gc.collect()
    before = len(ipywidgets.widgets.widget._instances)
    for _ in range(30):
        last = shell.run("a", lambda: gt.BudgetPanel(geta))
    open_now = list(ipywidgets.widgets.widget._instances.values())
    assert [widget for widget in open_now if getattr(widget, "geta", None) is geta] == [last]
    assert len(open_now) <= before
    gc.collect()
    assert first() is None  # and nothing holds what was closed


def test_a_widget_that_another_cell_displays_stays_until_that_runs_again(shell, geta):
    panel = shell.run("a", lambda: gt.BudgetPanel(geta))
    shell.run("b", lambda: panel)
    shell.run("a", lambda: gt.BudgetPanel(geta))
    assert panel.comm is not None
    shell.run("b", lambda: None)
    assert panel.comm is None


def test_a_widget_that_the_same_cell_displays_again_stays(shell, geta):
    panel = shell.run("a", lambda: gt.BudgetPanel(geta))
    shell.run("b", lambda: panel)
    shell.run("b", lambda: panel)
    assert panel.comm is not None


def test_a_widget_inside_another_is_not_closed_without_it(shell, geta):
    box = shell.run("a", lambda: ipywidgets.HBox([gt.BudgetPanel(geta)]))
    shell.run("a", lambda: None)
    assert box.children[0].comm is not None


def test_a_studio_goes_with_its_three_but_for_one_that_stands_elsewhere(shell, geta):
    studio = shell.run("a", lambda: gt.studio(geta))
    shell.run("b", lambda: studio.panel)
    shell.run("a", lambda: None)
    assert studio.comm is None and studio.explorer.comm is None and studio.panel.comm is not None


def test_what_a_thread_or_a_message_makes_belongs_to_no_cell(shell, geta):
    panel = gt.BudgetPanel(geta)
    shell.run("a", lambda: None)
    shell.run("a", lambda: None)
    assert panel.comm is not None


def test_without_a_kernel_nothing_is_remembered(geta):
    panel = gt.BudgetPanel(geta)
    assert not cells.stands_in_a_cell(panel)
