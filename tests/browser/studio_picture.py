"""Make the README's picture of the studio: serve its page, train in it, photograph it. ``make picture``; wants an installed Chromium."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.browser.lab import ROOT, browser_page, free_port, server

APP = ROOT / "widgets" / "app"
PICTURE = ROOT / "notebooks" / "images" / "studio.png"


def main() -> None:
    """Write the picture, whole or not at all."""
    os.environ["JUPYTER_PATH"] = str(APP)
    port = free_port()
    command = [sys.executable, "-m", "voila", str(APP / "studio.ipynb"), "--no-browser", "--template=studio", f"--port={port}"]
    with tempfile.TemporaryDirectory() as folder:
        serving = server(Path(folder), [*command, "--Voila.ip=127.0.0.1"], f"http://127.0.0.1:{port}/voila/static/voila.js")
        with serving, browser_page(width=1400, height=1600) as page:
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            page.get_by_test_id("geta-studio").wait_for(timeout=90_000)
            page.get_by_test_id("geta-live-start").click()
            page.wait_for_function("document.querySelector('[data-testid=geta-live]').dataset.state === 'finished'", timeout=180_000)
            page.wait_for_timeout(500)
            partial = PICTURE.with_name(f".{PICTURE.name}")
            page.screenshot(path=partial, type="png")
    partial.replace(PICTURE)
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
