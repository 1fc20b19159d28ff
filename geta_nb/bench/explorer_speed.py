"""How fast the explorer opens, moves and unfolds, in a real browser: ``make bench-explorer``.

In: an installed Chromium and Playwright (the extra ``dev``). Out: a table, and ``explorer_speed.json``. Times are those of the page:
from before its data are parsed to the end of the first drawing; from a click to the end of the drawing that shows it.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geta_nb.bench.explorer_data import flat, nested
from geta_nb.bench.first_view import LAYERS, analysed
from geta_nb.errors import InputError, MissingExtraError
from geta_nb.widgets.explorer import Explorer
from geta_nb.widgets.exports import write_page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMITS = {"first paint, ms": 300.0, "flat, ms": 1000.0, "open or close, ms": 150.0, "frames per second": 60.0}

_FIRST = """() => {
  const p = document.getElementById('geta-explorer-page'), start = Number(p.dataset.started);
  return [p.explorer.firstPainted - start, p.explorer.ready - start];
}"""
_UNPACK = """async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), start = performance.now();
  await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).json();
  return performance.now() - start;
}"""
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
_OPEN_ALL = """async () => {
  const e = document.getElementById('geta-explorer-page').explorer;
  for (const box of e.picture.boxes) Object.assign(box, { open: true, peek: -1 });
  const start = performance.now();
  e.engine.run(e.root); e._changed(); e.fit(true); e._paint();
  const done = performance.now() - start;
  await new Promise((later) => setTimeout(later, 500)); // the tree follows after the picture; it is no part of moving it
  return done;
}"""


_NETWORKS = {
    "5000 vertices": nested(20, 10, 25), "5000 vertices, 125 in a module": nested(8, 5, 125), "1000 vertices": nested(10, 4, 25),
    "1000 children": flat(1000),
}  # fmt: skip


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
    for name, data in {**_NETWORKS, **_llama()}.items():
        path = write_page(folder / f"{name.replace(' ', '_')}.html", name, data)
        first = [_load(page, path) for _ in range(repeats)]
        paint, tree = (statistics.median(times) for times in zip(*first, strict=True))
        row = {"first paint, ms": paint, "with the tree, ms": tree}
        row |= {"unpack, ms": _unpack(page, data), "page, kB": path.stat().st_size / 1000}
        if "vertices" in name:
            toggles = page.evaluate(_TOGGLE)
            row |= {"open or close, ms": statistics.median(toggles), "slowest, ms": max(toggles)}
        row |= _moved(page.evaluate(_MOVE, seconds), "")
        row["open all, ms"] = page.evaluate(_OPEN_ALL)
        row |= _moved(page.evaluate(_MOVE, seconds), ", all open")
        rows[name] = row
    return rows


def _llama() -> dict[str, Any]:
    """A traced network of twelve equal layers, where transformers is installed: its stack shows all of them when all is open."""
    try:
        geta = analysed("llama")
    except InputError:
        return {}
    return {f"Llama, {LAYERS} layers, {len(geta.qadg.vertices)} vertices": Explorer(geta).page_data()}


def _load(page: Any, path: Path) -> tuple[float, float]:
    page.goto(path.resolve().as_uri())
    while not page.evaluate("Boolean(document.getElementById('geta-explorer-page')?.explorer?.ready)"):
        page.wait_for_timeout(20)  # wait_for_function would evaluate in the page, which its policy forbids
    painted, ready = page.evaluate(_FIRST)
    return float(painted), float(ready)


def _unpack(page: Any, data: dict[str, Any]) -> float:
    """How long a notebook's page takes for the packed graph, before it paints."""
    packed = base64.b64encode(gzip.compress(json.dumps(data["graph"]).encode())).decode()
    return statistics.median(float(page.evaluate(_UNPACK, packed)) for _ in range(5))


def _moved(found: dict[str, Any], where: str) -> dict[str, float]:
    draws = found["draw"]
    figures = {"frames per second": found["fps"], "draw, ms": draws[len(draws) // 2], "draw 95 %, ms": draws[int(0.95 * len(draws))]}
    return {f"{key}{where}": value for key, value in figures.items()}


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
        lines = [f"  {key:<36}{value:10.1f}" for key, value in row.items()] if isinstance(row, dict) else [f"  {row}"]
        write("\n".join([name, *lines, ""]))
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/bench_explorer"))
    run(parser.parse_args().output)


if __name__ == "__main__":
    main()
