"""Every program under ``examples`` runs, and says what it should."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.redisbox import RedisBox, free_port

if TYPE_CHECKING:
    import redis as redis_py

_EXAMPLES = Path(__file__).parents[2] / "examples"
# This one is tested by tests/integration/test_demo.py.
_ELSEWHERE = {"read_the_library.py"}

SAYS = {
    "emails.py": """\
        a reminder is delayed
        welcome of bob@example.com: the mailbox is full
        digest, reminder, reminder, welcome, welcome, welcome, welcome failed
    """,
    "sales_report.py": """\
        the report waits for its regions
        {'month': '2026-05', 'total': 358, 'missing': ['no figures for atlantis']}
    """,
    "nightly_report.py": """\
        the daily report is made
        the next one at 03:15 in Madrid
        3 heartbeats
    """,
    "crawl.py": """\
        / waits
        /docs waits
        5 pages
    """,
    "order_steps.py": """\
        reserve (0 failed attempts)
        charge (0 failed attempts)
        charge (1 failed attempts)
        ship (1 failed attempts)
        order 7 is on its way
    """,
}


@pytest.fixture(scope="module")
def box() -> Iterator[RedisBox]:
    """A server of its own: the programs have no prefix."""
    with RedisBox() as started:
        yield started


@pytest.fixture(autouse=True)
def _clean(box: RedisBox) -> None:
    client: redis_py.Redis = box.client()
    client.flushdb()
    client.close()


def _start(box: RedisBox, name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(_EXAMPLES / name), *arguments],
        env={**os.environ, "TOROMQ_URL": box.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def _running(box: RedisBox, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = _start(box, name, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("name", SAYS)
def test_a_program_says_what_it_should(box: RedisBox, name: str) -> None:
    with _running(box, name) as process:
        said, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert _lines(said) == _lines(SAYS[name])


def test_the_worker_of_images_runs_until_it_is_told_to_end(box: RedisBox) -> None:
    with _running(box, "images.py") as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        with _running(box, "images.py", "add", "a.png") as adding:
            assert adding.communicate(timeout=60) == ("a.png {'width': 640}\n", "")
            assert adding.returncode == 0
        worker.send_signal(signal.SIGINT)
        assert worker.communicate(timeout=60) == ("", "")
        assert worker.returncode == 0


def _messages(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events."""
    message: dict[str, Any] = {}
    for line in lines:
        if not line:
            if message:
                yield message
            message = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            message[field] = json.loads(value) if field == "data" else value


def test_progress_is_seen_live_on_a_page(box: RedisBox) -> None:
    port = free_port()
    with (
        _running(box, "live_progress.py", "--port", str(port)) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):

        def is_up() -> bool:
            assert server.poll() is None, server.communicate()
            try:
                return "new EventSource('/events')" in client.get("/").text
            except httpx.TransportError:
                return False

        eventually(is_up, 60)
        with client.stream("GET", "/events") as first, client.stream("GET", "/events") as second:
            assert first.headers["content-type"].startswith("text/event-stream")
            lines = [stream.iter_lines() for stream in (first, second)]
            assert [next(each) for each in lines] == [": listening"] * 2
            added = client.post("/videos?seconds=0.2")
            assert added.status_code == 202
            job = added.json()["job"]
            wanted = [*[("progress", percent) for percent in (25, 50, 75, 100)], ("completed", f"{job}.mp4")]
            for each in lines:
                messages = _messages(each)
                seen = [next(messages) for _ in wanted]
                assert [(said["event"], said["data"]["value"]) for said in seen] == wanted
                assert {said["data"]["job"] for said in seen} == {job}
        # As a browser does that was away after the second message.
        with client.stream("GET", "/events", headers={"last-event-id": seen[1]["id"]}) as again:
            messages = _messages(again.iter_lines())
            assert [next(messages) for _ in wanted[2:]] == seen[2:]
        assert client.get("/events", headers={"last-event-id": "nonsense"}).status_code == 400
        with client.stream("GET", "/events") as open_at_the_end:
            assert next(open_at_the_end.iter_lines()) == ": listening"
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        # uvicorn ends by the signal that it got, when all is closed.
        assert server.returncode in (0, -signal.SIGTERM)


def test_every_program_is_run_and_listed() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+\.py)\]\((\w+\.py)\)", (_EXAMPLES / "README.md").read_text(encoding="utf-8"), re.M)
    names = sorted(path.name for path in _EXAMPLES.glob("*.py"))
    assert sorted(name for name, _ in listed) == sorted(link for _, link in listed) == names
    assert [name for name in names if name not in _ELSEWHERE and f'"{name}"' not in here] == []
