"""``promote_job``: a delayed job is queued before its time."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, PRIORITY, NewJob, Queue, Trimmed, event

PROMOTED = [event("waiting", "a", prev="delayed")]


def test_a_standard_job(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500, lifo="1"), NewJob(job_id="w"))
    mail.redis.zrem(mail.key("marker"), "0")
    reply, changed = mail.call("promote_job", id="a")
    assert reply == 0
    # What tells when the next one is due stays; finding nothing then does no harm.
    marker = {"0": 0, "1": mail.redis.zscore(mail.key("marker"), "1")}
    assert changed == {
        **{"delayed": None, "wait": ["a", "w"], "a": {"delay": "0"}, "marker": marker, "events": PROMOTED}
    }


def test_a_job_with_a_priority(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500, priority=7))
    _, changed = mail.call("promote_job", id="a")
    assert (changed["prioritized"], changed["pc"]) == ({"a": 7 * PRIORITY + 1}, "1")
    assert (changed["a"], changed["events"]) == ({"delay": "0"}, PROMOTED)
    assert "wait" not in changed


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_a_blocked_queue_wakes_nobody(mail: Queue, settings: dict[str, str]) -> None:
    mail.add(NewJob(job_id="a", delay=500))
    mail.put("meta", settings)
    assert "marker" not in mail.call("promote_job", id="a").changed


def test_there_is_no_such_job(mail: Queue) -> None:
    assert mail.call("promote_job", id="a") == (CODES["JOB_MISSING"], {})


def test_a_job_that_is_not_delayed(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    assert mail.call("promote_job", id="a") == (CODES["JOB_NOT_IN_STATE"], {})


def test_the_event_trims_nothing(mail: Queue) -> None:
    mail.add(NewJob(job_id="a", delay=500), *(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    assert not isinstance(mail.call("promote_job", id="a").changed["events"], Trimmed)
