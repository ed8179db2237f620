"""``upsert_job_scheduler``: which slot its next job gets, what gives way to it, and what is refused."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import (
    CODES,
    NOW,
    PRIORITY,
    SLOT,
    Called,
    Expiring,
    NewJob,
    Queue,
    event,
    stored,
)

MINUTE: Final = 60_000
META: Final = {"opts.maxLenEvents": "10000", "version": "toromq:test"}


def upsert(mail: Queue, now: int = NOW, **given: Any) -> Called:
    """Runs the command for scheduler ``s``; what is no argument of it is a field of the record."""
    defaults = {"max_events": "", "version": "toromq:test", "scheduler": "s", "opts": '{"repeat":{}}', "data": "{}"}
    defaults |= {"due": "", "offset": "", "priority": 0, "lifo": "", "fixed": "", "again": "", "hash_seed": ""}
    scalars = {**defaults, **{name: value for name, value in given.items() if name in defaults}}
    fields = {"name": "n", **{name: value for name, value in given.items() if name not in defaults}}
    return mail.call("upsert_job_scheduler", list(fields.items()), now_ms=now, **scalars)


def opts(due: int, delay: int, repeat: str = "{}", by_time: bool = False) -> str:
    """The options of a job as the command stores them."""
    last = f',"prevMillis":{due}' if by_time else ""
    return f'{{"repeat":{repeat},"jobId":"repeat:s:{due}","delay":{delay}{last}}}'


def due_of(called: Called) -> int:
    return int(called.reply[0].rpartition(":")[2])


def phase(mail: Queue) -> str | None:
    return mail.hash("repeat:s").get("offset")


def pending(mail: Queue) -> list[str]:
    """The ids of the jobs that wait or are delayed, whatever their structure."""
    lists = [job_id for name in ("wait", "paused") for job_id in mail.redis.lrange(mail.key(name), 0, -1)]
    return lists + [
        job_id for name in ("prioritized", "delayed") for job_id in mail.redis.zrange(mail.key(name), 0, -1)
    ]


# -- what is written ---------------------------------------------------------------------------------------------------


def test_the_first_job_of_an_interval_is_due_at_once(mail: Queue) -> None:
    job = f"repeat:s:{NOW}"
    called = upsert(mail, every=MINUTE, limit=3, opts='{"repeat":{"every":60000}}', data='{"a":[]}')
    stored_opts = opts(NOW, 0, '{"every":60000}')
    assert called.reply == [job, "0", stored_opts]
    json.loads(stored_opts)
    assert called.changed == {
        "meta": META,
        "id": "1",
        "repeat": {"s": NOW},
        "repeat:s": {"name": "n", "every": "60000", "limit": "3", "ic": "1", "offset": str(NOW % MINUTE)},
        job: stored(data='{"a":[]}', opts=stored_opts, rjk="s"),
        "wait": [job],
        "marker": {"0": 0},
        "events": [event("added", job, name="n"), event("waiting", job)],
    }


def test_the_first_job_of_a_pattern_is_delayed(mail: Queue) -> None:
    due = NOW + 500
    job = f"repeat:s:{due}"
    called = upsert(mail, pattern="* * * * *", tz="UTC", due=due)
    assert called.reply == [job, "500", opts(due, 500, by_time=True)]
    assert called.changed == {
        "meta": META,
        "id": "1",
        "repeat": {"s": due},
        "repeat:s": {"name": "n", "pattern": "* * * * *", "tz": "UTC", "ic": "1", "offset": "0"},
        job: stored(delay=500, opts=opts(due, 500, by_time=True), rjk="s"),
        "delayed": {job: due * SLOT},
        "marker": {"1": due},
        "events": [event("added", job, name="n"), event("delayed", job, delay=str(due))],
    }


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"priority": 3}, ("prioritized", {f"repeat:s:{NOW}": 3 * PRIORITY + 1})),
        ({"lifo": "1"}, ("wait", ["w", f"repeat:s:{NOW}"])),
        ({}, ("wait", [f"repeat:s:{NOW}", "w"])),
    ],
)
def test_a_job_that_is_due_waits_where_its_options_say(mail: Queue, options: dict[str, Any], place: Any) -> None:
    mail.add(NewJob(job_id="w"))
    changed = upsert(mail, every=MINUTE, **options).changed
    assert changed[place[0]] == place[1]
    assert mail.hash(f"repeat:s:{NOW}")["priority"] == str(options.get("priority", 0))


def test_an_id_of_any_letters_is_json_in_the_options(mail: Queue) -> None:
    scheduler = 'a"b\\c/é:d'
    reply = upsert(mail, scheduler=scheduler, every=MINUTE).reply
    assert json.loads(reply[2])["jobId"] == reply[0] == f"repeat:{scheduler}:{NOW}"


def test_the_settings_of_the_queue_are_those_of_its_producers(mail: Queue) -> None:
    mail.put("meta", {"version": "bullmq:6.7.0", "opts.maxLenEvents": 10})
    assert "meta" not in upsert(mail, every=MINUTE).changed
    assert upsert(mail, every=MINUTE, max_events=20).changed["meta"] == {"opts.maxLenEvents": "20"}


# -- the slots of an interval ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "now", "due", "offset"),
    [
        ({"every": 10000}, 1795470734063, 1795470734063, 4063),
        ({"every": 60000, "offset": 1234}, 1795470734148, 1795470781234, 1234),
        ({"every": 60000, "startDate": 1795470739150}, 1795470734150, 1795470739150, 19150),
        ({"every": 60000, "startDate": 1795470730000}, 1795470734150, 1795470734150, 14150),
        ({"every": 1000, "offset": 2500}, 1795648916099, 1795648918500, 2500),
        ({"every": 1000, "offset": 99}, 1795648916099, 1795648917099, 99),
        ({"every": 1000, "offset": 100}, 1795648916099, 1795648916100, 100),
    ],
)
def test_the_first_slot(mail: Queue, options: dict[str, int], now: int, due: int, offset: int) -> None:
    called = upsert(mail, now, **options)
    assert (due_of(called), phase(mail)) == (due, str(offset))
    assert called.reply[1] == str(due - now)


def test_after_missed_slots_it_falls_onto_the_bare_grid(mail: Queue) -> None:
    mail.redis.zadd(mail.key("repeat"), {"s": 1795476158728})
    mail.put("repeat:s", {"ic": 7, "every": 100, "offset": 28})
    called = upsert(mail, 1795476159030, every=100)
    assert (due_of(called), phase(mail)) == (1795476159100, "0")
    assert mail.hash("repeat:s")["ic"] == "7"


def test_an_interval_that_changed_moves_the_slot_and_keeps_the_phase(mail: Queue) -> None:
    first = upsert(mail, 1795475698030, every=50000)
    called = upsert(mail, 1795475698052, every=70000)
    assert (due_of(called), phase(mail)) == (1795475698052, str(1795475698030 % 50000))
    assert phase(mail) == "48030"
    assert pending(mail) == [called.reply[0]] != [first.reply[0]]


def test_an_offset_alone_moves_nothing_yet(mail: Queue) -> None:
    upsert(mail, NOW, every=MINUTE, offset=7)
    called = upsert(mail, NOW + 3, every=MINUTE, offset=9)
    assert due_of(called) % MINUTE == 7
    assert phase(mail) == "9"


# -- the job that gives way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["delayed", "prioritized", "wait", "paused"])
def test_a_job_that_waits_gives_way_in_its_slot(mail: Queue, place: str) -> None:
    upsert(mail, NOW, every=MINUTE)
    job = f"repeat:s:{NOW}"
    mail.redis.delete(mail.key("wait"))
    if place in ("wait", "paused"):
        mail.store("other")
        mail.store("another")
        mail.redis.lpush(mail.key(place), "other", job, "another")
    else:
        mail.redis.zadd(mail.key(place), {job: 1})
    mail.put(job, {"deid": "d"})
    mail.redis.set(mail.key("de:d"), job)
    mail.redis.rpush(mail.key(f"{job}:logs"), "line")
    called = upsert(mail, NOW + 70_000, every=MINUTE, data='{"new":1}')
    assert due_of(called) == NOW
    assert [other for other in pending(mail) if not other.startswith("repeat")] == (
        ["another", "other"] if place in ("wait", "paused") else []
    )
    assert pending(mail).count(job) == 1
    assert called.changed["events"] == [event("added", job, name="n"), event("waiting", job)]
    assert called.changed["de:d"] is None
    assert called.changed[f"{job}:logs"] is None
    assert mail.hash(job) == stored(timestamp=NOW + 70_000, data='{"new":1}', opts=opts(NOW, 0), rjk="s")
    assert mail.hash("repeat:s")["ic"] == "1"


def test_a_paused_queue_keeps_one_job(mail: Queue) -> None:
    mail.call("pause")
    upsert(mail, NOW, every=MINUTE)
    called = upsert(mail, NOW + 5, every=MINUTE)
    assert pending(mail) == [f"repeat:s:{NOW}"]
    assert "marker" not in called.changed


def test_a_job_that_runs_is_left_alone(mail: Queue) -> None:
    upsert(mail, NOW, every=MINUTE)
    mail.finish(want=1)
    called = upsert(mail, NOW + 5, every=MINUTE)
    assert due_of(called) == NOW + MINUTE
    assert mail.redis.lrange(mail.key("active"), 0, -1) == [f"repeat:s:{NOW}"]
    assert f"repeat:s:{NOW}" not in called.changed


def test_a_parent_that_waits_for_it_goes_with_it(mail: Queue) -> None:
    upsert(mail, NOW, every=MINUTE)
    job = f"repeat:s:{NOW}"
    mail.store("p")
    mail.redis.zadd(mail.key("waiting-children"), {"p": NOW})
    mail.redis.sadd(mail.key("p:dependencies"), mail.key(job))
    mail.put(job, {"parentKey": mail.key("p"), "parent": json.dumps({"id": "p", "queueKey": mail.base[:-1]})})
    changed = upsert(mail, NOW, every=MINUTE).changed
    assert (changed["p"], changed["p:dependencies"], changed["waiting-children"]) == (None, None, None)


def test_a_pattern_moves_the_job_to_its_time(mail: Queue) -> None:
    upsert(mail, NOW, pattern="a", tz="UTC", due=NOW + 500)
    called = upsert(mail, NOW + 1, pattern="b", tz="UTC", due=NOW + 200)
    assert pending(mail) == [f"repeat:s:{NOW + 200}"]
    assert called.changed["delayed"] == {f"repeat:s:{NOW + 200}": (NOW + 200) * SLOT}
    assert phase(mail) == "0"


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"pattern": "a", "tz": "UTC"}, True),
        ({"pattern": "a", "tz": "UTC", "endDate": NOW}, True),
        ({"pattern": "a", "tz": "UTC", "endDate": NOW - 1}, False),
        ({"pattern": "a", "tz": "UTC", "startDate": NOW}, False),
        ({"pattern": "a", "tz": "UTC", "hash_seed": "s"}, False),
        ({"pattern": "a", "tz": "UTC", "fixed": "1"}, False),
        ({"pattern": "a", "tz": "Asia/Tokyo"}, False),
        ({"pattern": "b", "tz": "UTC"}, False),
    ],
)
def test_a_time_that_came_while_nobody_ran_it_is_not_skipped(mail: Queue, options: dict[str, Any], keeps: bool) -> None:
    upsert(mail, NOW - 500, pattern="a", tz="UTC", due=NOW)
    called = upsert(mail, NOW + 1, due=NOW + 900, **options)
    due = NOW if keeps else NOW + 900
    assert due_of(called) == due
    assert json.loads(called.reply[2])["prevMillis"] == due
    assert pending(mail) == [f"repeat:s:{due}"]


def test_a_time_before_its_job_is_not_used_again(mail: Queue) -> None:
    """Somebody whose clock is ahead has run the job for it, and that is removed."""
    upsert(mail, NOW, pattern="a", tz="UTC", due=NOW + 900)
    called = upsert(mail, NOW, pattern="a", tz="UTC", due=NOW + 100, data="5")
    assert called.reply[0] == f"repeat:s:{NOW + 900}"
    assert pending(mail) == [called.reply[0]]
    assert mail.hash(called.reply[0])["data"] == "5"


@pytest.mark.parametrize(("stored_opts", "keeps"), [('{"repeat":{"hashSeed":"s"}}', True), ('{"repeat":5}', False)])
def test_the_seed_of_its_job_is_looked_at(mail: Queue, stored_opts: str, keeps: bool) -> None:
    upsert(mail, NOW, pattern="H", tz="UTC", due=NOW + 900, opts=stored_opts, hash_seed="s")
    called = upsert(mail, NOW, pattern="H", tz="UTC", due=NOW + 100, hash_seed="s")
    assert due_of(called) == NOW + (900 if keeps else 100)


def test_a_stale_phase_stays_with_a_pattern(mail: Queue) -> None:
    upsert(mail, NOW, every=MINUTE, offset=77)
    upsert(mail, NOW, pattern="a", tz="UTC", due=NOW + 500)
    assert phase(mail) == "77"
    assert "every" not in mail.hash("repeat:s")


# -- slots that are taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [1, 32])
def test_an_interval_steps_over_slots_that_are_taken(mail: Queue, busy: int) -> None:
    for n in range(busy):
        mail.store_completed(f"repeat:s:{NOW + n * MINUTE}")
    assert due_of(upsert(mail, every=MINUTE)) == NOW + busy * MINUTE


def test_too_many_slots_are_taken(mail: Queue) -> None:
    for n in range(33):
        mail.store_completed(f"repeat:s:{NOW + n * MINUTE}")
    assert upsert(mail, every=MINUTE) == (CODES["SCHEDULER_BUSY"], {})


def test_the_time_of_a_pattern_is_taken(mail: Queue) -> None:
    mail.store_completed(f"repeat:s:{NOW + 5}")
    assert upsert(mail, pattern="a", due=NOW + 5) == (CODES["SCHEDULER_COLLISION"], {})


def test_who_is_refused_keeps_what_there_was(mail: Queue) -> None:
    upsert(mail, NOW, pattern="a", tz="UTC", due=NOW + 5)
    mail.store_completed(f"repeat:s:{NOW + 9}")
    assert upsert(mail, pattern="b", tz="UTC", due=NOW + 9) == (CODES["SCHEDULER_COLLISION"], {})


def test_a_record_of_another_type(mail: Queue) -> None:
    mail.redis.set(mail.key("repeat:s"), "x")
    assert upsert(mail, every=MINUTE) == (CODES["KEY_CORRUPT"], {})


# -- sent again --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"every": MINUTE}, {"pattern": "a", "tz": "UTC", "due": NOW, "fixed": "1"}])
@pytest.mark.parametrize("runs", [False, True])
def test_sent_again_it_makes_no_second_job_for_the_time(mail: Queue, options: dict[str, Any], runs: bool) -> None:
    first = upsert(mail, NOW, **options)
    if runs:
        mail.finish(want=1)
    again = upsert(mail, NOW + 20, again="1", **options)
    if runs and "every" in options:
        # The next one, which the worker will then not make.
        assert due_of(again) == NOW + MINUTE
    else:
        assert again.reply == first.reply
    counted = [*pending(mail), *mail.redis.lrange(mail.key("active"), 0, -1)]
    assert counted.count(first.reply[0]) == 1


def test_nothing_expires(mail: Queue) -> None:
    assert not any(isinstance(value, Expiring) for value in upsert(mail, every=MINUTE).changed.values())
