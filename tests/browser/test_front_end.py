"""The browser side: its own tests, and that the bundle which is shipped is what the sources give."""

from __future__ import annotations

import re
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


def reached(path: Path) -> set[str]:
    """Return what a module imports, and what those import: files as paths, packages by their names."""
    found: set[str] = set()
    pending = [path]
    while pending:
        here = pending.pop()
        for name in re.findall(r'from "([^"]+)";', here.read_text()):
            target = str((here.parent / name).resolve()) if name.startswith(".") else name
            if target not in found:
                found.add(target)
                if name.startswith("."):
                    pending.append(Path(target))
    return found


def chosen_by_packages(*, with_packages: bool) -> list[str]:
    """Return the test files, by whether they reach a package that npm brings."""
    files = sorted((SOURCES / "tests").glob("*.test.mjs"))
    return [str(path.relative_to(SOURCES)) for path in files if any(name.startswith("@") for name in reached(path)) == with_packages]


def need_packages() -> None:
    if not (SOURCES / "node_modules").is_dir():
        pytest.skip("the packages of the front end are not installed: `make widgets` brings them")


def test_the_modules_of_the_front_end_pass_their_tests() -> None:
    chosen = chosen_by_packages(with_packages=False)
    assert len(chosen) >= 4
    done = node("--test", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_modules_that_place_boxes_pass_their_tests() -> None:
    """They want the layout package; without it the browser tests see the same modules, in the bundle."""
    need_packages()
    chosen = chosen_by_packages(with_packages=True)
    assert chosen
    done = node("--test", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bundle_is_what_the_sources_give() -> None:
    need_packages()
    done = node("build.mjs", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sources_never_make_markup_of_data() -> None:
    for path in (SOURCES / "src").glob("*.js"):
        text = path.read_text()
        assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if word in text], path.name
