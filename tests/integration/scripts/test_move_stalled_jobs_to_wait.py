"""``move_stalled_jobs_to_wait``: jobs whose worker let go of them run again, after two passes."""

from __future__ import annotations

import string
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import LONG_MS, NOW, Called, Expiring, NewJob, Queue, Trimmed, event

NOTHING: Final = [0, [], []]
CHECKED: Final = {"stalled-check": Expiring(str(NOW))}
DEFERRED: Final = "job stalled more than allowable limit"


def stalled_pass(mail: Queue, *, max_stalled: int = 1, limit: int = 1000, interval_ms: int = LONG_MS) -> Called:
    """Makes a pass, as if the last one was long ago."""
    mail.redis.delete(mail.key("stalled-check"))
    return throttled_pass(mail, max_stalled=max_stalled, limit=limit, interval_ms=interval_ms)


def throttled_pass(mail: Queue, *, max_stalled: int = 1, limit: int = 1000, interval_ms: int = LONG_MS) -> Called:
    """Makes a pass if one is due."""
    scalars: dict[str, Any] = {"stalled_interval_ms": interval_ms, "max_stalled_count": max_stalled}
    return mail.call("move_stalled_jobs_to_wait", [], now_ms=NOW, limit=limit, **scalars)


def suspects(mail: Queue, ids: str, locked: str = "", **fields: Any) -> None:
    """Jobs that are active and were so in the last pass; only some still have their lock."""
    mail.activate(*(NewJob(job_id=id, **fields) for id in ids))
    stalled_pass(mail)
    for id in set(ids) - set(locked):
        mail.redis.delete(mail.key(f"{id}:lock"))


def back(*ids: str) -> list[dict[str, str]]:
    return [entry for id in ids for entry in (event("waiting", id, prev="active"), event("stalled", id))]


def test_a_first_pass_only_suspects(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abc"))
    mail.redis.delete(mail.key("b:lock"))
    assert stalled_pass(mail) == (NOTHING, {"stalled": {"a", "b", "c"}, **CHECKED})
    mail.redis.delete(mail.key("stalled-check"))


def test_a_second_pass_queues_again(mail: Queue) -> None:
    suspects(mail, "abc", locked="b")
    reply, changed = stalled_pass(mail)
    assert reply == [0, ["c", "a"], []]
    assert changed == {
        **CHECKED,
        **{"a": {"stc": "1"}, "c": {"stc": "1"}, "active": ["b"], "stalled": {"b"}, "marker": {"0": 0}},
        # The oldest is the next to run.
        **{"wait": ["c", "a"], "events": back("c", "a")},
    }


def test_the_throttle_is_as_long_as_said(mail: Queue) -> None:
    stalled_pass(mail, interval_ms=LONG_MS)
    assert LONG_MS / 2 < mail.redis.pttl(mail.key("stalled-check")) <= LONG_MS


def test_no_pass_before_its_time(mail: Queue) -> None:
    suspects(mail, "a")
    mail.redis.set(mail.key("stalled-check"), NOW - 1, px=LONG_MS)
    assert throttled_pass(mail) == (NOTHING, {})
    assert mail.redis.get(mail.key("stalled-check")) == str(NOW - 1)


def test_an_empty_queue(mail: Queue) -> None:
    assert stalled_pass(mail) == (NOTHING, {**CHECKED, "meta": {"opts.maxLenEvents": "10000"}})


def test_a_suspect_that_is_no_longer_active_is_left_alone(mail: Queue) -> None:
    suspects(mail, "ab", locked="a")
    mail.redis.lrem(mail.key("active"), 1, "b")
    mail.redis.lpush(mail.key("wait"), "b")
    mail.redis.zadd(mail.key("marker"), {"0": 0})
    # What the pass suspects now is what it suspected before, without b.
    assert stalled_pass(mail) == (NOTHING, {"stalled": {"a"}, **CHECKED})


def test_a_new_active_job_is_suspected_next(mail: Queue) -> None:
    suspects(mail, "ab", locked="ab")
    mail.add(NewJob(job_id="c"))
    mail.finish(want=1)
    assert stalled_pass(mail) == (NOTHING, {"stalled": {"a", "b", "c"}, **CHECKED})


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_a_blocked_queue_wakes_nobody(mail: Queue, settings: dict[str, str]) -> None:
    suspects(mail, "a")
    mail.put("meta", settings)
    reply, changed = stalled_pass(mail)
    assert (reply, "marker" in changed) == ([0, ["a"], []], False)


def test_the_place_freed_counts_for_the_marker(mail: Queue) -> None:
    suspects(mail, "ab", locked="b")
    mail.redis.hset(mail.key("meta"), "concurrency", 2)
    assert stalled_pass(mail).changed["marker"] == {"0": 0}


def test_a_priority_does_not_matter(mail: Queue) -> None:
    suspects(mail, "a", priority=5)
    mail.add(NewJob(job_id="w"))
    _, changed = stalled_pass(mail)
    assert changed["wait"] == ["w", "a"]
    assert "prioritized" not in changed


@pytest.mark.parametrize(
    ("before", "most", "deferred"), [(None, 0, True), (None, 1, False), (1, 1, True), (1, 2, False), (7, 2, True)]
)
def test_who_stalls_too_often_is_failed_by_the_next_worker(
    mail: Queue, before: int | None, most: int, deferred: bool
) -> None:
    suspects(mail, "a")
    if before is not None:
        mail.redis.hset(mail.key("a"), "stc", before)
    reply, changed = stalled_pass(mail, max_stalled=most)
    assert reply == [0, ["a"], []]
    assert changed["a"] == {"stc": str((before or 0) + 1), **({"defa": DEFERRED} if deferred else {})}
    assert changed["wait"] == ["a"]


@pytest.mark.leaves_keys_broken("half of what a scheduler has")
@pytest.mark.parametrize(("record", "spared"), [("zset", True), ("hash", True), ("none", False)])
def test_an_iteration_of_a_scheduler_may_stall_as_often_as_it_likes(mail: Queue, record: str, spared: bool) -> None:
    suspects(mail, "a")
    mail.redis.hset(mail.key("a"), "rjk", "often")
    if record == "zset":
        mail.redis.zadd(mail.key("repeat"), {"often": NOW})
    elif record == "hash":
        mail.redis.hset(mail.key("repeat:often"), "ic", 1)
    _, changed = stalled_pass(mail, max_stalled=0)
    assert changed["a"] == {"stc": "1", **({} if spared else {"defa": DEFERRED})}


# Up to eight are taken out one by one, more by writing the list anew.
@pytest.mark.parametrize("count", [1, 8, 9, 26])
@pytest.mark.parametrize("locked", ["", "ZCD"])
def test_many_at_once(mail: Queue, count: int, locked: str) -> None:
    ids = string.ascii_lowercase[:count]
    order = ids[: count // 2] + locked + ids[count // 2 :]
    suspects(mail, order, locked=locked)
    reply, changed = stalled_pass(mail)
    gone = list(reversed(ids))
    assert reply == [0, gone, []]
    assert changed["active"] == (list(reversed(locked)) or None)
    assert changed["wait"] == gone
    assert changed["stalled"] == (set(locked) or None)
    assert changed["events"] == back(*gone)


def test_a_long_pass_is_made_in_slices(mail: Queue) -> None:
    suspects(mail, "abcde", locked="e")
    queued: list[str] = []
    for left in (3, 1):
        reply, changed = throttled_pass(mail, limit=2) if left == 1 else stalled_pass(mail, limit=2)
        assert reply[0] == 1
        assert len(changed["stalled"]) == left
        # The next slice need not wait.
        assert mail.redis.exists(mail.key("stalled-check")) == 0
        queued += reply[1]
    reply, changed = throttled_pass(mail, limit=2)
    assert reply[0] == 0
    assert mail.redis.smembers(mail.key("stalled")) == {"e"}
    assert changed["stalled-check"] == Expiring(str(NOW))
    assert sorted(queued + reply[1]) == list("abcd")
    assert mail.redis.lrange(mail.key("active"), 0, -1) == ["e"]


def test_a_slice_suspects_nobody_anew(mail: Queue) -> None:
    suspects(mail, "ab", locked="ab")
    mail.add(NewJob(job_id="c"))
    mail.finish(want=1)
    reply, changed = stalled_pass(mail, limit=1)
    assert reply == [1, [], []]
    assert changed["stalled"] in ({"a"}, {"b"})


@pytest.mark.leaves_keys_broken("an id that is twice in active")
def test_an_id_that_is_twice_in_active_is_queued_once(mail: Queue) -> None:
    suspects(mail, "ab", locked="b")
    mail.redis.lpush(mail.key("active"), "a")
    reply, changed = stalled_pass(mail)
    assert reply == [0, ["a"], []]
    assert (changed["active"], changed["wait"]) == (["b", "a"], ["a"])


@pytest.mark.leaves_keys_broken("a key that holds no job")
def test_a_key_that_holds_no_job_is_taken_out(mail: Queue) -> None:
    suspects(mail, "abc")
    mail.redis.delete(mail.key("b"))
    mail.redis.set(mail.key("b"), "no job")
    reply, changed = stalled_pass(mail)
    assert reply == [0, ["c", "a"], ["b"]]
    assert "b" not in changed
    assert (changed["active"], changed["wait"], changed["events"]) == (None, ["c", "a"], back("c", "a"))


@pytest.mark.leaves_keys_broken("keys that hold no job")
def test_nothing_but_keys_that_hold_no_job(mail: Queue) -> None:
    suspects(mail, "a")
    mail.redis.delete(mail.key("a"))
    mail.redis.set(mail.key("a"), "no job")
    assert stalled_pass(mail) == ([0, [], ["a"]], {"active": None, "stalled": None, **CHECKED})


@pytest.mark.leaves_keys_broken("an id without hash")
def test_an_id_without_hash_is_queued_as_it_is(mail: Queue) -> None:
    suspects(mail, "a")
    mail.redis.delete(mail.key("a"))
    reply, changed = stalled_pass(mail, max_stalled=0)
    assert reply == [0, ["a"], []]
    queued = {"active": None, "stalled": None, "wait": ["a"], "marker": {"0": 0}, "events": back("a")}
    assert changed == {**queued, **CHECKED}


@pytest.mark.leaves_keys_broken("a hash without a name")
def test_a_hash_without_a_name_is_counted(mail: Queue) -> None:
    suspects(mail, "a")
    mail.redis.hdel(mail.key("a"), "name")
    assert stalled_pass(mail).changed["a"] == {"stc": "1"}


def test_the_events_stream_is_kept_short(mail: Queue) -> None:
    mail.add(*(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    _, changed = stalled_pass(mail)
    assert isinstance(changed["events"], Trimmed)
    # Whole nodes of a hundred entries are what Redis cuts off.
    assert len(changed["events"].entries) < 150
