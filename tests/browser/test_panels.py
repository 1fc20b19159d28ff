"""Claims about the panels in a real JupyterLab and a real browser: they steer Python, follow it, survive a reload, and ask nobody.

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
    start_cells,
    stop_by_hand,
    wait_beyond,
    wait_for_state,
    write_notebook,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOSTILE = "<img src=x onerror=window['broken']=1>"
SET_UP = f"""
import time, torch
torch.set_num_threads(1)
import geta_nb as gt
from torch import nn
from tests.widgets.live_runs import Training
t = Training(4000)
def step(i):
    time.sleep(0.005)
    return t.step(i)
def evaluate():
    return {{**t.evaluate(), {HOSTILE!r}: 0.5}}
run = gt.LiveRun(step, t.geta, t.optimizer, total_steps=4000, evaluate=evaluate, every=50)
"""
HOSTILE_NET = f"""
hostile = nn.Sequential()
hostile.add_module({HOSTILE!r}, nn.Linear(6, 8))
hostile.add_module("relu", nn.ReLU())
hostile.add_module("x" * 300, nn.Linear(8, 8))
hostile.add_module("relu2", nn.ReLU())
hostile.add_module("</script>'🦋", nn.Linear(8, 3))
panel = gt.BudgetPanel(gt.GETA(hostile, (torch.ones(2, 6),)))
panel
"""
# the ratio of luminances that WCAG 2 calls contrast, of an element's text on the nearest ground that is not transparent
CONTRAST = """(element) => {
    // a mixture of colours is told in shares
    const parse = (colour) => colour.match(/[\\d.]+/g).map((v, i) => Number(v) * (colour.startsWith("color(srgb") && i < 3 ? 255 : 1));
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let ground = element;
    while (ground && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(parse(getComputedStyle(ground).backgroundColor))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module", params=["light", "dark"])
def lab(request, tmp_path_factory):
    """A page of a running JupyterLab: its folder and what opens a notebook of given cells."""
    need_browser()
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        address = stack.enter_context(jupyterlab(folder, dark=request.param == "dark"))
        page = stack.enter_context(browser_page(dark=request.param == "dark"))
        page.theme = request.param

        def show(name, *cells, wait=True):
            write_notebook(folder / f"{name}.ipynb", list(cells))
            open_notebook(page, address, f"{name}.ipynb")
            (run_cells if wait else start_cells)(page)
            return page

        yield show
        assert page.outside == [], "something asked the network"
        assert page.problems == [], "a script failed"


in_light = pytest.mark.parametrize("lab", ["light"], indirect=True)
"""What a hand does is the same in the dark; how it looks, the studio and the contrasts show in both."""


def state_of(page):
    return page.get_by_test_id("geta-live").get_attribute("data-state")


def step_of(page):
    return int(page.get_by_test_id("geta-live").get_attribute("data-step"))


@in_light
def test_a_run_is_steered_from_the_page_and_the_page_follows_it(lab):
    page = lab("live", SET_UP, "run")
    live = page.get_by_test_id("geta-live")
    live.wait_for()
    assert state_of(page) == "idle" and page.get_by_test_id("geta-live-stage").inner_text() == "not started"
    assert page.get_by_test_id("geta-live-pause").is_disabled()
    assert page.get_by_test_id("geta-live-start").is_enabled()
    page.get_by_test_id("geta-live-start").click()
    wait_beyond(page, 60)
    first = step_of(page)
    wait_beyond(page, first)
    assert eventually(page, lambda: page.get_by_test_id("geta-live-stage").inner_text() in {"warm-up", "projection", "joint", "cool-down"})
    assert eventually(page, lambda: "weight bits: 3 rows" in live.locator("canvas").last.get_attribute("aria-label"))
    page.get_by_test_id("geta-live-pause").click()
    wait_for_state(page, "paused")
    held = kernel_value(page, "(run.state, run.step_count, len(t.calls))")
    page.wait_for_timeout(400)
    assert kernel_value(page, "(run.state, run.step_count, len(t.calls))") == held and held.startswith("('paused'")
    assert eventually(page, lambda: step_of(page) == int(held.split(", ")[1]))
    page.get_by_test_id("geta-live-resume").click()
    wait_beyond(page, step_of(page) + 50)
    save_picture(live, f"live_{page.theme}")
    stop_by_hand(page)
    assert eventually(page, lambda: kernel_value(page, "run.state") == "'stopped'")
    page.get_by_test_id("geta-live-start").click()
    wait_for_state(page, "running")
    stop_by_hand(page)
    assert page.evaluate("() => window.broken") is None
    assert eventually(page, lambda: HOSTILE in page.get_by_test_id("geta-live-facts").inner_text())


@in_light
def test_a_reloaded_page_shows_the_present_state_of_a_run_that_goes_on(lab):
    page = lab("reload", SET_UP, "run")
    page.get_by_test_id("geta-live-start").click()
    wait_beyond(page, 100)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.reload(wait_until="load")
    page.get_by_test_id("geta-live").wait_for(timeout=240_000)
    wait_for_state(page, "running")
    first = step_of(page)
    assert first > 100
    wait_beyond(page, first)
    bits = page.get_by_test_id("geta-live").locator("canvas").last
    assert eventually(page, lambda: "weight bits: 3 rows" in bits.get_attribute("aria-label"))
    stop_by_hand(page)


@in_light
def test_buttons_reach_a_run_that_a_cell_is_waiting_for(lab):
    """Since ipykernel 7 a page speaks to a kernel whose main thread waits; before it, only the kernel's interrupt does."""
    page = lab("waiting", SET_UP, "display(run)\nrun.start().wait()\nwaited = True", wait=False)
    page.get_by_test_id("geta-live").first.wait_for(timeout=240_000)
    wait_beyond(page, 50)
    stop_by_hand(page)
    # the kernel answers this only after the cell: the wait was over
    assert kernel_value(page, "(run.state, waited)") == "('stopped', True)"


@in_light
def test_the_budget_follows_hand_and_keyboard_and_python_follows_back(lab):
    page = lab("budget", SET_UP, "panel = gt.BudgetPanel(t.geta)\npanel")
    panel, code = page.get_by_test_id("geta-budget"), page.get_by_test_id("geta-budget-code")
    panel.wait_for()
    page.get_by_test_id("geta-budget-sparsity").fill("0.25")
    page.get_by_test_id("geta-budget-bits-low").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_test_id("geta-budget-bits-high-number").fill("8")
    page.wait_for_function("() => document.querySelector('[data-testid=geta-budget-code]').textContent.includes('(5, 8)')")
    assert eventually(page, lambda: code.inner_text() == "gt.Budget(group_sparsity=0.25, bit_range=(5, 8))")
    assert eventually(page, lambda: kernel_value(page, "panel.budget == " + code.inner_text()) == "True")
    assert eventually(page, lambda: "25 %" in page.get_by_test_id("geta-budget-preview").inner_text())
    page.get_by_test_id("geta-budget-bits-low").fill("12")
    error = page.get_by_test_id("geta-budget-error-bits")
    error.wait_for()
    assert eventually(page, lambda: "the lower one first" in error.inner_text())
    assert kernel_value(page, "panel.budget.bit_range") == "(5, 8)"
    save_picture(panel, f"budget_{page.theme}")
    page.get_by_test_id("geta-budget-bits-low").fill("4")
    error.wait_for(state="hidden")
    panel.get_by_label("keep all groups of 3").check()
    page.wait_for_function("() => document.querySelector('[data-testid=geta-budget-code]').textContent.includes('protect=True')")
    kernel_value(page, "setattr(panel, 'budget', gt.Budget(relative_bops=0.05))")
    page.wait_for_function("() => document.querySelector('[data-testid=geta-budget-code]').textContent.includes('relative_bops')")
    assert eventually(page, lambda: page.get_by_test_id("geta-budget-target-number").input_value() == "0.05")
    assert eventually(page, lambda: page.get_by_test_id("geta-budget-mode").input_value() == "relative_bops")
    assert eventually(page, lambda: not panel.get_by_label("keep all groups of 3").is_checked())
    assert eventually(page, lambda: page.get_by_test_id("geta-budget-sparsity").is_disabled())


SENSITIVE = """
from tests.small_nets import IMAGES
s = t.geta.sensitivity([IMAGES], lambda m, x: m(x).square().mean(), bits=(2, 4, 8), kept=(0.75, 0.5, 0.25))
panel = gt.BudgetPanel(t.geta, sensitivity=s)
panel
"""


@in_light
def test_a_plan_of_the_front_becomes_the_budget_by_click_and_by_keyboard(lab):
    page = lab("front", SET_UP, SENSITIVE)
    panel, front, code = (page.get_by_test_id(f"geta-budget{part}") for part in ("", "-front", "-code"))
    front.wait_for()
    assert eventually(page, lambda: "predicted rise" in page.get_by_test_id("geta-budget-preview").inner_text())
    plans = page.get_by_test_id("geta-budget-front-plan")
    assert eventually(page, lambda: plans.count() == int(kernel_value(page, "len(panel.facts['front']['points'])")))
    wanted = plans.count() // 2
    plans.nth(wanted).click(force=True)
    page.wait_for_function("() => document.querySelector('[data-testid=geta-budget-code]').textContent.includes('relative_bops')")
    chosen = f"panel.facts['front']['points'][{wanted}]"
    assert eventually(page, lambda: kernel_value(page, f"abs(panel.budget.relative_bops - {chosen}[0]) < 1e-4 * {chosen}[0]") == "True")
    assert eventually(page, lambda: kernel_value(page, "panel.budget == " + code.inner_text()) == "True")
    save_picture(panel, f"front_{page.theme}")
    slider = page.get_by_test_id("geta-budget-front-slider")
    assert eventually(page, lambda: slider.input_value() == str(wanted))
    before = code.inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(text) => document.querySelector('[data-testid=geta-budget-code]').textContent !== text", arg=before)
    assert eventually(page, lambda: "of the BOPs, predicted rise" in slider.get_attribute("aria-valuetext"))
    rises = panel.locator("td.gp-rise")
    assert eventually(page, lambda: rises.count() == panel.locator("tr[data-layer]").count())
    assert eventually(page, lambda: any(text.strip() for text in rises.all_inner_texts()))


# moves the slider as often as it is told, waiting for each answer or not; gives what the number beside it said in the very same moment
MOVE = """async ([times, wait]) => {
    const find = (id) => document.querySelector(`[data-testid=geta-budget-${id}]`);
    const slider = find('sparsity'), field = find('sparsity-number'), code = find('code'), shown = [];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    for (let i = 1; i <= times; i += 1) {
        const share = Number((0.02 * i).toFixed(2)), wanted = `gt.Budget(group_sparsity=${share})`;
        slider.value = share;
        slider.dispatchEvent(new Event('input', {bubbles: true}));
        shown.push(Number(field.value) === share);
        const end = performance.now() + 120000;
        if (wait || i === times) while (code.textContent !== wanted && performance.now() < end) await frame();
        if (wait || i === times) shown.push(code.textContent === wanted);
    }
    return shown;
}"""


@in_light
def test_a_moving_slider_never_waits_is_answered_and_only_its_newest_place_is_asked_for(lab):
    """How many milliseconds that takes is what ``make bench-live`` measures."""
    page = lab("speed", SET_UP, "panel = gt.BudgetPanel(t.geta)\npanel")
    page.get_by_test_id("geta-budget").wait_for()
    answered = page.evaluate(MOVE, [15, True])
    assert answered == [True] * 30
    sent = int(kernel_value(page, "panel.form['sent']"))
    assert sent == 15
    at_once = page.evaluate(MOVE, [20, False])
    assert at_once == [True] * 21
    assert kernel_value(page, "(panel.form['sent'] - 15, panel.budget == gt.Budget(0.4))") == "(2, True)"  # the first and the newest


@in_light
def test_hostile_names_stay_text_and_nothing_leaves_the_panel(lab):
    page = lab("hostile", SET_UP, HOSTILE_NET)
    panel = page.get_by_test_id("geta-budget")
    panel.wait_for()
    assert page.evaluate("() => window.broken") is None and panel.locator("img, script").count() == 0
    names = panel.locator("th.gp-name")
    assert HOSTILE in names.evaluate_all("(all) => all.map((e) => e.title)")  # a long one is cut in the middle, and whole in its title
    assert [HOSTILE[:9], "…", HOSTILE[-18:]] == [(text := names.first.inner_text())[:9], text[9], text[10:]]
    wide = panel.evaluate("(e) => [e.scrollWidth, e.clientWidth]")
    assert wide[0] <= wide[1]


def test_text_stands_out_in_light_and_dark(lab):
    page = lab("contrast", SET_UP, "panel = gt.BudgetPanel(t.geta)\ndisplay(run, panel)")
    for testid in ("geta-live", "geta-budget"):
        panel = page.get_by_test_id(testid)
        panel.wait_for()
        ground = panel.evaluate("(e) => getComputedStyle(e).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(", "))) < 3 * 128) == (page.theme == "dark"), ground
        for part in [panel, *panel.locator(".gp-fact span, .gp-state, .gp-stage, .gp-dim, label, th, button:enabled, code").all()]:
            if part.is_visible():
                assert part.evaluate(CONTRAST) >= 4.5, part.inner_text()


STUDIO = """
def train(i, optimizer):
    t.optimizer = optimizer
    return step(i)
studio = gt.studio(t.geta, train, torch.optim.SGD, 400, evaluate=t.evaluate, every=50)
studio
"""


def test_the_studio_leads_from_budget_to_run_to_subnet(lab):
    page = lab("studio", SET_UP, STUDIO)
    studio = page.get_by_test_id("geta-studio")
    for testid in ("geta-explorer", "geta-budget", "geta-live"):
        studio.get_by_test_id(testid).first.wait_for()
    assert page.get_by_test_id("geta-studio-cut").is_disabled()
    page.get_by_test_id("geta-budget-sparsity").fill("0.25")
    page.wait_for_function("() => document.querySelector('[data-testid=geta-budget-code]').textContent.includes('0.25')")
    assert eventually(page, lambda: kernel_value(page, "studio.explorer.budget == studio.panel.budget == gt.Budget(0.25)") == "True")
    page.get_by_test_id("geta-live-start").click()
    wait_for_state(page, "finished")
    page.get_by_test_id("geta-studio-cut").click()
    page.get_by_test_id("geta-studio-report").get_by_text("group sparsity").first.wait_for(timeout=120_000)
    facts = "(studio.geta.group_sparsity(), studio.run.optimizer.budget == gt.Budget(0.25), type(studio.subnet).__name__)"
    assert eventually(page, lambda: kernel_value(page, facts) == "(0.25, True, 'Sequential')")
    save_picture(studio, f"studio_{page.theme}")


@in_light
def test_the_budget_is_locked_while_the_run_goes_on_and_counts_once_it_was_stopped(lab):
    page = lab("lock", SET_UP, STUDIO.replace(" 400,", " 4000,"))
    notice, slider = page.get_by_test_id("geta-budget-notice"), page.get_by_test_id("geta-budget-sparsity")
    page.get_by_test_id("geta-live").first.wait_for()
    assert eventually(page, lambda: slider.is_enabled() and notice.is_hidden())
    page.get_by_test_id("geta-live-start").click()
    page.wait_for_selector("[data-testid=geta-budget][data-locked=true]")
    seeing = "[type=search], [data-testid=geta-budget-log], [data-testid=geta-budget-keep-name]"  # what changes no budget
    controls = page.get_by_test_id("geta-budget").locator(f"input:not({seeing}), select")
    assert eventually(page, lambda: controls.count() > 5 and not any(control.is_enabled() for control in controls.all()))
    assert page.get_by_test_id("geta-budget-search").is_enabled()
    assert eventually(page, lambda: "stop the run, change the budget, then start" in notice.inner_text())
    wait_beyond(page, 20)
    stop_by_hand(page)
    page.wait_for_selector("[data-testid=geta-budget][data-locked=false]")
    assert eventually(page, lambda: slider.is_enabled() and notice.is_hidden())
    slider.fill("0.25")
    notice.wait_for()
    assert eventually(page, lambda: "begins anew at step 0 with this budget" in notice.inner_text())
    page.get_by_test_id("geta-live-start").click()
    wait_for_state(page, "running")
    begun = "(studio.run.optimizer.budget == gt.Budget(0.25), studio.run.beginnings)"
    assert kernel_value(page, begun) == "(True, 1)"
    wait_beyond(page, 20)
    stop_by_hand(page)


@in_light
def test_a_page_holds_each_script_once_and_a_cell_that_runs_again_one_widget(lab):
    page = lab("again", SET_UP, "gt.BudgetPanel(t.geta)", "gt.studio(t.geta)", "from ipywidgets import widgets as w\nw.widget._instances")
    page.get_by_test_id("geta-studio").wait_for()
    open_widgets = "sorted(type(x).__name__ for x in w.widget._instances.values() if getattr(x, 'geta', None) is t.geta)"
    once = kernel_value(page, open_widgets)
    assert once == "['BudgetPanel', 'BudgetPanel', 'Explorer', 'Studio']"
    for _ in range(3):
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.get_by_test_id("geta-studio").wait_for()
    assert eventually(page, lambda: kernel_value(page, open_widgets) == once)
    assert page.evaluate("() => globalThis.__getaNbScripts.size") == 3
    assert page.evaluate("() => document.querySelectorAll('style[id^=geta-nb-]').length") == 3
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.reload(wait_until="load")
    page.get_by_test_id("geta-studio").get_by_test_id("geta-budget").wait_for(timeout=240_000)
    assert "model not found" not in page.inner_text("body")
    kernel_value(page, "w.Widget.close_all()")  # what carries the scripts is gone, too
    assert eventually(page, lambda: kernel_value(page, "gt.BudgetPanel(t.geta).script.comm is not None") == "True")


@in_light
def test_curves_are_zoomed_by_hand_and_keyboard_over_the_curves_of_an_earlier_run(lab):
    before = SET_UP.replace("total_steps=4000", "total_steps=60").replace("Training(4000)", "Training(60)").replace("every=50", "every=20")
    later = "run.start().wait()\nfirst, u = run, Training(4000)\n"
    later += f"run = gt.LiveRun(u.step, u.geta, u.optimizer, total_steps=4000, compare={{{HOSTILE!r}: first}})\nrun"
    page = lab("zoom", before, later)
    live = page.get_by_test_id("geta-live").last
    live.wait_for()
    curves, words = live.locator("canvas").nth(1), live.get_by_test_id("geta-live-range")
    page.wait_for_function("(e) => e.getAttribute('aria-label')?.includes('loss')", arg=curves.element_handle())
    label = curves.get_attribute("aria-label")
    assert f"{HOSTILE}: loss " in label and "accuracy" in label
    all_button = live.get_by_role("button", name="show all steps (0)")
    assert all_button.is_disabled() and "drag" in words.inner_text()
    box = curves.bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_function("(e) => e.textContent.startsWith('steps ')", arg=words.element_handle())
    first, last = map(int, words.inner_text().split()[1::2])
    assert 0 < first < last < 4000
    save_picture(live, f"live_zoomed_{page.theme}")
    curves.press("ArrowRight")
    assert int(words.inner_text().split()[1]) > first
    curves.press("+")
    closer, end = map(int, words.inner_text().split()[1::2])
    assert end - closer < last - first
    live.get_by_role("button", name="show more steps (-)").click()
    curves.press("Escape")
    assert "drag" in words.inner_text() and all_button.is_disabled()
    save_picture(live, f"live_compare_{page.theme}")
    assert page.evaluate("() => window.broken") is None
