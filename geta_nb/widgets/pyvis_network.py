"""A pyvis network whose pages work offline and are the same each time. Imported only when asked for; see ``exports.to_pyvis``."""

from __future__ import annotations

import html
import re
from os import PathLike
from pathlib import Path
from typing import Any

from pyvis.network import Network

_ASKS = re.compile(r"<link\b[^>]*https?://[^>]*>|<script\b[^>]*\bsrc\s*=[^>]*>\s*</script>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_STRETCH = (1.7, 1.9)  # vis draws larger letters than our layout counts with


class OfflineNetwork(Network):  # type: ignore[misc]
    """Boxes at given places; physics stay off, and whatever pyvis would load from elsewhere is left out of its pages."""

    def __init__(self) -> None:
        super().__init__(height="700px", directed=True, cdn_resources="in_line")
        self.caption = ""
        self.toggle_physics(False)

    def add_box(self, key: int, label: str, title: str, place: tuple[float, float], colour: str) -> None:
        """Add a vertex."""
        x, y = (round(value * stretch) for value, stretch in zip(place, _STRETCH, strict=True))
        # pyvis shows a title that names a link as HTML; a word joiner keeps it text
        self.add_node(
            key, label=label, title=title.replace("href", "h\u2060ref"), x=x, y=y, physics=False, shape="box",
            color={"background": f"{colour}33", "border": colour},
        )  # fmt: skip

    def generate_html(self, *_: Any, **__: Any) -> str:
        """Return the page, with everything that it needs inside."""
        inside = _ASKS.sub("", str(super().generate_html()))
        policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        title = f"<p style='font:14px sans-serif'>{html.escape(self.caption)}</p>"
        head = f'<head>{policy}<link rel="icon" href="data:,"><style>body{{background:#fff;color:#1b1b1b}}</style>'
        return inside.replace("<head>", head, 1).replace("<body>", f"<body>{title}", 1)

    def write_html(self, name: str | PathLike[str], *_: Any, **__: Any) -> None:
        """Write the page to a file, and nothing beside it."""
        Path(name).write_text(self.generate_html(), encoding="utf-8")

    save = write_html
    save_graph = write_html

    def _repr_html_(self) -> str:
        page = html.escape(self.generate_html(), quote=True)
        return f'<iframe sandbox="allow-scripts" style="width:100%;height:740px;border:0" srcdoc="{page}"></iframe>'
