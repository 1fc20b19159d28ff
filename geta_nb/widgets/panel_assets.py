"""Browser files of the panels. The sources are small ES modules that import each other; a widget wants one module, so they are joined here.

In: the files of ``widgets/panels/src``, which a checkout has and an installed package carries along. Out: one module, and one style.
Joining is plain: every module that is imported comes before the one that imports it, ``import`` lines go, and ``export`` stays only
in the entry. The modules keep their top-level names apart, which a test checks. Nothing is fetched, nothing is built.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from geta_nb._extra import carried
from geta_nb.display.theme import THEME

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:class|function|const|async) )", re.MULTILINE)


@cache
def panel_folder() -> Path:
    """Return where the browser files are. They have one source, which nothing builds."""
    return carried("widgets/panels/src")


def modules_of(entry: str) -> list[str]:
    """Return the names of all modules that ``entry`` needs, each after what it imports, ``entry`` last."""
    found: list[str] = []

    def visit(name: str) -> None:
        for needed in _IMPORT.findall((panel_folder() / name).read_text(encoding="utf-8")):
            visit(needed)
        if name not in found:
            found.append(name)

    visit(entry)
    return found


@cache
def joined_module(entry: str) -> str:
    """Return ``entry`` and everything it imports as one ES module."""
    *needed, last = modules_of(entry)
    parts = []
    for name in needed:
        parts.append(_EXPORT.sub("", _source(name)))
    # what the entry exports by name it exports in its default object too, which is what a widget reads
    parts.append(_EXPORT.sub("", _source(last)))
    return "\n".join(parts)


def _source(name: str) -> str:
    return _IMPORT.sub("", (panel_folder() / name).read_text(encoding="utf-8"))


@cache
def panel_style() -> str:
    """Return the style of all panels with the colours of every view."""
    return f"{THEME}\n{(panel_folder() / 'panels.css').read_text(encoding='utf-8')}"
