"""A complete HTML page that works offline: fragments of views, nothing loaded from anywhere, light and dark by the reader's preference."""

from __future__ import annotations

from collections.abc import Iterable

from geta_nb.display.markup import escape
from geta_nb.display.theme import HTML_STYLE, SVG_STYLE, THEME

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_BODY = (
    "body{margin:0 auto;padding:24px 16px 48px;max-width:1100px}"
    "h1{font-size:20px;line-height:1.3;overflow-wrap:anywhere}section{margin:0 0 28px}"
    "@media print{.geta-view .gv-scroll{max-height:none;overflow:visible}}"
)


def standalone_page(title: str, fragments: Iterable[str]) -> str:
    """Return one HTML document around finished fragments.

    Args:
        title: any text; escaped here.
        fragments: HTML or SVG made by this package, trusted as it is.
    """
    sections = "".join(f"<section>{part}</section>" for part in fragments)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{THEME}{SVG_STYLE}{HTML_STYLE}{_BODY}</style></head>"
        f'<body class="geta-view"><main><h1>{escape(title)}</h1>{sections}</main></body></html>\n'
    )
