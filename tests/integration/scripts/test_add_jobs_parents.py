"""``add_jobs``: a job that is to be the child of another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.scripts.commands import (
    CODES,
    NOW,
    PRIORITY,
    SLOT,
    TOKEN,
    End,
    NewJob,
    Queue,
    event,
    stored,
)


def link(queue: Queue, parent: str = "p", **flags: bool) -> dict[str, str]:
    """A parent as the script takes it."""
    name = queue.base[:-1]
    return {"parent_key": f"{name}:{parent}", "parent": json.dumps({"id": parent, "queueKey": name, **flags})}


def fields(family: dict[str, str]) -> dict[str, str]:
    """The same as a child stores it."""
    return {"parentKey": family["parent_key"], "parent": family["parent"]}


@pytest.fixture
def boss(mail: Queue, prefix: str) -> Queue:
    """Another queue, in which parent ``p`` waits for a child that is nowhere else to be seen."""
    queue = Queue(mail.redis, prefix, "boss")
    queue.store("p")
    queue.redis.zadd(queue.key("waiting-children"), {"p": NOW})
    queue.redis.sadd(queue.key("p:dependencies"), "elsewhere:q:child")
    mail.redis.set(mail.key("id"), 9)
    return queue


@pytest.mark.parametrize("where", [{}, {"delay": 500}, {"priority": 2}, {"lifo": "1"}], ids=str)
def test_a_parent_waits_for_its_new_child(mail: Queue, boss: Queue, where: dict[str, Any]) -> None:
    family = link(boss, fpof=True)
    reply, changed = mail.add_jobs(NewJob(1, more=family, **where))
    assert reply == [0, "1"]
    numbers = {name: value for name, value in where.items() if name != "lifo"}
    assert changed["1"] == stored(**fields(family), **numbers)
    assert changed["boss:p:dependencies"] == {"elsewhere:q:child", mail.key("1")}
    structures = {"delayed"} if "delay" in where else {"prioritized", "pc"} if "priority" in where else {"wait"}
    assert changed.keys() == {"1", "boss:p:dependencies", "meta", "events", "marker"} | structures


def test_a_job_whose_parent_is_missing_stops_no_other(mail: Queue, boss: Queue) -> None:
    missing = NewJob(2, more=link(boss, "q"))
    reply, changed = mail.add_jobs(NewJob(1), missing, missing._replace(number=3, job_id="x"), NewJob(4))
    assert reply == [0, "1", CODES["PARENT_MISSING"], CODES["PARENT_MISSING"], "4"]
    assert changed["wait"] == ["4", "1"]
    assert changed.keys() == {"1", "4", "wait", "meta", "events", "marker"}


def test_a_job_whose_parent_is_missing_changes_nothing(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="x"))
    reply, changed = mail.add_jobs(NewJob(1, "x", more=link(boss, "q")))
    assert (reply, changed) == ([0, CODES["PARENT_MISSING"]], {})


def test_a_parent_may_come_in_the_same_batch(mail: Queue) -> None:
    mail.redis.set(mail.key("id"), 3)
    family = link(mail)
    reply, changed = mail.add_jobs(NewJob(1, more=family), NewJob(2, "p"), NewJob(3, more=family))
    assert reply == [0, CODES["PARENT_MISSING"], "p", "3"]
    assert changed["p:dependencies"] == {mail.key("3")}


@pytest.mark.leaves_keys_broken("something else stands where the parent's children should")
def test_a_parent_that_can_have_no_children_stops_no_other_job(mail: Queue, boss: Queue) -> None:
    mail.redis.delete(boss.key("p:dependencies"))
    mail.redis.set(boss.key("p:dependencies"), "odd")
    reply, changed = mail.add_jobs(NewJob(1), NewJob(2, more=link(boss)), NewJob(3))
    assert reply == [0, "1", CODES["KEY_CORRUPT"], "3"]
    assert "2" not in changed
    assert changed["wait"] == ["3", "1"]


# --- a job that is there already --------------------------------------------------------------------------------------


def put(mail: Queue, state: str, **more: Any) -> None:
    """Job ``x`` in this state."""
    ended = {"completed": {"returnvalue": "[1]"}, "failed": {"failedReason": "no"}}.get(state)
    if ended is not None:
        more |= {**ended, "ats": 1, "atm": 1, "finishedOn": NOW, "processedOn": NOW}
    mail.store("x", **more)
    if state == "wait":
        mail.redis.lpush(mail.key("wait"), "x")
        mail.redis.zadd(mail.key("marker"), {"0": 0})
    else:
        mail.redis.zadd(mail.key(state), {"x": NOW * SLOT if state == "delayed" else NOW})
    mail.put("meta", {"opts.maxLenEvents": "10000", "version": "v"})


@pytest.mark.parametrize("state", ["wait", "delayed", "failed"])
def test_a_job_that_has_not_completed_is_waited_for(mail: Queue, boss: Queue, state: str) -> None:
    put(mail, state)
    family = link(boss, cpof=True)
    reply, changed = mail.add_jobs(NewJob(1, "x", "new", "[2]", more=family))
    assert reply == [0, ["x"]]
    assert changed == {
        "x": fields(family),
        "boss:p:dependencies": {"elsewhere:q:child", mail.key("x")},
        "events": [event("duplicated", "x")],
    }


@pytest.mark.parametrize("result", ["[1]", None])
def test_a_job_that_has_completed_gives_its_result(mail: Queue, boss: Queue, result: str | None) -> None:
    put(mail, "completed")
    if result is None:
        mail.redis.hdel(mail.key("x"), "returnvalue")
    reply, changed = mail.add_jobs(NewJob(1, "x", more=link(boss)))
    assert reply == [0, ["x"]]
    assert changed == {
        "x": fields(link(boss)),
        "boss:p:processed": {mail.key("x"): result or "null"},
        "events": [event("duplicated", "x")],
    }
    mail.redis.hset(mail.key("x"), "returnvalue", "[1]")


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ({}, {"boss:wait": ["p"], "boss:marker": {"0": 0}}),
        (
            {"priority": 5},
            {"boss:prioritized": {"p": 5 * PRIORITY + 1}, "boss:pc": "1", "boss:marker": {"0": 0}},
        ),
        (
            {"delay": 500},
            {"boss:delayed": {"p": (NOW + 77 + 500) * SLOT}, "boss:marker": {"1": NOW + 77 + 500}},
        ),
    ],
    ids=["at once", "priority", "delay"],
)
def test_a_result_may_be_the_last_that_a_parent_waits_for(
    mail: Queue, boss: Queue, parent: dict[str, Any], expected: dict[str, Any]
) -> None:
    put(mail, "completed")
    mail.redis.delete(boss.key("p:dependencies"))
    boss.put("p", parent)
    _, changed = mail.add_jobs(NewJob(1, "x", timestamp=NOW + 77, more=link(boss)))
    moved = event("waiting", "p", prev="waiting-children")
    if "delay" in parent:
        moved = event("delayed", "p", delay=str(NOW + 577))
    assert changed == {
        **{"x": fields(link(boss)), "boss:p:processed": {mail.key("x"): "[1]"}, "boss:waiting-children": None},
        **{"events": [event("duplicated", "x")], "boss:events": [moved]},
        **expected,
    }


def test_the_child_of_another_parent_stays_its_child(mail: Queue, boss: Queue) -> None:
    boss.store("old")
    boss.redis.lpush(boss.key("wait"), "old")
    boss.redis.zadd(boss.key("marker"), {"0": 0})
    put(mail, "delayed", **fields(link(boss, "old")))
    reply, changed = mail.add_jobs(NewJob(1, "x", more=link(boss)))
    assert (reply, changed) == ([0, CODES["OTHER_PARENT"]], {})


def test_the_child_of_a_parent_that_is_gone_gets_another(mail: Queue, boss: Queue) -> None:
    put(mail, "delayed", **fields(link(boss, "old")))
    _, changed = mail.add_jobs(NewJob(1, "x", more=link(boss)))
    assert changed["x"] == fields(link(boss))
    assert changed["boss:p:dependencies"] == {"elsewhere:q:child", mail.key("x")}


def test_a_child_may_get_its_own_parent_again_with_another_policy(mail: Queue, boss: Queue) -> None:
    put(mail, "delayed", **fields(link(boss)))
    _, changed = mail.add_jobs(NewJob(1, "x", more=link(boss, rdof=True)))
    assert changed["x"] == {"parent": link(boss, rdof=True)["parent"]}
    assert "boss:p:dependencies" in changed


@pytest.mark.leaves_keys_broken("a key of another type stands where a job should")
def test_what_is_no_job_can_be_no_child(mail: Queue, boss: Queue) -> None:
    mail.redis.set(mail.key("x"), "no job")
    reply, changed = mail.add_jobs(NewJob(1), NewJob(2, "x", more=link(boss)), NewJob(3))
    assert reply == [0, "1", CODES["KEY_CORRUPT"], "3"]
    assert changed["wait"] == ["3", "1"]
    assert "boss:p:dependencies" not in changed


# --- many at once, and sent again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [{}, {"priority": 2}, {"delay": 40}], ids=str)
def test_a_batch_that_releases_a_parent_is_the_same_as_one_by_one(
    mail: Queue, prefix: str, parent: dict[str, Any]
) -> None:
    twin = Queue(mail.redis, prefix, "twin")
    replies = []
    for queue, at_once in ((mail, True), (twin, False)):
        put(queue, "completed")
        queue.store("p", **parent)
        queue.redis.zadd(queue.key("waiting-children"), {"p": NOW})
        queue.redis.set(queue.key("id"), 9)
        jobs = [
            *(NewJob(1), NewJob(2, priority=2), NewJob(3, lifo="1"), NewJob(4, delay=90)),
            NewJob(5, "x", more=link(queue)),
            *(NewJob(6), NewJob(7, priority=2), NewJob(8, lifo="1"), NewJob(9, delay=30)),
        ]
        calls = [jobs] if at_once else [[job] for job in jobs]
        replies.append([id for call in calls for id in queue.add_jobs(*call).reply[1:]])
    assert replies[0] == replies[1]
    snapshot = mail.snapshot()
    twins = {k.removeprefix("twin:"): v for k, v in snapshot.items() if k.startswith("twin:")}
    ours = {k: v for k, v in snapshot.items() if not k.startswith("twin:")}
    for family in (twins, ours):
        # These name their queue.
        del family["x"], family["p:processed"]
    assert ours == twins
    assert "waiting-children" not in ours


@pytest.mark.parametrize("job_id", ["", "x"])
def test_a_child_sent_again_when_its_parent_has_gone_was_added(mail: Queue, boss: Queue, job_id: str) -> None:
    mail.redis.delete(boss.key("p:dependencies"))
    job = NewJob(1, job_id, more=link(boss))
    assert mail.add_jobs(job).reply == [0, job_id or "1"]
    mail.finish(want=1, token=TOKEN)
    mail.finish(End(job_id or "1"))
    assert boss.redis.lrange(boss.key("wait"), 0, -1) == ["p"]
    mail.redis.delete(boss.key("wait"), boss.key("p"), boss.key("p:processed"))
    assert mail.add_jobs(job._replace(again="1")) == ([0, job_id or "1"], {})


def test_a_job_attached_again_is_attached_once(mail: Queue, boss: Queue) -> None:
    put(mail, "delayed")
    job = NewJob(1, "x", "other", more=link(boss))
    mail.add_jobs(job)
    reply, changed = mail.add_jobs(job._replace(again="1"))
    assert reply == [0, ["x"]]
    assert changed == {"events": [event("duplicated", "x")]}
