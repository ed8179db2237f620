"""``extend_locks``: a worker keeps what it still holds, and learns what it lost."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, LONG_MS, TOKEN, Called, NewJob, Queue
from tests.support.redisbox import RedisBox


def extend(mail: Queue, *jobs: tuple[str, str], duration_ms: int = 10 * LONG_MS) -> Called:
    return mail.call("extend_locks", jobs, lock_duration_ms=duration_ms)


@pytest.fixture
def active(mail: Queue) -> Queue:
    """Three active jobs under suspicion."""
    mail.activate(*(NewJob(job_id=id) for id in "abc"))
    mail.redis.sadd(mail.key("stalled"), "a", "b", "c")
    return mail


def is_extended(mail: Queue, job_id: str) -> bool:
    left = mail.redis.pttl(mail.key(f"{job_id}:lock"))
    return bool(LONG_MS < left <= 10 * LONG_MS)


def test_a_lock_of_ours_lives_on(active: Queue) -> None:
    assert extend(active, ("a", TOKEN)) == ([], {"stalled": {"b", "c"}})
    assert [id for id in "abc" if is_extended(active, id)] == ["a"]
    assert active.redis.get(active.key("a:lock")) == TOKEN


def test_many_at_once(active: Queue) -> None:
    active.redis.delete(active.key("a:lock"))
    active.redis.set(active.key("b:lock"), "v:1", px=LONG_MS)
    jobs = [("x", TOKEN), ("a", TOKEN), ("c", TOKEN), ("b", TOKEN), ("c", "w:other")]
    missing, mismatch = CODES["LOCK_MISSING"], CODES["LOCK_MISMATCH"]
    lost = [["x", missing], ["a", missing], ["b", mismatch], ["c", mismatch]]
    assert extend(active, *jobs) == (lost, {"stalled": {"a", "b"}})
    assert [id for id in "abc" if is_extended(active, id)] == ["c"]


@pytest.mark.parametrize("lock", [None, "v:1", f"{TOKEN}0", TOKEN[:-1], ""])
def test_another_lock_is_not_touched(active: Queue, lock: str | None) -> None:
    active.redis.delete(active.key("a:lock"))
    if lock is not None:
        active.redis.set(active.key("a:lock"), lock, px=LONG_MS)
    code = CODES["LOCK_MISSING" if lock is None else "LOCK_MISMATCH"]
    assert extend(active, ("a", TOKEN)) == ([["a", code]], {})
    assert not is_extended(active, "a")


def test_nobody_was_under_suspicion(active: Queue) -> None:
    active.redis.delete(active.key("stalled"))
    assert extend(active, ("a", TOKEN)) == ([], {})
    assert is_extended(active, "a")


@pytest.mark.leaves_keys_broken("a lock that holds no token")
def test_a_lock_of_another_type_is_not_ours(active: Queue) -> None:
    active.redis.delete(active.key("a:lock"))
    active.redis.rpush(active.key("a:lock"), TOKEN)
    assert extend(active, ("a", TOKEN), ("b", TOKEN)) == ([["a", CODES["LOCK_MISSING"]]], {"stalled": {"a", "c"}})


def test_a_server_without_memory_still_extends(prefix: str) -> None:
    with RedisBox() as box:
        queue = Queue(box.client(), prefix)
        queue.activate(NewJob(job_id="a"))
        queue.redis.sadd(queue.key("stalled"), "a")
        box.client().config_set("maxmemory", 1)
        assert extend(queue, ("a", TOKEN)) == ([], {"stalled": None})
        assert is_extended(queue, "a")
