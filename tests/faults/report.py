"""What `make test-faults` prints: a line for each fault. A plugin: pytest -p tests.faults.report

A test counts as one injection, or as many as it records as its property `injected`; of these `lost`
were not survived. One that records a `fault` of its own has a line of its own.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.faults.table import FAULTS


@dataclasses.dataclass
class Count:
    injected: int = 0
    lost: int = 0
    skipped: set[str] = dataclasses.field(default_factory=set)


class Report:
    """Of the process that shows results; with pytest-xdist the tests run in others."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = defaultdict(Count)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        properties = dict(report.user_properties)
        own = [str(properties["fault"])] if "fault" in properties else []
        for name in [*properties.get("faults", ()), *own]:  # type: ignore[misc]
            count, injected = self._counts[name], int(str(properties.get("injected", 1)))
            if report.skipped:
                count.skipped.add(str(report.longrepr[2]).removeprefix("Skipped: "))  # type: ignore[index]
                continue
            count.injected += injected
            if report.failed:
                count.lost += int(str(properties.get("lost", injected))) or injected

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if any(self._counts[name] == Count() for name in FAULTS):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("faults")
        others = sorted(self._counts.keys() - FAULTS.keys() - {"loop"})
        for number, text in [*FAULTS.items(), *((name, "") for name in others)]:
            count = self._counts[number]
            line = f"{number:5}{text}" if text else number
            survived = count.injected - count.lost
            told = f"{line:58} injected {count.injected:4}  survived {survived:4}  lost {count.lost}"
            if count.skipped:
                told += f"  (not all: {', '.join(sorted(count.skipped))})"
            terminalreporter.line(told, red=bool(count.lost) or not count.injected)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report())


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        numbers = sorted({n for mark in item.iter_markers("fault") for n in mark.args})
        item.user_properties.append(("faults", numbers))
