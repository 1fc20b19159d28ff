"""Who runs which test when: with ``--dist loadfile`` a file, or a part of a large one, is a unit; the longest unit goes first.

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
IN_PARTS = {
    "tests/house/test_tutorials.py",
    "tests/pipelines/test_notebooks.py",
    "tests/zoo/test_laws.py",
}
"""Files too long for one worker: what is parametrized by the same first name (a net, a notebook) is a unit."""


def unit_of(nodeid: str) -> str:
    """Return the file of a test, or the file and the name of what the test is about.

    >>> unit_of("tests/zoo/test_laws.py::test_cut[vgg7-both]"), unit_of("tests/zoo/test_zoo.py::test_it[vgg7]")
    ('tests/zoo/test_laws.py::vgg7', 'tests/zoo/test_zoo.py')
    """
    path, _, test = nodeid.partition("::")
    name = test.partition("[")[2].rstrip("]").partition("-")[0]
    return f"{path}::{name}" if path in IN_PARTS and name else path


@cache
def durations() -> Mapping[str, float]:
    """Return the seconds of each unit in the run that was kept."""
    return json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}


def keep(units: Mapping[str, float]) -> None:
    """Write what each unit took in this run; what did not run keeps what it had, what is gone goes."""
    kept = {unit: seconds for unit, seconds in durations().items() if (DURATIONS.parents[1] / unit.partition("::")[0]).exists()}
    kept |= {unit: round(seconds, 1) for unit, seconds in units.items()}
    DURATIONS.write_text(json.dumps(dict(sorted(kept.items(), key=lambda item: -item[1])), indent=0) + "\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: the longest unit first, an unknown one before all; within a unit the order stays."""
    if hasattr(config, "workerinput"):
        known = durations()
        items.sort(key=lambda item: -known.get(unit_of(item.nodeid), float("inf")))


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
