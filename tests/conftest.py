"""What every test can ask for: a server, a client, a key prefix of its own; and what every test must leave true."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Makes ``tests.support`` importable in every import mode of pytest and from every directory.
if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.eventually import eventually
from tests.support.not_run import report_not_run
from tests.support.redisbox import RedisBox

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import redis

_HERE = Path(__file__).parent
_CHECKED_FOLDERS = (_HERE / "integration", _HERE / "interop")
_PASSED = pytest.StashKey[bool]()
# On a server that refuses what touches two slots, under a prefix with a hash tag and colons.
_IN_ONE_SLOT = os.environ.get("TOROMQ_TEST_ONE_SLOT") == "1"
_CLUSTER = ("--cluster-enabled", "yes")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers this file gives a meaning to."""
    config.addinivalue_line(
        "markers",
        "leaves_keys_broken(reason): the test breaks the invariants of its keys on purpose; they are not checked",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once more, and in red, what did not run."""
    report_not_run(terminalreporter)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the server's log beside a failure, and remember whether the test itself passed."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, RedisBox):
                report.sections.append((f"log of the server of fixture {name!r}", value.log_text()))
    # Where tests run side by side, reports are sent as UTF-8; a path that is none would end the whole run.
    report.sections = [(_writable(title), _writable(text)) for title, text in report.sections]
    if report.longrepr is not None and _writable(report.longreprtext) != report.longreprtext:
        report.longrepr = _writable(report.longreprtext)
    return report


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.fixture(scope="session")
def redisbox() -> Iterator[RedisBox]:
    """The server that all tests share. A test that stops or floods a server starts a ``RedisBox`` of its own."""
    with RedisBox(extra=_CLUSTER if _IN_ONE_SLOT else ()) as box:
        if _IN_ONE_SLOT:
            client = box.client()
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            eventually(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))
        yield box


@pytest.fixture(name="redis")
def redis_client(redisbox: RedisBox) -> Iterator[redis.Redis]:
    """A plain client of the shared server: RESP2, replies as ``str``."""
    client = redisbox.client()
    yield client
    client.close()


@pytest.fixture
def prefix(redisbox: RedisBox) -> Iterator[str]:
    """A key prefix nobody else uses, so that tests run side by side without FLUSHDB. Its keys go after the test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    if _IN_ONE_SLOT:
        name = f"{{{name}}}:of:three"
    yield name
    if not redisbox.running:
        return
    client = redisbox.client()
    batch: list[str] = []
    for key in client.scan_iter(f"{name}:*", count=1000):
        batch.append(key)
        if len(batch) == 500:  # Bounded, so that one command never holds the server for long
            client.unlink(*batch)
            batch.clear()
    if batch:
        client.unlink(*batch)
    client.close()


# ==================================================================================================
# INVARIANTS: at the end of every test under tests/integration and tests/interop that used ``prefix``,
# tests/support/invariants.py looks at all keys of that prefix and reports each lie they tell.
# ==================================================================================================
@pytest.fixture(autouse=True)
def _keys_tell_no_lies(request: pytest.FixtureRequest) -> Iterator[None]:
    concerned = "prefix" in request.fixturenames and any(
        folder in request.node.path.parents for folder in _CHECKED_FOLDERS
    )
    if not concerned:
        yield
        return
    excuse = request.node.get_closest_marker("leaves_keys_broken")
    if excuse is not None and not (excuse.args and isinstance(excuse.args[0], str) and excuse.args[0].strip()):
        pytest.fail("leaves_keys_broken needs a reason: @pytest.mark.leaves_keys_broken('why')", pytrace=False)
    # Asked for here, so that both are still usable after the test: fixtures end in reverse order. For
    # the same reason, the test's own queues and workers are closed by the time the keys are looked at.
    prefix: str = request.getfixturevalue("prefix")
    client: redis.Redis = request.getfixturevalue("redis")
    yield
    # A failed test says enough by itself; what it left behind half done would only hide that.
    if excuse is not None or not request.node.stash.get(_PASSED, False):
        return
    from tests.support.invariants import check_invariants

    lies = check_invariants(client, prefix)
    if lies:
        listing = "\n".join(f"  - {lie}" for lie in lies)
        pytest.fail(f"the keys under {prefix}: break {len(lies)} invariant(s):\n{listing}", pytrace=False)
