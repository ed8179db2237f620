"""``update_progress``: progress is stored and told."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from tests.integration.scripts.commands import CODES, Called, NewJob, Queue, Trimmed, event


def update(mail: Queue, progress: str = "50") -> Called:
    return mail.call("update_progress", job="a", job_id="a", progress=progress)


@pytest.mark.parametrize("progress", ["50", '{"done":[1,2]}', '"half"', "null"])
def test_progress_is_stored_and_told(mail: Queue, progress: str) -> None:
    mail.activate(NewJob(job_id="a"))
    told = event("progress", "a", data=progress)
    assert update(mail, progress) == (0, {"a": {"progress": progress}, "events": [told]})
    assert update(mail, progress) == (0, {"events": [told]})


def test_a_job_that_is_gone_is_not_made(mail: Queue) -> None:
    assert update(mail) == (CODES["JOB_MISSING"], {})


def test_the_length_of_the_events_stream_is_written_down(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    mail.redis.delete(mail.key("meta"))
    assert update(mail).changed["meta"] == {"opts.maxLenEvents": "10000"}


def test_the_events_stream_is_kept_short(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), *[NewJob() for _ in range(150)])
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    events = update(mail).changed["events"]
    assert isinstance(events, Trimmed)
    assert len(events.entries) < 150
    assert events.entries[-1] == event("progress", "a", data="50")


@pytest.mark.leaves_keys_broken("a key that holds no job")
def test_a_key_that_is_no_job_is_not_touched(mail: Queue) -> None:
    mail.redis.set(mail.key("a"), "no job")
    before = mail.snapshot()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        update(mail)
    assert mail.snapshot() == before
