"""Claims about the panels' browser files: they have one source, join into one module, and ask nobody."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from geta_nb.widgets.panel_assets import joined_module, modules_of, panel_folder, panel_style

ROOT = Path(__file__).resolve().parents[2]
PANELS = ROOT / "widgets" / "panels"
SOURCES = PANELS / "src"
ENTRIES = ["live.js", "budget.js", "studio.js"]
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix in {".js", ".css"}}


def test_a_checkout_reads_the_sources_which_stand_nowhere_else():
    assert panel_folder() == SOURCES
    names = {path.name for path in SOURCES.iterdir()}
    assert {"live.js", "budget.js", "studio.js", "panels.css"} <= names
    assert [path for path in (ROOT / "geta_nb").rglob("*.*") if path.name in names] == []


def test_every_module_comes_after_what_it_imports():
    order = modules_of("live.js")
    assert order[-1] == "live.js" and len(order) == len(set(order))
    for i, name in enumerate(order):
        needed = re.findall(r'from "\./([a-z]+\.js)"', (SOURCES / name).read_text())
        assert set(needed) <= set(order[:i]), name


@pytest.mark.parametrize("entry", ENTRIES)
def test_modules_that_are_joined_share_no_top_level_name(entry):
    declared = re.compile(r"^(?:export )?(?:async )?(?:const|let|class|function)\*? ([A-Za-z_]+)|^const \[?\{? ?([A-Z_]+)", re.MULTILINE)
    names = [first or second for name in modules_of(entry) for first, second in declared.findall((SOURCES / name).read_text())]
    listed = [n for name in modules_of(entry) for row in re.findall(r"^const (.*?;)$", (SOURCES / name).read_text(), re.MULTILINE)
              for n in re.findall(r"(?:^|, )([A-Z_]+) = ", row)]
    assert len(names) == len(set(names))
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_joined_module_imports_nothing_and_exports_one_object(entry):
    module = joined_module(entry)
    assert not re.search(r"^import |\bimport\(", module, re.MULTILINE)
    assert re.findall(r"^export .*$", module, re.MULTILINE) in (["export default { render };"], ["export default { initialize, render };"])


@pytest.mark.parametrize("entry", ENTRIES)
def test_nothing_in_a_module_or_style_can_ask_the_network(entry):
    text = joined_module(entry) + panel_style()
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|eval\(|new Function", text)


def test_only_the_report_that_python_escaped_is_read_as_html():
    found = [name for name, text in files(SOURCES).items() if re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)]
    assert found == ["studio.js"]
    assert files(SOURCES)["studio.js"].count("innerHTML") == 1


@needs_node
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_joined_module_is_a_module(entry, tmp_path):
    file = tmp_path / "joined.mjs"
    file.write_text(joined_module(entry))
    subprocess.run([str(NODE), "--check", str(file)], check=True, capture_output=True)


@needs_node
def test_the_sources_pass_their_own_tests():
    tests = sorted(map(str, (PANELS / "tests").glob("*.test.mjs")))
    ran = subprocess.run([str(NODE), "--test", *tests], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]
