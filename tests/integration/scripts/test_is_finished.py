"""``is_finished``: which jobs have ended and how, and how far the events had come then."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, NOW, End, NewJob, Queue


def _end_of_events(mail: Queue) -> str:
    return str(mail.redis.xinfo_stream(mail.key("events"))["last-generated-id"])


def test_a_queue_that_never_was(mail: Queue) -> None:
    assert mail.call("is_finished", [("7",)]) == (["0-0", [CODES["JOB_MISSING"], None]], {})
    assert mail.call("is_finished") == (["0-0"], {})


def test_jobs_in_every_state_in_the_order_asked(mail: Queue) -> None:
    mail.activate(NewJob(job_id="done"), NewJob(job_id="broken"), NewJob(job_id="runs"))
    mail.finish(End("done", value='{"a":[1]}'), End("broken", "failed", "no luck", number=1))
    mail.add(NewJob(job_id="waits"), NewJob(job_id="later", delay=5), NewJob(job_id="first", priority=1))
    asked = ["first", "later", "runs", "broken", "none", "waits", "done"]
    reply, changed = mail.call("is_finished", [(job_id,) for job_id in asked])
    assert changed == {}
    assert reply == [
        _end_of_events(mail),
        [0, None],
        [0, None],
        [0, None],
        [2, "no luck"],
        [CODES["JOB_MISSING"], None],
        [0, None],
        [1, '{"a":[1]}'],
    ]


def test_a_job_asked_for_twice_is_told_twice(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    assert mail.call("is_finished", [("a",), ("a",)]).reply[1:] == [[0, None], [0, None]]


def test_the_end_of_the_events_is_known_when_all_were_trimmed(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    end = _end_of_events(mail)
    mail.redis.xtrim(mail.key("events"), 0, approximate=False)
    assert mail.call("is_finished", [("a",)]).reply == [end, [0, None]]


@pytest.mark.leaves_keys_broken("jobs that half exist")
def test_jobs_that_half_exist(mail: Queue) -> None:
    mail.store("bare")
    mail.redis.zadd(mail.key("completed"), {"bare": NOW, "gone": NOW})
    mail.store("failed-bare")
    mail.redis.zadd(mail.key("failed"), {"failed-bare": NOW})
    mail.store("nowhere")
    jobs = ["bare", "gone", "failed-bare", "nowhere"]
    replies = mail.call("is_finished", [(job_id,) for job_id in jobs]).reply[1:]
    assert replies == [[1, None], [CODES["JOB_MISSING"], None], [2, None], [0, None]]


@pytest.mark.leaves_keys_broken("a job that is no hash")
def test_a_key_that_holds_no_job_spoils_nothing_for_the_others(mail: Queue) -> None:
    mail.redis.set(mail.key("text"), "x")
    mail.store("good", returnvalue="5")
    mail.redis.zadd(mail.key("completed"), {"text": NOW, "good": NOW})
    replies = mail.call("is_finished", [("text",), ("good",)]).reply[1:]
    assert replies == [[CODES["JOB_CORRUPT"], None], [1, "5"]]
