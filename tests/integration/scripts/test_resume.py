"""``resume``: jobs start again, and those come back that an old client put aside."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import NOW, Called, NewJob, Queue, event

RESUMED = [event("resumed")]


def resume(mail: Queue, *, limit: int = 5000, again: str = "") -> Called:
    return mail.call("resume", limit=limit, again=again)


@pytest.mark.parametrize("job", [NewJob(), NewJob(priority=3)])
def test_a_worker_is_woken_where_a_job_waits(mail: Queue, job: NewJob) -> None:
    mail.add(job, NewJob(delay=500))
    mail.call("pause")
    assert resume(mail) == (0, {"meta": {"paused": None}, "marker": {"0": 0}, "events": RESUMED})


def test_a_worker_is_told_when_the_next_job_is_due(mail: Queue) -> None:
    mail.add(NewJob(delay=500), NewJob(delay=900))
    mail.call("pause")
    assert resume(mail) == (0, {"meta": {"paused": None}, "marker": {"1": NOW + 500}, "events": RESUMED})


def test_nobody_is_woken_for_nothing(mail: Queue) -> None:
    mail.call("pause")
    # An empty hash is no key.
    assert resume(mail) == (0, {"meta": None, "events": RESUMED})


def test_a_queue_that_is_not_paused_says_so_again(mail: Queue) -> None:
    mail.add(NewJob())
    assert resume(mail) == (0, {"events": RESUMED})


def test_the_global_concurrency_does_not_matter(mail: Queue) -> None:
    mail.activate(NewJob())
    mail.put("meta", {"concurrency": 1})
    mail.add(NewJob())
    mail.call("pause")
    assert resume(mail).changed["marker"] == {"0": 0}


def test_the_event_trims_nothing(mail: Queue) -> None:
    mail.add(*(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    assert resume(mail).changed["events"] == RESUMED


# -- The list of old clients -------------------------------------------------------------------------------------------


def put_aside(mail: Queue, ids: str) -> None:
    """What an old client leaves that pauses a queue; the first is the next to run."""
    for job_id in ids:
        mail.store(job_id)
    mail.redis.lpush(mail.key("paused"), *ids)
    mail.put("meta", {"paused": 1})


def test_jobs_come_back(mail: Queue) -> None:
    put_aside(mail, "abc")
    assert resume(mail, limit=2) == (
        0,
        {"wait": ["c", "b", "a"], "paused": None, "meta": None, "marker": {"0": 0}, "events": RESUMED},
    )


def test_jobs_come_back_before_those_that_came_since(mail: Queue) -> None:
    put_aside(mail, "abc")
    mail.add(NewJob(job_id="x"), NewJob(job_id="y"))
    reply, changed = resume(mail)
    assert reply == 0
    assert changed == {
        "wait": ["y", "x", "c", "b", "a"],
        **{"paused": None, "meta": {"paused": None}, "marker": {"0": 0}, "events": RESUMED},
    }


def test_many_jobs_come_back_in_slices(mail: Queue) -> None:
    put_aside(mail, "abcde")
    mail.add(NewJob(job_id="x"))
    steps: list[tuple[int, dict[str, Any]]] = []
    steps.append(resume(mail, limit=2))
    steps += [resume(mail, limit=2, again="1") for _ in range(2)]
    assert steps == [
        (
            3,
            {
                **{"wait": ["x", "e", "d"], "paused": ["c", "b", "a"]},
                **{"meta": {"paused": None}, "marker": {"0": 0}, "events": RESUMED},
            },
        ),
        (1, {"wait": ["x", "e", "d", "c", "b"], "paused": ["a"]}),
        (0, {"wait": ["x", "e", "d", "c", "b", "a"], "paused": None}),
    ]


def test_a_slice_that_takes_the_last_is_the_last(mail: Queue) -> None:
    put_aside(mail, "ab")
    mail.add(NewJob(job_id="x"))
    assert resume(mail, limit=2).reply == 0


def test_as_many_as_a_call_may_bring_back(mail: Queue) -> None:
    mail.add(NewJob(job_id="x"))
    put_aside(mail, "a")
    mail.redis.delete(mail.key("paused"))
    ids = [f"j{n}" for n in range(7000)]
    mail.redis.rpush(mail.key("paused"), *ids)
    assert resume(mail, limit=5000).reply == 2000
    assert resume(mail, limit=5000, again="1").reply == 0
    assert mail.redis.lrange(mail.key("wait"), 0, -1) == ["x", *ids]
    mail.redis.delete(mail.key("wait"), mail.key("a"), mail.key("x"))
