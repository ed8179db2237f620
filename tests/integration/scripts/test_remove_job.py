"""``remove_job``: a job goes, wherever it is, and all below it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import CODES, NOW, SLOT, Called, End, NewJob, Queue, Trimmed, event
from tests.integration.scripts.families import adopt, named, waits

PLACES = ("completed", "waiting-children", "delayed", "failed", "prioritized", "wait", "paused", "active")


def remove(mail: Queue, job_id: str, *, children: str = "1") -> Called:
    return mail.call("remove_job", job=job_id, id=job_id, children=children)


def removed(job_id: str, prev: str) -> dict[str, str]:
    return event("removed", job_id, prev=prev)


def put(mail: Queue, place: str, job_id: str) -> None:
    """A job in a place, as one gets there."""
    if place == "delayed":
        mail.add(NewJob(job_id=job_id, delay=500))
    elif place == "prioritized":
        mail.add(NewJob(job_id=job_id, priority=5))
    elif place == "waiting-children":
        waits(mail, job_id)
        adopt(mail, job_id, mail)
    elif place in ("wait", "paused"):
        mail.add(NewJob(job_id=job_id))
    else:
        mail.activate(NewJob(job_id=job_id))
        mail.redis.delete(mail.key(f"{job_id}:lock"))
    if place in ("completed", "failed"):
        mail.finish(End(job_id, place, number=1, token="0"))
    if place == "paused":
        mail.redis.rename(mail.key("wait"), mail.key("paused"))


@pytest.mark.parametrize("children", ["", "1"])
@pytest.mark.parametrize("place", ["delayed", "prioritized", "wait", "paused", "active"])
def test_a_job_in_a_place(mail: Queue, place: str, children: str) -> None:
    put(mail, place, "a")
    for _ in range(2):
        mail.redis.rpush(mail.key("a:logs"), "line")
    assert remove(mail, "a", children=children) == (
        1,
        {place: None, "a": None, "a:logs": None, "events": [removed("a", place)]},
    )


@pytest.mark.parametrize("place", ["completed", "failed"])
def test_a_job_that_has_finished(mail: Queue, place: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.finish(End("a", place, number=1))
    assert remove(mail, "a") == (1, {place: None, "a": None, "events": [removed("a", place)]})


def test_a_job_that_waits_for_its_children(mail: Queue) -> None:
    waits(mail, "p")
    mail.redis.sadd(mail.key("p:dependencies"), mail.key("gone"))
    assert remove(mail, "p", children="") == (
        1,
        {
            **dict.fromkeys(("waiting-children", "p", "p:dependencies"), None),
            **{"meta": {"opts.maxLenEvents": "10000"}, "events": [removed("p", "waiting-children")]},
        },
    )


def test_a_job_in_no_place(mail: Queue) -> None:
    mail.store("a")
    _, changed = remove(mail, "a")
    assert (changed["a"], changed["events"]) == (None, [removed("a", "unknown")])


def test_a_job_that_never_was(mail: Queue) -> None:
    assert remove(mail, "a") == (1, {})


@pytest.mark.parametrize("place", ["wait", "delayed", "completed"])
def test_an_id_without_a_job(mail: Queue, place: str) -> None:
    if place == "wait":
        mail.redis.rpush(mail.key(place), "a")
    else:
        mail.redis.zadd(mail.key(place), {"a": NOW * SLOT})
    # Nothing was deleted of which anybody could have known.
    assert remove(mail, "a") == (1, {place: None})


def test_the_event_is_trimmed(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), *(NewJob() for _ in range(200)))
    mail.redis.hset(mail.key("meta"), "opts.maxLenEvents", 10)
    assert isinstance(remove(mail, "a").changed["events"], Trimmed)


# -- Refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("children", ["", "1"])
def test_a_job_that_a_worker_runs_stays(mail: Queue, children: str) -> None:
    mail.activate(NewJob(job_id="a"))
    assert remove(mail, "a", children=children) == (0, {})


@pytest.mark.leaves_keys_broken("half of what a scheduler has")
@pytest.mark.parametrize("due", [5, NOW, "1700000000000.0"])
def test_the_next_job_of_a_scheduler_stays(mail: Queue, due: Any) -> None:
    job_id = f"repeat:often:{str(due).removesuffix('.0')}"
    mail.add(NewJob(job_id=job_id))
    mail.put(job_id, {"rjk": "often"})
    mail.redis.zadd(mail.key("repeat"), {"often": due})
    assert remove(mail, job_id) == (CODES["JOB_SCHEDULED"], {})
    mail.redis.zadd(mail.key("repeat"), {"often": NOW + 1})
    assert remove(mail, job_id).reply == 1
    assert not mail.redis.exists(mail.key(job_id))


def test_a_job_of_a_scheduler_that_is_gone(mail: Queue) -> None:
    mail.add(NewJob(job_id="repeat:often:5"))
    mail.put("repeat:often:5", {"rjk": "often"})
    assert remove(mail, "repeat:often:5").reply == 1


# -- Its own parent ----------------------------------------------------------------------------------------------------


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
    assert remove(mail, "a") == (
        1,
        {
            **{"wait": None, "a": None, "events": [removed("a", "wait")]},
            **{"boss:p:dependencies": None, "boss:waiting-children": None, "boss:wait": ["w", "p"]},
            **{"boss:marker": {"0": 0}, "boss:events": [event("waiting", "p", prev="waiting-children")]},
        },
    )


def test_a_parent_waits_for_another_child(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="s"))
    waits(boss, "p")
    adopt(boss, "p", mail, "a", "s")
    _, changed = remove(mail, "a")
    assert changed == {
        **{"wait": ["s"], "a": None, "events": [removed("a", "wait")]},
        "boss:p:dependencies": {mail.key("s")},
    }


def test_a_parent_of_a_paused_queue_wakes_nobody(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    waits(boss, "p")
    boss.call("pause")
    adopt(boss, "p", mail, "a")
    assert "boss:marker" not in remove(mail, "a").changed


def test_a_parent_that_is_gone_is_left_alone(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    adopt(boss, "p", mail, "a")
    assert not [key for key in remove(mail, "a").changed if key.startswith("boss:")]


def test_a_child_that_is_done_leaves_its_result(mail: Queue, boss: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    waits(boss, "p")
    adopt(boss, "p", mail, "s", "a")
    mail.store("s", **named(boss, "p"))
    mail.redis.zadd(mail.key("delayed"), {"s": (NOW + 500) * SLOT})
    mail.finish(End("a"))
    assert remove(mail, "a").changed.keys() == {"completed", "a", "events"}


def test_a_deduplication_window_goes_with_its_owner(mail: Queue) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="b"))
    for job_id, window in {"a": "x", "b": "y"}.items():
        mail.put(job_id, {"deid": window})
        mail.redis.hset(mail.key(f"dn:{window}"), "jid", 7)
    mail.redis.set(mail.key("de:x"), "a")
    mail.redis.set(mail.key("de:y"), "other", px=600_000)
    gone = remove(mail, "a").changed.keys() | remove(mail, "b").changed.keys()
    assert gone == {"wait", "events", "a", "b", "de:x", "dn:x"}


# -- Those below it ----------------------------------------------------------------------------------------------------


class Tree:
    """``p`` in ``boss`` has children in three queues, and those have some."""

    def __init__(self, mail: Queue, boss: Queue, prefix: str) -> None:
        self.mail, self.boss, self.far = mail, boss, Queue(mail.redis, f"{prefix}:far", "mail")
        waits(boss, "p")
        waits(mail, "m")
        self.far.add(NewJob(job_id="f"))
        mail.add(NewJob(job_id="d", delay=500))
        boss.add(NewJob(job_id="b", priority=2))
        adopt(boss, "p", mail, "m")
        adopt(boss, "p", self.far, "f")
        adopt(mail, "m", mail, "d")
        adopt(mail, "m", boss, "b")

    def keys(self) -> set[str]:
        """All that is left, but for what a queue keeps beside its jobs."""
        rest = ("meta", "id", "pc", "marker", "events")
        return {key for key in self.boss.snapshot() if key.split(":")[-1] not in rest}


@pytest.fixture
def tree(mail: Queue, boss: Queue, prefix: str) -> Tree:
    """A tree over two queues and two prefixes."""
    return Tree(mail, boss, prefix)


def test_a_tree_goes(tree: Tree) -> None:
    reply, changed = remove(tree.boss, "p")
    assert (reply, tree.keys()) == (1, set())
    # Each job that loses its last child would run next, and goes from there.
    assert sorted(changed["mail:events"], key=str) == [
        removed("d", "delayed"),
        removed("m", "wait"),
        event("waiting", "m", prev="waiting-children"),
    ]
    assert changed["far:mail:events"] == [removed("f", "wait")]
    assert sorted(changed["events"], key=str) == [
        removed("b", "prioritized"),
        removed("p", "wait"),
        event("waiting", "p", prev="waiting-children"),
    ]
    assert changed["events"][-1] == removed("p", "wait")


@pytest.mark.leaves_keys_broken("children without a parent")
def test_children_may_stay(tree: Tree) -> None:
    before = tree.keys()
    remove(tree.boss, "p", children="")
    assert before - tree.keys() == {"p", "p:dependencies", "waiting-children"}


@pytest.mark.parametrize("who", ["f", "d", "b"])
def test_nothing_goes_while_one_below_is_run(tree: Tree, who: str) -> None:
    queue = {"f": tree.far, "d": tree.mail, "b": tree.boss}[who]
    place = {"f": "wait", "d": "delayed", "b": "prioritized"}[who]
    queue.redis.delete(queue.key(place))
    queue.redis.lpush(queue.key("active"), who)
    queue.put(who, {"ats": 1, "processedOn": NOW})
    queue.redis.set(queue.key(f"{who}:lock"), "w:1", px=600_000)
    assert remove(tree.boss, "p") == (0, {})
    # Whoever is not asked for does not matter.
    assert remove(tree.mail, "m" if who == "f" else "p", children="").reply == 1
    tree.mail.redis.delete(*tree.mail.redis.keys(f"{tree.mail.prefix}:*"))


def test_part_of_a_tree_goes(tree: Tree) -> None:
    assert remove(tree.mail, "m").reply == 1
    assert tree.keys() == {"p", "p:dependencies", "waiting-children", "far:mail:f", "far:mail:wait"}
    assert tree.boss.redis.smembers(tree.boss.key("p:dependencies")) == {tree.far.key("f")}


@pytest.mark.parametrize("outcome", ["processed", "failed", "unsuccessful"])
def test_children_that_are_done_go_as_well(mail: Queue, boss: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.finish(End("a", "completed" if outcome == "processed" else "failed", number=1))
    mail.put("a", named(boss, "p"))
    boss.add(NewJob(job_id="p"))
    if outcome == "unsuccessful":
        boss.redis.zadd(boss.key("p:unsuccessful"), {mail.key("a"): NOW})
    else:
        boss.redis.hset(boss.key(f"p:{outcome}"), mail.key("a"), "1")
    place = "completed" if outcome == "processed" else "failed"
    _, changed = remove(boss, "p")
    assert changed == {
        **{"wait": None, "p": None, f"p:{outcome}": None, "events": [removed("p", "wait")]},
        **{"mail:a": None, f"mail:{place}": None, "mail:events": [removed("a", place)]},
    }


def test_ids_with_colons(mail: Queue, boss: Queue) -> None:
    waits(boss, "p:q:r")
    mail.add(NewJob(job_id="a:b:c"))
    adopt(boss, "p:q:r", mail, "a:b:c")
    _, changed = remove(boss, "p:q:r")
    assert changed["mail:events"] == [removed("a:b:c", "wait")]
    assert (changed["mail:wait"], changed["mail:a:b:c"], changed["p:q:r"]) == (None, None, None)


@pytest.mark.leaves_keys_broken("a child whose queue nobody has")
def test_a_child_whose_queue_is_gone(boss: Queue) -> None:
    waits(boss, "p")
    boss.redis.sadd(boss.key("p:dependencies"), f"{boss.prefix}:gone:a", "nonsense", "x:")
    assert remove(boss, "p").reply == 1
    assert not boss.redis.exists(boss.key("p"))


@pytest.mark.parametrize("outcome", ["dependencies", "processed"])
def test_jobs_below_each_other(mail: Queue, outcome: str) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="b"))
    for parent, child in ("ab", "ba"):
        adopt(mail, parent, mail, child)
        if outcome == "processed":
            mail.redis.hset(mail.key(f"{parent}:processed"), mail.key(child), "1")
            mail.redis.delete(mail.key(f"{parent}:dependencies"))
    assert remove(mail, "a").reply == 1
    assert not mail.redis.exists(mail.key("a"), mail.key("b"), mail.key("wait"))


def test_a_tree_deeper_than_lua_recurses(mail: Queue) -> None:
    depth = 300
    waits(mail, *(f"j{n}" for n in range(depth)))
    for n in range(depth - 1):
        adopt(mail, f"j{n}", mail, f"j{n + 1}")
    mail.redis.sadd(mail.key(f"j{depth - 1}:dependencies"), mail.key("leaf"))
    mail.store("leaf", **named(mail, f"j{depth - 1}"))
    mail.redis.zadd(mail.key("failed"), {"leaf": NOW})
    assert remove(mail, "j0").reply == 1
    assert [key for key in mail.snapshot() if key not in ("meta", "events", "marker")] == []
