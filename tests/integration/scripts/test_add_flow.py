"""``add_flow``: trees of jobs, all of them or none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from tests.integration.scripts.commands import (
    CODES,
    NOW,
    PRIORITY,
    SLOT,
    Called,
    End,
    NewJob,
    Queue,
    changes,
    event,
    stored,
)
from tests.integration.scripts.families import adopt, waits


class Node(NamedTuple):
    """One group of ``add_flow``."""

    queue: Queue
    id: str
    below: tuple[Queue, str] | None = None
    made: str = ""
    parent: str = ""
    name: str = "n"
    data: str = "{}"
    timestamp: int = NOW
    delay: int = 0
    priority: int = 0
    lifo: str = ""
    flags: tuple[str, ...] = ()
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def family(self) -> dict[str, str]:
        """The fields by which it names its parent, as the script takes them."""
        if self.below is None:
            return {}
        queue, parent = self.below
        described = {"id": parent, "queueKey": queue.base[:-1], **dict.fromkeys(self.flags, True)}
        return {"parent_key": queue.key(parent), "parent": json.dumps(described)}

    def group(self) -> tuple[Any, ...]:
        """Returns the values in the order of the wire."""
        rare = {"delay": self.delay, "priority": self.priority, "lifo": self.lifo}
        more = {**{name: value for name, value in rare.items() if value}, **self.family(), **self.more}
        content = (self.name, self.data, "{}", self.timestamp)
        return (self.queue.base, self.id, bool(self.made), bool(self.parent), *content, more or False)

    def stored(self) -> dict[str, str]:
        """The hash it becomes."""
        family = self.family()
        named = {"parentKey": family["parent_key"], "parent": family["parent"]} if family else {}
        numbers = {"timestamp": self.timestamp, "delay": self.delay, "priority": self.priority}
        return stored(name=self.name, data=self.data, **numbers, **named)


def add(mail: Queue, *nodes: Node, again: str = "", since: str = "") -> Called:
    """Runs the command. The id of the last event, which differs in every run, is left out of the reply."""
    called = mail.call("add_flow", [node.group() for node in nodes], now_ms=NOW, again=again, since=since)
    if not isinstance(called.reply[0], int):
        del called.reply[0]
    return called


@pytest.fixture
def boss(mail: Queue, prefix: str) -> Queue:
    """Another queue, for parents."""
    return Queue(mail.redis, prefix, "boss")


META = {"opts.maxLenEvents": "10000"}


def test_a_tree_over_two_queues(mail: Queue, boss: Queue) -> None:
    root = Node(boss, "r", parent="1")
    first, second = (Node(mail, name, (boss, "r"), flags=flags) for name, flags in (("a", ("fpof",)), ("b", ())))
    reply, changed = add(mail, root, first, second)
    assert reply == ["r", "a", "b"]
    assert changed == {
        "boss:r": root.stored(),
        "boss:r:dependencies": {mail.key("a"), mail.key("b")},
        "boss:waiting-children": {"r": NOW},
        "boss:meta": META,
        "boss:id": "1",
        "boss:events": [event("added", "r", name="n"), event("waiting-children", "r")],
        "a": first.stored(),
        "b": second.stored(),
        "wait": ["b", "a"],
        "meta": META,
        "id": "2",
        "events": [event("added", "a", name="n"), event("waiting", "a"), event("added", "b", name="n"),
                   event("waiting", "b")],
        "marker": {"0": 0},
    }  # fmt: skip


def test_jobs_are_queued_in_the_order_given_each_where_it_belongs(mail: Queue) -> None:
    root = Node(mail, "r", parent="1", delay=700, priority=3)
    where: list[dict[str, Any]] = [{}, {"delay": 500}, {"priority": 2}, {"lifo": "1"}, {"priority": 1}, {"delay": 500}]
    children = [Node(mail, f"c{n}", (mail, "r"), **given) for n, given in enumerate(where)]
    reply, changed = add(mail, root, *children)
    assert reply == ["r", "c0", "c1", "c2", "c3", "c4", "c5"]
    assert changed["r"] == root.stored()
    assert changed["waiting-children"] == {"r": NOW}
    assert changed["wait"] == ["c0", "c3"]
    assert changed["prioritized"] == {"c2": 2 * PRIORITY + 1, "c4": PRIORITY + 2}
    assert changed["pc"] == "2"
    assert changed["delayed"] == {"c1": (NOW + 500) * SLOT, "c5": (NOW + 500) * SLOT + 1}
    assert changed["marker"] == {"0": 0, "1": NOW + 500}
    assert changed["r:dependencies"] == {mail.key(f"c{n}") for n in range(6)}
    assert changed["id"] == "7"
    assert event("delayed", "c1", delay=str(NOW + 500)) in changed["events"]


def test_more_children_than_lua_can_pass_at_once(mail: Queue) -> None:
    children = [Node(mail, f"c{n}", (mail, "r"), made="1") for n in range(9000)]
    reply, changed = add(mail, Node(mail, "r", parent="1"), *children)
    assert len(reply) == 9001
    assert changed["wait"] == [f"c{n}" for n in reversed(range(9000))]
    assert len(changed["r:dependencies"]) == 9000


def test_the_settings_of_a_queue_are_left_alone(mail: Queue) -> None:
    mail.put("meta", {"opts.maxLenEvents": "5", "version": "v"})
    _, changed = add(mail, Node(mail, "r"))
    assert "meta" not in changed


def test_a_paused_queue_gets_no_marker(mail: Queue) -> None:
    mail.put("meta", {"paused": 1})
    _, changed = add(mail, Node(mail, "r", parent="1"), Node(mail, "a", (mail, "r")))
    assert "marker" not in changed


# --- jobs that are there already --------------------------------------------------------------------------------------


def ended(mail: Queue, job_id: str, state: str) -> None:
    """A job that has completed or failed."""
    mail.activate(NewJob(job_id=job_id))
    number = "" if state == "completed" else 1
    mail.finish(End(job_id, state, "[1]" if state == "completed" else "no", number=number))


def test_a_parent_whose_children_have_completed_runs_at_once(mail: Queue, boss: Queue) -> None:
    ended(mail, "a", "completed")
    reply, changed = add(mail, Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r"), name="other"))
    assert reply == ["r", ["a"]]
    assert changed["boss:r:processed"] == {mail.key("a"): "[1]"}
    assert changed["boss:wait"] == ["r"]
    assert "boss:waiting-children" not in changed
    assert changed["boss:events"][-1] == event("waiting", "r", prev="waiting-children")
    assert changed["events"] == [event("duplicated", "a")]
    family = Node(mail, "a", (boss, "r")).family()
    assert changed["a"] == {"parentKey": family["parent_key"], "parent": family["parent"]}
    assert changed["id"] == str(int(mail.redis.get(mail.key("id")) or 0))


def test_parents_with_nothing_to_wait_for_run_in_order_and_after_their_delay(mail: Queue, boss: Queue) -> None:
    for name in "abc":
        ended(mail, name, "completed")
    roots = [Node(boss, "r1", parent="1"), Node(boss, "r2", parent="1"), Node(boss, "r3", parent="1", delay=50)]
    leaves = [Node(mail, name, (boss, f"r{n}")) for n, name in enumerate("abc", 1)]
    _, changed = add(mail, *roots, *leaves)
    assert changed["boss:wait"] == ["r1", "r2"]
    assert changed["boss:delayed"] == {"r3": (NOW + 50) * SLOT}


@pytest.mark.parametrize("state", ["wait", "failed"])
def test_a_parent_waits_for_a_child_that_has_not_completed(mail: Queue, boss: Queue, state: str) -> None:
    if state == "wait":
        mail.add(NewJob(job_id="a"))
    else:
        ended(mail, "a", "failed")
    reply, changed = add(mail, Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r")))
    assert reply == ["r", ["a"]]
    assert changed["boss:r:dependencies"] == {mail.key("a")}
    assert changed["boss:waiting-children"] == {"r": NOW}
    assert "wait" not in changed


def test_a_root_that_is_there_gets_more_children(mail: Queue, boss: Queue) -> None:
    waits(boss, "r")
    boss.redis.sadd(boss.key("r:dependencies"), "elsewhere:q:child")
    reply, changed = add(mail, Node(boss, "r", parent="1", data="[1]"), Node(mail, "a", (boss, "r")))
    assert reply == [["r"], "a"]
    assert "boss:r" not in changed
    assert changed["boss:r:dependencies"] == {mail.key("a"), "elsewhere:q:child"}
    assert changed["boss:events"] == [event("duplicated", "r")]


def test_a_flow_is_put_below_a_job_that_is_there(mail: Queue, boss: Queue) -> None:
    waits(boss, "p")
    boss.redis.sadd(boss.key("p:dependencies"), "elsewhere:q:child")
    reply, changed = add(mail, Node(mail, "r", (boss, "p"), parent="1"), Node(mail, "a", (mail, "r")))
    assert reply == ["r", "a"]
    assert changed["boss:p:dependencies"] == {mail.key("r"), "elsewhere:q:child"}
    assert not {"boss:meta", "boss:id", "boss:wait", "boss:events"} & changed.keys()


def test_the_same_flow_twice_in_one_call_is_there_once(mail: Queue, boss: Queue) -> None:
    root, leaf = Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r"))
    reply, changed = add(mail, root, root, leaf, leaf)
    assert reply == ["r", ["r"], "a", ["a"]]
    assert changed["wait"] == ["a"]
    assert changed["boss:r:dependencies"] == {mail.key("a")}
    assert changed["id"] == "2"


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_missing_parent_keeps_the_whole_flow_out(mail: Queue, boss: Queue) -> None:
    reply, changed = add(
        mail, Node(mail, "x"), Node(mail, "r", (boss, "p"), parent="1"), Node(mail, "a", (mail, "r"))
    )
    assert (reply, changed) == ([CODES["PARENT_MISSING"], 2, boss.key("p")], {})


def test_a_child_of_another_parent_keeps_the_whole_flow_out(mail: Queue, boss: Queue) -> None:
    waits(boss, "p")
    mail.add(NewJob(job_id="a"))
    adopt(boss, "p", mail, "a")
    reply, changed = add(mail, Node(boss, "r", parent="1"), Node(mail, "b", (boss, "r")), Node(mail, "a", (boss, "r")))
    assert (reply, changed) == ([CODES["OTHER_PARENT"], 3, boss.key("p")], {})


def test_a_child_may_leave_a_parent_that_is_gone(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    adopt(boss, "gone", mail, "a")
    mail.redis.delete(boss.key("gone:dependencies"))
    reply, changed = add(mail, Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r")))
    assert reply == ["r", ["a"]]
    assert changed["boss:r:dependencies"] == {mail.key("a")}


def test_a_child_can_t_come_back_from_a_parent_that_is_only_about_to_be_there(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a"))
    adopt(boss, "s", mail, "a")
    mail.redis.delete(boss.key("s:dependencies"))
    roots = Node(boss, "r", parent="1"), Node(boss, "s", parent="1")
    reply, changed = add(mail, *roots, Node(mail, "a", (boss, "r")), Node(mail, "b", (boss, "s")))
    assert (reply, changed) == ([CODES["OTHER_PARENT"], 3, boss.key("s")], {})


def test_two_parents_in_one_call_can_t_share_a_child(mail: Queue, boss: Queue) -> None:
    roots = Node(boss, "r", parent="1"), Node(boss, "s", parent="1")
    reply, changed = add(mail, *roots, Node(mail, "a", (boss, "r")), Node(mail, "a", (boss, "s")))
    assert (reply, changed) == ([CODES["OTHER_PARENT"], 4, boss.key("r")], {})


def test_a_job_can_t_wait_for_one_that_waits_for_it(mail: Queue) -> None:
    waits(mail, "top", "middle")
    mail.add(NewJob(job_id="leaf"))
    adopt(mail, "top", mail, "middle")
    adopt(mail, "middle", mail, "leaf")
    reply, changed = add(mail, Node(mail, "new", (mail, "middle"), parent="1"), Node(mail, "top", (mail, "new")))
    assert (reply, changed) == ([CODES["OWN_ANCESTOR"], 2, mail.key("new")], {})


def test_two_trees_of_one_call_can_t_be_below_each_other(mail: Queue) -> None:
    roots = Node(mail, "r", parent="1"), Node(mail, "s", parent="1")
    reply, changed = add(mail, *roots, Node(mail, "s", (mail, "r")), Node(mail, "r", (mail, "s")))
    assert (reply, changed) == ([CODES["OWN_ANCESTOR"], 4, mail.key("s")], {})


STRUCTURES = ["wait", "active", "prioritized", "delayed", "waiting-children", "completed", "marker", "meta", "events"]


@pytest.mark.leaves_keys_broken("something else stands where the queue needs its structures")
@pytest.mark.parametrize("suffix", [*STRUCTURES, "id", "pc", "a", "a:dependencies", "a:processed"])
def test_a_key_that_holds_something_else_keeps_the_whole_flow_out(mail: Queue, boss: Queue, suffix: str) -> None:
    if suffix in ("id", "pc"):
        mail.redis.set(mail.key(suffix), "seven")
    else:
        mail.redis.set(mail.key(suffix), "odd")
    reply, changed = add(mail, Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r"), parent="1"))
    assert (reply, changed) == ([CODES["KEY_CORRUPT"], 2, mail.key(suffix)], {})


@pytest.mark.leaves_keys_broken("something else stands where the parent or its queue should")
@pytest.mark.parametrize("suffix", ["p", "p:dependencies", "wait"])
def test_a_parent_that_can_t_get_children_keeps_the_whole_flow_out(mail: Queue, boss: Queue, suffix: str) -> None:
    boss.store("p")
    boss.redis.delete(boss.key(suffix))
    boss.redis.set(boss.key(suffix), "odd")
    reply, changed = add(mail, Node(mail, "r", (boss, "p")))
    assert (reply, changed) == ([CODES["KEY_CORRUPT"], 1, boss.key(suffix)], {})


# --- deduplication, which only a job without family has --------------------------------------------------------------


def test_a_lone_job_gives_way_to_the_owner_of_its_deduplication_id(mail: Queue) -> None:
    lone = Node(mail, "x", made="1", more={"deduplication_id": "K"})
    assert add(mail, lone).reply == ["x"]
    reply, changed = add(mail, lone._replace(id="y"))
    assert reply == [["x"]]
    told = event("deduplicated", "x", deduplicationId="K", deduplicatedJobId="y")
    assert changed == {"id": "2", "events": [told]}


def test_a_lone_job_replaces_a_delayed_one(mail: Queue) -> None:
    lone = Node(mail, "x", made="1", delay=500, more={"deduplication_id": "K", "replace": "1"})
    add(mail, lone)
    reply, changed = add(mail, lone._replace(id="y"))
    assert reply == ["y"]
    assert changed["x"] is None
    assert event("removed", "x", prev="delayed") in changed["events"]
    assert changed["delayed"] == {"y": (NOW + 500) * SLOT}


@pytest.mark.leaves_keys_broken("something else stands where a deduplication id should")
def test_a_deduplication_id_that_can_t_be_claimed_keeps_the_job_out(mail: Queue) -> None:
    mail.redis.lpush(mail.key("de:K"), "odd")
    reply, changed = add(mail, Node(mail, "x", made="1", more={"deduplication_id": "K"}))
    assert (reply, changed) == ([CODES["KEY_CORRUPT"], 1, mail.key("de:K")], {})


# --- sent again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["1", ""], ids=["made", "own"])
def test_what_was_stored_is_left_alone_when_it_is_sent_again(mail: Queue, boss: Queue, made: str) -> None:
    flow = Node(boss, "r", made=made, parent="1"), Node(mail, "a", (boss, "r"), made=made)
    assert add(mail, *flow).reply == ["r", "a"]
    reply, changed = add(mail, *flow, again="1")
    assert (reply, changed) == (["r", "a"], {})


@pytest.mark.parametrize("made", ["1", ""], ids=["made", "own"])
def test_what_was_not_stored_is_stored_when_it_is_sent_again(mail: Queue, boss: Queue, made: str) -> None:
    reply, changed = add(
        mail, Node(boss, "r", made=made, parent="1"), Node(mail, "a", (boss, "r"), made=made), again="1"
    )
    assert reply == ["r", "a"]
    assert changed["wait"] == ["a"]


@pytest.mark.parametrize("made", ["1", ""], ids=["made", "own"])
def test_what_has_run_and_gone_since_is_told_by_the_events(mail: Queue, boss: Queue, made: str) -> None:
    flow = Node(boss, "r", made=made, parent="1"), Node(mail, "a", (boss, "r"), made=made)
    add(mail, *flow)
    mail.redis.delete(
        *(boss.key(name) for name in ("r", "r:dependencies", "waiting-children")), mail.key("a"), mail.key("wait")
    )
    reply, changed = add(mail, *flow, again="1")
    assert (reply, changed) == (["r", "a"], {})


def test_an_own_id_that_was_there_before_is_no_proof(mail: Queue, boss: Queue) -> None:
    mail.add(NewJob(job_id="a", timestamp=NOW - 1))
    reply, _ = add(mail, Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r")), again="1")
    assert reply == ["r", ["a"]]


def test_an_own_id_that_lived_before_it_was_first_sent_is_no_proof(mail: Queue, boss: Queue) -> None:
    flow = Node(boss, "r", parent="1"), Node(mail, "a", (boss, "r"))
    add(mail, *flow)
    for queue in (mail, boss):
        mail.redis.delete(*(queue.key(name) for name in ("r", "a", "r:dependencies", "waiting-children", "wait")))
    last = max(queue.redis.xrevrange(queue.key("events"), count=1)[0][0] for queue in (mail, boss))
    reply, changed = add(mail, *flow, again="1", since=str(last))
    assert reply == ["r", "a"]
    assert changed["wait"] == ["a"]


def test_what_stood_for_a_job_is_told_again(mail: Queue) -> None:
    lone = Node(mail, "x", made="1", more={"deduplication_id": "K"})
    add(mail, lone)
    second = lone._replace(id="y")
    assert add(mail, second).reply == [["x"]]
    reply, changed = add(mail, second, again="1")
    assert (reply, changed) == ([["x"]], {})


def test_a_large_flow_is_found_behind_its_own_events(mail: Queue) -> None:
    flow = [Node(mail, "r", parent="1"), *(Node(mail, f"c{n}", (mail, "r")) for n in range(800))]
    add(mail, *flow)
    before = mail.snapshot()
    gone = [mail.key("r"), *(mail.key(f"c{n}") for n in range(800))]
    mail.redis.delete(*gone, mail.key("wait"), mail.key("r:dependencies"), mail.key("waiting-children"))
    reply, changed = add(mail, *flow, again="1")
    assert (len(reply), changed) == (801, {})
    assert changes(before, mail.snapshot())["wait"] is None
