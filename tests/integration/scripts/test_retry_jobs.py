"""``retry_jobs``: many jobs of one state are queued again."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.integration.scripts.commands import NOW, SLOT, Called, End, NewJob, Queue, event
from tests.integration.scripts.families import adopt, named, waits

FINISHED: Final = ("failed", "completed")
GONE: Final = {"failed": "failedReason", "completed": "returnvalue"}


def retry(mail: Queue, state: str, *, limit: int = 1000, cutoff: int | str = "") -> Called:
    return mail.call("retry_jobs", at={"state_key": state}, state=state, limit=limit, cutoff=cutoff)


def finished(mail: Queue, state: str, ids: str, **fields: Any) -> None:
    """Jobs that have finished, one after the other, a millisecond between them."""
    mail.activate(*(NewJob(job_id=job_id, **fields) for job_id in ids))
    for n, job_id in enumerate(ids):
        mail.finish(End(job_id, state, '"end"', number=n), now_ms=NOW + n)


def waiting(ids: str, prev: str) -> list[dict[str, str]]:
    return [event("waiting", job_id, prev=prev) for job_id in ids]


@pytest.mark.parametrize("state", FINISHED)
def test_all_run_again(mail: Queue, state: str) -> None:
    finished(mail, state, "abc")
    mail.add(NewJob(job_id="w"))
    mail.redis.delete(mail.key("marker"))
    reply, changed = retry(mail, state, cutoff=NOW + 9)
    gone = {"finishedOn": None, "processedOn": None, GONE[state]: None}
    assert (reply, changed) == (
        3,
        {
            **{state: None, "a": gone, "b": gone, "c": gone, "marker": {"0": 0}},
            # The first to finish is the next to run, behind those that wait.
            **{"wait": ["c", "b", "a", "w"], "events": waiting("abc", state)},
        },
    )


def test_what_else_is_known_of_a_job_stays(mail: Queue) -> None:
    finished(mail, "failed", "a")
    mail.put("a", {"stc": 2, "pb": "w", "progress": "7", "attemptsMade": 4})
    retry(mail, "failed")
    fields = mail.hash("a")
    assert {name: fields[name] for name in ("ats", "atm", "stc", "pb", "progress", "attemptsMade")} == {
        **{"ats": "1", "atm": "1", "stc": "2", "pb": "w", "progress": "7", "attemptsMade": "4"}
    }


@pytest.mark.parametrize("state", FINISHED)
def test_those_that_finished_later_stay(mail: Queue, state: str) -> None:
    finished(mail, state, "abcd")
    reply, changed = retry(mail, state, cutoff=NOW + 1)
    assert reply == 2
    assert changed["wait"] == ["b", "a"]
    assert changed[state].keys() == {"c", "d"}
    assert "c" not in changed


def test_in_slices(mail: Queue) -> None:
    finished(mail, "failed", "abc")
    assert [retry(mail, "failed", limit=2).reply for _ in range(3)] == [2, 1, 0]
    assert mail.redis.lrange(mail.key("wait"), 0, -1) == ["c", "b", "a"]


@pytest.mark.parametrize("state", [*FINISHED, "delayed"])
def test_nothing_to_do(mail: Queue, state: str) -> None:
    assert retry(mail, state) == (0, {})


def test_priorities_do_not_matter(mail: Queue) -> None:
    finished(mail, "failed", "ab", priority=5)
    _, changed = retry(mail, "failed")
    assert changed["wait"] == ["b", "a"]
    assert "prioritized" not in changed


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
@pytest.mark.parametrize("state", ["failed", "delayed"])
def test_a_blocked_queue_wakes_nobody(mail: Queue, settings: dict[str, str], state: str) -> None:
    if state == "failed":
        finished(mail, state, "a")
    else:
        mail.add(NewJob(job_id="a", delay=500))
    mail.redis.delete(mail.key("marker"))
    mail.put("meta", settings)
    assert "marker" not in retry(mail, state).changed


def test_delayed_jobs_run_before_their_time(mail: Queue) -> None:
    mail.add(*(NewJob(job_id=job_id, delay=500 + n, priority=n) for n, job_id in enumerate("abc")))
    mail.redis.delete(mail.key("marker"))
    # The hash goes on saying `delay`, as with the other clients.
    assert retry(mail, "delayed") == (
        3,
        {"delayed": None, "wait": ["c", "b", "a"], "marker": {"0": 0}, "events": waiting("abc", "delayed")},
    )


def test_the_events_are_trimmed(mail: Queue) -> None:
    finished(mail, "failed", "abcdefghijklmnopqrstuvwxyz")
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 1)
    for _ in range(150):
        mail.redis.xadd(mail.key("events"), {"event": "paused"})
    retry(mail, "failed")
    # Whole nodes of a hundred entries are what Redis cuts off.
    assert mail.redis.xlen(mail.key("events")) < 150


@pytest.mark.parametrize(
    ("state", "outcome"), [("completed", "processed"), ("failed", "unsuccessful"), ("failed", "failed")]
)
def test_a_parent_waits_for_its_children_again(mail: Queue, prefix: str, state: str, outcome: str) -> None:
    boss = Queue(mail.redis, prefix, "boss")
    finished(mail, state, "a")
    waits(boss, "p")
    adopt(boss, "p", mail, "s")
    mail.store("s", delay=500, **named(boss, "p"))
    mail.redis.zadd(mail.key("delayed"), {"s": (NOW + 500) * SLOT})
    mail.put("a", named(boss, "p"))
    if outcome == "unsuccessful":
        boss.redis.zadd(boss.key("p:unsuccessful"), {mail.key("a"): NOW})
    else:
        boss.redis.hset(boss.key(f"p:{outcome}"), mail.key("a"), "x")
    _, changed = retry(mail, state)
    assert {key: value for key, value in changed.items() if key.startswith("boss:")} == {
        f"boss:p:{outcome}": None,
        "boss:p:dependencies": {mail.key("a"), mail.key("s")},
    }


@pytest.mark.leaves_keys_broken("a key that holds no job, and an id without one")
def test_ids_without_a_job_are_queued_as_they_are(mail: Queue) -> None:
    mail.redis.set(mail.key("a"), "no job")
    mail.redis.zadd(mail.key("failed"), {"a": 1, "b": 2})
    reply, changed = retry(mail, "failed")
    assert (reply, changed["wait"], changed["events"]) == (2, ["b", "a"], waiting("ab", "failed"))
    assert "b" not in changed


@pytest.mark.leaves_keys_broken("ids without jobs")
def test_as_many_as_a_call_may_move(mail: Queue) -> None:
    mail.redis.zadd(mail.key("failed"), {f"j{n:04}": n for n in range(5000)})
    assert retry(mail, "failed", limit=5000).reply == 5000
    assert mail.redis.llen(mail.key("wait")) == 5000
