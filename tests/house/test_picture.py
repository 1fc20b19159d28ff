"""The picture of the house is what the imports are now, is the same each time, and has no arrow that goes up."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.house import imports as house
from tests.house import picture

SVG = "{http://www.w3.org/2000/svg}"


def test_the_committed_picture_is_what_the_imports_are_now():
    assert picture.PICTURE.read_text() == picture.draw(), "make house"


def test_two_drawings_have_the_same_bytes(tmp_path):
    assert picture.write(tmp_path / "a.svg").read_bytes() == picture.write(tmp_path / "b.svg").read_bytes()


def test_every_file_of_the_package_is_in_one_box():
    rows = picture.boxes()
    assert [place for box in rows for place in box.holds] == list(house.ORDER)
    assert sum(box.files for box in rows) == len(house.modules())


def test_the_picture_says_every_name_and_count_in_text():
    rows = picture.boxes()
    texts = [node.text for node in ElementTree.fromstring(picture.draw()).iter(f"{SVG}text")]
    for box in rows:
        assert texts.count(box.name) == 1 and box.line in texts
    assert sorted(t for t in texts if t and t.isdigit()) == sorted(str(count) for count in picture.arrows(rows).values())


def test_every_line_goes_right_and_down():
    for node in ElementTree.fromstring(picture.draw()).iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in node.attrib["points"].split()]
        assert points == sorted(points), "x never falls, and y never rises"


def test_an_arrow_that_goes_up_is_not_drawn():
    with pytest.raises(ValueError, match="an arrow goes up: geta_nb"):
        picture.arrows(picture.boxes()[::-1])


def test_the_picture_fetches_nothing_and_has_its_own_ground():
    text = picture.draw()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    first = ElementTree.fromstring(text).find(f"{SVG}rect")
    assert first is not None and first.attrib["fill"] == picture.PAPER
