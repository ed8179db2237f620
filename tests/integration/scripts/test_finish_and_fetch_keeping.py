"""``finish_and_fetch``: which finished jobs stay, the end of a deduplication window, and the metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import (
    LONG_MS,
    NOW,
    PRIORITY,
    SLOT,
    End,
    Expiring,
    NewJob,
    Queue,
    event,
    stored,
)

TARGETS = ("completed", "failed")


def finished(mail: Queue, target: str, job_id: str, at: int, **fields: Any) -> None:
    """Stores a finished job with a log."""
    outcome = "returnvalue" if target == "completed" else "failedReason"
    mail.store(job_id, processedOn=at, finishedOn=at, ats=1, atm=1, **{outcome: "null"}, **fields)
    mail.redis.rpush(mail.key(f"{job_id}:logs"), "a line")
    mail.redis.zadd(mail.key(target), {job_id: at})


# -- Keep policies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        pytest.param("", "o0 o1 o2 o3 o4 o5 a", id="all"),
        pytest.param("-1::", "o0 o1 o2 o3 o4 o5 a", id="all by number"),
        pytest.param("0::", "o0 o1 o2 o3 o4 o5", id="remove at once"),
        pytest.param("0:10:", "o0 o1 o2 o3 o4 o5", id="remove at once goes before the age"),
        pytest.param("1::", "a", id="count 1"),
        pytest.param("3::", "o4 o5 a", id="count 3"),
        pytest.param("9::", "o0 o1 o2 o3 o4 o5 a", id="count 9"),
        pytest.param("1::1", "a", id="the limit is not for the count"),
        pytest.param(":10:", "a", id="age"),
        pytest.param(":3600:", "o0 o1 o2 o3 o4 o5 a", id="age that spares all"),
        pytest.param(":59.9975:", "o3 o4 o5 a", id="age with a fraction"),
        pytest.param(":0:", "", id="age 0"),
        pytest.param(":10:2", "o0 o1 o2 o3 a", id="age and limit"),
        pytest.param("3:10:2", "o2 o3 a", id="count, age and limit"),
    ],
)
def test_the_policy_decides_what_stays(mail: Queue, target: str, keep: str, kept: str) -> None:
    for n in range(6):
        finished(mail, target, f"o{n}", NOW - 60_000 + n)
    mail.activate(NewJob(job_id="a"))
    _, changed = mail.finish(End("a", target, number=5, keep=keep))
    stays = kept.split()
    assert mail.redis.zrange(mail.key(target), 0, -1) == stays
    gone = {"a", *(f"o{n}" for n in range(6))} - set(stays)
    lost = {key: None for job_id in gone for key in (job_id, f"{job_id}:logs")}
    lost.pop("a:logs", None)
    others = {"active", "a:lock", "events", *(["a"] if "a" in stays else [])}
    assert {key: changed[key] for key in changed.keys() - others - {target}} == {**lost} | (
        {} if "a" in stays else {"a": None}
    )
    # However short a job stays, it finished.
    assert [entry["event"] for entry in changed["events"]] == [target, "drained"]


def test_all_that_is_stored_of_a_removed_job_goes(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    for job_id in "ab":
        mail.redis.rpush(mail.key(f"{job_id}:logs"), "a line")
        mail.redis.hset(mail.key(f"{job_id}:processed"), "bull:x:c", "1")
        mail.redis.hset(mail.key(f"{job_id}:failed"), "bull:x:d", "boom")
    mail.redis.sadd(mail.key("b:dependencies"), "bull:x:e")
    mail.redis.zadd(mail.key("b:unsuccessful"), {"bull:x:f": NOW})
    _, changed = mail.finish(End("a", keep="0::"), End("b", "failed", number=5, keep="0::"))
    gone = {f"{id}{end}": None for id in "ab" for end in ("", ":lock", ":logs", ":processed", ":failed")}
    changed.pop("events")
    assert changed == {**gone, "b:dependencies": None, "b:unsuccessful": None, "active": None}


@pytest.mark.leaves_keys_broken("a parent without its hash")
def test_a_dropped_job_lets_go_of_its_parent_and_keeps_its_window(mail: Queue, prefix: str) -> None:
    boss = Queue(mail.redis, prefix, "boss")
    boss.store("p", priority=3)
    boss.redis.zadd(boss.key("waiting-children"), {"p": NOW})
    boss.redis.sadd(boss.key("p:dependencies"), mail.key("o"))
    parent = '{"id":"p","queueKey":"' + boss.base[:-1] + '"}'
    finished(mail, "failed", "o", NOW - 60_000, parentKey=boss.key("p"), parent=parent, deid="D")
    finished(mail, "failed", "orphan", NOW - 60_000, parentKey=boss.key("gone"), parent=parent.replace('"p"', '"gone"'))
    boss.redis.sadd(boss.key("gone:dependencies"), mail.key("orphan"))
    mail.redis.set(mail.key("de:D"), "o", px=LONG_MS)
    mail.activate(NewJob(job_id="a"))
    _, changed = mail.finish(End("a", "failed", number=5, keep=":10:"))
    assert changed["failed"] == {"a": NOW}
    assert {key: value for key, value in changed.items() if key.startswith("boss:")} == {
        "boss:p:dependencies": None,
        "boss:waiting-children": None,
        "boss:wait": ["p"],
        "boss:marker": {"0": 0},
        "boss:events": [event("waiting", "p", prev="waiting-children")],
    }
    assert "de:D" not in changed


def test_each_policy_of_a_batch_sees_what_finished_before(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcdef"))
    keeps = {"a": "", "b": "1::", "c": "", "d": "", "e": "2::", "f": ""}
    mail.finish(*(End(id, keep=keep) for id, keep in keeps.items()))
    # By itself, b leaves only itself, and e leaves d and itself.
    assert mail.redis.zrange(mail.key("completed"), 0, -1) == ["d", "e", "f"]


def test_the_policies_of_completed_and_failed_do_not_mix(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcd"))
    mail.finish(End("a", keep="1::"), End("b", "failed", number=5), End("c", keep="1::"), End("d", "failed", number=5))
    assert mail.redis.zrange(mail.key("completed"), 0, -1) == ["c"]
    assert mail.redis.zrange(mail.key("failed"), 0, -1) == ["b", "d"]


def test_no_more_than_a_thousand_go_for_their_age(mail: Queue) -> None:
    for n in range(1002):
        mail.redis.zadd(mail.key("completed"), {f"o{n:04}": NOW - 60_000 + n})
        mail.store(f"o{n:04}", finishedOn=NOW - 60_000 + n, atm=1, ats=1, returnvalue="1")
    mail.activate(NewJob(job_id="a"))
    mail.finish(End("a", keep=":10:"))
    assert mail.redis.zrange(mail.key("completed"), 0, -1) == ["o0000", "o0001", "a"]


# -- Deduplication -----------------------------------------------------------------------------------------------------


def deduplicated(mail: Queue, owner: str | None, ttl_ms: int | None, **kept_back: str) -> None:
    """Makes job ``a`` of window ``D`` active."""
    mail.activate(NewJob(job_id="a"))
    mail.redis.hset(mail.key("a"), "deid", "D")
    if owner is not None:
        mail.redis.set(mail.key("de:D"), owner, px=ttl_ms)
    mail.put("dn:D", kept_back)


@pytest.mark.parametrize("keep", ["", "0::"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("owner", "ttl_ms", "closed"),
    [("a", None, True), ("b", None, False), ("a", LONG_MS, False), ("b", LONG_MS, False), (None, None, False)],
)
def test_a_window_ends_with_its_owner(
    mail: Queue, owner: str | None, ttl_ms: int | None, closed: bool, target: str, keep: str
) -> None:
    deduplicated(mail, owner, ttl_ms)
    mail.add(NewJob(job_id="b"))
    _, changed = mail.finish(End("a", target, number=5, keep=keep))
    assert ("de:D" in changed) == closed
    assert changed.get("de:D") is None


@pytest.mark.parametrize("outcome", ["retry", "delay", "wait"])
def test_a_window_outlives_a_try(mail: Queue, outcome: str) -> None:
    deduplicated(mail, "a", None, name="next")
    _, changed = mail.finish(End("a", outcome, number=5, flag="1"))
    assert not {"de:D", "dn:D", "id"} & changed.keys()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("opts", "delay", "priority", "expected"),
    [
        pytest.param("{}", 0, 0, {"wait": ["next", "w"], "marker": {"0": 0}}, id="standard"),
        pytest.param('{"lifo":true}', 0, 0, {"wait": ["w", "next"], "marker": {"0": 0}}, id="lifo"),
        pytest.param(
            '{"priority":3}',
            *(0, 3),
            {"prioritized": {"next": 3 * PRIORITY + 1}, "pc": "1", "marker": {"0": 0}},
            id="priority",
        ),
        pytest.param(
            '{"delay":500,"priority":3}',
            *(500, 3),
            {"delayed": {"next": (NOW + 507) * SLOT}, "marker": {"1": NOW + 507}},
            id="delay",
        ),
    ],
)
def test_the_job_kept_back_is_queued(
    mail: Queue, opts: str, delay: int, priority: int, expected: dict[str, Any], target: str
) -> None:
    deduplicated(mail, "a", None, name="last", data="[1]", opts=opts, jid="next")
    mail.add(NewJob(job_id="w"))
    mail.redis.delete(mail.key("marker"))
    _, changed = mail.finish(End("a", target, number=5), now_ms=NOW + 7)
    mail.redis.zadd(mail.key("marker"), {"0": 0})
    fields = {"name": "last", "data": "[1]", "opts": opts, "delay": delay, "priority": priority, "deid": "D"}
    queued = event("delayed", "next", delay=str(NOW + 507)) if delay else event("waiting", "next")
    finish = [entry for entry in changed["events"] if entry.get("jobId") == "a"]
    assert changed == {
        **{"a": changed["a"], "a:lock": None, "active": None, target: {"a": NOW + 7}},
        **{"next": stored(timestamp=NOW + 7, **fields), "id": "3", "de:D": "next", "dn:D": None},
        "events": [event("added", "next", name="last"), queued, *finish],
        **expected,
    }


def test_the_job_kept_back_keeps_its_family(mail: Queue) -> None:
    family = {"pk": mail.key("p"), "pd": '{"id":"p","queueKey":"' + mail.base[:-1] + '"}', "rjk": "often"}
    deduplicated(mail, "a", None, name="last", jid="next", pdk=mail.key("p:dependencies"), **family)
    mail.store("p")
    mail.redis.zadd(mail.key("waiting-children"), {"p": NOW})
    _, changed = mail.finish(End("a"))
    assert changed["next"] == stored(name="last", deid="D", parentKey=family["pk"], parent=family["pd"], rjk="often")
    assert changed["p:dependencies"] == {mail.key("next")}


@pytest.mark.parametrize("opts", ["no json", "3", ""])
def test_a_job_kept_back_needs_no_more_than_a_name(mail: Queue, opts: str) -> None:
    deduplicated(mail, "a", None, name="last", **({"opts": opts} if opts else {}))
    _, changed = mail.finish(End("a"))
    assert changed["2"] == stored(name="last", opts=opts or "{}", deid="D")
    assert changed["de:D"] == "2"
    # Not JSON, which no client could read.
    mail.redis.hset(mail.key("2"), "opts", "{}")


def test_a_kept_back_job_takes_an_open_window_over(mail: Queue) -> None:
    deduplicated(mail, "a", LONG_MS, name="last", jid="next")
    _, changed = mail.finish(End("a"))
    assert changed["de:D"] == "next"
    assert Expiring("next") not in changed.values()


# -- Metrics -----------------------------------------------------------------------------------------------------------

MINUTE = NOW - NOW % 60_000


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("before", "data", "jobs", "points", "series", "expected"),
    [
        pytest.param(None, [], 1, 5, (1, 0, 0), None, id="the first one ever"),
        pytest.param(None, [], 3, 5, (3, 0, 0), None, id="the first batch ever"),
        pytest.param((5, 0, 2), ["9"], 2, 5, (7, 0, 2), None, id="in the same minute"),
        pytest.param((5, -1, 2), ["9"], 2, 5, (7, 0, 5), ["3", "9"], id="a minute later"),
        pytest.param((5, -3, 0), [], 1, 5, (6, 0, 5), ["0", "0", "5"], id="three minutes later"),
        pytest.param((5, -30, 0), ["9"], 1, 4, (6, 0, 5), ["0", "0", "0", "5"], id="longer than the series"),
        pytest.param((5, -1, 0), ["9", "8", "7"], 1, 3, (6, 0, 5), ["5", "9", "8"], id="older points fall off"),
        pytest.param((5, 2, 0), ["9"], 1, 5, (6, 2, 0), None, id="a clock that ran ahead"),
    ],
)
def test_metrics(
    mail: Queue,
    before: tuple[int, int, int] | None,
    data: list[str],
    jobs: int,
    points: int,
    series: tuple[int, int, int],
    expected: list[str] | None,
    target: str,
) -> None:
    def row(count: int, minutes: int, previous: int) -> dict[str, str]:
        stamp = NOW if minutes == 0 else MINUTE + minutes * 60_000
        return {"count": str(count), "prevTS": str(stamp), "prevCount": str(previous)}

    if before is not None:
        mail.put(f"metrics:{target}", row(*before))
    if data:
        mail.redis.rpush(mail.key(f"metrics:{target}:data"), *data)
    ids = [f"j{n}" for n in range(jobs)]
    mail.activate(*(NewJob(job_id=id) for id in ids))
    _, changed = mail.finish(*(End(id, target, number=5) for id in ids), metrics_points=points)
    assert mail.hash(f"metrics:{target}") == row(*series)
    assert changed.get(f"metrics:{target}:data") == expected
    assert not any(key.startswith("metrics:") and target not in key for key in changed)


def test_only_ends_are_counted_and_only_when_asked(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcd"))
    retried = mail.finish(End("a", "retry"), End("b", "delay", number=5), End("c", "wait"), metrics_points=5).changed
    ended = mail.finish(End("d")).changed
    assert not any(key.startswith("metrics:") for key in retried | ended)


def test_a_gap_may_be_longer_than_one_call_can_push(mail: Queue) -> None:
    mail.put("metrics:completed", {"count": "5", "prevTS": MINUTE - 20_000 * 60_000})
    mail.activate(NewJob(job_id="a"))
    _, changed = mail.finish(End("a"), metrics_points=12_000)
    assert changed["metrics:completed:data"] == ["0"] * 11_999 + ["5"]
