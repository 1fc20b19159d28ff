"""Claims about what was decided for a network: all its widgets show one budget, undo goes back over all of them, names and files hold."""

from __future__ import annotations

import gc
import json
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import geta_nb as gt
from geta_nb.errors import ArtifactError, BudgetError, ConfigError, RunStateError
from geta_nb.widgets.decisions import MOST_STEPS, Decisions, decisions_of
from geta_nb.widgets.decisions_file import FORMAT, budget_from, values_of
from geta_nb.widgets.panel_families import Families
from tests.small_nets import IMAGES, Residual, cnn
from tests.widgets.live_runs import Gated, Training
from tests.widgets.test_budget_panel import budgets, send


@pytest.fixture
def geta():
    return gt.GETA(cnn(), IMAGES)


def ask(panel, action, **more):
    """Send what the page would send, through the widget's own message handler."""
    panel._handle_custom_msg({"action": action, **more}, [])


def test_widgets_of_one_network_share_one_budget_wherever_they_were_made(geta):
    explorer, panel = gt.Explorer(geta, budget=gt.Budget(0.25)), gt.BudgetPanel(geta)
    explorer.protect(0)
    assert panel.budget == explorer.budget == gt.Budget(0.25, exceptions={"0": gt.LayerBudget(protect=True)})
    assert panel.result["code"] == panel.code and "protect" in panel.code and panel.preview == geta.preview(panel.budget)
    send(panel, 1, group_sparsity=0.3)
    assert explorer.budget == panel.budget == gt.Budget(0.3, exceptions={"0": gt.LayerBudget(protect=True)})
    assert explorer.budget_state["line"] == panel.code
    later = gt.BudgetPanel(geta), gt.Explorer(geta)
    assert all(widget.budget == panel.budget for widget in later)
    other = gt.BudgetPanel(gt.GETA(cnn(), IMAGES))
    assert other.budget == gt.Budget()


def test_a_widget_made_with_a_budget_gives_it_to_all_and_one_step_back_takes_it_away(geta):
    panel = gt.BudgetPanel(geta)
    gt.Explorer(geta, budget=gt.Budget(0.2))
    assert panel.budget == gt.Budget(0.2)
    assert panel.undo() == gt.Budget()


def test_undo_goes_back_over_all_widgets_and_redo_forward_until_something_else_is_done(geta):
    explorer, panel = gt.Explorer(geta), gt.BudgetPanel(geta)
    assert panel.steps == {"undo": "", "redo": ""} and panel.undo() == gt.Budget()
    panel.budget = gt.Budget(0.25)
    explorer.set_bits(0, 8, 8)
    marked = panel.budget
    assert panel.steps == {"undo": "gt.Budget(group_sparsity=0.25)", "redo": ""}
    assert panel.undo() == explorer.budget == gt.Budget(0.25)
    ask(panel, "undo")
    assert explorer.budget == panel.budget == gt.Budget() and panel.form["group_sparsity"] == 0.5
    ask(panel, "redo")
    ask(panel, "redo")
    assert panel.budget == marked and explorer.budget_state["bits"][0] == [8, 8] and panel.steps["redo"] == ""
    panel.undo()
    panel.budget = gt.Budget(0.1)
    assert panel.redo() == gt.Budget(0.1) and panel.undo() == gt.Budget(0.25)


def test_one_drag_is_one_step(geta):
    panel = gt.BudgetPanel(geta)
    for number, share in enumerate((0.45, 0.4, 0.35, 0.3), 1):
        send(panel, number, group_sparsity=share, act="page.1")
    send(panel, 5, group_sparsity=0.2, act="page.2")
    assert panel.undo() == gt.Budget(0.3) and panel.undo() == gt.Budget() and panel.steps["undo"] == ""
    assert panel.redo() == gt.Budget(0.3) and panel.redo() == gt.Budget(0.2)


def test_a_drag_that_comes_back_to_where_it_began_is_no_step(geta):
    panel = gt.BudgetPanel(geta)
    panel.budget = gt.Budget(0.25)
    for number, share in enumerate((0.3, 0.25), 1):
        send(panel, number, group_sparsity=share, act="page.1")
    assert panel.undo() == gt.Budget()


@given(st.lists(st.sampled_from(["undo", "redo", *range(5)]), max_size=30))
@settings(max_examples=150, deadline=None)
def test_steps_are_those_of_a_plain_list_of_states(acts):
    """The model: a list of budgets and where we are in it."""

    class Plain:
        comm = object()

        def __init__(self, decisions):
            self._budget, self.decisions = decisions.budget, decisions

        @property
        def budget(self):
            return self._budget

        @budget.setter
        def budget(self, value):
            changed, self._budget = value != self._budget, value
            if changed:
                self.decisions._heard({"new": value, "owner": self})

        def observe(self, *_):
            pass

    decisions = Decisions()
    widgets = [Plain(decisions), Plain(decisions)]
    for widget in widgets:
        decisions.join(widget)
    states, at = [gt.Budget()], 0
    for i, act in enumerate(acts):
        widget = widgets[i % 2]
        if act == "undo":
            assert decisions.undo(widget) == (at > 0)
            at = max(at - 1, 0)
        elif act == "redo":
            assert decisions.redo(widget) == (at < len(states) - 1)
            at = min(at + 1, len(states) - 1)
        else:
            budget = gt.Budget(act / 10)
            widget.budget = budget
            if budget != states[at]:
                states, at = [*states[: at + 1], budget], at + 1
        assert decisions.budget == states[at] and all(w.budget == states[at] for w in widgets)
        assert decisions.before == (states[at - 1] if at else None)


def test_steps_are_bounded():
    decisions = Decisions()
    for i in range(2 * MOST_STEPS):
        decisions._record(gt.Budget(1 / (i + 2)))
        decisions.budget = gt.Budget(1 / (i + 2))
    assert len(decisions._undo) == MOST_STEPS


def test_what_a_panel_refuses_changes_no_widget_and_is_no_step(geta):
    explorer, panel = gt.Explorer(geta), gt.BudgetPanel(geta)
    with pytest.raises(BudgetError, match="more groups than may be removed"):
        explorer.budget = gt.Budget(0.99)
    assert explorer.budget == panel.budget == gt.Budget() and panel.steps["undo"] == ""
    assert "more groups" in panel.result["errors"]["target"] and explorer.budget_state["line"] == panel.code
    with pytest.raises(BudgetError, match="more groups than may be removed"):
        gt.Explorer(geta, budget=gt.Budget(0.99))
    panel.budget = gt.Budget(0.75)
    explorer.handle({"kind": "protect", "family": 0, "on": True})
    assert "more groups than may be removed" in explorer.message and explorer.budget == panel.budget == gt.Budget(0.75)


def test_one_change_is_priced_once_for_all_panels(geta, monkeypatch):
    panels, previews, preview = [gt.BudgetPanel(geta) for _ in range(4)], [], geta.preview
    monkeypatch.setattr(geta, "preview", lambda *args, **options: previews.append(preview(*args, **options)) or previews[-1])
    send(panels[1], 1, group_sparsity=0.25)
    assert len(previews) == 1 and all(panel.preview == previews[0] for panel in panels)
    gt.Explorer(geta).set_bits(0, 8, 8)
    assert len(previews) == 2


def test_a_closed_widget_takes_no_part(geta):
    first, second = gt.BudgetPanel(geta), gt.BudgetPanel(geta)
    first.close()
    second.budget = gt.Budget(0.25)
    assert first.budget == gt.Budget() and decisions_of(geta).members == [second]


def test_decisions_keep_no_network_and_no_widget_alive():
    geta = gt.GETA(cnn(), IMAGES)
    panel = gt.BudgetPanel(geta)
    found = [weakref.ref(thing) for thing in (geta, panel, decisions_of(geta))]
    panel.close()
    del geta, panel
    gc.collect()
    assert [ref() for ref in found] == [None, None, None]


def test_changes_from_many_threads_leave_all_widgets_with_one_budget(geta):
    panels, errors = [gt.BudgetPanel(geta) for _ in range(3)], []

    def change(panel, first):
        try:
            for i in range(8):
                panel.budget = gt.Budget((first + i) / 100)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(panel, 10 * i)) for i, panel in enumerate(panels)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and {panel.budget.group_sparsity for panel in panels} == {decisions_of(geta).budget.group_sparsity}


# -- names and files ---------------------------------------------------------------------------------------------------------------


def test_budgets_under_names_stand_in_all_panels_with_what_they_cost(geta):
    panel, beside = gt.BudgetPanel(geta), gt.BudgetPanel(geta)
    assert panel.keep() == "A"
    panel.budget = gt.Budget(0.25)
    ask(panel, "keep", name="")
    ask(panel, "keep", name=" careful ")
    assert list(panel.named) == ["A", "B", "careful"] and beside.columns == panel.columns
    first = panel.columns[0]
    assert first["code"] == "gt.Budget(group_sparsity=0.5)" and first["totals"]["bops"] == geta.preview(gt.Budget()).bops
    json.dumps(panel.columns, allow_nan=False)
    ask(beside, "use", name="A")
    assert panel.budget == gt.Budget() and panel.undo() == gt.Budget(0.25)
    ask(panel, "forget", name="B")
    assert list(beside.named) == ["A", "careful"] and gt.BudgetPanel(geta).columns == panel.columns


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "a\nb", 3])
def test_what_is_no_name_is_refused(geta, name):
    with pytest.raises(ConfigError, match="not a name for a budget"):
        gt.BudgetPanel(geta).keep(name)


def test_a_name_that_there_is_not_is_said(geta):
    panel = gt.BudgetPanel(geta)
    with pytest.raises(ConfigError, match=r"(?s)no budget of that name.*got: +'B'"):
        panel.use("B")
    ask(panel, "forget", name="B")
    assert "no budget of that name" in panel.result["errors"]["target"]


@given(budgets)
@settings(max_examples=150, deadline=None)
def test_a_budget_survives_its_json(budget):
    again = budget_from(json.loads(json.dumps(values_of(budget), allow_nan=False)))
    assert again == budget and list(again.exceptions) == list(budget.exceptions)


def test_what_was_saved_is_loaded_by_a_panel_of_another_network(geta, tmp_path):
    panel = gt.BudgetPanel(geta, gt.Budget(0.25, exceptions={"3": gt.LayerBudget(bit_range=(8, 8))}))
    panel.keep("before")
    panel.budget = gt.Budget(relative_bops=0.05)
    path = panel.save(tmp_path / "b.json")
    assert [file.name for file in tmp_path.iterdir()] == ["b.json"]
    other = gt.BudgetPanel(gt.GETA(cnn(), IMAGES))
    other.keep("mine")
    assert other.load(path) == other.budget == gt.Budget(relative_bops=0.05)
    assert other.named == {"mine": gt.Budget(), **panel.named} and other.undo() == gt.Budget()


def test_a_file_that_cannot_be_written_leaves_the_old_one(geta, tmp_path, monkeypatch):
    panel = gt.BudgetPanel(geta)
    path = panel.save(tmp_path / "b.json")
    before = path.read_bytes()
    panel.budget = gt.Budget(0.25)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        panel.save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["b.json"]


GOOD = {"format": FORMAT, "budget": {"group_sparsity": 0.5}, "named": {}}


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "{}", b"\x80\x04K\x01.", json.dumps({**GOOD, "format": "other 1"}), json.dumps({**GOOD, "more": 1}),
        json.dumps({**GOOD, "budget": {"group_sparsity": 7}}), json.dumps({**GOOD, "budget": {"hope": 1}}),
        json.dumps({**GOOD, "budget": {"exceptions": {"a": {"protect": "yes"}}}}), json.dumps({**GOOD, "budget": {"exceptions": []}}),
        json.dumps({**GOOD, "named": {"": {}}}), json.dumps({**GOOD, "named": []}), '{"budget": ' + "[" * 100_000,
        json.dumps({**GOOD, "budget": {"bit_range": "48"}}), json.dumps(GOOD).replace("0.5", "NaN"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_ours_is_refused_and_changes_nothing(geta, tmp_path, text):
    path = tmp_path / "b.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    panel = gt.BudgetPanel(geta, gt.Budget(0.25))
    with pytest.raises(ArtifactError, match="not a file of budgets"):
        panel.load(path)
    with pytest.raises(ArtifactError, match="not a file of budgets"):
        panel.load(tmp_path / "none.json")
    assert panel.budget == gt.Budget(0.25) and panel.named == {}


@pytest.mark.parametrize("where", ["budget", "named"])
def test_a_file_with_a_budget_that_this_network_cannot_meet_is_refused_whole(geta, tmp_path, where):
    bad = {"exceptions": {"no such": {"protect": True}}}
    values = {**GOOD, "budget": bad} if where == "budget" else {**GOOD, "named": {"A": {}, "B": bad}}
    path = tmp_path / "b.json"
    path.write_text(json.dumps(values))
    panel = gt.BudgetPanel(geta, gt.Budget(0.25))
    with pytest.raises(BudgetError, match="matches no layer" if where == "budget" else "budget 'B' does not fit this network"):
        panel.load(path)
    assert panel.budget == gt.Budget(0.25) and panel.named == {}


def test_the_budget_is_written_into_the_notebook_as_a_line_of_python(geta, monkeypatch):
    written = []

    class Shell:
        def set_next_input(self, text, replace=False):
            written.append((text, replace))

    panel = gt.BudgetPanel(geta, gt.Budget(0.25))
    with pytest.raises(RunStateError, match="no cell to write to"):
        panel.to_cell()
    monkeypatch.setattr("IPython.core.getipython.get_ipython", Shell)
    panel.to_cell()
    panel.to_cell("mine", replace=True)
    assert written == [("budget = gt.Budget(group_sparsity=0.25)", False), ("mine = gt.Budget(group_sparsity=0.25)", True)]
    for wrong in ("", "two words", "1a", None):
        with pytest.raises(ConfigError, match="not the name of a variable"):
            panel.to_cell(wrong)


def test_while_a_run_goes_on_nothing_goes_back_and_nothing_is_loaded_but_names_are_kept(tmp_path):
    training = Training(8)
    gate = Gated(training=training)
    panel, run = gt.BudgetPanel(training.geta), gate.run(total=4)
    panel.budget = gt.Budget(0.25)
    panel.keep("A")
    path = panel.save(tmp_path / "b.json")
    panel.budget = gt.Budget()
    run.start()
    for act in (panel.undo, lambda: panel.use("A"), lambda: panel.load(path), lambda: gt.BudgetPanel(training.geta, gt.Budget(0.25))):
        with pytest.raises(RunStateError, match="stop the run, change the budget, then start"):
            act()
    assert panel.budget == gt.Budget() and panel.steps["undo"] == "gt.Budget(group_sparsity=0.25)"
    assert panel.keep() == "B" and panel.plan == {}
    gate.ask(run, "stop")
    assert panel.undo() == gt.Budget(0.25)


# -- families and plans ------------------------------------------------------------------------------------------------------------


def test_to_keep_one_layer_of_a_family_keeps_the_family_and_the_page_is_told_which_layers_that_are():
    panel = gt.BudgetPanel(gt.GETA(Residual(), IMAGES))
    rows = {row["name"]: row for row in panel.facts["layers"]}
    assert rows["stem"]["families"] == rows["body"]["families"] and len(rows["stem"]["families"]) == 1
    family = rows["stem"]["families"][0]
    send(panel, 1, exceptions={rows["body"]["pattern"]: {"protect": True}}, group_sparsity=0.0)
    assert panel.result["kept"] == [family]
    assert {"stem", "body", "stem.weight", "body.weight"} <= set(panel.facts["makers"][family])
    send(panel, 2, exceptions={}, group_sparsity=0.0)
    assert panel.result["kept"] == []


def test_patterns_that_name_a_maker_protect_that_family_and_no_other():
    geta = gt.GETA(Residual(), IMAGES)
    families = Families(geta)
    for family, patterns in enumerate(families.makers()):
        assert patterns
        for pattern in patterns:
            assert families.kept(gt.Budget(exceptions={pattern: gt.LayerBudget(protect=True)})) == [family]


def test_channels_are_told_before_and_after(geta):
    panel = gt.BudgetPanel(geta)
    dense = {row["name"]: row["channels"] for row in panel.facts["layers"]}
    assert dense == {row.layer: row.channels for row in geta.cost.dense.layers}
    assert {name: row[5] for name, row in panel.result["layers"].items()} == {row.layer: row.channels for row in panel.preview.layers}


@pytest.mark.parametrize("budget", [gt.Budget(0.5), gt.Budget(relative_bops=0.04)])
def test_what_an_ended_run_gave_each_layer_is_shown_with_the_reason(budget):
    training = Training(40)
    studio = gt.studio(training.geta, lambda i, o: (setattr(training, "optimizer", o), training.step(i))[1], total_steps=40)
    studio.budget = budget
    assert studio.panel.plan == {}
    studio.run.start().wait()
    bits = training.geta.bit_widths()
    assert {layer: words for layer, (words, _) in studio.panel.plan.items()} == {layer: f"{b:g} bit" for layer, b in bits.items()}
    assert all(why for _, why in studio.panel.plan.values())


def test_a_panel_that_is_displayed_again_has_what_it_missed_while_it_was_closed():
    geta = gt.GETA(cnn(), (IMAGES,))
    panel, other = gt.BudgetPanel(geta), gt.BudgetPanel(geta)
    panel.close()
    other.budget = gt.Budget(group_sparsity=0.25)
    assert panel.budget != other.budget
    panel._repr_mimebundle_()
    assert panel.budget == other.budget and "0.25" in panel.get_state()["result"]["code"]
    panel.budget = gt.Budget(group_sparsity=0.125)
    assert other.budget == panel.budget
