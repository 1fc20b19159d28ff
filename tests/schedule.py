"""Who runs which test when: with ``--dist loadfile`` a file, a notebook or a net of the zoo is a unit; the longest unit goes first.

Comes in: the ids of tests and ``durations.json``, the seconds of each unit in an earlier run. Goes out: an order that is the same in all
workers, so that none of them is left with a long file at the end while the others wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

DURATIONS = Path(__file__).with_name("durations.json")
IN_PARTS = {"tests/house/test_tutorials.py", "tests/pipelines/test_notebooks.py"}
"""Files too long for one worker: each notebook is a unit."""
BY_NET = {"tests/graph/test_program_zoo.py", "tests/zoo/test_laws.py", "tests/zoo/test_zoo.py"}
"""Files that ask something of every net: all tests of a net are a unit, in whichever file they are, so that it is traced once."""


def unit_of(nodeid: str) -> str:
    """Return what a test is handed out with: its file, or what the test is about.

    >>> unit_of("tests/zoo/test_laws.py::test_cut[vgg7-both]"), unit_of("tests/cost/test_model.py::test_it[vgg7]")
    ('net::vgg7', 'tests/cost/test_model.py')
    """
    path, _, test = nodeid.partition("::")
    name = test.partition("[")[2].rstrip("]").partition("-")[0]
    if name and path in BY_NET:
        return f"net::{name}"
    return f"{path}::{name}" if name and path in IN_PARTS else path


@cache
def durations() -> Mapping[str, float]:
    """Return the seconds of each unit in the run that was kept."""
    return json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}


def keep(units: Mapping[str, float]) -> None:
    """Write what each unit took in this run; what did not run keeps what it had, what is gone goes."""
    kept = dict(durations()) | {unit: round(seconds, 1) for unit, seconds in units.items()}
    root = DURATIONS.parents[1]
    kept = {unit: seconds for unit, seconds in kept.items() if unit.startswith("net::") or (root / unit.partition("::")[0]).exists()}
    DURATIONS.write_text(json.dumps(dict(sorted(kept.items(), key=lambda item: -item[1])), indent=0) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests of a unit together, in their order; in a worker the longest unit first, and one that nobody knows before it."""
    place: dict[str, int] = {}
    for item in items:
        place.setdefault(unit_of(item.nodeid), len(place))
    known = durations() if hasattr(config, "workerinput") else dict.fromkeys(place, 0.0)

    def key(item: pytest.Item) -> tuple[float, int]:
        unit = unit_of(item.nodeid)
        return -known.get(unit, float("inf")), place[unit]

    items.sort(key=key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand units out in the order of collection, instead of by the number of tests in them."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)
