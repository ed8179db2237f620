"""``finish_and_fetch`` as it fetches: which jobs become active, and why none does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import (
    LONG_MS,
    NOW,
    PRIORITY,
    SLOT,
    Expiring,
    NewJob,
    Queue,
    event,
    flat,
    stored,
)

NOTHING = [[], [[], 0, 0, [], 0], 0, 0]
BLOCKED = [[], [[], 0, 0, [], 1], 0, 0]
STARTED = {"ats": "1", "processedOn": str(NOW)}
TAKEN = [event("active", "a", prev="waiting")]


def fetched(reply: Any) -> list[str]:
    """Returns the ids of the jobs in a reply."""
    return [job[0] for job in reply[1][0]]


def named(ids: str, **fields: Any) -> list[NewJob]:
    return [NewJob(job_id=id, **fields) for id in ids]


def test_an_empty_queue(mail: Queue) -> None:
    assert mail.finish(want=5) == (NOTHING, {})


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_fetched_when_nothing_is_wanted(mail: Queue, count: int) -> None:
    mail.add(*named("ab"[:count]), NewJob(delay=5))
    reply, changed = mail.finish(want=0)
    assert (fetched(reply), changed) == ([], {})


def test_a_waiting_job_becomes_active(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", data="[1]", opts='{"attempts":3}'))
    mail.redis.delete(mail.key("marker"))
    reply, changed = mail.finish(want=5, token="w:9")
    job = stored(data="[1]", opts='{"attempts":3}')
    assert reply == [[], [[["a", 1, flat(job)]], 0, 0, [], 0], 0, 0]
    assert changed == {
        **{"a": STARTED, "a:lock": Expiring("w:9"), "wait": None, "active": ["a"], "marker": {"0": 0}},
        "events": TAKEN,
    }
    assert 1000 < mail.redis.pttl(mail.key("a:lock")) <= LONG_MS


def test_a_start_is_counted_on(mail: Queue) -> None:
    mail.add(*named("a"))
    mail.put("a", {"ats": 2, "atm": 1, "processedOn": NOW - 5, "pb": "before"})
    before = mail.hash("a")
    reply, changed = mail.finish(want=1, worker_name="w one")
    assert reply[1][0] == [["a", 3, flat(before)]]
    assert changed["a"] == {"ats": "3", "processedOn": str(NOW), "pb": "w one"}


@pytest.mark.parametrize("want", [1, 2, 3, 4, 5, 6, 9])
def test_jobs_come_in_their_order(mail: Queue, want: int) -> None:
    mail.add(NewJob(job_id="e", priority=2), *named("ab"), NewJob(job_id="d", priority=1))
    mail.add(NewJob(job_id="c"), NewJob(job_id="f", priority=2))
    reply, changed = mail.finish(want=want)
    taken = "abcdef"[:want]
    assert fetched(reply) == list(taken)
    assert changed["active"] == list(reversed(taken))
    assert [entry["jobId"] for entry in changed["events"]] == list(taken)
    # The count goes once somebody found nothing behind the last one.
    assert changed.get("pc", "kept") == (None if want > 6 else "kept")


def test_an_order_is_that_of_fetching_one_by_one(mail: Queue, prefix: str) -> None:
    twin = Queue(mail.redis, prefix, "twin")
    for queue in (mail, twin):
        queue.add(*named("ab"), *named("cd", priority=7), *named("ef", lifo="1"), NewJob(delay=9))
    mail.finish(want=5)
    for _ in range(5):
        twin.finish(want=1)
    snapshot = mail.snapshot()
    assert {k: v for k, v in snapshot.items() if not k.startswith("twin:")} == {
        k.removeprefix("twin:"): v for k, v in snapshot.items() if k.startswith("twin:")
    }


@pytest.mark.parametrize(
    ("settings", "active", "want", "expected"),
    [
        pytest.param({"paused": "1"}, 0, 2, None, id="paused"),
        pytest.param(
            *({"paused": "whatever"}, 0, 2, None),
            id="paused by another word",
            marks=pytest.mark.leaves_keys_broken("a pause that Node does not see"),
        ),
        pytest.param({"paused": "1", "concurrency": "5"}, 0, 2, None, id="paused with slots free"),
        pytest.param({"concurrency": "0"}, 0, 2, None, id="concurrency 0"),
        pytest.param({"concurrency": "2"}, 2, 2, None, id="at its concurrency"),
        pytest.param({"concurrency": "1"}, 2, 2, None, id="above its concurrency"),
        pytest.param({"concurrency": "3"}, 2, 3, ["a"], id="one slot free"),
        pytest.param({"concurrency": "9"}, 2, 2, ["a", "b"], id="slots enough"),
    ],
)
def test_a_blocked_queue_gives_no_more(
    mail: Queue, settings: dict[str, str], active: int, want: int, expected: list[str] | None
) -> None:
    if active:
        mail.activate(*[NewJob()] * active)
    mail.add(*named("abc"), NewJob(job_id="p", priority=1))
    mail.put("meta", settings)
    reply, changed = mail.finish(want=want)
    if expected is None:
        assert (reply, changed) == (BLOCKED, {})
    else:
        assert fetched(reply) == expected
        assert reply[1][4] == 0


# -- The rate limit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "own", "counter", "want", "count", "left"),
    [
        pytest.param({}, {"limiter_max": 2, "limiter_duration": 900}, None, 5, 2, "2", id="own, fresh window"),
        pytest.param({}, {"limiter_max": 2, "limiter_duration": 900}, 1, 5, 1, "2", id="own, open window"),
        pytest.param({}, {"limiter_max": 9, "limiter_duration": 900}, None, 2, 2, "2", id="own, not reached"),
        pytest.param({}, {"limiter_max": 2, "limiter_duration": 900}, None, 2, 2, "2", id="own, just reached"),
        pytest.param({}, {"limiter_max": 5, "limiter_duration": 900}, None, 5, 4, "4", id="own, nothing left to start"),
        pytest.param({"max": 1, "duration": 900}, {}, None, 5, 1, "1", id="global"),
        pytest.param({"max": 3, "duration": 900}, {}, 1, 5, 2, "3", id="global, open window"),
        pytest.param(
            *({"max": 1, "duration": 900}, {"limiter_max": 3, "limiter_duration": 900}, None, 5, 1, "1"),
            id="the global maximum goes first",
        ),
        pytest.param({"max": 2}, {"limiter_duration": 900}, None, 5, 2, "2", id="maximum and duration from both"),
        pytest.param({}, {}, None, 5, 4, None, id="none"),
        pytest.param({}, {}, 2**53 - 1, 5, 4, None, id="a manual limit needs a maximum"),
        pytest.param({"max": 2}, {}, None, 5, 4, None, id="no limit without a window"),
        pytest.param({}, {"limiter_max": 2}, None, 5, 4, None, id="no own limit without a window"),
    ],
)
def test_a_rate_limit_lets_so_many_start(
    mail: Queue,
    meta: dict[str, int],
    own: dict[str, int],
    counter: int | None,
    want: int,
    count: int,
    left: str | None,
) -> None:
    mail.add(*named("abcd"))
    mail.put("meta", meta)
    if counter is not None:
        mail.redis.set(mail.key("limiter"), counter, px=LONG_MS)
    reply, changed = mail.finish(want=want, **own)
    assert fetched(reply) == list("abcd"[:count])
    # Whoever wanted more than may start is told when it may.
    assert (reply[1][1] > 0) == (left is not None and count < min(want, 4))
    if left is None:
        assert "limiter" not in changed
    else:
        assert changed["limiter"] == Expiring(left)
    mail.redis.hdel(mail.key("meta"), "max")


@pytest.mark.parametrize(
    ("own", "meta", "longest"),
    [
        pytest.param({"limiter_max": 1, "limiter_duration": LONG_MS}, {}, LONG_MS, id="own"),
        pytest.param({}, {"max": 1, "duration": LONG_MS}, LONG_MS, id="global"),
        pytest.param(
            *({"limiter_duration": LONG_MS}, {"max": 1, "duration": 10 * LONG_MS}, LONG_MS),
            id="the own duration goes first",
        ),
        pytest.param({"limiter_max": 1, "limiter_duration": -LONG_MS}, {}, LONG_MS, id="negative"),
        pytest.param({"limiter_max": 1, "limiter_duration": LONG_MS + 0.7}, {}, LONG_MS, id="fraction"),
    ],
)
def test_a_window_lasts_as_long_as_said(mail: Queue, own: dict[str, int], meta: dict[str, int], longest: int) -> None:
    mail.add(*named("a"))
    mail.put("meta", meta)
    mail.finish(want=1, **own)
    assert longest / 2 < mail.redis.pttl(mail.key("limiter")) <= longest


@pytest.mark.parametrize("counter", [2, 3, 2**53 - 1])
@pytest.mark.parametrize("whose", ["own", "global"])
def test_a_full_window_tells_when_it_ends(mail: Queue, whose: str, counter: int) -> None:
    mail.add(*named("a"), NewJob(delay=500))
    if whose == "global":
        mail.put("meta", {"max": 2, "duration": 900})
    mail.redis.set(mail.key("limiter"), counter, px=LONG_MS)
    limits = {"limiter_max": 2, "limiter_duration": 900} if whose == "own" else {}
    reply, changed = mail.finish(want=5, **limits)
    assert 0 < reply[1][1] <= LONG_MS
    assert reply == [[], [[], reply[1][1], 0, [], 0], 0, 0]
    assert changed == {}


def test_a_full_window_does_not_stop_promotion(mail: Queue) -> None:
    mail.add(NewJob(job_id="d", delay=500))
    mail.redis.set(mail.key("limiter"), 2, px=LONG_MS)
    reply, changed = mail.finish(want=1, limiter_max=2, limiter_duration=900, now_ms=NOW + 500)
    assert (fetched(reply), changed["wait"]) == ([], ["d"])


@pytest.mark.leaves_keys_broken("a limiter that never expires")
@pytest.mark.parametrize("counter", [1, 2, 7])
def test_a_counter_without_expiry_never_limits(mail: Queue, counter: int) -> None:
    mail.add(*named("abcd"))
    mail.redis.set(mail.key("limiter"), counter)
    reply, changed = mail.finish(want=4, limiter_max=2, limiter_duration=900)
    assert fetched(reply) == list("abcd")
    assert changed["limiter"] == str(counter + 4)


def test_jobs_with_a_deferred_failure_start_for_free(mail: Queue) -> None:
    mail.add(*named("abcdef"))
    for id in "abd":
        mail.redis.hset(mail.key(id), "defa", "child failed")
    reply, changed = mail.finish(want=9, limiter_max=2, limiter_duration=900)
    assert fetched(reply) == list("abcde")
    assert changed["limiter"] == Expiring("2")
    assert changed["wait"] == ["f"]


def test_only_deferred_failures_open_no_window(mail: Queue) -> None:
    mail.add(*named("a"))
    mail.redis.hset(mail.key("a"), "defa", "child failed")
    _, changed = mail.finish(want=9, limiter_max=2, limiter_duration=900)
    assert "limiter" not in changed


# -- Delayed jobs ------------------------------------------------------------------------------------------------------


def test_a_delayed_job_is_not_taken_early(mail: Queue) -> None:
    mail.add(*named("ab", delay=500))
    assert mail.finish(want=9, now_ms=NOW + 499) == ([[], [[], 0, NOW + 500, [], 0], 0, 0], {})


@pytest.mark.parametrize("now_ms", [NOW + 500, NOW + 501])
def test_a_delayed_job_is_taken_when_its_time_has_come(mail: Queue, now_ms: int) -> None:
    mail.add(*named("ab", delay=500), NewJob(job_id="p", delay=400, priority=3), NewJob(delay=900))
    reply, changed = mail.finish(want=9, now_ms=now_ms)
    assert fetched(reply) == ["a", "b", "p"]
    assert reply[1][2] == NOW + 900
    start = {"ats": "1", "processedOn": str(now_ms), "delay": "0"}
    assert changed == {
        **dict.fromkeys("abp", start),
        **{f"{id}:lock": Expiring("w:2") for id in "abp"},
        "active": ["p", "b", "a"],
        "delayed": {"4": (NOW + 900) * SLOT},
        "marker": {"0": 0, "1": NOW + 400},
        "events": [
            *(event("waiting", id, prev="delayed") for id in "pab"),
            *(event("active", id, prev="waiting") for id in "abp"),
        ],
    }


def test_due_jobs_queue_behind_those_that_wait(mail: Queue) -> None:
    mail.add(*named("wx"), *named("ab", delay=5), *named("pq", priority=3), NewJob(job_id="c", delay=5, priority=3))
    mail.add(NewJob(job_id="d", delay=5, lifo="1"))
    reply, changed = mail.finish(want=1, now_ms=NOW + 5)
    assert fetched(reply) == ["w"]
    assert changed["wait"] == ["d", "b", "a", "x"]
    assert changed["prioritized"] == {"p": 3 * PRIORITY + 1, "q": 3 * PRIORITY + 2, "c": 3 * PRIORITY + 3}


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_due_jobs_of_a_blocked_queue_wait_unmarked(mail: Queue, settings: dict[str, str]) -> None:
    mail.add(NewJob(job_id="a", delay=500), NewJob(delay=900))
    mail.put("meta", settings)
    reply, changed = mail.finish(want=1, now_ms=NOW + 500)
    assert reply == [[], [[], 0, NOW + 900, [], 1], 0, 0]
    assert changed == {
        **{"a": {"delay": "0"}, "wait": ["a"], "delayed": {"2": (NOW + 900) * SLOT}},
        "events": [event("waiting", "a", prev="delayed")],
    }


def test_a_due_job_beyond_the_rate_limit_wakes_the_next_worker(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500))
    mail.redis.set(mail.key("limiter"), 2, px=LONG_MS)
    _, changed = mail.finish(want=1, now_ms=NOW + 500, limiter_max=2, limiter_duration=900)
    assert changed["marker"] == {"0": 0, "1": NOW + 500}


def test_a_thousand_are_promoted_in_one_call(mail: Queue) -> None:
    for first in range(0, 1002, 167):
        mail.add(*(NewJob(job_id=f"d{n:04}", delay=5) for n in range(first, first + 167)))
    _, changed = mail.finish(want=1, now_ms=NOW + 5)
    assert sorted(changed["delayed"]) == ["d1000", "d1001"]
    assert len(changed["wait"]) == 999


def test_the_next_due_time_is_told_without_its_fraction(mail: Queue) -> None:
    mail.add(*named("ab", delay=500))
    mail.redis.zrem(mail.key("delayed"), "a")
    mail.redis.delete(mail.key("a"))
    assert mail.finish(want=1).reply[1] == [[], 0, NOW + 500, [], 0]


# -- Ids that are no jobs ----------------------------------------------------------------------------------------------


@pytest.mark.leaves_keys_broken("keys that hold no job")
@pytest.mark.parametrize("place", ["wait", "prioritized", "delayed"])
def test_a_key_that_holds_no_job_is_taken_out(mail: Queue, place: str) -> None:
    settings = {"prioritized": {"priority": 1}, "delayed": {"delay": 5}}.get(place, {})
    mail.add(*named("abc", **settings))
    mail.redis.delete(mail.key("b"))
    mail.redis.rpush(mail.key("b"), "no job")
    reply, changed = mail.finish(want=2, now_ms=NOW + 5)
    assert fetched(reply) == ["a", "c"]
    [(quarantined, reason)] = reply[1][3]
    assert quarantined == "b"
    assert reason.startswith("WRONGTYPE")
    assert not {"b", "b:lock"} & changed.keys()
    assert changed["active"] == ["c", "a"]
    assert all(entry["jobId"] != "b" for entry in changed["events"])


@pytest.mark.leaves_keys_broken("keys that hold no job")
def test_nothing_but_keys_that_hold_no_job(mail: Queue) -> None:
    mail.redis.lpush(mail.key("wait"), "b")
    mail.redis.set(mail.key("b"), "no job")
    reply, changed = mail.finish(want=1, limiter_max=1, limiter_duration=900)
    assert fetched(reply) == []
    assert changed == {"wait": None}


@pytest.mark.parametrize("place", ["wait", "prioritized", "delayed"])
def test_an_id_without_hash_gets_one_that_can_be_read(mail: Queue, place: str) -> None:
    if place == "wait":
        mail.redis.lpush(mail.key("wait"), "a")
    else:
        mail.redis.zadd(mail.key(place), {"a": PRIORITY + 1 if place == "prioritized" else NOW * SLOT})
    reply, changed = mail.finish(want=1)
    assert reply[1][0] == [["a", 1, []]]
    deferred = {"defa": "the job was queued but its hash was missing; there is nothing to run"}
    assert changed["a"] == stored(name="unknown") | STARTED | deferred
    assert changed["a:lock"] == Expiring("w:2")


@pytest.mark.parametrize("place", ["tail", "head"])
def test_markers_of_old_clients_are_thrown_away(mail: Queue, place: str) -> None:
    mail.add(*named("a"))
    push = mail.redis.rpush if place == "tail" else mail.redis.lpush
    push(mail.key("wait"), "0:0", "0:123")
    reply, changed = mail.finish(want=2)
    assert reply[1] == [[["a", 1, flat(stored())]], 0, 0, [], 0]
    assert (changed["wait"], changed["active"], changed["events"]) == (None, ["a"], TAKEN)


@pytest.mark.leaves_keys_broken("an id that may not be given any more")
def test_a_job_whose_id_looks_like_a_marker_is_a_job(mail: Queue) -> None:
    mail.add(NewJob(job_id="0:a"))
    assert fetched(mail.finish(want=1).reply) == ["0:a"]


# --- a fetch that runs long after it was sent -------------------------------------------------------------------------


def server_ms(mail: Queue) -> int:
    time: Any = mail.redis.time()
    seconds, micros = time
    return int(seconds * 1000 + micros // 1000)


@pytest.mark.parametrize("ahead", [0, 7_200_000, -7_200_000])
def test_the_time_is_the_servers_and_how_far_the_worker_is_ahead(mail: Queue, ahead: int) -> None:
    mail.add(*named("a"))
    earliest = server_ms(mail)
    _, changed = mail.finish(want=1, now_ms=f"+{ahead}")
    assert earliest + ahead <= int(changed["a"]["processedOn"]) <= server_ms(mail) + ahead


def test_what_is_due_by_the_workers_clock_is_promoted(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", timestamp=server_ms(mail), delay=600_000), *named("b"))
    reply, _ = mail.finish(want=2, now_ms="+0")
    assert fetched(reply) == ["b"]
    reply, changed = mail.finish(want=2, now_ms="+600000")
    assert (fetched(reply), changed["delayed"]) == (["a"], None)


@pytest.mark.parametrize("what", ["standard", "prioritized", "delayed", "limited", "paused"])
def test_a_look_at_nothing_hides_nothing(mail: Queue, what: str) -> None:
    assert mail.finish(want=2, now_ms="+0") == (NOTHING, {})
    delay = 600_000 if what == "delayed" else 0
    timestamp = server_ms(mail)
    if what == "limited":
        mail.redis.set(mail.key("limiter"), 2, px=LONG_MS)
    else:
        mail.add(NewJob(job_id="a", timestamp=timestamp, delay=delay, priority=3 if what == "prioritized" else 0))
    if what == "paused":
        mail.put("meta", {"paused": "1"})
    reply, _ = mail.finish(want=2, now_ms="+0", limiter_max=2, limiter_duration=LONG_MS)
    assert fetched(reply) == (["a"] if what in ("standard", "prioritized") else [])
    assert (reply[1][1] > 0, reply[1][2], reply[1][4]) == (
        what == "limited",
        timestamp + 600_000 if delay else 0,
        int(what == "paused"),
    )


def test_a_fetch_of_nothing_promotes_and_wakes(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=5), NewJob(job_id="b", delay=9))
    mail.redis.delete(mail.key("marker"))
    reply, changed = mail.finish(want=0, now_ms=NOW + 5)
    assert reply == [[], [[], 0, NOW + 9, [], 0], 0, 0]
    assert (changed["wait"], changed["marker"]) == (["a"], {"0": 0})
