"""Give the kept views the present style, without running what made them: ``python -m tests.house.kept_style`` names what it changed.

A view carries its style along, so every notebook and picture that is kept holds a copy of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from geta_nb.display.theme import HTML_STYLE, PICTURE_STYLE, SVG_STYLE, THEME

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("tutorials/*.ipynb", "notebooks/*.ipynb", "notebooks/images/*.svg", "docs/images/*.svg", "docs/images/gallery/*.svg")
FRAGMENT_STYLE = f"<style>{THEME}{SVG_STYLE}{HTML_STYLE}</style>"
STYLE = re.compile(r"<style>\.geta-view\{.*?</style>", re.DOTALL)


def kept_files() -> list[Path]:
    """Return the files that may hold views."""
    return [path for pattern in KEPT for path in sorted(ROOT.glob(pattern))]


def restyled(text: str) -> str:
    """Return the text with the present style in each view; a picture's is that of a fragment without what HTML alone needs."""
    return STYLE.sub(lambda found: FRAGMENT_STYLE if ".gv-title" in found[0] else PICTURE_STYLE, text)


def main() -> int:
    """Rewrite what holds another style."""
    assert not set('"\\\n') & set(FRAGMENT_STYLE), "the style stands in JSON as it is"
    for path in kept_files():
        text = path.read_text(encoding="utf-8")
        new = restyled(text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
