"""``iterate_schedulers``: the next job of a scheduler, made once and by the newest one only."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import pytest

from tests.integration.scripts.commands import CODES, NOW, PRIORITY, SLOT, Called, NewJob, Queue, event, stored

MINUTE: Final = 60_000


class Current(NamedTuple):
    """One group of ``iterate_schedulers``: a job that is about to run."""

    scheduler: str = "s"
    job_id: str = f"repeat:s:{NOW}"
    opts: str = '{"repeat":{}}'
    due: int | str = ""
    every: int | str = ""
    offset: int | str = ""
    priority: int = 0
    lifo: str = ""
    deduplication_id: str = ""


def set_up(mail: Queue, scheduler: str = "s", newest: int = NOW, **record: Any) -> None:
    """Writes a scheduler whose newest job was for a time."""
    mail.redis.zadd(mail.key("repeat"), {scheduler: newest})
    mail.put(f"repeat:{scheduler}", {"ic": 1, "name": "n", **record})
    mail.put("meta", {"opts.maxLenEvents": 10000})


def iterate(mail: Queue, *current: Current, now: int = NOW + 5) -> Called:
    return mail.call("iterate_schedulers", current or [Current()], now_ms=now)


def opts(due: int, delay: int, by_time: bool = False) -> str:
    last = f',"prevMillis":{due}' if by_time else ""
    return f'{{"repeat":{{}},"jobId":"repeat:s:{due}","delay":{delay}{last}}}'


def test_the_next_job_is_made_from_the_record(mail: Queue) -> None:
    set_up(mail, every=MINUTE, offset=NOW % MINUTE, data='{"a":[]}')
    due = NOW + MINUTE
    job = f"repeat:s:{due}"
    assert iterate(mail) == (
        [job],
        {
            "id": "1",
            "repeat": {"s": due},
            "repeat:s": {"ic": "2"},
            job: stored(timestamp=NOW + 5, delay=MINUTE - 5, data='{"a":[]}', opts=opts(due, MINUTE - 5), rjk="s"),
            "delayed": {job: due * SLOT},
            "marker": {"1": due},
            "events": [event("added", job, name="n"), event("delayed", job, delay=str(due))],
        },
    )


def test_by_a_pattern_its_time_is_told_to_the_one_after(mail: Queue) -> None:
    set_up(mail, pattern="* * * * *")
    due = NOW + 900
    called = iterate(mail, Current(due=due))
    assert called.reply == [f"repeat:s:{due}"]
    assert mail.hash(f"repeat:s:{due}") == stored(
        timestamp=NOW + 5, delay=895, opts=opts(due, 895, by_time=True), rjk="s"
    )


@pytest.mark.parametrize(
    ("current", "place"),
    [
        (Current(due=NOW + 5), ("wait", ["repeat:s:{}", "w"])),
        (Current(due=NOW + 5, lifo="1"), ("wait", ["w", "repeat:s:{}"])),
        (Current(due=NOW + 5, priority=2), ("prioritized", {"repeat:s:{}": 2 * PRIORITY + 1})),
    ],
)
def test_one_that_is_due_waits(mail: Queue, current: Current, place: Any) -> None:
    mail.add(NewJob(job_id="w"))
    set_up(mail)
    job = f"repeat:s:{NOW + 5}"
    changed = iterate(mail, current).changed
    assert json.loads(json.dumps(changed[place[0]]).replace("repeat:s:{}", job)) == json.loads(
        json.dumps(place[1]).replace("repeat:s:{}", job)
    )
    assert changed["events"] == [event("added", job, name="n"), event("waiting", job)]


def test_a_deduplication_id_is_stored_and_claims_nothing(mail: Queue) -> None:
    set_up(mail, every=MINUTE)
    changed = iterate(mail, Current(deduplication_id="d")).changed
    assert changed[f"repeat:s:{NOW + MINUTE}"]["deid"] == "d"
    assert "de:d" not in changed


@pytest.mark.parametrize(
    ("newest", "every", "offset", "now", "due"),
    [
        (1795470734063, 10000, 4063, 1795470734188, 1795470744063),
        (1795471097250, 1000, 250, 1795471100055, 1795471100250),
        (1795476361250, 1000, 250, 1795476364800, 1795476365250),
        (1795476364408, 1000, 408, 1795476366708, 1795476367408),
        (NOW, 1000, 0, NOW + 1000, NOW + 1000),
        (NOW, 1000, 0, NOW + 1001, NOW + 2000),
    ],
)
def test_the_slots_of_an_interval(mail: Queue, newest: int, every: int, offset: int, now: int, due: int) -> None:
    set_up(mail, newest=newest, every=every, offset=offset)
    assert iterate(mail, Current(job_id=f"repeat:s:{newest}"), now=now).reply == [f"repeat:s:{due}"]


def test_interval_and_phase_come_from_the_job_where_the_record_has_none(mail: Queue) -> None:
    set_up(mail)
    current = Current(every=1000, offset=300)
    assert iterate(mail, current, now=NOW + 5000).reply == [f"repeat:s:{NOW + 5300}"]
    assert "offset" not in mail.hash("repeat:s")


@pytest.mark.parametrize("record", [{"every": MINUTE}, {"pattern": "a"}])
def test_only_the_newest_job_brings_forth_another(mail: Queue, record: dict[str, Any]) -> None:
    set_up(mail, newest=NOW + 7, **record)
    assert iterate(mail, Current(due=NOW + 9)) == ([""], {})


def test_made_again_it_makes_nothing(mail: Queue) -> None:
    set_up(mail, every=MINUTE)
    iterate(mail)
    assert iterate(mail) == ([""], {})


def test_a_scheduler_that_is_gone(mail: Queue) -> None:
    mail.put("meta", {"opts.maxLenEvents": 10000})
    assert iterate(mail) == ([""], {})


@pytest.mark.leaves_keys_broken("half a scheduler is what it is about")
def test_an_id_without_a_record(mail: Queue) -> None:
    mail.put("meta", {"opts.maxLenEvents": 10000})
    mail.redis.zadd(mail.key("repeat"), {"s": NOW})
    assert iterate(mail, Current(every=1000)) == ([""], {})


@pytest.mark.parametrize("record", [{}, {"every": 0}, {"every": -5}])
def test_nobody_knows_when(mail: Queue, record: dict[str, Any]) -> None:
    set_up(mail, **record)
    assert iterate(mail) == ([""], {})


def test_a_time_whose_job_has_run_is_passed_over(mail: Queue) -> None:
    set_up(mail, every=MINUTE)
    for n in (1, 2):
        mail.store_completed(f"repeat:s:{NOW + n * MINUTE}")
    due = NOW + 3 * MINUTE
    job = f"repeat:s:{due}"
    assert iterate(mail) == (
        [job],
        {
            "id": "1",
            "repeat": {"s": due},
            "repeat:s": {"ic": "2"},
            job: stored(timestamp=NOW + 5, delay=3 * MINUTE - 5, opts=opts(due, 3 * MINUTE - 5), rjk="s"),
            "delayed": {job: due * SLOT},
            "marker": {"1": due},
            "events": [
                event("duplicated", f"repeat:s:{NOW + MINUTE}"),
                event("added", job, name="n"),
                event("delayed", job, delay=str(due)),
            ],
        },
    )


def test_there_is_an_end_to_passing_over(mail: Queue) -> None:
    set_up(mail, every=1)
    for n in range(1, 1002):
        mail.store_completed(f"repeat:s:{NOW + n}")
    taken = f"repeat:s:{NOW + 1}"
    assert iterate(mail, now=NOW) == ([CODES["SCHEDULER_BUSY"]], {"events": [event("duplicated", taken)]})


def test_by_a_pattern_the_caller_knows_the_time_after_one_that_is_taken(mail: Queue) -> None:
    set_up(mail, pattern="* * * * *")
    taken = f"repeat:s:{NOW + MINUTE}"
    mail.store_completed(taken)
    current = Current(due=NOW + MINUTE)
    assert iterate(mail, current) == ([CODES["SCHEDULER_COLLISION"]], {"events": [event("duplicated", taken)]})


@pytest.mark.parametrize("place", ["delayed", "prioritized", "wait", "paused"])
@pytest.mark.parametrize("record", [{"every": MINUTE}, {"pattern": "* * * * *"}])
def test_a_job_that_has_still_to_run_goes_on_with_the_series(mail: Queue, record: dict[str, Any], place: str) -> None:
    set_up(mail, **record)
    due = NOW + MINUTE
    job = f"repeat:s:{due}"
    mail.redis.zadd(mail.key("marker"), {"0": 0})
    mail.redis.set(mail.key("pc"), 1)
    mail.store(job, rjk="s", delay=MINUTE if place == "delayed" else 0, priority=1 if place == "prioritized" else 0)
    if place in ("wait", "paused"):
        mail.redis.lpush(mail.key(place), job)
    else:
        mail.redis.zadd(mail.key(place), {job: due * SLOT if place == "delayed" else PRIORITY + 1})
    current = Current(due=due)
    assert iterate(mail, current) == ([""], {"repeat": {"s": due}, "events": [event("duplicated", job)]})


def test_a_job_that_waits_there_but_is_no_job_of_the_scheduler(mail: Queue) -> None:
    set_up(mail, every=MINUTE)
    mail.store(f"repeat:s:{NOW + MINUTE}")
    mail.redis.zadd(mail.key("marker"), {"0": 0})
    mail.redis.lpush(mail.key("wait"), f"repeat:s:{NOW + MINUTE}")
    assert iterate(mail)[0] == [f"repeat:s:{NOW + 2 * MINUTE}"]


@pytest.mark.parametrize(
    ("scheduler", "record", "goes_on"),
    [
        ("n:id::zone:1000", {}, False),
        ("n:id:1795476361250:zone:* * * * *", {}, False),
        ("n:id::zone:1000", {"ic": 1}, True),
        ("n:id:x:zone:1000", {}, True),
        ("n:id::zone:each", {}, True),
        ("n::zone:1000", {}, True),
        ("s", {}, True),
    ],
)
def test_what_was_before_job_schedulers_is_told_apart(
    mail: Queue, scheduler: str, record: dict[str, Any], goes_on: bool
) -> None:
    set_up(mail, scheduler, every=MINUTE)
    if not record:
        mail.redis.hdel(mail.key(f"repeat:{scheduler}"), "ic")
    called = iterate(mail, Current(scheduler, f"repeat:{scheduler}:{NOW}"))
    if goes_on:
        assert called.reply == [f"repeat:{scheduler}:{NOW + MINUTE}"]
    else:
        assert called == ([CODES["SCHEDULER_LEGACY"]], {})


def test_each_of_a_batch_is_looked_at_by_itself(mail: Queue) -> None:
    set_up(mail, every=MINUTE)
    set_up(mail, "t", every=MINUTE)
    mail.redis.set(mail.key("repeat:broken"), "x")
    mail.redis.zadd(mail.key("repeat"), {"broken": NOW})
    called = iterate(mail, Current("broken", f"repeat:broken:{NOW}"), Current(), Current("t", f"repeat:t:{NOW}"))
    assert called.reply == [CODES["KEY_CORRUPT"], f"repeat:s:{NOW + MINUTE}", f"repeat:t:{NOW + MINUTE}"]
