"""What a test does that this machine can't run: it says so loudly."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final, NoReturn

import pytest

NOT_RUN: Final = "tests did not run"


def not_run(which: str, why: str) -> NoReturn:
    """Skips the calling test with a reason that the terminal summary repeats.

    With ``CI=true`` it fails instead: a pipeline that lost its tools must not stay green.
    """
    reason = f"{which} {NOT_RUN}: {why}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def report_not_run(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeats in the terminal summary what did not run, and why."""
    reports = terminalreporter.stats.get("skipped", [])
    texts = (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr) for report in reports)
    reasons = Counter(text.removeprefix("Skipped: ") for text in texts if NOT_RUN in text)
    if reasons:
        terminalreporter.section("not run", red=True, bold=True)
        for reason, count in reasons.items():
            terminalreporter.line(f"{count} {reason}", red=True)
