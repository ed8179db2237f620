"""``change_delay``: a delayed job waits for another time."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, NOW, SLOT, Called, NewJob, Queue, Trimmed, event


def change(mail: Queue, delay_ms: int, job_id: str = "a", now_ms: int = NOW + 1000) -> Called:
    return mail.call("change_delay", id=job_id, now_ms=now_ms, delay_ms=delay_ms)


@pytest.mark.parametrize("delay", [0, 300, 9000])
def test_a_delay_counts_from_now(mail: Queue, delay: int) -> None:
    mail.add(NewJob(job_id="a", delay=5000))
    due = NOW + 1000 + delay
    assert change(mail, delay) == (
        0,
        {
            **{"a": {"delay": str(delay)}, "delayed": {"a": due * SLOT}, "marker": {"1": due}},
            "events": [event("delayed", "a", delay=str(due))],
        },
    )


def test_workers_are_told_of_the_job_that_is_due_first(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=5000), NewJob(job_id="b", delay=6000))
    assert change(mail, 9000).changed["marker"] == {"1": NOW + 6000}


def test_jobs_due_in_the_same_millisecond_keep_the_order_of_the_changes(mail: Queue) -> None:
    mail.add(*(NewJob(job_id=job_id, delay=delay) for job_id, delay in {"a": 5, "b": 9, "c": 1500}.items()))
    change(mail, 500, "a")
    change(mail, 500, "b")
    assert mail.redis.zrange(mail.key("delayed"), 0, -1) == ["c", "a", "b"]
    # A job that keeps its time goes behind itself.
    assert change(mail, 500, "b").changed["delayed"]["b"] == (NOW + 1500) * SLOT + 3


def test_a_paused_queue_is_told_as_well(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=5000))
    mail.call("pause")
    assert change(mail, 0).changed["marker"] == {"1": NOW + 1000}


def test_there_is_no_such_job(mail: Queue) -> None:
    assert change(mail, 5) == (CODES["JOB_MISSING"], {})


def test_a_job_that_is_not_delayed(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    assert change(mail, 5) == (CODES["JOB_NOT_IN_STATE"], {})


def test_the_event_is_trimmed(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500), *(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    assert isinstance(change(mail, 5).changed["events"], Trimmed)
