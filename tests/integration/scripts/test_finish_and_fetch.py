"""``finish_and_fetch``: what becomes of a job, by its outcome. Refusals, parents, policies, fetching: see beside."""

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
    Trimmed,
    event,
    stored,
)

LEFT = {"active": None, "a:lock": None}
COMPLETED = event("completed", "a", returnvalue='"ok"', prev="active")
FAILED = event("failed", "a", failedReason="boom", prev="active")
EXHAUSTED = event("retries-exhausted", "a", attemptsMade="1")
BACK = event("waiting", "a", prev="active")
DRAINED = event("drained")
FINISHED_ON: dict[str, Any] = {"atm": "1", "finishedOn": str(NOW)}
REASON: dict[str, Any] = {"failedReason": "boom", "stacktrace": '["at"]'}


def failing(outcome: str, **fields: Any) -> End:
    return End("a", outcome, "boom", '["at"]', **fields)


@pytest.mark.parametrize(
    ("job", "end", "drained", "expected"),
    [
        pytest.param(
            {},
            End("a"),
            1,
            {
                "a": FINISHED_ON | {"returnvalue": '"ok"'},
                "completed": {"a": NOW},
                "events": [COMPLETED, DRAINED],
            },
            id="completed",
        ),
        pytest.param(
            {},
            failing("failed", number=1),
            1,
            {
                "a": FINISHED_ON | REASON,
                "failed": {"a": NOW},
                "events": [FAILED, EXHAUSTED, DRAINED],
            },
            id="failed with its tries used up",
        ),
        pytest.param(
            {},
            End("a", "failed", "boom", number=2),
            1,
            {
                "a": FINISHED_ON | {"failedReason": "boom"},
                "failed": {"a": NOW},
                "events": [FAILED, DRAINED],
            },
            id="failed for good with tries left and no stack",
        ),
        pytest.param(
            {},
            failing("retry"),
            0,
            {"a": {"atm": "1"} | REASON, "wait": ["a"], "marker": {"0": 0}, "events": [BACK]},
            id="retry",
        ),
        pytest.param(
            {"priority": 3},
            failing("retry", flag="1"),
            0,
            {
                "a": {"atm": "1"} | REASON,
                "prioritized": {"a": 3 * PRIORITY + 2},
                "pc": "2",
                "marker": {"0": 0},
                "events": [BACK],
            },
            id="retry by priority",
        ),
        pytest.param(
            {},
            failing("delay", number=500, flag="1"),
            0,
            {
                "a": {"atm": "1", "delay": "500"} | REASON,
                "delayed": {"a": (NOW + 500) * SLOT},
                "marker": {"1": NOW + 500},
                "events": [event("delayed", "a", delay=str(NOW + 500))],
            },
            id="delay that counts",
        ),
        pytest.param(
            {"priority": 3},
            End("a", "delay", "", number=500),
            0,
            {
                "a": {"delay": "500"},
                "delayed": {"a": (NOW + 500) * SLOT},
                "marker": {"1": NOW + 500},
                "events": [event("delayed", "a", delay=str(NOW + 500))],
            },
            id="delay that does not count",
        ),
        pytest.param({}, End("a", "wait", ""), 0, {"wait": ["a"], "marker": {"0": 0}, "events": [BACK]}, id="wait"),
        pytest.param(
            {"priority": 3},
            End("a", "wait", ""),
            0,
            {"prioritized": {"a": 3 * PRIORITY}, "events": [BACK]},
            id="wait by priority",
        ),
    ],
)
def test_an_outcome_is_written_down(
    mail: Queue, job: dict[str, Any], end: End, drained: int, expected: dict[str, Any]
) -> None:
    mail.activate(NewJob(job_id="a", **job))
    # Kept, so that a priority's place is seen to be new.
    if "priority" in job:
        mail.redis.set(mail.key("pc"), 1)
    reply, changed = mail.finish(end)
    assert reply == [[0], [], drained, 0]
    assert changed == {**LEFT, **expected}


@pytest.mark.parametrize(("outcome", "flag"), [("failed", ""), ("retry", ""), ("delay", "1")])
def test_a_failed_attempt_keeps_the_trace_it_failed_in(mail: Queue, outcome: str, flag: str) -> None:
    mail.activate(NewJob(job_id="a"))
    end = End("a", outcome, "boom", '["at"]\n{"traceparent":"00"}', number=5, flag=flag)
    _, changed = mail.finish(end)
    # Beside the count, and what each outcome writes of its own.
    assert changed["a"].items() >= {"atm": "1", "tm": '{"traceparent":"00"}', **REASON}.items()


@pytest.mark.parametrize("outcome", ["completed", "failed", "retry", "delay", "wait"])
def test_a_suspect_is_cleared(mail: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.sadd(mail.key("stalled"), "a", "b")
    _, changed = mail.finish(End("a", outcome, number=5))
    assert changed["stalled"] == {"b"}
    assert changed["active"] == ["b"]
    assert "b" not in changed


def test_attempts_are_counted_on(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcde"))
    for id in "abcde":
        mail.redis.hset(mail.key(id), "atm", 4)
    ends = [End("a"), End("b", "failed", number=5), End("c", "retry"), End("d", "delay", number=9, flag="1")]
    _, changed = mail.finish(*ends, End("e", "wait"))
    assert [changed[id]["atm"] for id in "abcd"] == ["5"] * 4
    assert "atm" not in changed["e"]
    assert event("retries-exhausted", "b", attemptsMade="5") in changed["events"]


def test_a_deferred_failure_goes_with_the_failure(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.hset(mail.key("a"), "defa", "child failed")
    mail.redis.hset(mail.key("b"), "defa", "child failed")
    _, changed = mail.finish(End("a", "failed", "child failed", number=1), End("b", "retry", ""))
    assert changed["a"]["defa"] is None
    assert changed["b"] == {"atm": "1"}


def test_a_retry_goes_where_its_flag_says(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.add(NewJob(job_id="c"))
    _, changed = mail.finish(End("a", "retry"), End("b", "retry", flag="1"))
    assert changed["wait"] == ["a", "c", "b"]


def test_what_is_due_goes_ahead_of_the_first_retry(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.add(NewJob(job_id="d", delay=500))
    _, changed = mail.finish(End("a", "retry"), End("b", "retry"), now_ms=NOW + 500)
    assert changed["wait"] == ["b", "a", "d"]
    assert changed["events"] == [event("waiting", "d", prev="delayed"), BACK, event("waiting", "b", prev="active")]
    assert changed["d"] == {"delay": "0"}


@pytest.mark.parametrize("outcome", ["completed", "failed", "delay", "wait"])
def test_nothing_is_promoted_without_a_retry_or_a_fetch(mail: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.add(NewJob(job_id="d", delay=500))
    _, changed = mail.finish(End("a", outcome, number=5), now_ms=NOW + 500)
    assert "d" not in changed


@pytest.mark.parametrize("outcome", ["completed", "failed", "retry", "wait"])
def test_only_a_delay_writes_the_delay_marker(mail: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.add(NewJob(delay=500))
    mail.redis.delete(mail.key("marker"))
    assert "1" not in mail.finish(End("a", outcome, number=5)).changed.get("marker", {})


@pytest.mark.parametrize("outcome", ["retry", "wait"])
def test_a_paused_queue_gets_its_job_back_unmarked(mail: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.add(NewJob(job_id="d", delay=500))
    mail.redis.hset(mail.key("meta"), "paused", 1)
    _, changed = mail.finish(End("a", outcome), now_ms=NOW + 500)
    assert "marker" not in changed


def test_the_rest_of_the_rate_limit_is_told(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b", priority=1))
    mail.redis.set(mail.key("limiter"), 2**53 - 1, px=LONG_MS)
    reply, changed = mail.finish(End("a", "wait", ""), End("b", "wait", ""))
    assert 0 < reply[3] <= LONG_MS
    assert "limiter" not in changed
    assert mail.finish(want=1).reply[3] == 0


def test_a_bounced_job_may_bring_its_own_limit(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.set(mail.key("limiter"), 1, px=50)
    reply, changed = mail.finish(End("a", "wait", "", number=LONG_MS))
    assert LONG_MS / 2 < reply[3] <= LONG_MS
    assert changed["limiter"] == Expiring(str(2**53 - 1))
    assert LONG_MS / 2 < mail.redis.pttl(mail.key("limiter")) <= LONG_MS
    # The next one has the last word, as if each had said it by itself.
    reply, changed = mail.finish(End("b", "wait", "", number=LONG_MS // 100))
    assert 0 < reply[3] <= LONG_MS // 100
    assert mail.redis.pttl(mail.key("limiter")) <= LONG_MS // 100


@pytest.mark.parametrize(
    ("settings", "marker"),
    [
        pytest.param({"concurrency": "1"}, {"0": 0}, id="a slot became free"),
        pytest.param({"concurrency": "0"}, None, id="still none is free"),
        pytest.param({"concurrency": "1", "paused": "1"}, None, id="paused"),
    ],
)
@pytest.mark.parametrize("priority", [0, 1])
def test_a_finish_alone_wakes_who_waits_for_the_concurrency(
    mail: Queue, settings: dict[str, str], marker: dict[str, int] | None, priority: int
) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.put("meta", {"concurrency": "1"})
    mail.add(NewJob(job_id="b", priority=priority))
    mail.put("meta", settings)
    assert mail.finish(End("a")).changed.get("marker") == marker


def test_a_finish_alone_marks_nothing_where_nothing_waits(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.put("meta", {"concurrency": "1"})
    assert "marker" not in mail.finish(End("a")).changed


def test_delayed_jobs_of_a_batch_take_slots_in_order(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abc"))
    _, changed = mail.finish(*(End(id, "delay", number=500) for id in "bca"))
    due = (NOW + 500) * SLOT
    assert changed["delayed"] == {"b": due, "c": due + 1, "a": due + 2}
    assert changed["marker"] == {"1": NOW + 500}


@pytest.mark.parametrize("ids", ["abcde", "edcba", "cab", "c", "ae", "da", "bcd"])
def test_jobs_leave_active_wherever_they_stand(mail: Queue, ids: str) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcde"))
    reply, changed = mail.finish(*(End(id) for id in ids))
    rest = [id for id in "edcba" if id not in ids]
    assert reply[0] == [0] * len(ids)
    assert changed["active"] == (rest or None)
    assert changed["completed"] == dict.fromkeys(ids, NOW)
    done = [entry["jobId"] for entry in changed["events"] if entry["event"] == "completed"]
    assert done == list(ids)


def test_no_lock_is_asked_of_token_0(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.redis.delete(mail.key("a:lock"))
    reply, changed = mail.finish(End("a", token="0"))
    assert reply[0] == [0]
    assert changed["completed"] == {"a": NOW}


@pytest.mark.leaves_keys_broken("three of the jobs lost their hash, their lock or their place")
def test_one_refusal_leaves_the_others_alone(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=id) for id in "abcdefgh"))
    mail.redis.delete(mail.key("b"))
    mail.redis.sadd(mail.key("c:dependencies"), "x")
    mail.redis.delete(mail.key("e:lock"))
    mail.redis.lrem(mail.key("active"), 1, "f")
    reply, changed = mail.finish(
        *(End("a"), End("b"), End("c"), End("d", "failed", "boom", number=1), End("e"), End("f")),
        *(End("g", "retry", ""), End("h", "delay", "", number=500)),
    )
    refused = [CODES[name] for name in ("JOB_MISSING", "PENDING_CHILDREN", "LOCK_MISSING", "JOB_NOT_IN_STATE")]
    assert reply == [[0, *refused[:2], 0, *refused[2:], 0, 0], [], 0, 0]
    assert changed.keys() == {
        *("active", "completed", "failed", "wait", "delayed", "marker", "events"),
        *("a", "d", "g", "h", "a:lock", "d:lock", "f:lock", "g:lock", "h:lock"),
    }
    assert changed["active"] == ["e", "c", "b"]
    assert [entry["jobId"] for entry in changed["events"]] == ["a", "d", "d", "g", "h"]


@pytest.mark.parametrize(
    ("rest", "scalars", "drained"),
    [
        pytest.param(None, {}, 1, id="nothing left"),
        pytest.param(None, {"want": 1}, 1, id="nothing fetched"),
        pytest.param(NewJob(), {}, 0, id="a job waits"),
        pytest.param(NewJob(), {"want": 1}, 0, id="a job is fetched"),
        pytest.param(NewJob(priority=1), {}, 0, id="a prioritized job waits"),
        pytest.param(NewJob(delay=500), {}, 1, id="a delayed job does not matter"),
        pytest.param(NewJob(delay=500), {"want": 1}, 0, id="but a fetch tells its time"),
    ],
)
@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_queue_that_ran_empty_says_so(
    mail: Queue, outcome: str, rest: NewJob | None, scalars: dict[str, Any], drained: int
) -> None:
    mail.activate(NewJob(job_id="a"))
    if rest is not None:
        mail.add(rest)
    reply, changed = mail.finish(End("a", outcome, number=5), **scalars)
    assert reply[2] == drained
    assert changed["events"].count(DRAINED) == drained


def test_a_queue_with_an_active_job_is_not_drained(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    reply, changed = mail.finish(End("a"))
    assert (reply[2], changed["events"]) == (0, [COMPLETED])


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_a_blocked_fetch_does_not_drain(mail: Queue, settings: dict[str, str]) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.put("meta", settings)
    assert mail.finish(End("a"), want=1).reply == [[0], [[], 0, 0, [], 1], 0, 0]


def test_a_rate_limited_fetch_does_not_drain(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.redis.set(mail.key("limiter"), 1, px=LONG_MS)
    reply, _ = mail.finish(End("a"), want=1, limiter_max=1, limiter_duration=1000)
    assert reply[1][1] > 0
    assert reply[2] == 0


def test_a_finish_makes_room_for_the_fetch(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.add(NewJob(job_id="b"))
    mail.redis.hset(mail.key("meta"), "concurrency", 1)
    reply, changed = mail.finish(End("a"), want=5)
    assert [job[0] for job in reply[1][0]] == ["b"]
    assert changed == {
        **{"a": FINISHED_ON | {"returnvalue": '"ok"'}, "a:lock": None, "completed": {"a": NOW}},
        **{"b": {"ats": "1", "processedOn": str(NOW)}, "b:lock": Expiring("w:2"), "wait": None, "active": ["b"]},
        "events": [COMPLETED, event("active", "b", prev="waiting")],
    }


def test_a_job_bounced_for_the_rate_limit_is_next(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.add(NewJob(job_id="b"))
    reply, _ = mail.finish(End("a", "wait", ""), want=1)
    assert [job[0] for job in reply[1][0]] == ["a"]


@pytest.mark.parametrize("outcome", ["completed", "failed", "retry", "delay", "wait"])
def test_the_events_stream_is_kept_short(mail: Queue, outcome: str) -> None:
    mail.activate(*(NewJob(job_id=f"j{n}") for n in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    _, changed = mail.finish(*(End(f"j{n}", outcome, number=5) for n in range(200)))
    assert isinstance(changed["events"], Trimmed)
    # Whole nodes of a hundred entries are what Redis cuts off.
    assert len(changed["events"].entries) < 150


def test_the_length_of_the_events_stream_is_written_down(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.redis.delete(mail.key("meta"))
    assert mail.finish(End("a")).changed["meta"] == {"opts.maxLenEvents": "10000"}
    assert mail.finish(want=1).changed == {}


def test_fields_are_those_of_the_wire(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), token=TOKEN)
    mail.finish(End("a"))
    fields = stored(processedOn=NOW, ats=1, atm=1, returnvalue='"ok"', finishedOn=NOW)
    assert mail.hash("a") == fields
