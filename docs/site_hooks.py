"""What mkdocs is told beside its configuration: pages from outside docs/, mathematics as MathML, and nothing from the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("tutorials/*.ipynb", "notebooks/*.ipynb", "notebooks/images/*")
REMOTE = re.compile(r"<script\b[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>|<!-- Load (mathjax|mermaid) -->")
MODULE = re.compile(r"<script type=\"module\">(?:(?!</script>)[\s\S])*?https?://(?:(?!</script>)[\s\S])*?</script>")
MATHJAX = re.compile(r"<script type=\"text/x-mathjax-config\">[\s\S]*?</script>")
CELL = re.compile(r'(?<!">\n)(?=<div class="jp-Cell )')  # a code cell is two boxes of the same class, one in the other
FORMULA = re.compile(r"\$\$(?P<block>[^$]+)\$\$|(?<![\\\w$])\$(?P<inline>[^$\n]+?)\$(?![\w$])")
VERBATIM = ("pre", "code", "script", "style", "svg", "textarea")


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Files, config: Any) -> Files:
    """Add tutorials and notebooks, which lie beside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            where = path.relative_to(ROOT).as_posix()
            files.append(File(where, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    changes = (ROOT / "CHANGELOG.md").read_text()
    files.append(File.generated(config, "changes.md", content=changes))
    return files


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Write formulas of notebooks as MathML, and leave out what their template would fetch."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    html = "".join(map(_folded, CELL.split(html)))
    html = re.sub(r'(<a\b[^>]*\bhref="[^":]*)\.ipynb(?=["#])', r"\1.html", html)
    html = re.sub(r'(<a\b[^>]*\bhref="\.\./)docs/([^":]*)\.md(?=["#])', r"\1\2.html", html)  # docs/ is the top of the site
    return with_formulas(MATHJAX.sub("", MODULE.sub("", REMOTE.sub("", html))))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Name the dialog that the theme leaves without a name."""
    return output.replace('data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"')


def on_post_build(config: Any) -> None:
    """Write the search index as a script too: a page opened from a folder may not fetch."""
    folder = Path(config["site_dir"], "search")
    (folder / "search_index.js").write_text(f"var __index = {(folder / 'search_index.json').read_text()}")


def _folded(cell: str) -> str:
    """Return a cell; a solution is folded, as it is in the notebook."""
    if "celltag_solution" not in cell.partition(">")[0]:
        return cell
    return f'<details class="solution"><summary>Solution</summary>{cell}</details>'


def with_formulas(html: str) -> str:
    """Return a page whose ``$...$`` outside code and pictures are MathML."""
    parts, inside = re.split(r"(<[^>]*>)", html), 0
    for i, part in enumerate(parts):
        if part.startswith("<"):
            name = re.match(r"</?([a-zA-Z0-9-]*)", part)
            if name and name.group(1) in VERBATIM and not part.endswith("/>"):
                inside += -1 if part.startswith("</") else 1
        elif not inside and "$" in part:
            parts[i] = FORMULA.sub(_formula, part)
    return "".join(parts)


def _formula(found: re.Match[str]) -> str:
    block = found["block"]
    text = (block or found["inline"]).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return str(convert(text, display="block" if block else "inline"))
