"""Claims about the tests themselves: none of them is about a clock, and the longest are handed out first."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import reporting, schedule
from tests.clocks import timed_assertions
from tests.conftest import ROOT

FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
# what stood in these tests once, and failed on a busy machine sooner or later
SPOILED = {
    "a difference": "begin = time.perf_counter()\nrun.stop()\nassert time.perf_counter() - begin < LATENCY",
    "both ends": "begin = time.perf_counter()\nassert 0.15 <= time.perf_counter() - begin < 0.15 + LATENCY",
    "kept in a name": "begin = time.monotonic()\ntook = time.monotonic() - begin\nassert took < 20",
    "in a function": "def test():\n    start = perf_counter()\n    run()\n    spent = perf_counter() - start\n    assert spent < 1",
    "a key": 'assert facts["seconds"] < 60',
    "an attribute": "assert 0.2 <= row.analysis_seconds < 0.5",
    "a property": "assert 0.5 < run.seconds_left < 60",
    "a median": "seconds = answer_times(panel, 12)\nassert seconds[len(seconds) // 2] < 0.05, seconds",
    "a page's clock": 'CLICK = "performance.now() - begin"\ndef test(page):\n    assert page.evaluate(CLICK, ["stop"]) < LATENCY',
    "a page's clocks": 'waits = page.evaluate("performance.now() - begin")\nassert waits[len(waits) // 2] < 100, waits',
    "the processor's": "assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 120",
    "a short wait": "assert entered.wait(0.5)",
}
FAIR = {
    "a wait that ends a test which hangs": "end = time.monotonic() + 60\nwhile not done():\n    assert time.monotonic() < end",
    "a ratio within a run": "a = time.process_time()\nbuild()\nb = time.process_time() - a\nassert b < a / 10",
    "that there is a time": 'assert 0 < run["phases"]["exporter"] < run["seconds"]',
    "equal to what a clock of its own says": "assert row.analysis_seconds == 0.25",
    "a count": "begin = time.monotonic()\nassert run.step_count < 100",
    "a long wait": "assert entered.wait(120)",
}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_assertion_compares_a_time_with_a_number(path: Path) -> None:
    """Such bounds are for the commands ``make bench-*``; what a clock cannot spoil is for the tests: order, counts, ratios in one run."""
    assert timed_assertions((ROOT / path).read_text()) == []


@pytest.mark.parametrize("name", SPOILED)
def test_an_assertion_about_time_is_found(name: str) -> None:
    assert len(timed_assertions(SPOILED[name])) == 1


@pytest.mark.parametrize("name", FAIR)
def test_what_a_clock_cannot_spoil_is_let_be(name: str) -> None:
    assert timed_assertions(FAIR[name]) == []


def test_the_longest_unit_is_first_and_one_that_nobody_knows_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order within a unit stays: what is made for its tests is made once."""
    monkeypatch.setattr(schedule, "durations", lambda: {"tests/a.py": 1.0, "tests/b.py": 5.0, "net::vgg7": 9.0})
    nets = ["tests/graph/test_program_zoo.py::json[vgg7]", "tests/zoo/test_laws.py::law[vgg7-plain]"]
    ids = [nets[0], "tests/a.py::x", "tests/b.py::y", "tests/b.py::x", "tests/new.py::z", nets[1]]
    items = [SimpleNamespace(nodeid=nodeid) for nodeid in ids]
    worker = SimpleNamespace(workerinput={})
    schedule.pytest_collection_modifyitems(worker, items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [ids[4], *nets, ids[2], ids[3], ids[1]]
    alone = [SimpleNamespace(nodeid=nodeid) for nodeid in ids]
    schedule.pytest_collection_modifyitems(SimpleNamespace(), alone)  # type: ignore[arg-type]
    assert [item.nodeid for item in alone] == [*nets, *ids[1:5]]


def test_the_table_of_durations_names_files_that_are_there() -> None:
    known = json.loads(schedule.DURATIONS.read_text())
    assert [unit for unit in known if not unit.startswith("net::") and not (ROOT / unit.partition("::")[0]).exists()] == []
    assert list(known.values()) == sorted(known.values(), reverse=True)
    assert {str(path) for path in FILES} >= schedule.IN_PARTS | schedule.BY_NET


def test_a_test_that_goes_on_for_a_minute_is_named(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    said: list[str] = []
    monkeypatch.setattr(reporting, "LONG", 0.0)
    listener = reporting.Reporting(pytestconfig)
    monkeypatch.setattr(listener, "_say", said.append)
    listener.pytest_runtest_logstart("tests/a.py::test_that_takes_long")
    listener.timers["tests/a.py::test_that_takes_long"].join()
    listener.pytest_runtest_logfinish("tests/a.py::test_that_takes_long")
    assert "tests/a.py::test_that_takes_long has taken a minute" in said[0] and not listener.timers
