"""``retry_job``: one finished job is queued again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import CODES, NOW, PRIORITY, Called, NewJob, Queue, event
from tests.integration.scripts.families import named, waits
from tests.integration.scripts.test_retry_jobs import FINISHED, GONE, finished


def retry(mail: Queue, state: str = "failed", job_id: str = "a", **scalars: str) -> Called:
    usual = {"lifo": "", "reset_attempts_made": "", "reset_attempts_started": ""}
    return mail.call("retry_job", at={"state_key": state}, id=job_id, state=state, **{**usual, **scalars})


def again(state: str) -> dict[str, Any]:
    return {
        **{state: None, "a": {"finishedOn": None, "processedOn": None, GONE[state]: None}, "marker": {"0": 0}},
        "events": [event("waiting", "a", prev=state)],
    }


@pytest.mark.parametrize("state", FINISHED)
def test_a_job_runs_again(mail: Queue, state: str) -> None:
    finished(mail, state, "a")
    mail.add(NewJob(job_id="w"))
    mail.redis.delete(mail.key("marker"))
    assert retry(mail, state) == (1, {**again(state), "wait": ["a", "w"]})


def test_a_job_that_is_the_next_to_run(mail: Queue) -> None:
    finished(mail, "failed", "a")
    mail.add(NewJob(job_id="w"))
    assert retry(mail, lifo="1").changed["wait"] == ["w", "a"]


@pytest.mark.parametrize("lifo", ["", "1"])
def test_a_job_with_a_priority(mail: Queue, lifo: str) -> None:
    finished(mail, "failed", "a", priority=5)
    mail.redis.delete(mail.key("marker"))
    reply, changed = retry(mail, lifo=lifo)
    assert (reply, changed) == (1, {**again("failed"), "prioritized": {"a": 5 * PRIORITY + 2}, "pc": "2"})


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_a_blocked_queue_wakes_nobody(mail: Queue, settings: dict[str, str]) -> None:
    finished(mail, "failed", "a")
    mail.put("meta", settings)
    assert "marker" not in retry(mail).changed


def test_its_attempts_can_be_forgotten(mail: Queue) -> None:
    finished(mail, "failed", "ab")
    for job_id in "ab":
        mail.put(job_id, {"attemptsMade": 3})
    made = retry(mail, reset_attempts_made="1").changed["a"]
    assert made == {**again("failed")["a"], "atm": None, "attemptsMade": None}
    started = retry(mail, job_id="b", reset_attempts_started="1").changed["b"]
    assert started == {**again("failed")["a"], "ats": None}


def test_there_is_no_such_job(mail: Queue) -> None:
    assert retry(mail) == (CODES["JOB_MISSING"], {})
    mail.redis.zadd(mail.key("failed"), {"a": 1})
    assert retry(mail) == (CODES["JOB_MISSING"], {})
    mail.redis.delete(mail.key("failed"))


@pytest.mark.parametrize("state", FINISHED)
def test_a_job_in_another_state(mail: Queue, state: str) -> None:
    finished(mail, "failed" if state == "completed" else "completed", "b")
    mail.add(NewJob(job_id="a"))
    for job_id in "ab":
        assert retry(mail, state, job_id) == (CODES["JOB_NOT_IN_STATE"], {})


@pytest.mark.parametrize(
    ("state", "outcome"), [("completed", "processed"), ("failed", "unsuccessful"), ("failed", "failed")]
)
@pytest.mark.parametrize("where", ["waiting-children", "failed"])
def test_a_parent_waits_for_its_child_again(mail: Queue, prefix: str, state: str, outcome: str, where: str) -> None:
    boss = Queue(mail.redis, prefix, "boss")
    finished(mail, state, "a")
    if where == "failed":
        finished(boss, "failed", "p")
    else:
        waits(boss, "p")
    mail.put("a", named(boss, "p"))
    if outcome == "unsuccessful":
        boss.redis.zadd(boss.key("p:unsuccessful"), {mail.key("a"): NOW})
    else:
        boss.redis.hset(boss.key(f"p:{outcome}"), mail.key("a"), "x")
    _, changed = retry(mail, state)
    assert {key: value for key, value in changed.items() if key.startswith("boss:")} == {
        f"boss:p:{outcome}": None,
        "boss:p:dependencies": {mail.key("a")},
    }


@pytest.mark.parametrize("state", FINISHED)
def test_a_parent_that_did_not_hear_of_it_does_not_wait(mail: Queue, prefix: str, state: str) -> None:
    boss = Queue(mail.redis, prefix, "boss")
    finished(mail, state, "a")
    boss.add(NewJob(job_id="p"))
    mail.put("a", named(boss, "p"))
    assert not [key for key in retry(mail, state).changed if key.startswith("boss:")]


def test_a_parent_that_is_gone_is_not_made_anew(mail: Queue, prefix: str) -> None:
    boss = Queue(mail.redis, prefix, "boss")
    finished(mail, "completed", "a")
    mail.put("a", named(boss, "p"))
    boss.redis.hset(boss.key("p:processed"), mail.key("a"), "x")
    assert not [key for key in retry(mail, "completed").changed if key.startswith("boss:")]


def test_the_event_is_trimmed(mail: Queue) -> None:
    finished(mail, "failed", "a")
    for _ in range(200):
        mail.redis.xadd(mail.key("events"), {"event": "paused"})
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    retry(mail)
    # Whole nodes of a hundred entries are what Redis cuts off.
    assert mail.redis.xlen(mail.key("events")) < 150
