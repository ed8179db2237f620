"""``finish_and_fetch`` on many jobs at once: what is done for all of them together is the same as one by one."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py

from tests.integration.scripts.commands import CODES, End, NewJob, Queue, event
from tests.integration.scripts.families import adopt, named, waits

# A job that has just begun: what every job has, and the two fields that beginning wrote.
FIELDS = 8
ALL = list("abcdef")


def family(mail: Queue, flag: str = "", *, boss: Queue | None = None, pending: list[str] = ALL) -> Queue:
    """Active children ``a`` to ``f`` of ``p``, of which some are pending; the others were, and are not any more."""
    boss = boss or mail
    mail.activate(*(NewJob(job_id=child) for child in ALL))
    waits(boss, "p")
    adopt(boss, "p", mail, *ALL, flag=flag)
    for child in set(ALL) - set(pending):
        boss.redis.srem(boss.key("p:dependencies"), mail.key(child))
    return boss


BATCHES = [
    pytest.param([End(child, value=f'"{child}"') for child in ALL], id="all"),
    pytest.param([End(child) for child in "fdb"], id="half, from behind"),
    pytest.param([End("a"), End("b", "failed", "boom", number=5), *map(End, "cdef")], id="a failure between"),
    pytest.param([*map(End, "abcde"), End("f", "failed", "boom", number=5)], id="a failure last"),
    pytest.param([End(child, keep="0::") for child in ALL], id="none kept"),
    pytest.param([End(child, keep="2::") for child in ALL], id="two kept"),
    pytest.param([End("a", keep="1::"), *map(End, "bcd"), End("e", keep="1::"), End("f")], id="some kept"),
    pytest.param(
        [End("a"), End("b", "retry", "x", number=5), End("c", "delay", "x", number=7), *map(End, "def")], id="mixed"
    ),
    pytest.param(
        [End("a", "retry", "x", flag="1"), End("b", "retry", "y"), End("c", "wait"), End("d", "wait")], id="back"
    ),
]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("flag", ["", "fpof", "cpof", "idof", "rdof"])
@pytest.mark.parametrize("ends", BATCHES)
def test_ends_together_are_as_one_by_one(
    redis: redis_py.Redis, prefix: str, ends: list[End], flag: str, elsewhere: bool
) -> None:
    snapshots: list[dict[str, Any]] = []
    for at_once in (True, False):
        side = f"{prefix}:{'x' if at_once else 'y'}"
        mail = Queue(redis, side)
        boss = Queue(redis, side, "boss") if elsewhere else mail
        family(mail, flag, boss=boss)
        if at_once:
            assert mail.finish(*ends).reply[0] == [0] * len(ends)
        else:
            for end in ends:
                assert mail.finish(end).reply[0] == [0]
        # Values name the keys of their own side.
        values = {
            key: sorted(kept.value) if kept.type == "set" else kept.value for key, kept in mail.snapshot().items()
        }
        snapshots.append({key: str(value).replace(f"{side}:", "side:") for key, value in values.items()})
    assert snapshots[0] == snapshots[1]


def test_the_result_of_a_child_that_is_no_longer_pending_is_not_taken(mail: Queue) -> None:
    family(mail, pending=["a", "c", "e"])
    _, changed = mail.finish(*map(End, "abcd"))
    assert changed["p:processed"] == {mail.key("a"): '"ok"', mail.key("c"): '"ok"'}
    assert changed["p:dependencies"] == {mail.key("e")}
    assert "waiting-children" not in changed
    _, changed = mail.finish(*map(End, "ef"))
    assert changed["p:processed"] == {mail.key("e"): '"ok"'}
    assert changed["wait"] == ["p"]
    assert (
        changed["events"]
        == [
            event("completed", "e", returnvalue='"ok"', prev="active"),
            event("waiting", "p", prev="waiting-children"),
            event("completed", "f", returnvalue='"ok"', prev="active"),
            event("drained"),
        ][:3]
    )


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_job_of_known_fields_ends_as_any_other(mail: Queue, outcome: str) -> None:
    mail.activate(NewJob(job_id="a"), NewJob(job_id="b"))
    _, known = mail.finish(End("a", outcome, "1", number=1, fields=FIELDS))
    _, read = mail.finish(End("b", outcome, "1", number=1))
    assert known["a"] == read["b"]
    assert known["a"]["atm"] == "1"
    # The second is the last one.
    assert known["events"] == [{**entry, "jobId": "a"} for entry in read["events"] if "jobId" in entry]


def test_a_parent_given_to_a_job_that_runs_gets_its_result(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    waits(mail, "p")
    adopt(mail, "p", mail, "a")
    _, changed = mail.finish(End("a", value="7", fields=FIELDS))
    assert changed["p:processed"] == {mail.key("a"): "7"}
    assert changed["wait"] == ["p"]


def test_a_failure_decided_while_a_job_runs_is_forgotten_with_its_own(mail: Queue) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.put("a", {"defa": "child failed"})
    _, changed = mail.finish(End("a", "failed", "boom", number=1, fields=FIELDS))
    assert changed["a"]["defa"] is None


@pytest.mark.leaves_keys_broken("a job without a hash of its own is active")
@pytest.mark.parametrize("left", ["nothing", "another type"])
def test_a_job_of_known_fields_that_is_gone(mail: Queue, left: str) -> None:
    mail.activate(NewJob(job_id="a"))
    mail.redis.delete(mail.key("a"))
    if left != "nothing":
        mail.redis.set(mail.key("a"), "x" * FIELDS)
    code = CODES["JOB_MISSING" if left == "nothing" else "JOB_CORRUPT"]
    assert mail.finish(End("a", fields=FIELDS)) == ([[code], [], 0, 0], {})


def test_large_values_come_beside_the_others(mail: Queue) -> None:
    sizes = [10, 1_022, 1_023, 70_000, 40_000, 10]
    mail.add(*(NewJob(job_id=str(n), data=f'"{"x" * size}"') for n, size in enumerate(sizes)))
    mail.put("0", {"tm": "y" * 2_000, "zz": "z" * 2_000})
    reply, changed = mail.finish(want=10)
    jobs = [(job[0], dict(zip(job[2][::2], job[2][1::2], strict=True))) for job in reply[1][0]]
    assert [(job_id, fields["data"]) for job_id, fields in jobs] == [
        (str(n), f'"{"x" * size}"') for n, size in enumerate(sizes)
    ]
    assert (jobs[0][1]["tm"], jobs[0][1]["zz"]) == ("y" * 2_000, "z" * 2_000)
    assert changed["active"] == [str(n) for n in reversed(range(len(sizes)))]


def test_many_jobs_come_in_pieces(mail: Queue) -> None:
    mail.add(*(NewJob(job_id=str(n), data=f'"{"x" * 1_000}"') for n in range(150)))
    reply, _ = mail.finish(want=200)
    assert [(job[0], len(job[2][3])) for job in reply[1][0]] == [(str(n), 1_002) for n in range(150)]


@pytest.mark.leaves_keys_broken("a key of the queue is something else")
@pytest.mark.parametrize("broken", ["active", "prioritized", "events"])
def test_nothing_is_taken_where_a_key_is_something_else(mail: Queue, broken: str) -> None:
    mail.add(NewJob(job_id="a"), NewJob(job_id="b"))
    if broken != "prioritized":
        mail.add(NewJob(job_id="p", priority=1))
    mail.redis.delete(mail.key(broken))
    mail.redis.set(mail.key(broken), "x")
    before = mail.snapshot()
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        mail.finish(want=5)
    assert mail.snapshot() == before


def test_children_of_several_parents_end_together(mail: Queue) -> None:
    mail.activate(*(NewJob(job_id=child) for child in ALL))
    waits(mail, "p", "q")
    adopt(mail, "p", mail, *"ace")
    adopt(mail, "q", mail, *"bdf")
    _, changed = mail.finish(*map(End, ALL))
    for parent, children in (("p", "ace"), ("q", "bdf")):
        assert changed[f"{parent}:processed"] == {mail.key(child): '"ok"' for child in children}
    assert changed["wait"] == ["p", "q"]
    # A parent is told of before the event of its last child.
    assert [entry.get("jobId") for entry in changed["events"]] == [*"abcd", "p", "e", "q", "f"]
    assert named(mail, "p")["parentKey"] == mail.hash("a")["parentKey"]
