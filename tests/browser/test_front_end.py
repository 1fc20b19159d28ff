"""The browser side: its own tests, and that the bundle which is shipped is what the sources give."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "widgets" / "explorer"
NODE = shutil.which("node")


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    if NODE is None:
        pytest.skip("node is not installed: the front end is used as it is shipped")
    return subprocess.run([NODE, *arguments], cwd=SOURCES, capture_output=True, text=True, timeout=120)


def test_the_modules_of_the_front_end_pass_their_tests() -> None:
    done = node("--test", *sorted(str(path.relative_to(SOURCES)) for path in (SOURCES / "tests").glob("*.test.mjs")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bundle_is_what_the_sources_give() -> None:
    if not (SOURCES / "node_modules").is_dir():
        pytest.skip("the packages of the front end are not installed: `make widgets` brings them")
    done = node("build.mjs", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sources_never_make_markup_of_data() -> None:
    for path in (SOURCES / "src").glob("*.js"):
        text = path.read_text()
        assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if word in text], path.name
