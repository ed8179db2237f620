"""``change_priority``: a job gets another priority, and its place by it."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, PRIORITY, Called, NewJob, Queue


def change(mail: Queue, priority: int, *, lifo: str = "") -> Called:
    return mail.call("change_priority", id="a", priority=priority, lifo=lifo)


def add(mail: Queue, *jobs: NewJob) -> None:
    """Adds jobs that nobody has been woken for."""
    mail.add(*jobs)
    mail.redis.zrem(mail.key("marker"), "0")


def test_a_standard_job_gets_a_priority(mail: Queue) -> None:
    add(mail, NewJob(job_id="a"), NewJob(job_id="b", priority=5))
    assert change(mail, 5) == (
        0,
        {
            **{"wait": None, "prioritized": {"b": 5 * PRIORITY + 1, "a": 5 * PRIORITY + 2}, "pc": "2"},
            **{"a": {"priority": "5"}, "marker": {"0": 0}},
        },
    )


def test_a_job_gets_another_priority(mail: Queue) -> None:
    add(mail, NewJob(job_id="a", priority=9), NewJob(job_id="b", priority=5))
    assert change(mail, 5) == (
        0,
        {
            **{"prioritized": {"b": 5 * PRIORITY + 2, "a": 5 * PRIORITY + 3}, "pc": "3"},
            **{"a": {"priority": "5"}, "marker": {"0": 0}},
        },
    )


@pytest.mark.parametrize(("lifo", "order"), [("", ["a", "w", "v"]), ("1", ["w", "v", "a"])])
@pytest.mark.parametrize("priority", [0, 9])
def test_a_job_loses_its_priority(mail: Queue, priority: int, lifo: str, order: list[str]) -> None:
    add(mail, NewJob(job_id="v"), NewJob(job_id="a", priority=priority), NewJob(job_id="w"))
    reply, changed = change(mail, 0, lifo=lifo)
    assert (reply, changed["wait"], changed["marker"]) == (0, order, {"0": 0})
    assert "pc" not in changed
    assert changed.get("a") == ({"priority": "0"} if priority else None)


@pytest.mark.parametrize("priority", [0, 9])
def test_a_job_becomes_the_next_of_its_priority(mail: Queue, priority: int) -> None:
    add(mail, NewJob(job_id="a", priority=priority), NewJob(job_id="b", priority=5))
    reply, changed = change(mail, 5, lifo="1")
    # The others don't write a marker here; a worker would sleep on.
    assert (reply, changed["marker"]) == (0, {"0": 0})
    assert changed["prioritized"]["a"] == 5 * PRIORITY
    assert "pc" not in changed


@pytest.mark.parametrize("lifo", ["", "1"])
@pytest.mark.parametrize("priority", [0, 5])
@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_a_blocked_queue_wakes_nobody(mail: Queue, settings: dict[str, str], priority: int, lifo: str) -> None:
    add(mail, NewJob(job_id="a", priority=3))
    mail.put("meta", settings)
    assert "marker" not in change(mail, priority, lifo=lifo).changed


@pytest.mark.parametrize("lifo", ["", "1"])
@pytest.mark.parametrize("state", ["delayed", "active"])
def test_a_job_that_does_not_wait_keeps_its_place(mail: Queue, state: str, lifo: str) -> None:
    if state == "active":
        mail.activate(NewJob(job_id="a"))
    else:
        mail.add(NewJob(job_id="a", delay=500))
    assert change(mail, 5, lifo=lifo) == (0, {"a": {"priority": "5"}})


def test_there_is_no_such_job(mail: Queue) -> None:
    assert change(mail, 5) == (CODES["JOB_MISSING"], {})
