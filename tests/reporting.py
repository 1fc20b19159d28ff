"""What a run of the tests says about its own time: a test that passes a minute by name, the slowest files, the processor's minutes.

Comes in: reports, in the process that the terminal belongs to. Goes out: lines. Nothing here makes a test fail.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from tests import schedule

LONG = 60.0
"""Seconds after which a test that is still going on is named."""
FILES = 30
PROCESSOR = "processor seconds"
BEGIN = pytest.StashKey[float]()


class Reporting:
    """Listens in the process that the terminal belongs to; under xdist the workers' reports come here."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.begin = config, time.perf_counter()
        self.terminal = os.dup(2)  # a running test's own output is captured, this is not
        self.timers: dict[str, threading.Timer] = {}
        self.units: dict[str, float] = defaultdict(float)
        self.files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Name the test in a minute, unless it has ended."""
        timer = self.timers[nodeid] = threading.Timer(LONG, self._say, (f"\n{nodeid} has taken a minute and goes on\n",))
        timer.daemon = True
        timer.start()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """It need not be named any more."""
        if timer := self.timers.pop(nodeid, None):
            timer.cancel()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test to its unit of work, and to its file."""
        self.units[schedule.unit_of(report.nodeid)] += report.duration
        file = self.files[report.nodeid.partition("::")[0]]
        file[0] += report.duration
        file[1] += sum(value for name, value in report.user_properties if name == PROCESSOR and report.when == "teardown")

    def pytest_sessionfinish(self) -> None:
        """Keep what each unit took, where that was asked for."""
        for timer in self.timers.values():
            timer.cancel()
        if self.config.getoption("--keep-durations"):
            schedule.keep(self.units)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the files that took longest and what all of it took; of a single file pytest says enough itself."""
        if len(self.files) < 2:
            return
        slowest = sorted(self.files.items(), key=lambda item: -item[1][0])[:FILES]
        terminalreporter.section(f"slowest {len(slowest)} files: seconds, and seconds of the processor")
        for name, (seconds, processor) in slowest:
            terminalreporter.write_line(f"{seconds:8.1f} {processor:8.1f}  {name}")
        processor = processor_seconds()  # the workers have ended: their time and that of what they started is this process's children's
        wall = time.perf_counter() - self.begin
        terminalreporter.write_line(f"in all {processor / 60:.1f} minutes of processor time in {wall / 60:.1f} minutes")

    def _say(self, text: str) -> None:
        os.write(self.terminal, text.encode())


def processor_seconds() -> float:
    """Return what this process has used, and those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin to count the processor's seconds of a test."""
    item.stash[BEGIN] = processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send them with the last report of the test, from whichever process it ran in."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append((PROCESSOR, processor_seconds() - item.stash.get(BEGIN, processor_seconds())))
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--keep-durations`` is what ``make durations`` runs with."""
    parser.addoption("--keep-durations", action="store_true", help="write tests/durations.json: what is handed out first")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Listen where the terminal is."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporting(config), "geta-nb-reporting")
