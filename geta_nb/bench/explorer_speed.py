"""How fast the explorer opens, moves and unfolds, in a real browser: ``python -m geta_nb.bench.explorer_speed --output runs/bench_explorer``.

In: an installed Chromium and Playwright (the extra ``dev``). Out: a table, and ``explorer_speed.json``. Times are those of the page:
from before its data are parsed to the end of the first drawing; from a click to the end of the drawing that shows it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geta_nb.bench.explorer_data import flat, nested
from geta_nb.errors import MissingExtraError
from geta_nb.widgets.exports import write_page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMITS = {"first paint, ms": 300.0, "flat, ms": 1000.0, "open or close, ms": 150.0, "frames per second": 60.0}

_FIRST = "() => { const p = document.getElementById('geta-explorer-page'); return p.explorer.firstPainted - Number(p.dataset.started) }"
_TOGGLE = """async () => {
  const e = document.getElementById('geta-explorer-page').explorer, times = [];
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const boxes = e.picture.boxes.filter((b) => b.parent && b.parent.open).slice(0, 12);
  for (const box of boxes) for (let k = 0; k < 2; k++) {
    await frame(); await frame();
    const start = performance.now();
    e.toggle(box);
    while (e.painted < start) await frame();
    times.push(e.painted - start);
  }
  return times;
}"""
_MOVE = """async (seconds) => {
  const e = document.getElementById('geta-explorer-page').explorer, frames = [], draws = [];
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame();
  const start = performance.now();
  let last = start, k = 0;
  while (last - start < 1000 * seconds) {
    k += 1;
    if (k % 60 < 30) e.pan(k % 40 < 20 ? 9 : -9, k % 20 < 10 ? 5 : -5); else e.zoom(k % 60 < 45 ? 1.03 : 1 / 1.03);
    const before = performance.now();
    e._paint();
    draws.push(performance.now() - before);
    const now = await frame();
    frames.push(now - last);
    last = now;
  }
  return { fps: (1000 * frames.length) / (last - start), draw: draws.sort((a, b) => a - b) };
}"""
_OPEN_ALL = """() => {
  const e = document.getElementById('geta-explorer-page').explorer;
  for (const box of e.picture.boxes) box.open = true;
  const start = performance.now();
  e.engine.run(e.root); e._changed(); e.fit(true); e._paint();
  return performance.now() - start;
}"""


def find_chromium() -> str | None:
    """Return an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def launch(playwright: Any, executable: str) -> Any:
    """Return a browser that asks nobody on its own."""
    return playwright.chromium.launch(executable_path=executable, args=list(FLAGS))


def measure(page: Any, folder: Path, *, repeats: int = 5, seconds: float = 3.0) -> dict[str, Any]:
    """Return all figures, measured in one page.

    Args:
        page: a Playwright page.
        folder: where the pages that are measured are written.
        repeats: loads of each page; the median counts.
        seconds: how long to pan and zoom.
    """
    rows: dict[str, Any] = {}
    for name, data in {"5000 vertices": nested(20, 10, 25), "1000 vertices": nested(10, 4, 25), "1000 children": flat(1000)}.items():
        path = write_page(folder / f"{name.replace(' ', '_')}.html", name, data)
        first = [_load(page, path) for _ in range(repeats)]
        row = {"first paint, ms": statistics.median(first), "page, kB": path.stat().st_size / 1000}
        if "vertices" in name:
            toggles = page.evaluate(_TOGGLE)
            row |= {"open or close, ms": statistics.median(toggles), "slowest, ms": max(toggles)}
        row |= _moved(page.evaluate(_MOVE, seconds), "")
        row["open all, ms"] = page.evaluate(_OPEN_ALL)
        row |= _moved(page.evaluate(_MOVE, seconds), ", all open")
        rows[name] = row
    return rows


def _load(page: Any, path: Path) -> float:
    page.goto(path.resolve().as_uri())
    while not page.evaluate("Boolean(document.getElementById('geta-explorer-page')?.explorer?.firstPainted)"):
        page.wait_for_timeout(20)  # wait_for_function would evaluate in the page, which its policy forbids
    return float(page.evaluate(_FIRST))


def _moved(found: dict[str, Any], where: str) -> dict[str, float]:
    draws = found["draw"]
    return {f"frames per second{where}": found["fps"], f"draw, ms{where}": draws[len(draws) // 2], f"draw 95 %, ms{where}": draws[int(0.95 * len(draws))]}


def run(output: Path, write: Callable[[str], object] = sys.stdout.write) -> dict[str, Any]:
    """Measure, write ``explorer_speed.json`` into ``output`` and a table through ``write``.

    Raises:
        MissingExtraError: Playwright or a Chromium is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingExtraError("explorer_speed: Playwright is not installed.", hint="pip install 'geta-nb[dev]'") from None
    executable = find_chromium()
    if executable is None:
        raise MissingExtraError("explorer_speed: no Chromium is installed.", expected=" or ".join(NAMES))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = launch(playwright, executable)
        rows = measure(browser.new_page(viewport={"width": 1280, "height": 720}), Path(folder))
        rows["browser"] = browser.version
        browser.close()
    output.mkdir(parents=True, exist_ok=True)
    (output / "explorer_speed.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name, row in rows.items():
        write(f"{name}\n" + "".join(f"  {key:<32}{value:10.1f}\n" for key, value in row.items()) if isinstance(row, dict) else f"{name} {row}\n")
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/bench_explorer"))
    run(parser.parse_args().output)


if __name__ == "__main__":
    main()
