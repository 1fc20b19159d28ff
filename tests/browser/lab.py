"""A real JupyterLab on loopback in a real browser: what the browser tests of the panels share.

Nothing may be asked of any other host: every request that leaves this machine is recorded, and the tests assert that there was none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync", "no-first-run"]
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


def chromium() -> str | None:
    """Return an installed Chromium, or None."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def need_browser() -> None:
    """Skip the test where no browser can run."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium() is None:
        pytest.skip("no Chromium is installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    """Folders of its own for everything Jupyter writes, and this checkout's package."""
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    paths = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "HOME": str(folder)}
    return {**os.environ, **own, **paths, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1,localhost"}


def write_notebook(path: Path, cells: list[str]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    # without a kernelspec a dialog opens and waits for ever
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@contextmanager
def server(folder: Path, command: list[str], ready: str) -> Iterator[None]:
    """Run a server until the block ends; begin when ``ready`` answers."""
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(ready, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"no server: {(folder / 'server.log').read_text()[-2000:]}") from None
                time.sleep(0.3)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


@contextmanager
def jupyterlab(folder: Path, *, dark: bool = False) -> Iterator[str]:
    """Run JupyterLab in ``folder``; gives the address of a page, to be completed with a notebook's name."""
    settings = folder / "settings"
    themes = {"@jupyterlab/apputils-extension/themes": {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}}
    for name, values in (SETTINGS | themes).items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
        f"--LabApp.user_settings_dir={settings}", "--LabApp.expose_app_in_browser=True", f"--LabApp.workspaces_dir={folder / 'workspaces'}",
    ]
    with server(folder, command, f"http://127.0.0.1:{port}/api/status?token={token}"):
        yield f"http://127.0.0.1:{port}/lab/tree/%s?token={token}&reset"


@contextmanager
def browser_page(*, dark: bool = False, width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A page of a fresh browser; ``page.outside`` lists what it asked of other hosts, ``page.problems`` its script errors."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=[f"--{flag}" for flag in FLAGS])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        page.outside, page.problems = [], []
        local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:")
        page.on("request", lambda request: None if request.url.startswith(local) else page.outside.append(request.url))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        try:
            yield page
        finally:
            browser.close()


def open_notebook(page: Any, address: str, name: str) -> None:
    """Open a notebook and wait until its kernel is idle."""
    page.goto(address % name, wait_until="load")
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.context?.sessionContext", timeout=120_000)
    page.evaluate(
        """async () => {
            const context = window.jupyterapp.shell.currentWidget.context;
            await context.ready; await context.sessionContext.ready;
            await window.jupyterapp.commands.execute('filebrowser:hide-main').catch(() => {});
        }"""
    )


def run_cells(page: Any) -> None:
    """Start all cells; comes back when they are done."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


def start_cells(page: Any) -> None:
    """Start all cells; comes back at once."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def kernel_value(page: Any, code: str) -> str:
    """Return what an expression gives in the notebook's kernel, as text, asked beside all cells."""
    return str(
        page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
                let text = "";
                const future = kernel.requestExecute({code: `print(repr(${code}), end="")`, store_history: false});
                future.onIOPub = (message) => {
                    if (message.header.msg_type === "stream") text += message.content.text;
                    if (message.header.msg_type === "error") text += message.content.evalue;
                };
                await future.done;
                return text;
            }""",
            code,
        )
    )


def eventually(page: Any, claim: Callable[[], object], *, seconds: float = 30) -> object:
    """Return what ``claim()`` gives as soon as it is true, at last what it gives after so long.

    One act of a hand is several messages, answered by a thread of the kernel's own: what one of them brought says nothing of the next.
    """
    end = time.monotonic() + seconds
    while not (found := claim()) and time.monotonic() < end:
        page.wait_for_timeout(50)
    return found


def save_picture(locator, name):
    folder = os.environ.get("GETA_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        locator.screenshot(path=Path(folder) / f"{name}.png")


def wait_beyond(page, step):
    page.wait_for_function("(s) => Number(document.querySelector('[data-testid=geta-live]').dataset.step) > s", arg=step, timeout=120_000)


def wait_for_state(page, state):
    page.wait_for_selector(f"[data-testid=geta-live][data-state={state}]", timeout=120_000)


def stop_by_hand(page):
    """Press Stop: the page says so, and it was before the run's end. ``make bench-live`` measures how soon."""
    page.get_by_test_id("geta-live-stop").first.click()
    wait_for_state(page, "stopped")
    done, total = re.search(r"(\d+) of (\d+)", page.get_by_test_id("geta-live-facts").first.inner_text()).groups()
    assert 0 < int(done) < int(total)
