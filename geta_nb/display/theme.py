"""Colours and styles of every view, scoped by the class ``geta-view``; the only place that names a colour.

Hues are Okabe and Ito's (2008), told apart with every common colour blindness. Text and ground follow JupyterLab's variables where
they exist, else the reader's light or dark preference. Nothing here refers to anything outside the page.
"""

from __future__ import annotations

from collections.abc import Sequence

BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE, YELLOW, GREY = (f"gv-c{i}" for i in range(8))
HUES = (BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE, YELLOW)

_GROUNDS = "--gv-fg:%s;--gv-dim:%s;--gv-bg:%s;--gv-soft:%s;--gv-line:%s;"
_JUPYTER = ("--jp-content-font-color1", "--jp-content-font-color2", "--jp-layout-color1", "--jp-layout-color2", "--jp-border-color2")
_HUES_LIGHT = ("#0072b2", "#d98a00", "#009e73", "#4aa3d8", "#d55e00", "#b8578f", "#b3a100", "#8a8a8a")
_HUES_DARK = ("#4c9fd6", "#e69f00", "#1db88c", "#7cc7f0", "#f07f2e", "#d88bb5", "#e3d64f", "#9a9a9a")
HUE_OF_KIND = {f"gv-c{i}": hue for i, hue in enumerate(_HUES_LIGHT)}
"""Theme class -> its hue on a light ground, for pictures that other programs draw."""


def _variables(plain: Sequence[str], hues: Sequence[str]) -> str:
    grounds = _GROUNDS % tuple(f"var({name},{colour})" for name, colour in zip(_JUPYTER, plain, strict=True))
    return grounds + "".join(f"--gv-c{i}:{hue};" for i, hue in enumerate(hues))


_PLAIN_LIGHT = ("#1b1b1b", "#595959", "#ffffff", "#f3f3f3", "#c4c4c4")
_PLAIN_DARK = ("#e8e8e8", "#b0b0b0", "#161616", "#262626", "#4d4d4d")
_DARK_HUES_ONLY = "".join(f"--gv-c{i}:{hue};" for i, hue in enumerate(_HUES_DARK))

# The page of JupyterLab may be light on a dark desktop: its own mark on <body> wins over the desktop's preference.
THEME = (
    f".geta-view{{{_variables(_PLAIN_LIGHT, _HUES_LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{.geta-view{{{_variables(_PLAIN_DARK, _HUES_DARK)}}}"
    f"[data-jp-theme-light=true] .geta-view{{{''.join(f'--gv-c{i}:{hue};' for i, hue in enumerate(_HUES_LIGHT))}}}}}"
    f"[data-jp-theme-light=false] .geta-view{{{_DARK_HUES_ONLY}}}"
)

_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans','Liberation Sans',sans-serif"

# Every text in a picture is monospaced: its width is then known without a browser, so nothing overlaps.
SVG_STYLE = (
    f".geta-view text{{font-family:{_MONO};font-size:11px;fill:var(--gv-fg)}}"
    ".geta-view text.gv-dim{fill:var(--gv-dim)}.geta-view text.gv-strong{font-weight:600}.geta-view text.gv-small{font-size:9px}"
    ".geta-view text.gv-on{fill:#000;font-weight:600}"
    ".geta-view .gv-ground{fill:var(--gv-bg)}.geta-view .gv-soft{fill:var(--gv-soft)}"
    ".geta-view .gv-track{fill:var(--gv-line);fill-opacity:.45}"
    ".geta-view .gv-box{fill:var(--gv-bg);stroke:var(--gv-line)}"
    ".geta-view .gv-edge{fill:none;stroke:var(--gv-dim);stroke-opacity:.75}.geta-view .gv-head{fill:var(--gv-dim)}"
    ".geta-view .gv-rule{stroke:var(--gv-line)}.geta-view .gv-tick{stroke:var(--gv-bg)}"
    + "".join(
        f".geta-view .gv-c{i}{{fill:var(--gv-c{i})}}.geta-view .gv-l{i}{{fill:none;stroke:var(--gv-c{i});stroke-width:1.6}}"
        for i in range(8)
    )
)

PICTURE_STYLE = f"<style>{THEME}{SVG_STYLE}</style>"

HTML_STYLE = (
    f".geta-view{{color:var(--gv-fg);font:13px/1.45 {_SANS};max-width:100%}}"
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
