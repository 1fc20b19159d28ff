"""The Python in docs/ runs as it stands, page by page; its assertions are its claims. Links inside the docs lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geta_nb.groups.operators.registry import RULES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path) -> None:
    kept, names = dict(RULES), {"__name__": "docs"}
    try:
        for match in BLOCK.finditer(page.read_text()):
            line = page.read_text()[: match.start()].count("\n") + 1
            exec(compile("\n" * line + match.group(1), str(page), "exec"), names)
    finally:
        RULES.clear()
        RULES.update(kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    """Tutorials and notebooks lie beside docs/; the site has them below its top (``site_hooks.py``)."""
    targets = re.findall(r"\]\(([^)#:]+)\)", BLOCK.sub("", page.read_text()))
    below = re.compile(r"(tutorials|notebooks)/")
    assert not [target for target in targets if not ((DOCS.parent if below.match(target) else page.parent) / target).exists()]
