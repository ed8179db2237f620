"""``clean_jobs``: jobs of one state are deleted, a slice in a call."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.integration.scripts.commands import NOW, PRIORITY, SLOT, Called, Queue, event

pytestmark = pytest.mark.leaves_keys_broken("jobs that are only put where they are looked for")
LISTS: Final = ("wait", "paused", "active")
SCORES: Final = {
    **{"prioritized": (PRIORITY, 1), "delayed": (NOW * SLOT, SLOT), "waiting-children": (NOW, 1)},
    **{"completed": (NOW, 1), "failed": (NOW, 1)},
}
FINISHED: Final = ("waiting-children", "completed", "failed")
# Behind all others.
LAST: Final = 2**53 - 10
STRUCTURES: Final = (*LISTS, *SCORES)
STAMPS: Final = {
    **dict.fromkeys(LISTS, "finishedOn,processedOn,timestamp"),
    **{"delayed": "processedOn,timestamp", "prioritized": "timestamp"},
}


def put(mail: Queue, structure: str, ids: str, **fields: Any) -> None:
    """Puts jobs into a structure, the first to run or to finish first."""
    for n, job_id in enumerate(ids):
        mail.store(job_id, **fields)
        if structure in LISTS:
            mail.redis.lpush(mail.key(structure), job_id)
        else:
            first, step = SCORES[structure]
            mail.redis.zadd(mail.key(structure), {job_id: first + n * step})


def clean(mail: Queue, structure: str, **scalars: Any) -> Called:
    usual: dict[str, Any] = {"slice": 100, "limit": 1000, "passed": 0, "cutoff": "", "announced": ""}
    usual |= {"stamps": STAMPS.get(structure, ""), "locked": "ignore", "scheduled": ""}
    return mail.call("clean_jobs", at={"state_key": structure}, **{**usual, **scalars})


def left(mail: Queue, structure: str) -> str:
    """What is in a structure, the first to run first."""
    if structure in LISTS:
        return "".join(reversed(mail.redis.lrange(mail.key(structure), 0, -1)))
    return "".join(mail.redis.zrange(mail.key(structure), 0, -1))


def nothing_of(ids: str) -> dict[str, None]:
    return dict.fromkeys(ids)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_all_go(mail: Queue, structure: str) -> None:
    put(mail, structure, "abc")
    assert clean(mail, structure) == ([0, 0, ["a", "b", "c"]], {structure: None, **nothing_of("abc")})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_is_there(mail: Queue, structure: str) -> None:
    assert clean(mail, structure) == ([0, 0, []], {})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_slice(mail: Queue, structure: str) -> None:
    put(mail, structure, "abcde")
    assert [clean(mail, structure, slice=2).reply for _ in range(3)] == [
        [1, 0, ["a", "b"]],
        [1, 0, ["c", "d"]],
        [0, 0, ["e"]],
    ]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_slice_that_ends_with_the_jobs_knows_of_no_end(mail: Queue, structure: str) -> None:
    put(mail, structure, "ab")
    assert clean(mail, structure, slice=2).reply == [1, 0, ["a", "b"]]
    assert clean(mail, structure, slice=2).reply == [0, 0, []]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("limit", [2, 3])
def test_a_limit(mail: Queue, structure: str, limit: int) -> None:
    put(mail, structure, "abc")
    assert clean(mail, structure, limit=limit).reply == [0, 0, list("abc"[:limit])]
    assert left(mail, structure) == "abc"[limit:]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_everything_of_a_job_goes(mail: Queue, structure: str) -> None:
    put(mail, structure, "ab")
    for job_id in "ab":
        mail.redis.rpush(mail.key(f"{job_id}:logs"), "line")
        mail.redis.sadd(mail.key(f"{job_id}:dependencies"), "x:y:1")
        mail.redis.hset(mail.key(f"{job_id}:processed"), "x:y:2", "1")
        mail.redis.hset(mail.key(f"{job_id}:failed"), "x:y:3", "why")
        mail.redis.zadd(mail.key(f"{job_id}:unsuccessful"), {"x:y:4": 1})
    _, changed = clean(mail, structure, limit=1)
    rest = [f"a:{name}" for name in ("logs", "dependencies", "processed", "failed", "unsuccessful")]
    assert changed.keys() == {structure, "a", *rest}


# -- Who is spared -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_jobs_of_another_kind_are_no_jobs(mail: Queue, structure: str) -> None:
    put(mail, structure, "abc")
    mail.redis.delete(mail.key("a"), mail.key("b"))
    mail.redis.set(mail.key("b"), "no job")
    assert clean(mail, structure) == ([0, 0, ["a", "b", "c"]], {structure: None, "c": None})


@pytest.mark.parametrize("structure", ["wait", "prioritized", "delayed", "completed", "active"])
@pytest.mark.parametrize("due", [5, NOW])
def test_the_next_job_of_a_scheduler_is_spared(mail: Queue, structure: str, due: int) -> None:
    next_id = f"repeat:often:{due}"
    mail.redis.zadd(mail.key("repeat"), {"often": due})
    put(mail, structure, "a")
    for n, job_id in enumerate((next_id, "repeat:often:4", "repeat:gone:5")):
        mail.store(job_id, rjk=job_id.split(":")[1])
        if structure in LISTS:
            mail.redis.lpush(mail.key(structure), job_id)
        else:
            mail.redis.zadd(mail.key(structure), {job_id: LAST + n})
    reply, changed = clean(mail, structure)
    assert reply == [0, 1, ["a", "repeat:often:4", "repeat:gone:5"]]
    assert changed == {
        structure: [next_id] if structure in LISTS else {next_id: LAST},
        **{"a": None, "repeat:often:4": None, "repeat:gone:5": None},
    }
    assert clean(mail, structure, scheduled="1") == ([0, 0, [next_id]], {structure: None, next_id: None})


@pytest.mark.parametrize("structure", STAMPS)
def test_young_jobs_are_spared(mail: Queue, structure: str) -> None:
    put(mail, structure, "abcd")
    for job_id, timestamp in {"a": NOW - 1, "b": NOW + 1, "c": NOW, "d": NOW + 2}.items():
        mail.redis.hset(mail.key(job_id), "timestamp", timestamp)
    reply, changed = clean(mail, structure, cutoff=NOW)
    assert reply == [0, 2, ["a", "c"]]
    assert changed.keys() == {structure, "a", "c"}
    assert left(mail, structure) == "bd"


@pytest.mark.parametrize(
    ("structure", "fields", "goes"),
    [
        ("wait", {"finishedOn": 5, "processedOn": 9, "timestamp": 9}, True),
        ("paused", {"finishedOn": 9, "processedOn": 1, "timestamp": 1}, False),
        ("active", {"processedOn": 5, "timestamp": 9}, True),
        ("active", {"processedOn": 9, "timestamp": 1}, False),
        ("wait", {"timestamp": 5}, True),
        ("delayed", {"finishedOn": 9, "processedOn": 5, "timestamp": 9}, True),
        ("delayed", {"finishedOn": 1, "processedOn": 9, "timestamp": 1}, False),
        ("delayed", {"timestamp": 9}, False),
        ("prioritized", {"finishedOn": 9, "processedOn": 9, "timestamp": 5}, True),
        ("prioritized", {"finishedOn": 1, "processedOn": 1, "timestamp": 9}, False),
    ],
)
def test_the_best_stamp_tells_the_age(mail: Queue, structure: str, fields: dict[str, int], goes: bool) -> None:
    put(mail, structure, "a", **fields)
    assert clean(mail, structure, cutoff=5).reply == ([0, 0, ["a"]] if goes else [0, 1, []])


@pytest.mark.parametrize("structure", STAMPS)
def test_a_job_without_an_age_is_old(mail: Queue, structure: str) -> None:
    put(mail, structure, "ab")
    mail.redis.hdel(mail.key("a"), "timestamp")
    mail.redis.hset(mail.key("b"), "timestamp", "?")
    assert clean(mail, structure, cutoff=5).reply == [0, 0, ["a", "b"]]


@pytest.mark.parametrize("structure", FINISHED)
def test_the_score_tells_the_age_of_those_that_have_finished(mail: Queue, structure: str) -> None:
    put(mail, structure, "abcd", timestamp=NOW * 2, processedOn=NOW * 2)
    reply, _ = clean(mail, structure, cutoff=NOW + 2)
    assert reply == [0, 0, ["a", "b", "c"]]
    assert left(mail, structure) == "d"


def test_locks_can_be_ignored_or_spare_a_job_or_go_as_well(mail: Queue) -> None:
    put(mail, "active", "abc")
    mail.redis.set(mail.key("b:lock"), "w:1", px=600_000)
    assert clean(mail, "active", locked="spare", limit=2).reply == [0, 1, ["a", "c"]]
    assert left(mail, "active") == "b"
    reply, changed = clean(mail, "active", locked="delete")
    assert (reply, changed) == ([0, 0, ["b"]], {"active": None, "b": None, "b:lock": None})
    put(mail, "wait", "d")
    mail.redis.set(mail.key("d:lock"), "w:1", px=600_000)
    assert clean(mail, "wait").changed == {"wait": None, "d": None}


@pytest.mark.parametrize("structure", [*STAMPS])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 10])
def test_the_next_slice_begins_behind_those_passed_over(mail: Queue, structure: str, size: int) -> None:
    put(mail, structure, "abcdefghi")
    for job_id in "acdhi":
        mail.redis.hset(mail.key(job_id), "timestamp", NOW + 1)
    gone: list[str] = []
    passed, more, calls = 0, 1, 0
    while more:
        more, passed, ids = clean(mail, structure, slice=size, passed=passed, cutoff=NOW).reply
        gone += ids
        calls += 1
    assert (gone, passed) == (list("befg"), 5)
    assert calls == 9 // size + 1
    assert left(mail, structure) == "acdhi"


def test_a_limit_ends_in_the_middle_of_a_slice(mail: Queue) -> None:
    put(mail, "wait", "abcdef")
    mail.redis.hset(mail.key("a"), "timestamp", NOW + 1)
    assert clean(mail, "wait", limit=3, cutoff=NOW).reply == [0, 1, ["b", "c", "d"]]
    assert left(mail, "wait") == "aef"


# -- What else it does -------------------------------------------------------------------------------------------------


def test_how_many_went_is_told_at_the_end(mail: Queue) -> None:
    put(mail, "wait", "abcd")
    assert "events" not in clean(mail, "wait", slice=2, announced=5).changed
    reply, changed = clean(mail, "wait", slice=3, announced=7)
    assert reply == [0, 0, ["c", "d"]]
    assert changed["events"] == [event("cleaned", count="9")]


def test_how_many_went_is_told_where_the_limit_ends_it(mail: Queue) -> None:
    put(mail, "wait", "abcd")
    assert clean(mail, "wait", limit=2, announced=0).changed["events"] == [event("cleaned", count="2")]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_that_none_went_is_told(mail: Queue, structure: str) -> None:
    assert clean(mail, structure, announced=0) == ([0, 0, []], {"events": [event("cleaned", count="0")]})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_deduplication_window_goes_with_its_owner(mail: Queue, structure: str) -> None:
    put(mail, structure, "a", deid="x")
    put(mail, structure, "b", deid="y")
    mail.redis.set(mail.key("de:x"), "a")
    mail.redis.set(mail.key("de:y"), "other")
    mail.redis.hset(mail.key("dn:x"), "jid", "7")
    mail.redis.hset(mail.key("dn:y"), "jid", "8")
    _, changed = clean(mail, structure)
    assert changed == {structure: None, "a": None, "b": None, "de:x": None, "dn:x": None}
