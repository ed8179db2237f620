"""Adding a job as the child of another: what both of them say, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from toromq import ParentConflictError, ParentNotFoundError, sync

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

POLICIES = {
    "fail_parent_on_failure": "fpof",
    "continue_parent_on_failure": "cpof",
    "ignore_dependency_on_failure": "idof",
    "remove_dependency_on_failure": "rdof",
}


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str) -> Any:
    made = face.Queue("q", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


@pytest.fixture
async def boss(face: Any, redisbox: RedisBox, prefix: str) -> Any:
    made = face.Queue("boss", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


@pytest.mark.parametrize("policy", ["", *POLICIES])
@pytest.mark.parametrize("way", ["a job", "a dict"])
async def test_a_child_says_whose_it_is_and_what_its_failure_means(
    queue: Any, boss: Any, redis: redis_py.Redis, prefix: str, policy: str, way: str
) -> None:
    parent = await done(boss.add("p", job_id="p"))
    named = {"id": "p", "queue": f"{prefix}:boss"}
    options = {"parent": parent if way == "a job" else named, **{flag: flag == policy for flag in POLICIES}}
    added = await done(queue.add("n", **options))
    (bulk,) = await done(queue.add_bulk([("n", {}, options)]))
    link = {"id": "p", "queueKey": f"{prefix}:boss", **({POLICIES[policy]: True} if policy else {})}
    for job in (added, bulk, await done(queue.get_job(added.id))):
        assert (job.parent, job.parent_key) == (link, f"{prefix}:boss:p")
        assert job.opts["parent"] == named
        assert {short: job.opts[short] for short in POLICIES.values()} == {
            short: option == policy for option, short in POLICIES.items()
        }
    assert json.loads(redis.hget(f"{prefix}:q:{added.id}", "parent") or "") == link
    assert redis.smembers(f"{prefix}:boss:p:dependencies") == {f"{prefix}:q:{job.id}" for job in (added, bulk)}


async def test_a_parent_that_does_not_exist_keeps_its_child_out(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    await done(queue.add("n"))
    before = keyspace(redis, prefix)
    parent = {"id": "none", "queue": f"{prefix}:boss"}
    for options, job_id in (({}, None), ({"job_id": "x"}, "x")):
        with pytest.raises(ParentNotFoundError) as caught:
            await done(queue.add("n", parent=parent, **options))
        assert (caught.value.code, caught.value.job_id, caught.value.added) == (-5, job_id, ())
        name = f"job {job_id}" if job_id else 'job "n"'
        reason = f"{name}, to be a child of {prefix}:boss:none, was not added: the job's parent does not exist"
        assert str(caught.value) == reason
    after = keyspace(redis, prefix)
    # Each add used up a number.
    assert after.pop(f"{prefix}:q:id") != before.pop(f"{prefix}:q:id")
    assert after == before


async def test_the_child_of_another_parent_stays_its_child(queue: Any, boss: Any) -> None:
    parents = [await done(boss.add("p")) for _ in range(2)]
    child = await done(queue.add("n", job_id="x", parent=parents[0]))
    with pytest.raises(ParentConflictError) as caught:
        await done(queue.add("n", job_id="x", parent=parents[1]))
    assert (caught.value.code, caught.value.job_id) == (-7, "x")
    assert str(caught.value).startswith(f"job x, to be a child of {boss.prefix}:boss:{parents[1].id}, was not added: ")
    assert (await done(queue.get_job("x"))).parent == child.parent
    again = await done(queue.add("n", job_id="x", parent=parents[0]))
    assert (again.id, again.is_duplicate) == ("x", True)


async def test_a_bulk_says_which_jobs_their_parents_kept_out(queue: Any, boss: Any) -> None:
    living = await done(boss.add("p"))
    other = await done(boss.add("p"))
    await done(queue.add("n", job_id="x", parent=other))
    missing = {"id": "none", "queue": f"{boss.prefix}:boss"}
    with pytest.raises(ParentNotFoundError) as caught:
        await done(
            queue.add_bulk(
                [
                    ("n", 0),
                    ("n", 1, {"parent": missing}),
                    ("n", 2, {"parent": living}),
                    ("n", 3, {"parent": living, "job_id": "x"}),
                    ("n", 4, {"job_id": "x"}),
                ]
            )
        )
    assert str(caught.value).startswith('jobs[1], jobs[3]: job "n", to be a child of ')
    assert str(caught.value).endswith("; the 3 others were added")
    assert [job and job.data for job in caught.value.added] == [0, None, 2, None, 4]
    assert [job.is_duplicate for job in caught.value.added if job] == [False, False, True]
    stored = await done(queue.get_jobs("waiting"))
    assert sorted(job.data for job in stored if job.id != "x") == [0, 2]
    with pytest.raises(ParentNotFoundError, match=r"^jobs\[0\]: .*; none was added$"):
        await done(queue.add_bulk([("n", 0, {"parent": missing})]))


async def test_a_bulk_may_bring_a_parent_and_its_children(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    parent = {"id": "p", "queue": f"{prefix}:q"}
    children = [("c", n, {"parent": parent}) for n in range(2)]
    jobs = await done(queue.add_bulk([("p", {}, {"job_id": "p"}), *children]))
    assert redis.smembers(f"{prefix}:q:p:dependencies") == {f"{prefix}:q:{job.id}" for job in jobs[1:]}


async def test_a_running_job_adds_a_child_of_its_own(redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=redisbox.url, prefix=prefix)
    children: list[toromq.Job[Any, Any]] = []

    async def work(job: toromq.Job[Any, Any]) -> str:
        if job.name == "parent" and not children:
            # It can't complete yet, and is tried again behind its child.
            children.append(await queue.add("child", 7, parent=job))
        return job.name

    async with toromq.Worker("q", work, connection=redisbox.url, prefix=prefix):
        parent = await queue.add("parent", attempts=2)

        async def completed() -> bool:
            return await parent.get_state() == "completed"

        await aeventually(completed)
    key = f"{prefix}:q:{parent.id}"
    assert children[0].parent_key == key
    assert redis.hgetall(f"{key}:processed") == {f"{prefix}:q:{children[0].id}": '"child"'}
    assert redis.exists(f"{key}:dependencies") == 0
    await queue.close()
