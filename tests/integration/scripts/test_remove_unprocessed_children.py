"""``remove_unprocessed_children``: the pending children of a job go."""

from __future__ import annotations

import pytest

from tests.integration.scripts.commands import NOW, Called, End, NewJob, Queue, event
from tests.integration.scripts.families import adopt, named, waits


def remove(queue: Queue, job_id: str = "p") -> Called:
    return queue.call("remove_unprocessed_children", job=job_id, id=job_id)


@pytest.fixture
def boss(mail: Queue, prefix: str) -> Queue:
    """Another queue."""
    return Queue(mail.redis, prefix, "boss")


def test_pending_children_go_and_the_parent_runs(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    boss.add(NewJob(job_id="b", delay=500))
    waits(boss, "p")
    adopt(boss, "p", mail, "a")
    adopt(boss, "p", boss, "b")
    reply, changed = remove(boss)
    assert reply == 2
    assert changed["mail:events"] == [event("removed", "a", prev="wait")]
    released = event("waiting", "p", prev="waiting-children")
    gone = event("removed", "b", prev="delayed")
    assert sorted(changed["events"], key=str) == [gone, released]
    assert changed.keys() == {
        *("wait", "p:dependencies", "waiting-children", "b", "delayed", "events", "marker"),
        *("mail:a", "mail:wait", "mail:events"),
    }
    assert changed["wait"] == ["p"]


def test_a_parent_that_runs_goes_on(mail: Queue) -> None:
    mail.activate(NewJob(job_id="p"))
    mail.add(NewJob(job_id="a"))
    adopt(mail, "p", mail, "a")
    assert remove(mail) == (
        1,
        {"wait": None, "a": None, "p:dependencies": None, "events": [event("removed", "a", prev="wait")]},
    )


def test_children_that_run_or_have_failed_stay(mail: Queue) -> None:
    mail.activate(NewJob(job_id="f"), NewJob(job_id="r"))
    mail.finish(End("f", "failed", number=1))
    mail.add(NewJob(job_id="a"))
    waits(mail, "p")
    adopt(mail, "p", mail, "a", "f", "r")
    reply, changed = remove(mail)
    assert reply == 1
    assert changed == {
        **{"wait": None, "a": None, "events": [event("removed", "a", prev="wait")]},
        "p:dependencies": {mail.key("f"), mail.key("r")},
    }


def test_children_that_are_done_stay(mail: Queue) -> None:
    mail.activate(NewJob(job_id="c"), NewJob(job_id="p"))
    adopt(mail, "p", mail, "c")
    mail.finish(End("c"))
    assert remove(mail) == (0, {})


def test_there_are_none(mail: Queue) -> None:
    assert remove(mail, "nobody") == (0, {})


@pytest.mark.leaves_keys_broken("a child whose queue nobody has")
def test_a_child_whose_queue_is_gone(boss: Queue) -> None:
    waits(boss, "p")
    boss.redis.sadd(boss.key("p:dependencies"), f"{boss.prefix}:gone:a")
    reply, changed = remove(boss)
    assert (reply, changed["p:dependencies"], changed["wait"]) == (1, None, ["p"])


def test_ids_with_colons(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a:b:c"))
    waits(boss, "p:q:r")
    adopt(boss, "p:q:r", mail, "a:b:c")
    reply, changed = remove(boss, "p:q:r")
    assert (reply, changed["mail:a:b:c"], changed["wait"]) == (1, None, ["p:q:r"])


def test_those_below_them_go_as_well(mail: Queue, boss: Queue) -> None:
    waits(boss, "p", "b")
    mail.add(NewJob(job_id="d"))
    adopt(boss, "p", boss, "b")
    adopt(boss, "b", mail, "d")
    assert remove(boss).reply == 1
    assert mail.redis.exists(boss.key("b"), boss.key("b:dependencies"), mail.key("d")) == 0


def test_one_below_them_that_runs_stays(mail: Queue, boss: Queue) -> None:
    mail.activate(NewJob(job_id="d"))
    mail.add(NewJob(job_id="e"))
    waits(boss, "p", "b")
    adopt(boss, "p", boss, "b")
    adopt(boss, "b", mail, "d", "e")
    _, changed = remove(boss)
    assert changed == {
        **{"p:dependencies": None, "waiting-children": None, "b": None, "b:dependencies": None, "wait": ["p"]},
        **{"mail:e": None, "mail:wait": None, "mail:events": [event("removed", "e", prev="wait")]},
        **{"marker": {"0": 0}, "meta": {"opts.maxLenEvents": "10000"}},
        "events": [event("waiting", "p", prev="waiting-children"), event("removed", "b", prev="waiting-children")],
    }


@pytest.mark.parametrize("outcome", ["processed", "failed", "unsuccessful", "dependencies"])
def test_those_below_them_that_are_done_stay(mail: Queue, boss: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="d"))
    mail.finish(End("d", "completed" if outcome == "processed" else "failed", number=1))
    mail.put("d", named(boss, "b"))
    waits(boss, "p", "b")
    adopt(boss, "p", boss, "b")
    if outcome == "unsuccessful":
        boss.redis.zadd(boss.key("b:unsuccessful"), {mail.key("d"): NOW})
    elif outcome == "dependencies":
        boss.redis.sadd(boss.key("b:dependencies"), mail.key("d"))
    else:
        boss.redis.hset(boss.key(f"b:{outcome}"), mail.key("d"), "1")
    reply, changed = remove(boss)
    assert (reply, changed["b"], changed[f"b:{outcome}"]) == (1, None, None)
    assert not [key for key in changed if key.startswith("mail:")]


def test_a_child_that_is_done_does_not_keep_another(mail: Queue, boss: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    waits(boss, "p")
    adopt(boss, "p", mail, "a", "s")
    mail.store("s", **named(boss, "p"))
    mail.redis.zadd(mail.key("delayed"), {"s": (NOW + 500) * 4096})
    mail.finish(End("a"))
    reply, changed = remove(boss)
    assert (reply, changed["wait"]) == (1, ["p"])
    assert "p:processed" not in changed
