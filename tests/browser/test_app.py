"""The studio as a page of its own: Voilà serves it, a browser opens it, it trains, and nothing is asked of another host."""

from __future__ import annotations

import sys

import pytest

from tests.browser.lab import ROOT, browser_page, free_port, need_browser, save_picture, server, stop_by_hand, wait_beyond

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_studio_is_a_page_of_its_own(tmp_path, monkeypatch):
    need_browser()
    pytest.importorskip("voila", reason="voila is not installed")
    app = ROOT / "widgets" / "app"
    monkeypatch.setenv("JUPYTER_PATH", str(app))
    port = free_port()
    command = [sys.executable, "-m", "voila", str(app / "studio.ipynb"), "--no-browser", "--template=studio", f"--port={port}"]
    with server(tmp_path, [*command, "--Voila.ip=127.0.0.1"], f"http://127.0.0.1:{port}/voila/static/voila.js"), browser_page() as page:
        page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
        page.get_by_test_id("geta-studio").wait_for(timeout=240_000)
        page.get_by_test_id("geta-live-start").click()
        wait_beyond(page, 20)
        stop_by_hand(page)
        save_picture(page.get_by_test_id("geta-studio"), "studio_page")
        assert page.outside == [] and page.problems == []
