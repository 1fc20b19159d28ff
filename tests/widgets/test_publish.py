"""Executed notebooks for readers without a kernel: a widget becomes the static view that it brought along."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from geta_nb.bench.explorer_speed import find_chromium, launch
from geta_nb.widgets.publish import publish, without_widgets

WIDGET = "application/vnd.jupyter.widget-view+json"


def executed() -> dict[str, Any]:
    bundle = {WIDGET: {"model_id": "1"}, "text/plain": "Explorer(...)", "text/html": "<div class='geta-view'>the picture</div>"}
    bare = {WIDGET: {"model_id": "2"}}
    outputs = [
        {"output_type": "display_data", "data": data, "metadata": {WIDGET: {}} if data is bundle else {}} for data in (bundle, bare)
    ]
    cell = {"cell_type": "code", "id": "a", "source": "explorer", "metadata": {}, "execution_count": 1, "outputs": outputs}
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {"_esm": "x" * 10_000}}}}
    words = {"cell_type": "markdown", "id": "b", "source": "# Words", "metadata": {}}
    return {"cells": [cell, words], "metadata": {"widgets": state}, "nbformat": 4, "nbformat_minor": 5}


def test_widgets_give_way_to_their_static_views_and_take_their_state_along() -> None:
    before = executed()
    after = without_widgets(before)
    first, second = (output["data"] for output in after["cells"][0]["outputs"])
    assert set(first) == {"text/plain", "text/html"}
    assert second == {"text/plain": "(a widget: run the notebook to see it)"}, "one that brought no view is named"
    assert "widgets" not in after["metadata"]
    assert before == executed(), "the notebook that was given is not changed"


def test_a_published_notebook_is_valid_and_publishing_it_again_changes_nothing(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra 'notebook' is not installed")
    (tmp_path / "run.ipynb").write_text(json.dumps(executed()))
    once = publish(tmp_path / "run.ipynb", tmp_path / "once.ipynb")
    nbformat.validate(nbformat.read(str(once), as_version=4))
    assert publish(once, tmp_path / "twice.ipynb").read_text() == once.read_text()
    assert len(once.read_text()) < 3000


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
def test_a_published_page_shows_the_static_view_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("nbconvert", reason="the extra 'notebook' is not installed")
    sync = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    (tmp_path / "run.ipynb").write_text(json.dumps(executed()))
    path = publish(tmp_path / "run.ipynb", tmp_path / "run.html")
    asked: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with sync.sync_playwright() as playwright:
            page = (browser := launch(playwright, str(find_chromium()))).new_page()
            page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else asked.append(request.url))
            page.goto(path.as_uri())
            page.wait_for_timeout(500)
            shown = page.locator("body").inner_text()
            browser.close()
    assert "the picture" in shown and "Words" in shown
    assert asked == []


def test_a_bar_that_was_written_over_and_over_is_kept_as_it_ended():
    pieces = ["run:   0%| | 0/9\r", "run:  50%| | 4/9\r", "run: 100%| | 9/9\nafter\n"]
    outputs = [{"output_type": "stream", "name": "stderr", "text": piece} for piece in pieces]
    outputs.append({"output_type": "stream", "name": "stdout", "text": "a\nb\n"})
    notebook = {"metadata": {}, "cells": [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown", "source": "x"}]}
    (cell, _) = without_widgets(notebook)["cells"]
    assert [(output["name"], output["text"]) for output in cell["outputs"]] == [
        ("stderr", "run: 100%| | 9/9\nafter\n"), ("stdout", "a\nb\n"),
    ]  # fmt: skip
    assert len(notebook["cells"][0]["outputs"]) == 4, "the notebook that came in is as it was"
