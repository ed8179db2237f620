"""How long random tests search, and what they say afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis as redis_py
from hypothesis import HealthCheck, Phase, settings

from tests.property.bench import Bench
from tests.support.node_peer import NodePeer, require_node
from tests.support.redisbox import RedisBox

# One difference at a time, with the shortest list of operations that shows it.
_COMMON: Final[dict[str, Any]] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
    "phases": (Phase.reuse, Phase.generate, Phase.shrink),
}
# Quick: the same steps every time, so that a failure is there again when it is looked at. Slow: others every time.
settings.register_profile("quick", max_examples=25, stateful_step_count=30, derandomize=True, **_COMMON)
settings.register_profile("slow", max_examples=320, stateful_step_count=40, print_blob=True, **_COMMON)
PROFILE: Final = os.environ.get("TOROMQ_PROPERTY", "quick")
# Fewer steps than these would mean that the machine did not do what it is for.
_LEAST_STEPS: Final = {"quick": 500, "slow": 10_000}

_REPORTS = pytest.StashKey[list[str]]()


@pytest.fixture
def profile() -> settings:
    """How many examples to try, and how long each is: $TOROMQ_PROPERTY is quick (the default) or slow."""
    return settings.get_profile(PROFILE)


@pytest.fixture
def least_steps() -> int:
    """How many steps the examples of the profile must have had together."""
    return _LEAST_STEPS.get(PROFILE, 0)


@pytest.fixture
def bench(redisbox: RedisBox, redis: redis_py.Redis, prefix: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """What the examples share, for one test; what was done is told at the end of the test run."""
    require_node()
    with asyncio.Runner() as runner:
        peer = runner.run(NodePeer.start(redisbox.unix_url, prefix))
        bench = Bench(redis, redisbox.unix_url, prefix, peer, runner.get_loop())
        try:
            yield bench
        finally:
            runner.run(peer.close())
            if bench.examples:
                report = f"{request.node.name} ({PROFILE}): {bench.report()}"
                request.config.stash.setdefault(_REPORTS, []).append(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many steps ran."""
    reports = terminalreporter.config.stash.get(_REPORTS, [])
    if reports:
        terminalreporter.section("random operations")
        for report in reports:
            terminalreporter.line(report)
