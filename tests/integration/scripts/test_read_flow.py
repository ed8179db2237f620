"""``read_flow``: jobs of a tree with their children."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scripts.commands import NOW, NewJob, Queue, flat
from tests.integration.scripts.families import adopt, waits


def read(mail: Queue, *keys: str, children: int = 20, states: str = "") -> Any:
    """Runs the command, which changes nothing."""
    reply, changed = mail.call("read_flow", [(key,) for key in keys], children=children, states=states)
    assert changed == {}
    return reply


@pytest.fixture
def tree(mail: Queue) -> Queue:
    """Parent ``p`` with children of every outcome."""
    mail.put("meta", {"opts.maxLenEvents": "10000"})
    waits(mail, "p")
    adopt(mail, "p", mail, "b", "a")
    mail.put("p:processed", {mail.key("d"): "1", mail.key("c"): "2"})
    mail.put("p:failed", {mail.key("e"): "no"})
    mail.redis.zadd(mail.key("p:unsuccessful"), {mail.key("f"): NOW})
    return mail


@pytest.mark.leaves_keys_broken("the children are in no state")
def test_a_parent_names_its_children_in_a_stable_order(tree: Queue) -> None:
    ((base, job_id, state, fields, children, count),) = read(tree, tree.key("p"))
    assert (base, job_id, state, count) == (tree.base, "p", "", 0)
    assert fields == flat(tree.hash("p"))
    assert children == [tree.key(name) for name in "cdabfe"]


@pytest.mark.leaves_keys_broken("the children are in no state")
@pytest.mark.parametrize("most", [0, 1])
def test_no_more_children_of_each_outcome_than_asked_for(tree: Queue, most: int) -> None:
    ((*_, state, _, children, count),) = read(tree, tree.key("p"), children=most, states="1")
    assert (state, len(children), count) == ("waiting-children", 4 * most, 6)


@pytest.mark.leaves_keys_broken("the children are in no state")
def test_jobs_that_don_t_exist_are_empty(tree: Queue) -> None:
    assert read(tree, tree.key("x"), "nothing") == [[tree.base, "x", "", [], [], 0], ["", "", "", [], [], 0]]


@pytest.mark.leaves_keys_broken("the children are in no state")
def test_what_is_no_job_is_none(tree: Queue) -> None:
    tree.redis.lpush(tree.key("x"), "odd")
    tree.redis.delete(tree.key("p:processed"))
    tree.redis.set(tree.key("p:processed"), "odd")
    found, parent = read(tree, tree.key("x"), tree.key("p"))
    assert found[3] == []
    assert parent[4] == [tree.key(name) for name in "abfe"]


def test_ids_with_colons_and_other_queues(mail: Queue, prefix: str) -> None:
    other = Queue(mail.redis, prefix, "other")
    other.add(NewJob(job_id="a:b:c"))
    ((base, job_id, state, *_),) = read(mail, other.key("a:b:c"), states="1")
    assert (base, job_id, state) == (other.base, "a:b:c", "waiting")


def test_each_state(mail: Queue) -> None:
    mail.activate(NewJob(job_id="running"))
    jobs = [NewJob(job_id="in-wait"), NewJob(job_id="later", delay=500), NewJob(job_id="one", priority=1)]
    mail.add(*jobs)
    waits(mail, "p")
    adopt(mail, "p", mail, "in-wait")
    found = read(mail, *(mail.key(name) for name in ("running", "in-wait", "later", "one", "p")), states="1")
    assert [job[2] for job in found] == ["active", "waiting", "delayed", "prioritized", "waiting-children"]
