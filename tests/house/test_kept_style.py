"""What is kept of views looks as the views do now: on GitHub and on the site nothing runs that would make them anew."""

from __future__ import annotations

from geta_nb.display.markup import fragment
from geta_nb.display.theme import PICTURE_STYLE
from tests.house.kept_style import FRAGMENT_STYLE, ROOT, STYLE, kept_files, restyled


def test_every_kept_view_has_the_present_style():
    texts = {path: path.read_text(encoding="utf-8") for path in kept_files()}
    assert sum(len(STYLE.findall(text)) for text in texts.values()) > 30
    stale = [str(path.relative_to(ROOT)) for path, text in texts.items() if restyled(text) != text]
    assert stale == [], "python -m tests.house.kept_style"


def test_a_style_is_exchanged_for_one_of_its_kind():
    assert FRAGMENT_STYLE in fragment("a view")
    assert restyled("<svg><style>.geta-view{fill:red}</style></svg>") == f"<svg>{PICTURE_STYLE}</svg>"
    assert restyled("<style>.geta-view{a}.geta-view .gv-title{b}</style><style>p{}</style>") == f"{FRAGMENT_STYLE}<style>p{{}}</style>"
    assert restyled(FRAGMENT_STYLE + PICTURE_STYLE) == FRAGMENT_STYLE + PICTURE_STYLE
