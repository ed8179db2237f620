"""``finish_and_fetch``: what the end of a child means for its parent."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.integration.scripts.commands import NOW, PRIORITY, SLOT, End, NewJob, Queue, event, stored

RELEASED: Final = {
    "boss:waiting-children": None,
    "boss:wait": ["p"],
    "boss:marker": {"0": 0},
    "boss:events": [event("waiting", "p", prev="waiting-children")],
}
FAILED: Final = End("a", "failed", "boom", number=5)


class Family:
    """Child ``a`` is active in the queue ``mail``, and its parent ``p`` belongs to the queue ``boss``."""

    def __init__(self, mail: Queue, prefix: str) -> None:
        self.mail = mail
        self.boss = Queue(mail.redis, prefix, "boss")
        self.child = mail.key("a")

    def make(self, *, state: str = "waiting-children", policy: str = "", sibling: bool = False, **fields: Any) -> None:
        """Stores both, a wait queue with ``w`` beside, and a sibling that is pending."""
        redis, boss = self.mail.redis, self.boss
        self.mail.activate(NewJob(job_id="a"))
        self.adopt(policy)
        boss.store("p", **fields)
        redis.sadd(boss.key("p:dependencies"), self.child, *([self.mail.key("s")] if sibling else []))
        if state == "active":
            redis.lpush(boss.key("active"), "p")
            boss.put("p", {"ats": 1, "processedOn": NOW})
        elif state == "delayed":
            redis.hset(boss.key("p"), "delay", 900)
            redis.zadd(boss.key("delayed"), {"p": (NOW + 900) * SLOT})
        elif state == "failed":
            boss.put("p", {"ats": 1, "atm": 1, "finishedOn": NOW, "failedReason": "x"})
            redis.zadd(boss.key("failed"), {"p": NOW})
        else:
            redis.zadd(boss.key("waiting-children"), {"p": NOW})

    def adopt(self, policy: str = "", parent_id: str = "p") -> None:
        """Makes ``p`` the parent of ``a``."""
        parent = {"id": parent_id, "queueKey": self.boss.base[:-1], **({policy: True} if policy else {})}
        fields = {"parentKey": self.boss.key(parent_id), "parent": json.dumps(parent)}
        self.mail.put("a", fields)

    def end(self, end: End, **scalars: Any) -> dict[str, Any]:
        """Ends the child; returns what changed outside its own queue."""
        reply, changed = self.mail.finish(end, **scalars)
        assert reply[0] == [0]
        assert {"a", "active", "a:lock"} <= changed.keys()
        return {key: value for key, value in changed.items() if key.startswith("boss:")}


@pytest.fixture
def family(mail: Queue, prefix: str) -> Family:
    """Both queues, still empty."""
    return Family(mail, prefix)


# -- Completed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["", "0::"])
@pytest.mark.parametrize("sibling", [True, False])
def test_a_result_goes_to_the_parent(family: Family, sibling: bool, keep: str) -> None:
    family.make(sibling=sibling)
    changed = family.end(End("a", value="[1]", keep=keep))
    rest = {family.mail.key("s")} if sibling else None
    result = {"boss:p:processed": {family.child: "[1]"}, "boss:p:dependencies": rest}
    assert changed == result | ({} if sibling else RELEASED)


def test_a_parent_goes_to_the_front(family: Family) -> None:
    family.make()
    family.boss.add(NewJob(job_id="w"))
    assert family.end(End("a"))["boss:wait"] == ["w", "p"]


def test_a_parent_with_a_priority_queues_by_it(family: Family) -> None:
    family.make(priority=3)
    changed = family.end(End("a"))
    assert (changed["boss:prioritized"], changed["boss:pc"]) == ({"p": 3 * PRIORITY + 1}, "1")
    assert changed["boss:marker"] == {"0": 0}
    assert changed["boss:events"] == RELEASED["boss:events"]
    assert "boss:wait" not in changed


def test_a_parent_with_a_delay_waits_for_it_from_now(family: Family) -> None:
    family.make(delay=500, priority=3)
    other = family.boss
    other.add(NewJob(job_id="d", delay=500))
    assert family.end(End("a")) == {
        "boss:p:processed": {family.child: '"ok"'},
        "boss:p:dependencies": None,
        "boss:waiting-children": None,
        # Without a look for a free slot.
        "boss:delayed": {"d": (NOW + 500) * SLOT, "p": (NOW + 500) * SLOT},
        "boss:events": [event("delayed", "p", delay=str(NOW + 500))],
    }


def test_the_delay_of_a_parent_is_marked(family: Family) -> None:
    family.make(delay=500)
    assert family.end(End("a"))["boss:marker"] == {"1": NOW + 500}


@pytest.mark.parametrize("settings", [{"paused": "1"}, {"concurrency": "0"}])
def test_the_parent_s_queue_decides_about_its_marker(family: Family, settings: dict[str, str]) -> None:
    family.make()
    family.boss.put("meta", settings)
    assert "boss:marker" not in family.end(End("a"))


@pytest.mark.parametrize("state", ["active", "delayed", "failed"])
def test_a_parent_that_does_not_wait_gets_the_result_only(family: Family, state: str) -> None:
    family.make(state=state)
    assert family.end(End("a")) == {"boss:p:processed": {family.child: '"ok"'}, "boss:p:dependencies": None}


def test_a_child_that_is_not_awaited_changes_nothing(family: Family) -> None:
    family.make(sibling=True)
    family.boss.redis.srem(family.boss.key("p:dependencies"), family.child)
    assert family.end(End("a")) == {}


def test_a_result_needs_only_the_parent_s_key(family: Family) -> None:
    family.make()
    family.mail.redis.hdel(family.child, "parent")
    result = {"boss:p:processed": {family.child: '"ok"'}, "boss:p:dependencies": None}
    assert family.end(End("a")) == result | RELEASED
    family.mail.redis.hdel(family.child, "parentKey")


def test_an_id_with_colons_is_found_by_the_parent_field(family: Family) -> None:
    family.make()
    redis, boss = family.boss.redis, family.boss
    family.adopt(parent_id="x:y:z")
    for suffix in ("", ":dependencies"):
        redis.rename(boss.key(f"p{suffix}"), boss.key(f"x:y:z{suffix}"))
    redis.zrem(boss.key("waiting-children"), "p")
    redis.zadd(boss.key("waiting-children"), {"x:y:z": NOW})
    assert family.end(End("a"))["boss:wait"] == ["x:y:z"]


def test_the_last_of_a_batch_of_children_releases_the_parent(family: Family) -> None:
    family.make(sibling=True)
    family.mail.add(NewJob(job_id="s"))
    family.mail.finish(want=1)
    child = family.mail.hash("a")
    family.mail.put("s", {"parentKey": child["parentKey"], "parent": child["parent"]})
    _, changed = family.mail.finish(End("a"), End("s", token="w:2"))
    assert changed["boss:p:processed"] == {family.child: '"ok"', family.mail.key("s"): '"ok"'}
    assert changed["boss:events"] == RELEASED["boss:events"]


def test_a_parent_in_the_same_queue_can_be_fetched_at_once(mail: Queue) -> None:
    family = Family(mail, mail.prefix)
    family.boss = mail
    family.make()
    reply, _ = mail.finish(End("a"), want=1)
    assert [job[0] for job in reply[1][0]] == ["p"]
    assert reply[2] == 0


@pytest.mark.parametrize("outcome", ["retry", "delay", "wait"])
@pytest.mark.parametrize("policy", ["fpof", "cpof", "idof", "rdof"])
def test_a_try_is_no_end(family: Family, policy: str, outcome: str) -> None:
    family.make(policy=policy)
    _, changed = family.mail.finish(End("a", outcome, "boom", number=5, flag="1"))
    assert not any(key.startswith("boss:") for key in changed)


# -- Failed ------------------------------------------------------------------------------------------------------------

DEFERRED: Final = "child {} failed"


@pytest.mark.parametrize("sibling", [True, False])
@pytest.mark.parametrize("state", ["waiting-children", "active", "delayed", "failed"])
@pytest.mark.parametrize("policy", ["", "fpof", "cpof", "idof", "rdof"])
def test_the_policy_decides_what_a_failure_means(family: Family, policy: str, state: str, sibling: bool) -> None:
    family.make(state=state, policy=policy, sibling=sibling)
    expected: dict[str, Any] = {}
    if policy:
        expected["boss:p:dependencies"] = {family.mail.key("s")} if sibling else None
    if policy in ("cpof", "idof"):
        expected["boss:p:failed"] = {family.child: "boom"}
    if policy == "fpof":
        expected["boss:p:unsuccessful"] = {family.child: NOW}
        if state != "failed":
            expected["boss:p"] = {"defa": DEFERRED.format(family.child)}
        if state in ("waiting-children", "delayed"):
            expected |= RELEASED
        if state == "delayed":
            expected["boss:p"]["delay"] = "0"
            expected["boss:delayed"] = None
            del expected["boss:waiting-children"]
    elif state == "waiting-children" and (policy == "cpof" or (policy in ("idof", "rdof") and not sibling)):
        expected |= RELEASED
    assert family.end(FAILED) == expected


@pytest.mark.parametrize("policy", ["fpof", "cpof", "idof", "rdof"])
def test_a_failure_releases_a_parent_by_its_own_settings(family: Family, policy: str) -> None:
    family.make(policy=policy, delay=500)
    changed = family.end(FAILED)
    assert changed["boss:delayed"] == {"p": (NOW + 500) * SLOT}
    assert changed["boss:events"] == [event("delayed", "p", delay=str(NOW + 500))]


def test_a_second_failure_pulls_a_delayed_parent_out(family: Family) -> None:
    family.make(policy="fpof", state="delayed", sibling=True)
    family.boss.redis.hset(family.boss.key("p"), "defa", "child x failed")
    family.boss.redis.hset(family.boss.key("p"), "priority", 3)
    changed = family.end(FAILED)
    assert changed["boss:p"] == {"delay": "0", "defa": DEFERRED.format(family.child)}
    assert changed["boss:prioritized"] == {"p": 3 * PRIORITY + 1}


@pytest.mark.parametrize(
    ("flags", "winner"), [(("fpof", "cpof", "idof"), "fpof"), (("cpof", "idof", "rdof"), "cpof"), (("idof",), "idof")]
)
@pytest.mark.leaves_keys_broken("a child has at most one policy")
def test_the_stricter_policy_wins(family: Family, flags: tuple[str, ...], winner: str) -> None:
    family.make(sibling=True)
    parent = {"id": "p", "queueKey": family.boss.base[:-1], **dict.fromkeys(flags, True), "rdof": False}
    family.mail.redis.hset(family.child, "parent", json.dumps(parent))
    changed = family.end(FAILED)
    assert ("boss:p:unsuccessful" in changed) == (winner == "fpof")
    assert ("boss:p:failed" in changed) == (winner != "fpof")
    assert ("boss:wait" in changed) == (winner != "idof")


def test_a_policy_that_is_false_is_none(family: Family) -> None:
    family.make()
    parent = {"id": "p", "queueKey": family.boss.base[:-1], "fpof": False}
    family.mail.redis.hset(family.child, "parent", json.dumps(parent))
    assert family.end(FAILED) == {}
    family.adopt()


@pytest.mark.leaves_keys_broken("a parent field that names no parent")
@pytest.mark.parametrize("parent", ["no json", "3", "null", '"text"', "{}", ""])
def test_a_parent_field_that_cannot_be_read_is_as_none(family: Family, parent: str) -> None:
    family.make(policy="fpof")
    family.mail.redis.hset(family.child, "parent", parent)
    assert family.end(FAILED) == {}
    family.mail.add(NewJob(job_id="b"))
    family.mail.finish(want=1)
    family.mail.put("b", {"parentKey": family.boss.key("p"), "parent": parent})
    family.mail.redis.sadd(family.boss.key("p:dependencies"), family.mail.key("b"))
    _, changed = family.mail.finish(End("b", token="w:2"))
    assert changed["boss:p:processed"] == {family.mail.key("b"): '"ok"'}


@pytest.mark.leaves_keys_broken("a key that names no parent")
@pytest.mark.parametrize("end", [End("a"), FAILED, FAILED._replace(keep="0::")], ids=["completed", "failed", "removed"])
@pytest.mark.parametrize("parent_key", ["", "nonsense"])
def test_a_parent_key_that_names_no_parent_is_as_none(family: Family, parent_key: str, end: End) -> None:
    family.make()
    family.mail.redis.hdel(family.child, "parent")
    family.mail.put("a", {"parentKey": parent_key})
    assert family.end(end) == {}


@pytest.mark.leaves_keys_broken("a child without its parent field")
def test_a_failure_without_the_parent_field_means_nothing(family: Family) -> None:
    family.make(policy="fpof")
    family.mail.redis.hdel(family.child, "parent")
    assert family.end(FAILED) == {}


@pytest.mark.parametrize("policy", ["fpof", "cpof", "idof", "rdof"])
def test_a_failure_of_a_child_that_is_not_awaited_means_nothing(family: Family, policy: str) -> None:
    family.make(policy=policy, sibling=True)
    family.boss.redis.srem(family.boss.key("p:dependencies"), family.child)
    assert family.end(FAILED) == {}


@pytest.mark.leaves_keys_broken("a parent without its hash")
def test_a_failed_parent_that_is_gone_is_not_made_again(family: Family) -> None:
    family.make(policy="fpof")
    family.boss.redis.delete(family.boss.key("p"))
    changed = family.end(FAILED)
    assert changed == {"boss:p:dependencies": None, "boss:p:unsuccessful": {family.child: NOW}}


@pytest.mark.leaves_keys_broken("a parent without its hash")
def test_a_parent_that_is_gone_is_not_released(family: Family) -> None:
    family.make()
    family.boss.redis.delete(family.boss.key("p"))
    assert family.end(End("a")) == {"boss:p:dependencies": None, "boss:p:processed": {family.child: '"ok"'}}


# -- Removed with its end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "sibling"), [(0, False), (3, False), (0, True)], ids=["released", "whatever its priority", "sibling"]
)
def test_a_failed_child_that_is_removed_is_awaited_no_more(family: Family, priority: int, sibling: bool) -> None:
    family.make(priority=priority, delay=500 if priority else 0, sibling=sibling)
    changed = family.end(FAILED._replace(keep="0::"))
    rest = {family.mail.key("s")} if sibling else None
    assert changed == {"boss:p:dependencies": rest} | ({} if sibling else RELEASED)


def test_a_removed_child_leaves_its_mark(family: Family) -> None:
    family.make(policy="fpof", sibling=True)
    changed = family.end(FAILED._replace(keep="0::"))
    assert changed["boss:p:unsuccessful"] == {family.child: NOW}
    assert changed["boss:wait"] == ["p"]


def test_a_failure_goes_up_the_tree(family: Family) -> None:
    family.make(policy="fpof")
    family.end(FAILED)
    fetched = family.boss.finish(want=1).reply[1][0][0]
    expected = stored(defa=DEFERRED.format(family.child))
    assert fetched[:2] == ["p", 1]
    assert dict(zip(fetched[2][::2], fetched[2][1::2], strict=True)) == expected


@pytest.mark.parametrize("parent_first", [True, False])
def test_a_parent_that_fails_in_the_same_call_has_no_failure_left_to_come(mail: Queue, parent_first: bool) -> None:
    mail.activate(NewJob(job_id="p"), NewJob(job_id="a"))
    parent = {"id": "p", "queueKey": mail.base[:-1], "fpof": True}
    mail.put("a", {"parentKey": mail.key("p"), "parent": json.dumps(parent)})
    mail.redis.sadd(mail.key("p:dependencies"), mail.key("a"))
    ends = [End("p", "failed", "why", number=1), FAILED]
    reply, changed = mail.finish(*(ends if parent_first else reversed(ends)))
    assert reply[0] == [0, 0]
    assert changed["failed"] == {"p": NOW, "a": NOW}
    assert changed["p:unsuccessful"] == {mail.key("a"): NOW}
    assert changed["p"]["failedReason"] == "why"
    assert "defa" not in mail.hash("p")
