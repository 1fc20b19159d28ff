"""How soon a page in a real JupyterLab follows: from a click on Stop to its effect, from a slider to the bars. Part of ``make bench-live``.

In: an installed Chromium. Out: a line each, in milliseconds, beside what is wanted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from geta_nb.bench.live_speed import line
from tests.browser.lab import browser_page, chromium, jupyterlab, open_notebook, run_cells, wait_beyond, wait_for_state, write_notebook

WANTED = {"stop a run by hand": 500.0, "bars after a slider": 100.0}
CELL = """
from geta_nb.bench.live_speed import short_run
import geta_nb as gt
run = short_run()
display(run, gt.BudgetPanel(run.geta))
"""
CLICK = """([button, state]) => new Promise((resolve) => {
    const live = document.querySelector('[data-testid=geta-live]'), begin = performance.now();
    const done = () => { if (live.dataset.state === state) { observer.disconnect(); resolve(performance.now() - begin); } };
    const observer = new MutationObserver(done);
    observer.observe(live, {attributes: true});
    live.querySelector(`[data-testid=geta-live-${button}]`).click();
})"""
SLIDE = """async (times) => {
    const slider = document.querySelector('[data-testid=geta-budget-sparsity]');
    const code = document.querySelector('[data-testid=geta-budget-code]'), waits = [];
    for (let i = 1; i <= times; i += 1) {
        const share = Number((0.02 * i).toFixed(2)), begin = performance.now();
        slider.value = share;
        slider.dispatchEvent(new Event('input', {bubbles: true}));
        while (code.textContent !== `gt.Budget(group_sparsity=${share})`) await new Promise((done) => requestAnimationFrame(done));
        waits.push(performance.now() - begin);
    }
    return waits;
}"""


def measure(folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each click and each move."""
    write_notebook(folder / "live.ipynb", [CELL])
    found: dict[str, list[float]] = {name: [] for name in WANTED}
    with jupyterlab(folder) as address, browser_page() as page:
        open_notebook(page, address, "live.ipynb")
        run_cells(page)
        page.get_by_test_id("geta-live").wait_for(timeout=120_000)
        found["bars after a slider"] = [wait / 1000 for wait in page.evaluate(SLIDE, 15)]
        for _ in range(10):
            before = int(page.get_by_test_id("geta-live").get_attribute("data-step"))
            page.get_by_test_id("geta-live-start").click()
            wait_for_state(page, "running")
            wait_beyond(page, before + 40)
            found["stop a run by hand"].append(page.evaluate(CLICK, ["stop", "stopped"]) / 1000)
    return found


def main() -> int:
    """Print one line each."""
    if chromium() is None:
        sys.stdout.write("no Chromium is installed: pages are not measured\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in measure(Path(folder)).items():
            sys.stdout.write(line(name, seconds, WANTED[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
