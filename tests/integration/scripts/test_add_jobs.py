"""``add_jobs``: where new jobs go, whose id they get, and what a second sending does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import (
    CODES,
    LONG_MS,
    NOW,
    PRIORITY,
    SLOT,
    TOKEN,
    End,
    Expiring,
    NewJob,
    Queue,
    event,
    stored,
)

META = {"opts.maxLenEvents": "10000", "version": "toromq:test"}
ADDED = [event("added", "1", name="n"), event("waiting", "1")]
DELAYED = [event("added", "1", name="n"), event("delayed", "1", delay=str(NOW + 500))]


def last_event(mail: Queue) -> str:
    """The id of the newest event."""
    entries = mail.redis.xrevrange(mail.key("events"), count=1)
    return str(entries[0][0]) if entries else ""


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        pytest.param(NewJob(1), {"wait": ["1"], "marker": {"0": 0}, "events": ADDED}, id="standard"),
        pytest.param(NewJob(1, lifo="1"), {"wait": ["1"], "marker": {"0": 0}, "events": ADDED}, id="lifo"),
        pytest.param(
            NewJob(1, priority=5),
            {"prioritized": {"1": 5 * PRIORITY + 1}, "pc": "1", "marker": {"0": 0}, "events": ADDED},
            id="priority",
        ),
        pytest.param(
            NewJob(1, delay=500),
            {"delayed": {"1": (NOW + 500) * SLOT}, "marker": {"1": NOW + 500}, "events": DELAYED},
            id="delay",
        ),
        pytest.param(
            NewJob(1, delay=500, priority=5),
            {"delayed": {"1": (NOW + 500) * SLOT}, "marker": {"1": NOW + 500}, "events": DELAYED},
            id="delay and priority",
        ),
    ],
)
def test_a_job_goes_where_it_belongs(mail: Queue, job: NewJob, expected: dict[str, Any]) -> None:
    mail.redis.set(mail.key("id"), 1)
    job = job._replace(data='{"a":"å"}', opts='{"attempts":3}')
    reply, changed = mail.add_jobs(job)
    assert reply == [0, "1"]
    fields = stored(data='{"a":"å"}', opts='{"attempts":3}', delay=job.delay, priority=job.priority)
    assert changed == {"1": fields, "meta": META, **expected}


def test_the_fields_are_stored_as_given(mail: Queue) -> None:
    mail.redis.set(mail.key("id"), 1)
    _, changed = mail.add_jobs(NewJob(1, "own", "a name", "null", '{"x":1}', NOW - 7))
    assert changed["own"] == stored(name="a name", data="null", opts='{"x":1}', timestamp=NOW - 7)
    assert changed["events"][0] == event("added", "own", name="a name")


def test_jobs_queue_behind_those_that_are_there(mail: Queue) -> None:
    mail.add(NewJob(), NewJob(priority=5), NewJob(delay=500))
    mail.redis.incrby(mail.key("id"), 4)
    jobs = NewJob(4), NewJob(5, lifo="1"), NewJob(6, priority=5), NewJob(7, delay=500)
    reply, changed = mail.add_jobs(*jobs)
    assert reply == [0, "4", "5", "6", "7"]
    due = (NOW + 500) * SLOT
    assert {key: changed[key] for key in ("wait", "prioritized", "pc", "delayed")} == {
        "wait": ["4", "1", "5"],
        "prioritized": {"2": 5 * PRIORITY + 1, "6": 5 * PRIORITY + 2},
        "pc": "2",
        "delayed": {"3": due, "7": due + 1},
    }
    assert changed.keys() == {"4", "5", "6", "7", "wait", "prioritized", "pc", "delayed", "events"}


BATCH = [
    NewJob(delay=500),
    NewJob(job_id="x", name="first"),
    NewJob(lifo="1"),
    NewJob(priority=2, lifo="1"),
    NewJob(),
    NewJob(job_id="x", name="second"),
    NewJob(priority=1),
    NewJob(delay=500, priority=3),
    NewJob(lifo="1"),
    NewJob(delay=100),
    NewJob(priority=2),
]


def test_a_batch_is_the_same_as_one_by_one(mail: Queue, prefix: str) -> None:
    twin = Queue(mail.redis, prefix, "twin")
    mail.redis.set(mail.key("id"), len(BATCH))
    twin.redis.set(twin.key("id"), len(BATCH))
    jobs = [job._replace(number=n) for n, job in enumerate(BATCH, 1)]
    at_once = mail.add_jobs(*jobs)
    for job in jobs:
        twin.add_jobs(job)
    assert at_once.reply == [0, "1", "x", "3", "4", "5", ["x"], "7", "8", "9", "10", "11"]
    snapshot = mail.snapshot()
    assert {k: v for k, v in snapshot.items() if not k.startswith("twin:")} == {
        k.removeprefix("twin:"): v for k, v in snapshot.items() if k.startswith("twin:")
    }
    assert at_once.changed["x"]["name"] == "first"
    assert event("duplicated", "x") in at_once.changed["events"]
    assert at_once.changed["wait"] == ["5", "x", "3", "9"]
    assert at_once.changed["marker"] == {"0": 0, "1": NOW + 100}


def test_no_slot_beyond_the_last_of_a_millisecond(mail: Queue) -> None:
    mail.add(NewJob(delay=500))
    last = (NOW + 501) * SLOT - 1
    mail.redis.zadd(mail.key("delayed"), {"1": last})
    assert mail.add(NewJob(delay=500), NewJob(delay=501)) == ["2", "3"]
    assert mail.snapshot()["delayed"].value == {"1": last, "2": last, "3": last + 1}


def test_a_later_delay_leaves_the_marker(mail: Queue) -> None:
    mail.add(NewJob(delay=500))
    mail.redis.set(mail.key("id"), 2)
    assert "marker" not in mail.add_jobs(NewJob(2, delay=900)).changed


def test_only_a_delayed_job_writes_the_delay_marker(mail: Queue) -> None:
    mail.add(NewJob(delay=500))
    mail.redis.delete(mail.key("marker"))
    mail.redis.set(mail.key("id"), 2)
    assert mail.add_jobs(NewJob(2)).changed["marker"] == {"0": 0}


@pytest.mark.parametrize(
    ("settings", "marked"),
    [
        pytest.param({"paused": "1"}, False, id="paused"),
        pytest.param({"concurrency": "1"}, False, id="at its concurrency"),
        pytest.param({"concurrency": "2"}, True, id="below its concurrency"),
        pytest.param({"max": "1", "duration": "1000"}, True, id="rate limited"),
    ],
)
def test_a_queue_that_starts_nothing_wakes_nobody(mail: Queue, settings: dict[str, str], marked: bool) -> None:
    mail.activate(NewJob())
    mail.put("meta", settings)
    mail.redis.set(mail.key("id"), 3)
    _, changed = mail.add_jobs(NewJob(2), NewJob(3, delay=500))
    assert changed["marker"] == {"1": NOW + 500, **({"0": 0} if marked else {})}


def test_a_taken_id_is_reported_and_changes_nothing_else(mail: Queue) -> None:
    mail.add(NewJob(job_id="x", name="old"))
    mail.redis.set(mail.key("id"), 2)
    reply, changed = mail.add_jobs(NewJob(2, "x", delay=5), reserve=3)
    assert reply == [5, ["x"]]
    assert changed == {"id": "5", "events": [event("duplicated", "x")]}


@pytest.mark.parametrize(
    ("reserve", "counter", "first", "second"),
    [pytest.param(0, 0, "6", "7", id="the next"), pytest.param(10, 14, "15", "16", id="behind those reserved")],
)
def test_a_number_that_somebody_took_is_exchanged(
    mail: Queue, reserve: int, counter: int, first: str, second: str
) -> None:
    for taken in ("1", "2", "5"):
        mail.add(NewJob(name=f"theirs {taken}"))
        mail.redis.set(mail.key("id"), taken)
    # The counter was set back, and somebody who counts from it stored jobs under the numbers reserved here.
    mail.redis.set(mail.key("id"), 4)
    mail.redis.rename(mail.key("3"), mail.key("5"))
    mail.redis.lrem(mail.key("wait"), 1, "3")
    mail.redis.lpush(mail.key("wait"), "5")
    reply, changed = mail.add_jobs(NewJob(1, name="a"), NewJob(2, name="b"), NewJob(3, name="c"), reserve=reserve)
    assert reply == [counter, first, second, "3"]
    assert changed["wait"] == ["3", second, first, *["5", "2", "1"]]
    assert changed["events"] == [
        entry
        for id, name in ((first, "a"), (second, "b"), ("3", "c"))
        for entry in (event("added", id, name=name), event("waiting", id))
    ]
    assert changed.keys() == {"3", first, second, "wait", "id", "events"}


@pytest.mark.parametrize("job_id", ["", "x"])
@pytest.mark.parametrize("state", ["waiting", "active", "completed"])
def test_a_job_sent_again_is_left_alone(mail: Queue, job_id: str, state: str) -> None:
    mail.redis.set(mail.key("id"), 2)
    jobs = NewJob(1, job_id, "a", "[1]"), NewJob(2, "", "b", delay=500)
    first = mail.add_jobs(*jobs)
    if state != "waiting":
        mail.finish(want=1, token=TOKEN)
    if state == "completed":
        mail.finish(End(first.reply[1]))
    reply, changed = mail.add_jobs(*(job._replace(again="1") for job in jobs), reserve=4)
    assert reply == [6, *first.reply[1:]]
    assert changed == {"id": "6"}


def test_the_rest_of_a_batch_sent_again_is_stored(mail: Queue) -> None:
    mail.redis.set(mail.key("id"), 3)
    mail.add_jobs(NewJob(1))
    reply, changed = mail.add_jobs(NewJob(1, again="1"), NewJob(2, again="1"), NewJob(3, "x", again="1"))
    assert reply == [0, "1", "2", "x"]
    assert changed["wait"] == ["x", "2", "1"]


def test_a_job_sent_again_is_known_although_its_data_was_replaced(mail: Queue) -> None:
    mail.redis.set(mail.key("id"), 1)
    mail.add_jobs(NewJob(1))
    mail.call("update_data", job="1", data="[7]")
    assert mail.add_jobs(NewJob(1, again="1")) == ([0, "1"], {})


@pytest.mark.parametrize("difference", [{"name": "m"}, {"timestamp": NOW + 1}])
def test_sent_again_but_another_job_stands_there(mail: Queue, difference: dict[str, Any]) -> None:
    mail.add(NewJob(data="[1]"), NewJob(job_id="x", data="[1]"))
    again = NewJob(data="[1]", again="1")._replace(**difference)
    reply, changed = mail.add_jobs(again._replace(number=1), again._replace(number=2, job_id="x"))
    assert reply == [0, "3", ["x"]]
    assert event("duplicated", "x") in changed["events"]
    assert changed.keys() == {"3", "id", "wait", "events"}


@pytest.mark.parametrize("job_id", ["", "x"])
def test_a_job_sent_again_that_has_run_and_gone_is_left_alone(mail: Queue, job_id: str) -> None:
    since = last_event(mail)
    mail.activate(job := NewJob(1, job_id, delay=0))
    mail.finish(End(job_id or "1", keep="0::"))
    assert mail.redis.exists(mail.key(job_id or "1")) == 0
    assert mail.add_jobs(job._replace(again="1"), since=since) == ([0, job_id or "1"], {})


def test_a_duplicate_sent_again_stays_one_when_the_other_has_gone(mail: Queue) -> None:
    mail.activate(NewJob(job_id="x"))
    since = last_event(mail)
    mail.redis.set(mail.key("id"), 2)
    assert mail.add_jobs(NewJob(2, "x", "other")).reply == [0, ["x"]]
    mail.finish(End("x", keep="0::"))
    assert mail.add_jobs(NewJob(2, "x", "other", again="1"), since=since) == ([0, ["x"]], {})


def test_what_happened_to_an_id_earlier_says_nothing_of_a_job_sent_again(mail: Queue) -> None:
    mail.activate(NewJob(job_id="x"))
    mail.finish(End("x", keep="0::"))
    since = last_event(mail)
    mail.redis.set(mail.key("id"), 2)
    # The first try never arrived. The id's earlier life, all of it before the last event known, was another job.
    reply, changed = mail.add_jobs(NewJob(2, "x", again="1"), since=since)
    assert reply == [0, "x"]
    assert changed["wait"] == ["x"]
    assert changed["events"] == [event("added", "x", name="n"), event("waiting", "x")]


def test_each_call_says_up_to_where_its_events_go(mail: Queue) -> None:
    def call(*jobs: NewJob) -> str:
        highest = max([job.number for job in jobs], default=0)
        scalars = {"reserve": 9, "max_events": "", "version": "v", "since": "", "highest": highest}
        return str(mail.call("add_jobs", [job.group() for job in jobs], **scalars).reply[1])

    assert call() == ""
    seen = [call(NewJob(1)), call(NewJob(2, delay=5)), call(NewJob(3, "x")), call(NewJob(4, "x"))]
    entries = {entry: fields["event"] for entry, fields in mail.redis.xrange(mail.key("events"))}
    assert [entries[entry] for entry in seen] == ["added", "added", "added", "duplicated"]
    assert call() == last_event(mail)


@pytest.mark.parametrize("counter", [None, 0, 2])
def test_numbers_above_the_counter_are_void(mail: Queue, counter: int | None) -> None:
    if counter is not None:
        mail.redis.set(mail.key("id"), counter)
    jobs = NewJob(1), NewJob(3, "x"), NewJob(2)
    assert mail.add_jobs(*jobs, max_events="7") == (CODES["IDS_VOID"], {})
    # Numbers are asked for in the same step that tells of the counter, and given back; none is the same as 0.
    given_back: dict[str, None] = {"id": None} if counter == 0 else {}
    assert mail.add_jobs(*jobs, reserve=5, max_events="7") == (CODES["IDS_VOID"], given_back)


def test_numbers_are_reserved_without_jobs(mail: Queue) -> None:
    reply, changed = mail.add_jobs(reserve=8)
    assert reply == [8]
    assert changed == {"id": "8", "meta": META}


@pytest.mark.parametrize(
    ("before", "max_events", "expected"),
    [
        ({}, "", {"opts.maxLenEvents": "10000", "version": "v"}),
        ({}, "50", {"opts.maxLenEvents": "50", "version": "v"}),
        ({"opts.maxLenEvents": "9", "version": "bullmq:6.7.0"}, "", None),
        ({"opts.maxLenEvents": "9", "version": "bullmq:6.7.0"}, "50", {"opts.maxLenEvents": "50"}),
        ({"opts.maxLenEvents": "9", "version": "bullmq:6.7.0"}, "9", None),
    ],
)
def test_settings_are_written_once(
    mail: Queue, before: dict[str, str], max_events: str, expected: dict[str, str] | None
) -> None:
    mail.put("meta", before)
    mail.redis.set(mail.key("id"), 1)
    _, changed = mail.add_jobs(NewJob(1), max_events=max_events, version="v")
    assert changed.get("meta") == expected


@pytest.mark.parametrize("job", [NewJob(), NewJob(delay=500), NewJob(job_id="x")], ids=["waiting", "delayed", "taken"])
def test_the_events_stream_is_kept_short(mail: Queue, job: NewJob) -> None:
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    for _ in range(2):
        mail.add(*[job] * 250)
    # Whole nodes of a hundred entries are what Redis cuts off.
    assert mail.redis.xlen(mail.key("events")) < 250


@pytest.mark.leaves_keys_broken("a key of another type stands where a job should")
@pytest.mark.parametrize("again", ["", "1"])
@pytest.mark.parametrize("job_id", ["", "x"])
def test_a_key_that_is_no_job_stops_no_other_job(mail: Queue, job_id: str, again: str) -> None:
    mail.redis.set(mail.key("id"), 3)
    mail.redis.set(mail.key(job_id or "2"), "no job", px=LONG_MS)
    jobs = NewJob(1, again=again), NewJob(2, job_id, again=again), NewJob(3, again=again)
    reply, changed = mail.add_jobs(*jobs)
    assert reply == [0, "1", ["x"] if job_id else "4", "3"]
    assert changed["wait"] == ["3", *([] if job_id else ["4"]), "1"]
    assert (event("duplicated", "x") in changed["events"]) == bool(job_id)
    assert Expiring("no job") not in changed.values()
