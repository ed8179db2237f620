"""``remove_child_dependency``: a parent no longer waits for a job."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import CODES, Called, End, NewJob, Queue, event
from tests.integration.scripts.families import adopt, named, waits

FREE = {"parentKey": None, "parent": None}


def let_go(mail: Queue, job_id: str = "a") -> Called:
    return mail.call("remove_child_dependency", job=job_id)


@pytest.fixture
def boss(mail: Queue, prefix: str) -> Queue:
    """Another queue."""
    return Queue(mail.redis, prefix, "boss")


@pytest.mark.parametrize("fields", [{}, {"priority": 3}, {"delay": 500}])
def test_a_parent_runs_next_without_its_last_child(mail: Queue, boss: Queue, fields: dict[str, int]) -> None:
    mail.add(NewJob(job_id="a"))
    boss.add(NewJob(job_id="w"))
    boss.redis.delete(boss.key("marker"))
    waits(boss, "p", **fields)
    adopt(boss, "p", mail, "a")
    assert let_go(mail) == (
        0,
        {
            **{"a": FREE, "boss:p:dependencies": None, "boss:waiting-children": None, "boss:wait": ["w", "p"]},
            **{"boss:marker": {"0": 0}, "boss:events": [event("waiting", "p", prev="waiting-children")]},
        },
    )


def test_a_parent_waits_for_another_child(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="s"))
    waits(boss, "p")
    adopt(boss, "p", mail, "a", "s")
    assert let_go(mail) == (0, {"a": FREE, "boss:p:dependencies": {mail.key("s")}})


def test_a_parent_that_runs_goes_on(mail: Queue) -> None:
    mail.activate(NewJob(job_id="p"))
    mail.add(NewJob(job_id="a"))
    adopt(mail, "p", mail, "a")
    assert let_go(mail) == (0, {"a": FREE, "p:dependencies": None})


def test_a_job_that_is_done_keeps_its_parent(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="p"))
    adopt(mail, "p", mail, "a")
    mail.finish(End("a"))
    assert let_go(mail) == (1, {})


def test_there_is_no_such_job(mail: Queue) -> None:
    assert let_go(mail) == (CODES["JOB_MISSING"], {})


def test_there_is_no_such_parent(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="b"))
    mail.put("b", named(boss, "p"))
    for job_id in "ab":
        assert let_go(mail, job_id) == (CODES["PARENT_MISSING"], {})


def test_ids_with_colons(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a:b:c"))
    waits(boss, "p:q:r")
    adopt(boss, "p:q:r", mail, "a:b:c")
    assert let_go(mail, "a:b:c").changed["boss:wait"] == ["p:q:r"]
