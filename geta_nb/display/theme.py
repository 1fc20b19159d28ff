"""Colours and styles of every view, scoped by the class ``geta-view``; the only place that names a colour.

Hues are Okabe and Ito's (2008), told apart with every common colour blindness. Text and ground are painted together, so that a view can
be read on any page. They follow the variables of VS Code, Colab or JupyterLab where they exist; else they are light or dark as the page
says that it is (CSS ``color-scheme``), which an unaware page never is, however dark the desktop. Nothing here refers to anything outside
the page.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE, YELLOW, GREY = (f"gv-c{i}" for i in range(8))
HUES = (BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE, YELLOW)

_HUES_LIGHT = ("#0072b2", "#d98a00", "#009e73", "#4aa3d8", "#d55e00", "#b8578f", "#b3a100", "#8a8a8a")
_HUES_DARK = ("#4c9fd6", "#e69f00", "#1db88c", "#7cc7f0", "#f07f2e", "#d88bb5", "#e3d64f", "#9a9a9a")
_HEAT = ("#e0762a", "#a84800")
SHADED = "gv-heat"
"""Ground of a number in a table of shades: text stays legible on it, which the hues do not promise."""
HUE_OF_KIND = {f"gv-c{i}": hue for i, hue in enumerate(_HUES_LIGHT)}
"""Theme class -> its hue on a light ground, for pictures that other programs draw."""

_PLAIN = {"fg": ("#1b1b1b", "#e8e8e8"), "bg": ("#ffffff", "#161616")}
# Text and ground are taken from the same page, always both. VS Code and Colab come first: a page of theirs that has shown a widget has
# JupyterLab's variables too, and those are light whatever the page is.
_HOSTS = {
    "fg": ("--vscode-editor-foreground", "--colab-primary-text-color", "--jp-content-font-color1"),
    "bg": ("--vscode-editor-background", "--colab-primary-surface-color", "--jp-layout-color0"),
}
_MIXED = {"dim": 80, "soft": 6, "line": 26}  # per cent of the text in the ground: legible wherever text and ground are


def _either(light: str, dark: str) -> str:
    return f"light-dark({light},{dark})"


def _from_page(name: str) -> str:
    found = _either(*_PLAIN[name])
    for variable in reversed(_HOSTS[name]):
        found = f"var({variable},{found})"
    return f"--gv-{name}:{found};"


_MIXTURES = "".join(f"--gv-{name}:color-mix(in srgb,var(--gv-fg) {share}%,var(--gv-bg));" for name, share in _MIXED.items())
_PAIRS = {**{f"c{i}": pair for i, pair in enumerate(zip(_HUES_LIGHT, _HUES_DARK, strict=True))}, "heat": _HEAT}
_HUES = "".join(f"--gv-{name}:{_either(*pair)};" for name, pair in _PAIRS.items())
_WITHOUT_SIDES = "".join(f"--gv-{name}:{light};" for name, (light, _) in (_PLAIN | _PAIRS).items())

# The side is the page's own: where it says nothing it is light, as its ground is then. A mark that names the side wins, for these pages
# set their ground without saying so to the browser; mkdocs-jupyter marks every notebook as light, so the site's own mark comes last.
THEME = (
    f".geta-view{{{_from_page('fg')}{_from_page('bg')}{_MIXTURES}{_HUES}}}"
    ".geta-view:root{color-scheme:light dark}"
    "[data-jp-theme-light=true] .geta-view,[data-vscode-theme-kind$=light] .geta-view,[theme=light] .geta-view{color-scheme:light}"
    "[data-jp-theme-light=false] .geta-view,[data-vscode-theme-kind$=dark] .geta-view,[data-vscode-theme-kind$=contrast] .geta-view,"
    "[theme=dark] .geta-view,[data-md-color-scheme=slate] .geta-view{color-scheme:dark}"
    f"@supports not (color:light-dark(#000,#fff)){{.geta-view{{{_WITHOUT_SIDES}}}}}"
)

_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans','Liberation Sans',sans-serif"

# Every text in a picture is monospaced: its width is then known without a browser, so nothing overlaps.
SVG_STYLE = (
    f".geta-view text{{font-family:{_MONO};font-size:11px;fill:var(--gv-fg)}}"
    ".geta-view text.gv-dim{fill:var(--gv-dim)}.geta-view text.gv-strong{font-weight:600}.geta-view text.gv-small{font-size:9px}"
    ".geta-view text.gv-on{fill:#000;font-weight:600}"
    ".geta-view .gv-ground{fill:var(--gv-bg)}.geta-view .gv-soft{fill:var(--gv-soft)}"
    ".geta-view .gv-track{fill:var(--gv-line);fill-opacity:.45}.geta-view .gv-heat{fill:var(--gv-heat)}"
    ".geta-view .gv-box{fill:var(--gv-bg);stroke:var(--gv-line)}"
    ".geta-view .gv-edge{fill:none;stroke:var(--gv-dim);stroke-opacity:.75}.geta-view .gv-head{fill:var(--gv-dim)}"
    ".geta-view .gv-rule{stroke:var(--gv-line)}.geta-view .gv-tick{stroke:var(--gv-bg)}"
    ".geta-view polyline.gv-under{stroke-width:1;stroke-opacity:.55;stroke-dasharray:3 2}"
    + "".join(
        f".geta-view .gv-c{i}{{fill:var(--gv-c{i})}}.geta-view .gv-l{i}{{fill:none;stroke:var(--gv-c{i});stroke-width:1.6}}"
        for i in range(8)
    )
)

PICTURE_STYLE = f"<style>{THEME}{SVG_STYLE}</style>"

HTML_STYLE = (
    f".geta-view{{color:var(--gv-fg);background:var(--gv-bg);font:13px/1.45 {_SANS};max-width:100%}}"
    "div.geta-view{padding:6px 8px;border-radius:4px;box-sizing:border-box}"
    ".geta-view summary,.geta-view b,.geta-view th,.geta-view td{color:inherit}"
    f".geta-view code{{font:12px {_MONO};color:inherit;background:none;padding:0}}"
    ".geta-view .gv-title,.geta-view .gv-note,.geta-view summary{overflow-wrap:anywhere}"
    ".geta-view .gv-title{font-weight:600;margin:2px 0 6px}.geta-view .gv-note{color:var(--gv-dim);margin:4px 0}"
    ".geta-view .gv-scroll{overflow:auto;max-width:100%;max-height:460px;margin:4px 0 8px}"
    ".geta-view .gv-scroll:focus-visible{outline:2px solid var(--gv-c0)}"
    ".geta-view table.gv-table{border-collapse:collapse;margin:0;font-size:12px;color:inherit;width:auto;table-layout:auto}"
    ".geta-view .gv-table th,.geta-view .gv-table td{padding:2px 10px 2px 0;text-align:left;vertical-align:top;"
    "white-space:nowrap;border:0;border-bottom:1px solid var(--gv-line)}"
    ".geta-view .gv-table thead th{position:sticky;top:0;background:var(--gv-bg);font-weight:600}"
    ".geta-view .gv-table tbody tr{background:transparent}"
    ".geta-view .gv-table .gv-num{text-align:right;font-variant-numeric:tabular-nums}"
    ".geta-view .gv-table td.gv-wrap{white-space:normal;min-width:14em;max-width:44em;overflow-wrap:anywhere}"
    ".geta-view .gv-cards{display:flex;flex-wrap:wrap;gap:8px;margin:6px 0 10px}"
    ".geta-view .gv-card{border:1px solid var(--gv-line);border-radius:6px;padding:6px 10px;min-width:96px}"
    ".geta-view .gv-card b{display:block;font-size:17px;line-height:1.3;font-variant-numeric:tabular-nums}"
    ".geta-view .gv-card>span{color:var(--gv-dim);font-size:11px}"
    ".geta-view details{margin:4px 0}.geta-view summary{cursor:pointer;font-weight:600}"
    ".geta-view svg{display:block;max-width:none}"
    ".geta-view figure{margin:6px 0}.geta-view figcaption{color:var(--gv-dim);font-size:12px}"
)
