import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geta_nb.display import wording
from geta_nb.display.markup import escape, name
from geta_nb.display.wording import ranges, shorten, shorten_all, width
from tests.display.dummies import HOSTILE


@given(st.lists(st.integers(0, 60)))
def test_ranges_name_exactly_the_indices(indices: list[int]) -> None:
    named = set()
    for part in filter(None, ranges(indices).split(", ")):
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == set(indices)


@given(st.text(), st.integers(1, 60))
def test_a_shortened_text_fits_and_a_short_one_is_left_alone(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert width(short) <= limit
    assert "\n" not in short
    if width(wording.clean(text)) <= limit:
        assert short == wording.clean(text)


def test_a_dotted_path_keeps_its_numbers_and_its_last_word() -> None:
    assert shorten("encoder.layer.11.attention.self.query", 28) == "e.l.11.attention.self.query"


def test_names_of_one_column_are_abbreviated_alike() -> None:
    names = ["encoder.layer.0.attention.self.query", "encoder.layer.0.output"]
    assert shorten_all(names, 28) == ["e.l.0.attention.self.query", "e.l.0.output"]


@given(st.text())
def test_escaped_text_holds_no_markup_and_no_control_character(text: str) -> None:
    escaped = escape(text)
    assert not set("<>\"'") & set(escaped)
    assert all(ord(c) >= 32 for c in escaped)
    escaped.encode()  # lone surrogates would raise


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_shortened_name_carries_the_whole_of_it_as_its_title(hostile: str) -> None:
    shown = name(hostile, 12).content
    assert ("title=" in shown) == (width(wording.clean(hostile)) > 12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (82_314, "82,314"),
        (9_999_999, "9,999,999"),
        (10_000_000, "10.0 M"),
        (110_104_890, "110 M"),
        (999_600_000, "1.00 G"),
        (None, "–"),
    ],
)
def test_counts(value: int | None, text: str) -> None:
    assert wording.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (20_480, "20.5 kB"), (1_718_000, "1.72 MB"), (999_960, "1.00 MB"), (None, "–")]
)
def test_sizes(value: int | None, text: str) -> None:
    assert wording.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 %"), (1, "100 %"), (0.0308, "3.08 %"), (0.5003, "50.0 %"), (0.09999, "10.0 %"), (math.nan, "–"), (None, "–")]
)
def test_percents(value: float | None, text: str) -> None:
    assert wording.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(8, "8"), (7.94, "7.9"), (7.96, "8"), (10.0, "10"), (math.nan, "–"), (None, "–")])
def test_bits(value: float | None, text: str) -> None:
    assert wording.bits(value) == text
