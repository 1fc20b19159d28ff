"""What the tests of legibility share: pages like those of JupyterLab, VS Code, Colab and plain sites, axe-core, the contrast of all text.

axe-core knows nothing of an SVG's ``fill``: ``contrasts`` looks at what is painted under each text, in HTML and in pictures alike.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ENOUGH = 4.5
"""The contrast that WCAG 2 wants of text of ordinary size (1.4.3)."""
CONTRASTS = Path(__file__).with_name("contrasts.js")
THEMES = Path(sys.prefix, "share", "jupyter", "lab", "themes", "@jupyterlab")


def page_of(content: str, *, page: str = "", body: str = "", style: str = "", meta: str = "") -> str:
    """Return a document around views; ``page`` and ``body`` are the attributes of these two elements."""
    return (
        f'<!DOCTYPE html><html lang="en" {page}><head><meta charset="utf-8"><title>views</title>{meta}<style>{style}</style></head>'
        f"<body {body}><main><h1>views</h1>{content}</main></body></html>"
    )


def jupyterlab_style(side: str) -> str:
    """Return the colours of JupyterLab's own theme, as installed."""
    found = THEMES / f"theme-{side}-extension" / "index.css"
    if not found.is_file():
        pytest.skip("JupyterLab is not installed")
    return found.read_text().replace("</", "<\\/") + "body{background:var(--jp-layout-color0);color:var(--jp-content-font-color1)}"


def hosts() -> dict[str, dict[str, str]]:
    """Return name -> what makes a page of that kind; the colours are those of VS Code's and Colab's own themes."""
    dark = "body{background:#101418;color:#e6e6e6}"
    pages = {
        "says nothing": {},
        "says nothing, dark": {"style": dark},
        "says dark": {"style": ":root{color-scheme:dark}" + dark},
        "follows the desktop": {"meta": '<meta name="color-scheme" content="light dark">'},
    }
    # a page that has shown a widget has the widgets' own variables, and they are JupyterLab's light ones
    colours = "--jp-content-font-color1:rgba(0,0,0,.87);--jp-layout-color0:white;--%s:%s;--%s:%s"
    for side, text, ground, kind in (
        ("light", "#3b3b3b", "#ffffff", "vscode-light"), ("dark", "#cccccc", "#1f1f1f", "vscode-dark"),
        ("contrast", "#ffffff", "#000000", "vscode-high-contrast"),
    ):  # fmt: skip
        own = colours % ("vscode-editor-foreground", text, "vscode-editor-background", ground)
        style = f":root{{{own}}}body{{background:{ground};color:{text}}}"
        pages[f"VS Code {side}"] = {"style": style, "body": f'class="{kind}" data-vscode-theme-kind="{kind}"'}
    for side, text, ground in (("light", "#212121", "#ffffff"), ("dark", "#e3e3e3", "#1e1f20")):
        own = colours % ("colab-primary-text-color", text, "colab-primary-surface-color", ground)
        style = f":root{{{own}}}body{{background:{ground};color:{text}}}"
        pages[f"Colab {side}"] = {"style": style, "page": f'theme="{side}"'}
    for side, light in (("light", "true"), ("dark", "false")):
        pages[f"JupyterLab {side}"] = {"style": jupyterlab_style(side), "body": f'data-jp-theme-light="{light}"'}
    return pages


def axe_violations(page: Any, *, within: str | None = None, rules: dict[str, bool] | None = None) -> list[str]:
    """Return what axe-core finds, a line each; ``rules`` switches rules off by name."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    # a page's policy may forbid scripts that are added, not what the browser's own debugger evaluates
    page.evaluate(Path(package.__file__).with_name("axe.min.js").read_text())
    options = {"resultTypes": ["violations"], "rules": {name: {"enabled": on} for name, on in (rules or {}).items()}}
    found = page.evaluate("([within, options]) => axe.run(within ?? document, options)", [within, options])
    return [
        f"{rule['id']} ({rule['impact']}) {node['target']}: {node['html'][:160]}: {node['failureSummary'][:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def contrasts(page: Any, within: str) -> dict[str, Any]:
    """Return how many texts stand within ``within``, the least contrast, and every text below the limit."""
    found: dict[str, Any] = page.evaluate(CONTRASTS.read_text(), [within, ENOUGH])
    return found
