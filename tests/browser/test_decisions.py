"""Claims about decisions in a real JupyterLab: one state in all cells, back and forth by hand and keys, budgets beside each other, and
everything in sight at every width. BERT has its real depth and tiny widths.

Pictures are left in the folder that the environment variable GETA_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.browser.lab import (
    browser_page,
    eventually,
    jupyterlab,
    kernel_value,
    need_browser,
    open_notebook,
    run_cells,
    save_picture,
    wait_for_state,
    write_notebook,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOSTILE = "<img src=x onerror=window['broken']=1>"
SMALL = """
import torch
torch.set_num_threads(1)
import geta_nb as gt
from tests.small_nets import IMAGES, Residual
geta = gt.GETA(Residual(), IMAGES)
"""
BERT = """
import torch
torch.set_num_threads(1)
from transformers import BertConfig, BertModel
import geta_nb as gt
model = BertModel(BertConfig(hidden_size=96, num_attention_heads=4, intermediate_size=384, vocab_size=3000)).eval()
geta = gt.GETA(model, (torch.ones(1, 16, dtype=torch.int64),))
"""
EXPLORER = "explorer = gt.Explorer(geta, budget=gt.Budget(0.0))\nexplorer"
PANEL = "panel = gt.BudgetPanel(geta)\npanel"
STUDIO = "studio = gt.studio(geta, lambda i, o: {'loss': 1.0}, total_steps=4)\nstudio"
CODE = "document.querySelector('[data-testid=geta-budget-code]').textContent"
# moves a slider over some places as one drag does, waiting for the last answer
DRAG = """async ([id, places]) => {
    const slider = document.querySelector(`[data-testid=${id}]`), code = document.querySelector('[data-testid=geta-budget-code]');
    for (const place of places) {
        slider.value = place;
        slider.dispatchEvent(new Event('input', {bubbles: true}));
        await new Promise((done) => requestAnimationFrame(done));
    }
    const end = performance.now() + 60000;
    while (!code.textContent.includes(places.at(-1)) && performance.now() < end) await new Promise((done) => setTimeout(done, 20));
}"""
# what of a layer table's columns lies outside of what is seen of it
CUT_OFF = """(table) => {
    const box = table.closest('.gp-scroll').getBoundingClientRect();
    const heads = [...table.querySelectorAll('thead th')].filter((th) => getComputedStyle(th).display !== 'none');
    return [heads.length > 8, heads.filter((th) => th.getBoundingClientRect().right > box.right + 0.5).map((th) => th.textContent)];
}"""
SEEN = """(button) => {
    const at = button.getBoundingClientRect(), details = button.closest('.gx-details'), box = details.getBoundingClientRect();
    return at.top >= box.top - 1 && at.bottom <= details.querySelector('.gx-budget').getBoundingClientRect().top + 1;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """What opens a notebook of given cells in a running JupyterLab and runs them."""
    need_browser()
    folder = tmp_path_factory.mktemp("decisions")
    with ExitStack() as stack:
        address = stack.enter_context(jupyterlab(folder))
        page = stack.enter_context(browser_page())

        def show(name, *cells, width=1280, height=1000):
            page.set_viewport_size({"width": width, "height": height})
            write_notebook(folder / f"{name}.ipynb", list(cells))
            open_notebook(page, address, f"{name}.ipynb")
            run_cells(page)
            page.locator("[data-testid=geta-budget], [data-testid=geta-explorer]").first.wait_for(timeout=240_000)
            return page

        yield show
        assert page.outside == [], "something asked the network"
        assert page.problems == [], "a script failed"


def wait_for_code(page, text):
    page.wait_for_function(f"(text) => {CODE}.includes(text)", arg=text)


def cells_of(page):
    cells = "window.jupyterapp.shell.currentWidget.content.widgets.map((cell) => cell.model.sharedModel.getSource())"
    return page.evaluate(f"() => {cells}")


def test_undo_and_redo_by_button_and_by_key_inside_the_panel(lab):
    page = lab("undo", SMALL, PANEL)
    undo, redo, field = (page.get_by_test_id(f"geta-budget-{name}") for name in ("undo", "redo", "sparsity-number"))
    assert undo.get_attribute("aria-disabled") == redo.get_attribute("aria-disabled") == "true"
    before = cells_of(page)
    page.evaluate(DRAG, ["geta-budget-sparsity", ["0.45", "0.4", "0.35", "0.3"]])
    field.fill("0.2")
    wait_for_code(page, "0.2)")
    page.wait_for_selector("[data-testid=geta-budget-undo][aria-disabled=false]")
    field.press("Control+z")  # in the very field that was typed in
    wait_for_code(page, "0.3)")
    assert eventually(page, lambda: field.input_value() == "0.3")
    undo.click()
    wait_for_code(page, "0.5)")  # the drag was one step
    assert eventually(page, lambda: undo.get_attribute("aria-disabled") == "true" and "0.3" in redo.get_attribute("title"))
    assert page.evaluate("document.activeElement.dataset.testid") == "geta-budget-undo"
    page.get_by_test_id("geta-budget-sparsity").focus()
    page.keyboard.press("Control+Shift+z")
    wait_for_code(page, "0.3)")
    page.keyboard.press("Control+Shift+z")
    wait_for_code(page, "0.2)")
    assert eventually(page, lambda: kernel_value(page, "panel.budget == gt.Budget(0.2)") == "True")
    search = page.get_by_test_id("geta-budget-search")
    search.press_sequentially("stem")
    search.press("Control+z")  # a field of words keeps its own
    page.wait_for_timeout(300)
    assert kernel_value(page, "panel.budget == gt.Budget(0.2)") == "True" and cells_of(page) == before


def test_explorer_and_panel_of_different_cells_share_what_is_decided(lab):
    page = lab("shared", SMALL, EXPLORER, PANEL)
    page.locator("[role=treeitem][data-vertex]", has_text="conv2d").first.click()
    page.get_by_test_id("geta-explorer-protect").click()
    wait_for_code(page, "protect=True")
    panel, line = page.get_by_test_id("geta-budget"), page.get_by_test_id("geta-explorer-budget")
    ticks = {name: panel.get_by_label(f"keep all groups of {name}", exact=True) for name in ("stem", "body")}
    assert eventually(page, lambda: all(tick.is_checked() for tick in ticks.values()))
    ticks["body"].uncheck()  # the other layer of the family: both let go
    line.filter(has_not_text="protect").wait_for()
    assert eventually(page, lambda: not any(tick.is_checked() for tick in ticks.values()))
    page.get_by_test_id("geta-budget-undo").click()
    line.filter(has_text="protect=True").wait_for()
    assert eventually(page, lambda: ticks["body"].is_checked() and kernel_value(page, "panel.budget == explorer.budget") == "True")
    page.get_by_test_id("geta-budget-undo").click()  # takes back what the explorer did
    line.filter(has_not_text="protect").wait_for()
    assert eventually(page, lambda: kernel_value(page, "explorer.budget == gt.Budget(0.0)") == "True")


def test_a_tick_by_a_wider_pattern_says_what_keeps_the_layer(lab):
    wide = "panel = gt.BudgetPanel(geta, gt.Budget(0.0, exceptions={'*': gt.LayerBudget(protect=True)}))\npanel"
    page = lab("wider", SMALL, wide)
    tick = page.get_by_test_id("geta-budget").get_by_label("keep all groups of stem", exact=True)
    assert tick.is_checked()
    tick.click()
    page.get_by_test_id("geta-budget-error-layers").filter(has_text='stem is still kept by "*"').wait_for()
    assert tick.is_checked()


def test_budgets_stand_beside_each_other_under_names_and_differences_are_marked(lab):
    page = lab("named", SMALL, PANEL)
    named, keep, name = (page.get_by_test_id(f"geta-budget-{part}") for part in ("named", "keep", "keep-name"))
    keep.click()
    named.get_by_role("columnheader", name="A").wait_for()
    assert named.locator("[data-differs]").count() == 0
    page.get_by_test_id("geta-budget-sparsity").fill("0.25")
    wait_for_code(page, "0.25)")
    row = named.get_by_role("row", name="prune until")
    row.locator("[data-differs]").wait_for()
    assert eventually(page, lambda: row.locator("td").all_inner_texts() == ["25 % of the groups", "50 % of the groups≠"])
    assert named.get_by_role("row", name="weight bits").locator("[data-differs]").count() == 0
    assert eventually(page, lambda: "−" in named.get_by_role("row", name="MACs", exact=False).first.locator("[data-differs]").inner_text())
    name.fill(HOSTILE)
    name.press("Enter")
    named.get_by_role("columnheader").filter(has_text=HOSTILE).wait_for()
    assert page.evaluate("() => window.broken") is None and named.locator("img").count() == 0
    save_picture(page.get_by_test_id("geta-budget"), "named")
    page.get_by_test_id("geta-budget-use").first.click()
    wait_for_code(page, "0.5)")
    assert eventually(page, lambda: kernel_value(page, "(panel.budget == panel.named['A'], len(panel.named))") == "(True, 2)")
    page.get_by_test_id("geta-budget-forget").nth(1).click()
    page.wait_for_function("() => document.querySelectorAll('[data-testid=geta-budget-forget]').length === 1")
    assert eventually(page, lambda: kernel_value(page, "list(panel.named)") == "['A']")
    page.get_by_test_id("geta-budget-undo").click()
    wait_for_code(page, "0.25)")


def test_the_budget_becomes_a_line_of_the_notebook(lab):
    line = "budget = gt.Budget(group_sparsity=0.5)"
    page = lab("cell", SMALL, PANEL, "panel.to_cell()", "panel.to_cell('mine', replace=True)")
    assert cells_of(page)[2:] == ["panel.to_cell()", line, line.replace("budget", "mine", 1)]


def test_what_a_run_gave_each_layer_stands_in_the_table_once_it_has_ended(lab):
    run = """
from tests.widgets.live_runs import Training
t = Training(40)
def train(i, optimizer):
    t.optimizer = optimizer
    return t.step(i)
studio = gt.studio(t.geta, train, torch.optim.SGD, 40)
studio
"""
    page = lab("run", SMALL, run)
    column = page.locator("table.gp-layers th[data-column=run]")
    page.get_by_test_id("geta-live").first.wait_for()
    assert column.is_hidden()
    page.get_by_test_id("geta-live-start").click()
    wait_for_state(page, "finished")
    column.wait_for()
    cell = page.locator("tr[data-layer='3'] .gp-run")
    assert cell.inner_text() == f"{float(kernel_value(page, 't.geta.bit_widths()[chr(51)]')):g} bit" and cell.get_attribute("title")


@pytest.fixture(scope="module")
def bert(lab):
    """A notebook with an explorer, a panel and a studio of BERT; what sets its width."""
    page = lab("bert", BERT, EXPLORER, PANEL, STUDIO, width=1300)
    page.get_by_test_id("geta-live").wait_for(timeout=240_000)
    page.wait_for_selector("[role=treeitem]", state="attached")

    def at(width):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        return page

    return at


def test_no_column_of_bert_is_cut_off_at_1300_in_a_panel_and_in_a_studio(bert):
    page = bert(1300)
    assert page.locator("table.gp-layers").count() == 2
    for table in page.locator("table.gp-layers").all():
        assert table.evaluate(CUT_OFF) == [True, []]


def test_names_of_bert_keep_what_differs_and_all_of_the_name_is_told(bert):
    page = bert(1300)
    query = page.locator("tr[data-layer='encoder.layer.0.attention.self.query']").first
    name = query.locator(".gp-name")
    assert name.inner_text() == "enc…0.attention.self.query"
    assert eventually(page, lambda: name.get_attribute("title") == "encoder.layer.0.attention.self.query")
    names = page.locator("table.gp-layers").first.locator(".gp-name")
    clipped = names.evaluate_all("(all) => all.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)")
    assert clipped == [] and len(set(names.all_inner_texts())) == names.count()
    page.get_by_test_id("geta-budget-sparsity").first.fill("0.5")
    query.locator(".gp-channels").filter(has_text="48 / 96").wait_for()
    save_picture(page.get_by_test_id("geta-budget").first, "columns")


def test_bars_of_small_layers_are_seen_on_the_logarithmic_scale(bert):
    page = bert(1300)
    bars = "(all) => all.map((e) => e.getBoundingClientRect().width)"
    widths = page.locator("table.gp-layers").first.locator("tr[data-layer='encoder.layer.0.attention.self.query'] .gp-bar i")
    log = widths.evaluate_all(bars)
    page.get_by_test_id("geta-budget-log").first.uncheck()
    plain = widths.evaluate_all(bars)
    page.get_by_test_id("geta-budget-log").first.check()
    assert log[0] > 5 * plain[0] and log[1] > 5 * plain[1]  # of 9.3 k parameters, where the embedding has 288 k
    assert all(after <= before for before, after in zip(log[::2], log[1::2], strict=True))


@pytest.mark.parametrize("width", [900, 500])
def test_the_outline_of_a_narrow_explorer_is_a_drawer_over_the_graph(bert, width):
    page = bert(width)
    explorer = page.get_by_test_id("geta-explorer").first
    button, outline, canvas = (explorer.locator(part) for part in (".gx-bar button[aria-controls]", ".gx-outline", ".gx-canvas"))
    button.scroll_into_view_if_needed()
    stage = canvas.bounding_box()
    assert outline.bounding_box()["width"] <= 1 and button.get_attribute("aria-expanded") == "false"
    button.click()
    box = outline.bounding_box()
    assert box["width"] > 200 and button.get_attribute("aria-expanded") == "true"
    assert box["x"] <= stage["x"] + 1 and canvas.bounding_box() == stage  # over it, not beside it
    assert page.evaluate("document.activeElement.getAttribute('role')") == "treeitem"
    save_picture(explorer, f"drawer_{width}")
    page.keyboard.press("Escape")
    assert outline.bounding_box()["width"] <= 1
    assert page.evaluate("document.activeElement.title") == button.get_attribute("title")
    button.click()
    explorer.locator("[role=treeitem][data-vertex] .gx-row").first.click()
    assert (outline.bounding_box()["width"] > 1) == (width == 900)  # in a smaller one it would lie over what was chosen
    assert eventually(page, lambda: kernel_value(page, "explorer.selected != ''") == "True")
    if width == 900:
        button.click()


@pytest.mark.parametrize("width", [1300, 600])
def test_protect_is_in_sight_after_a_selection(bert, width):
    page = bert(width)
    details = page.get_by_test_id("geta-explorer-details").first
    for vertex in ("linear_5", "linear_12"):
        kernel_value(page, f"setattr(explorer, 'selected', {vertex!r})")
        details.locator("h3", has_text=vertex).wait_for(state="attached")
        assert details.get_by_test_id("geta-explorer-protect").evaluate(SEEN)
    save_picture(page.get_by_test_id("geta-explorer").first, f"protect_{width}")
