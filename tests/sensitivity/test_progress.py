"""A bar for all that is measured, on one rank of several."""

from __future__ import annotations

from geta_nb.qasso import ranks
from geta_nb.sensitivity.progress import progress


def test_the_rank_that_speaks_for_all_shows_a_bar_and_the_others_none(capsys, monkeypatch):
    assert list(progress(range(3), "plans", "plan")) == [0, 1, 2]
    assert "plans" in capsys.readouterr().err
    monkeypatch.setattr(ranks, "is_first", lambda: False)
    assert list(progress(range(3), "plans", "plan")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
