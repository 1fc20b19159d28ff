"""Every file, folder and dotted name of this project that a page, a docstring or a comment mentions is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.house import imports as house

FOLDERS = "geta_nb|tests|widgets|notebooks|tutorials|docs"
PATH = re.compile(rf"(?<![\w./<{{-])(?:{FOLDERS})/[\w./-]*[\w/]")
DOTTED = re.compile(r"(?<![\w./])geta_nb(?:\.[A-Za-z_]\w*)+")
SKIPPED = ("node_modules", "__pycache__", "checkpoints", "static/explorer", "runs", "tests/test_suite.py")  # the last makes up names
KINDS = {".py", ".md", ".ipynb", ".js", ".mjs", ".toml", ".yml", ".json", ".css", ".txt"}
BEGINNING = re.compile(r"(_|/\d\d)$")  # `geta_nb/bench/peers_<name>.py`, `notebooks/02`


def sources() -> list[Path]:
    top = [path for path in house.ROOT.iterdir() if path.is_file() and (path.suffix in KINDS or path.name == "Makefile")]
    inner = [path for folder in FOLDERS.split("|") for path in (house.ROOT / folder).rglob("*") if path.suffix in KINDS]
    return sorted(path for path in top + inner if path != Path(__file__) and not any(part in path.as_posix() for part in SKIPPED))


def exists(path: str, page: Path) -> bool:
    """A path is read from the top, or from the file that names it; an installed package carries notebooks and widgets inside."""
    places = (house.ROOT / path, page.parent / path, house.ROOT / path.removeprefix("geta_nb/"))
    return any(place.exists() or (BEGINNING.search(path) and [*place.parent.glob(f"{place.name}*")]) for place in places)


def resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    known = max(i for i in range(1, len(parts) + 1) if ".".join(parts[:i]) in house.modules())
    value = importlib.import_module(".".join(parts[:known]))
    for part in parts[known:]:
        if not hasattr(value, part):
            return part == "py" or any(name.startswith(dotted) for name in house.modules() if part.endswith("_"))
        value = getattr(value, part)
    return True


def test_every_path_that_a_file_names_is_there():
    named = {(page, path.rstrip(".")) for page in sources() for path in PATH.findall(page.read_text())}
    assert len(named) > 100
    assert sorted(f"{page.relative_to(house.ROOT)}: {path}" for page, path in named if not exists(path, page)) == []


def test_every_dotted_name_that_a_file_names_is_there():
    named = {(page, name) for page in sources() for name in DOTTED.findall(page.read_text())}
    assert len(named) > 100
    assert sorted(f"{page.relative_to(house.ROOT)}: {name}" for page, name in named if not resolves(name)) == []


@pytest.mark.parametrize("gone", ["tests/test_resume.py", "geta_nb/trace.py", "docs/nothing", "geta_nb/bench/peer_"])
def test_a_path_that_is_gone_is_seen(gone):
    assert PATH.findall(f"see `{gone}`, or {gone}.") == [gone, gone] and not exists(gone, house.ROOT / "README.md")


@pytest.mark.parametrize("gone", ["geta_nb.trace", "geta_nb.graph.nothing", "geta_nb.bench.peer_", "geta_nb.GETA.nothing"])
def test_a_dotted_name_that_is_gone_is_seen(gone):
    assert DOTTED.findall(f"see :class:`~{gone}`.") == [gone] and not resolves(gone)
