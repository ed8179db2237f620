"""``clean_jobs``: what it means for parents when their children go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import NewJob, Queue
from tests.integration.scripts.families import adopt, waits
from tests.integration.scripts.test_clean_jobs import clean


@pytest.fixture
def boss(mail: Queue, prefix: str) -> Queue:
    """Another queue."""
    return Queue(mail.redis, prefix, "boss")


def cleaned(mail: Queue) -> dict[str, Any]:
    """Cleans the waiting jobs; returns what changed beside them."""
    _, changed = clean(mail, "wait")
    assert changed.pop("wait") is None
    return changed


def test_a_parent_of_the_same_queue_goes_with_its_last_child(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="b"))
    waits(mail, "p")
    adopt(mail, "p", mail, "a", "b")
    mail.redis.rpush(mail.key("p:logs"), "line")
    gone = {"a": None, "b": None, "p": None, "p:logs": None, "p:dependencies": None, "waiting-children": None}
    assert cleaned(mail) == gone


def test_a_parent_waits_for_another_child(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="s", delay=500))
    waits(mail, "p")
    adopt(mail, "p", mail, "a", "s")
    assert cleaned(mail) == {"a": None, "p:dependencies": {mail.key("s")}}


@pytest.mark.parametrize("fields", [{}, {"priority": 3}, {"delay": 500}])
def test_a_parent_of_another_queue_runs_next(mail: Queue, boss: Queue, fields: dict[str, int]) -> None:
    mail.add(NewJob(job_id="a"))
    boss.add(NewJob(job_id="w"))
    boss.redis.delete(boss.key("marker"))
    waits(boss, "p", **fields)
    adopt(boss, "p", mail, "a")
    # Without an event, as with the other clients.
    assert cleaned(mail) == {
        "a": None,
        "boss:p:dependencies": None,
        "boss:waiting-children": None,
        "boss:wait": ["w", "p"],
        "boss:marker": {"0": 0},
    }
    if fields:
        boss.redis.delete(*boss.redis.keys(boss.key("*")))


def test_a_parent_of_a_paused_queue_wakes_nobody(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    waits(boss, "p")
    boss.call("pause")
    adopt(boss, "p", mail, "a")
    changed = cleaned(mail)
    assert changed["boss:wait"] == ["p"]
    assert "boss:marker" not in changed


def test_a_parent_of_another_prefix(mail: Queue, prefix: str) -> None:
    far = Queue(mail.redis, f"{prefix}:far", "mail")
    mail.add(NewJob(job_id="a"))
    waits(far, "p")
    adopt(far, "p", mail, "a")
    assert cleaned(mail) == {
        "a": None,
        "far:mail:p:dependencies": None,
        "far:mail:waiting-children": None,
        "far:mail:wait": ["p"],
        "far:mail:marker": {"0": 0},
    }


def test_a_whole_branch_goes_up_to_another_queue(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    waits(mail, "b", "c")
    waits(boss, "d")
    adopt(mail, "b", mail, "a")
    adopt(mail, "c", mail, "b")
    adopt(boss, "d", mail, "c")
    assert cleaned(mail) == {
        **dict.fromkeys(("a", "b", "b:dependencies", "c", "c:dependencies", "waiting-children"), None),
        **{"boss:d:dependencies": None, "boss:waiting-children": None, "boss:wait": ["d"], "boss:marker": {"0": 0}},
    }


def test_a_branch_ends_where_another_child_is_pending(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="s", delay=500))
    waits(mail, "b", "c")
    adopt(mail, "b", mail, "a")
    adopt(mail, "c", mail, "b", "s")
    _, changed = clean(mail, "wait")
    assert changed.keys() == {"wait", "a", "b", "b:dependencies", "waiting-children", "c:dependencies"}
    assert changed["c:dependencies"] == {mail.key("s")}
    assert changed["waiting-children"].keys() == {"c"}


def test_a_parent_that_runs_only_forgets_the_child(mail: Queue) -> None:
    mail.activate(NewJob(job_id="p"))
    mail.add(NewJob(job_id="a"))
    adopt(mail, "p", mail, "a")
    assert cleaned(mail) == {"a": None, "p:dependencies": None}


def test_a_child_that_is_no_longer_pending_changes_nothing(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="s", delay=500))
    waits(mail, "p")
    adopt(mail, "p", mail, "a", "s")
    mail.redis.srem(mail.key("p:dependencies"), mail.key("a"))
    assert cleaned(mail) == {"a": None}


def test_a_parent_that_is_gone_is_left_alone(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    boss.add(NewJob())
    adopt(boss, "p", mail, "a")
    assert cleaned(mail) == {"a": None}
    boss.redis.delete(boss.key("p:dependencies"))


def test_the_deduplication_window_of_a_parent_goes_too(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    waits(mail, "p", deid="x")
    mail.redis.set(mail.key("de:x"), "p")
    adopt(mail, "p", mail, "a")
    assert cleaned(mail)["de:x"] is None


@pytest.mark.leaves_keys_broken("a child that names its parent once only")
def test_ids_with_colons(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a:b:c"), NewJob(job_id="d"))
    waits(boss, "p:q:r", "s")
    adopt(boss, "p:q:r", mail, "a:b:c")
    adopt(boss, "s", mail, "d")
    mail.redis.hdel(mail.key("d"), "parent")
    assert cleaned(mail)["boss:wait"] == ["p:q:r", "s"]


def test_a_parent_in_the_same_slice_goes_once(mail: Queue) -> None:
    waits(mail, "p", "q")
    adopt(mail, "p", mail, "q")
    mail.redis.zadd(mail.key("waiting-children"), {"q": 1})
    reply, changed = clean(mail, "waiting-children", announced=0)
    assert reply == [0, 0, ["q", "p"]]
    assert {"p", "q", "waiting-children"} <= changed.keys()
    assert changed["events"] == [{"event": "cleaned", "count": "2"}]
