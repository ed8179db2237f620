"""``move_to_waiting_children``: an active job that has children left waits for them."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, LONG_MS, NOW, TOKEN, Called, NewJob, Queue, event

LATER = NOW + 1000


def move(mail: Queue, *, token: str = TOKEN, child: str = "", started: int | str = "") -> Called:
    return mail.call("move_to_waiting_children", job_id="a", token=token, now_ms=LATER, child=child, started=started)


def child_of(mail: Queue, job_id: str) -> str:
    return f"{mail.prefix}:other:{job_id}"


def store_child(mail: Queue, job_id: str) -> None:
    """A child of ``a`` in another queue, as the checks of all keys want it."""
    other = Queue(mail.redis, mail.prefix, "other")
    other.add(NewJob(job_id=job_id))
    parent = '{"id":"a","queueKey":"' + mail.base[:-1] + '"}'
    other.put(job_id, {"parentKey": mail.key("a"), "parent": parent})
    mail.redis.sadd(mail.key("a:dependencies"), child_of(mail, job_id))


@pytest.fixture
def parent(mail: Queue) -> Queue:
    """An active job with two pending children, under suspicion of having stalled; another one beside it."""
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.sadd(mail.key("stalled"), "a", "b")
    for job_id in ("c", "d"):
        store_child(mail, job_id)
    return mail


WAITS = {
    "active": ["b"],
    "a:lock": None,
    "stalled": {"b"},
    "waiting-children": {"a": float(LATER)},
    "events": [event("waiting-children", "a", prev="active")],
}


@pytest.mark.parametrize("child", ["", "c"])
@pytest.mark.parametrize("started", ["", 1])
def test_a_job_with_pending_children_waits(parent: Queue, child: str, started: int | str) -> None:
    assert move(parent, child=child and child_of(parent, child), started=started) == (0, WAITS)


@pytest.mark.parametrize("token", [TOKEN, "v:1"])
def test_a_job_without_pending_children_goes_on(mail: Queue, token: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.put("a:processed", {child_of(mail, "c"): "1"})
    assert move(mail, token=token) == (1, {})


def test_a_child_that_is_not_pending_is_not_waited_for(parent: Queue) -> None:
    assert move(parent, child=child_of(parent, "e")) == (1, {})


def test_a_job_that_is_gone_does_not_wait(mail: Queue) -> None:
    assert move(mail) == (CODES["JOB_MISSING"], {})


@pytest.mark.leaves_keys_broken("a failed child that is no job")
@pytest.mark.parametrize("pending", [True, False])
def test_a_failed_child_is_told_before_all_else(parent: Queue, pending: bool) -> None:
    parent.redis.zadd(parent.key("a:unsuccessful"), {child_of(parent, "x"): NOW})
    if not pending:
        parent.redis.delete(parent.key("a:dependencies"))
    assert move(parent, token="v:1") == (CODES["FAILED_CHILDREN"], {})


@pytest.mark.leaves_keys_broken("an active job whose lock is gone")
@pytest.mark.parametrize("started", ["", 1])
def test_a_job_without_a_lock_does_not_wait(parent: Queue, started: int | str) -> None:
    parent.redis.delete(parent.key("a:lock"))
    assert move(parent, started=started) == (CODES["LOCK_MISSING"], {})


@pytest.mark.parametrize("started", ["", 1])
def test_a_job_of_another_worker_does_not_wait(parent: Queue, started: int | str) -> None:
    parent.redis.set(parent.key("a:lock"), "v:1", px=LONG_MS)
    assert move(parent, started=started) == (CODES["LOCK_MISMATCH"], {})


@pytest.mark.leaves_keys_broken("a job that is in no state")
def test_a_job_that_is_not_active_does_not_wait(parent: Queue) -> None:
    parent.redis.lrem(parent.key("active"), 1, "a")
    assert move(parent) == (CODES["JOB_NOT_IN_STATE"], {"a:lock": None, "stalled": {"b"}})


def test_a_move_sent_again_is_harmless(parent: Queue) -> None:
    assert move(parent, started=1) == (0, WAITS)
    assert move(parent, started=1) == (0, {})


def test_a_move_sent_again_when_the_children_ended_meanwhile_stands(parent: Queue) -> None:
    move(parent)
    for job_id in ("c", "d"):
        Queue(parent.redis, parent.prefix, "other").redis.delete(child_of(parent, job_id))
    parent.redis.delete(f"{parent.prefix}:other:wait", parent.key("a:dependencies"))
    parent.redis.zrem(parent.key("waiting-children"), "a")
    parent.redis.rpush(parent.key("wait"), "a")
    parent.redis.zadd(parent.key("marker"), {"0": 0})
    assert move(parent, started=1) == (0, {})
    # And when it runs again, for whomever.
    parent.finish(want=1, token="v:1")
    assert move(parent, started=1) == (0, {})


@pytest.mark.leaves_keys_broken("keys of another type")
@pytest.mark.parametrize("key", ["events", "waiting-children"])
def test_it_fails_before_anything_is_written(parent: Queue, key: str) -> None:
    parent.redis.delete(parent.key(key))
    parent.redis.set(parent.key(key), "text")
    before = parent.snapshot()
    with pytest.raises(Exception, match="WRONGTYPE"):
        move(parent)
    assert parent.snapshot() == before
