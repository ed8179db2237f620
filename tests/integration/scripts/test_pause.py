"""``pause``: no more jobs start."""

from __future__ import annotations

from tests.integration.scripts.commands import NewJob, Queue, event

PAUSED = [event("paused")]


def test_a_queue_is_paused(mail: Queue) -> None:
    mail.activate(NewJob())
    mail.add(NewJob(), NewJob(priority=3), NewJob(delay=500))
    assert mail.call("pause") == (0, {"meta": {"paused": "1"}, "marker": None, "events": PAUSED})


def test_a_queue_that_is_paused_says_so_again(mail: Queue) -> None:
    mail.call("pause")
    assert mail.call("pause") == (0, {"events": PAUSED})


def test_a_queue_that_has_nothing(mail: Queue) -> None:
    assert mail.call("pause") == (0, {"meta": {"paused": "1"}, "events": PAUSED})


def test_the_event_trims_nothing(mail: Queue) -> None:
    mail.add(*(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    assert mail.call("pause").changed["events"] == PAUSED


def test_what_is_added_meanwhile_wakes_nobody(mail: Queue) -> None:
    mail.call("pause")
    _, changed = mail.add_jobs(NewJob(job_id="a"))
    assert changed["wait"] == ["a"]
    assert "marker" not in changed
