"""Flows through Python: trees that are added, run and read, in both faces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pytest

import toromq
from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from tests.support.redisbox import RedisBox
from toromq import (
    ConfigurationError,
    Connection,
    Deduplication,
    FlowJob,
    FlowProducer,
    FlowQueueOptions,
    JobNode,
    ParentConflictError,
    ParentNotFoundError,
    Queue,
    RedisConnectionError,
    ScriptError,
    SerializationError,
    Worker,
    sync,
)

if TYPE_CHECKING:
    import redis as redis_py


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def flow(face: Any, redisbox: RedisBox, prefix: str) -> Any:
    made = face.FlowProducer(connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


@pytest.fixture
async def queue(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    """The queue of parents, to look at."""
    async with Queue[Any, Any]("q", connection=redisbox.url, prefix=prefix) as made:
        yield made


@pytest.fixture
async def pages(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    """The queue of children, to look at."""
    async with Queue[Any, Any]("pages", connection=redisbox.url, prefix=prefix) as made:
        yield made


def names(node: JobNode[Any]) -> Any:
    """A tree as its jobs' names."""
    return (node.job.name, [names(child) for child in node.children]) if node.children else node.job.name


async def ended(job: Any, state: str = "completed") -> None:
    async def is_there() -> bool:
        return bool(await done(job.get_state()) == state)

    await aeventually(is_there, message=f"{job!r} is {state}")


async def test_a_tree_is_added_run_and_read(flow: Any, redisbox: RedisBox, prefix: str, pages: Any) -> None:
    regions = [FlowJob("fetch", queue_name="pages", data={"region": name}, attempts=2) for name in ("us", "eu")]
    tree = await done(flow.add(FlowJob("report", queue_name="q", data=[1], children=regions)))
    assert names(tree) == ("report", ["fetch", "fetch"])
    assert [child.job.data for child in tree.children] == [{"region": "us"}, {"region": "eu"}]
    assert [child.job.queue_name for child in tree.children] == ["pages", "pages"]
    assert tree.children[0].job.opts["attempts"] == 2
    assert tree.children[0].job.parent == {"id": tree.job.id, "queueKey": f"{prefix}:q"}
    assert not tree.job.is_duplicate
    assert await done(tree.job.get_state()) == "waiting-children"
    assert await done(tree.children[0].job.get_state()) == "waiting"

    async def fetch(job: Any) -> str:
        return f"page of {job.data['region']}"

    async def report(job: Any) -> list[str]:
        return sorted((await job.get_children_values()).values())

    options = {"connection": redisbox.url, "prefix": prefix}
    async with Worker("pages", fetch, **options), Worker("q", report, **options):
        await ended(tree.job)
    read = await done(flow.get_flow("q", tree.job.id, states=True))
    assert read.job.returnvalue == ["page of eu", "page of us"]
    assert read.state == "completed"
    assert {child.job.id for child in read.children} == {child.job.id for child in tree.children}
    assert {child.state for child in read.children} == {"completed"}


async def test_jobs_go_to_queues_level_by_level(flow: Any, redis: redis_py.Redis, prefix: str) -> None:
    def node(name: str, *children: FlowJob) -> FlowJob:
        return FlowJob(name, queue_name="q", job_id=name, children=children)

    deep = node("R", node("A", node("A1", node("A1a"))), node("B"), node("C", node("C1")), node("D"))
    tree = await done(flow.add(deep))
    assert names(tree) == ("R", [("A", [("A1", ["A1a"])]), "B", ("C", ["C1"]), "D"])
    told = [fields["jobId"] for _, fields in redis.xrange(f"{prefix}:q:events") if fields["event"] == "added"]
    assert told == ["R", "A", "B", "C", "D", "A1", "C1", "A1a"]
    assert redis.lrange(f"{prefix}:q:wait", 0, -1) == ["A1a", "C1", "D", "B"]
    assert redis.get(f"{prefix}:q:id") == "8"


async def test_other_prefixes(flow: Any, redis: redis_py.Redis, prefix: str) -> None:
    child = FlowJob("c", queue_name="pages", prefix=f"{prefix}:other", job_id="c")
    tree = await done(flow.add(FlowJob("r", queue_name="q", job_id="r", children=[child])))
    assert redis.smembers(f"{prefix}:q:r:dependencies") == {f"{prefix}:other:pages:c"}
    assert tree.children[0].job.prefix == f"{prefix}:other"
    read = await done(flow.get_flow("q", "r"))
    assert (read.children[0].job.prefix, read.children[0].job.queue_name) == (f"{prefix}:other", "pages")
    below = await done(flow.get_flow("pages", "c", prefix=f"{prefix}:other"))
    assert below.job.id == "c"


async def test_queues_have_options_of_their_own(flow: Any) -> None:
    options: dict[str, FlowQueueOptions] = {"pages": {"default_job_options": {"attempts": 5, "priority": 3}}}
    children = [FlowJob("a", queue_name="pages"), FlowJob("b", queue_name="pages", priority=1)]
    for tree in (
        await done(flow.add(FlowJob("r", queue_name="q", children=children), queues_options=options)),
        *await done(flow.add_bulk([FlowJob("r", queue_name="q", children=children)], queues_options=options)),
    ):
        assert [child.job.opts["attempts"] for child in tree.children] == [5, 5]
        assert [child.job.priority for child in tree.children] == [3, 1]
        assert tree.job.opts == {"attempts": 0}


def test_a_tree_that_is_printed_shows_no_data() -> None:
    secret = FlowJob("c", queue_name="q", data="secret", attempts=2)
    shown = repr(FlowJob("r", queue_name="q", data={"a": "secret"}, children=[secret]))
    assert "secret" not in shown
    assert "'attempts': 2" in shown


async def test_dicts_are_trees_as_well(flow: Any) -> None:
    child = {"name": "c", "queue_name": "pages", "data": None, "opts": {"delay": 60_000}}
    tree = await done(flow.add({"name": "r", "queue_name": "q", "children": [child]}))
    assert names(tree) == ("r", ["c"])
    assert (tree.children[0].job.data, tree.children[0].job.delay, tree.job.data) == (None, 60_000, {})


async def test_many_trees_go_together(flow: Any, redis: redis_py.Redis, prefix: str) -> None:
    assert await done(flow.add_bulk([])) == []
    pair = [FlowJob(f"r{n}", queue_name="q", children=[FlowJob(f"c{n}", queue_name="q")]) for n in range(2)]
    trees = await done(flow.add_bulk(pair))
    assert [names(tree) for tree in trees] == [("r0", ["c0"]), ("r1", ["c1"])]
    told = [fields["name"] for _, fields in redis.xrange(f"{prefix}:q:events") if fields["event"] == "added"]
    assert told == ["r0", "r1", "c0", "c1"]


async def test_a_thousand_children_are_one_round_trip(flow: Any, redis: redis_py.Redis, pages: Any) -> None:
    children = [FlowJob("c", queue_name="pages") for _ in range(1000)]
    await done(flow.add(FlowJob("first", queue_name="q")))
    before = redis.info("commandstats")
    tree = await done(flow.add(FlowJob("r", queue_name="q", children=children)))
    after = redis.info("commandstats")

    def calls(stats: Any) -> int:
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "time"))

    assert calls(after) - calls(before) == 1
    assert len(tree.children) == 1000
    assert await pages.count() == 1000
    assert (await done(tree.job.get_dependencies_count())).unprocessed == 1000


# --- jobs that are there already --------------------------------------------------------------------------------------


async def run_all(queue: Queue[Any, Any], redisbox: RedisBox, count: int, *, fails: bool = False) -> None:
    """Lets the queue's jobs end."""

    async def work(job: Any) -> str:
        if fails:
            raise ValueError("no")
        return f"made by {job.id}"

    async with Worker(queue.name, work, connection=redisbox.url, prefix=queue.prefix):

        async def all_ended() -> bool:
            counts = await queue.get_job_counts("completed", "failed")
            return sum(counts.values()) == count

        await aeventually(all_ended)


async def test_children_that_have_completed_release_their_parent(
    flow: Any, queue: Any, pages: Any, redisbox: RedisBox
) -> None:
    await pages.add("n", job_id="a")
    await run_all(pages, redisbox, 1)
    tree = await done(
        flow.add(FlowJob("r", queue_name="q", children=[FlowJob("c", queue_name="pages", job_id="a")]))
    )
    assert tree.children[0].job.is_duplicate
    assert await done(tree.job.get_state()) == "waiting"
    assert list((await done(tree.job.get_children_values())).values()) == ["made by a"]


async def test_a_child_that_has_failed_is_waited_for_until_it_is_retried(
    flow: Any, queue: Any, pages: Any, redisbox: RedisBox
) -> None:
    job = await pages.add("n", job_id="a")
    await run_all(pages, redisbox, 1, fails=True)
    child = FlowJob("c", queue_name="pages", job_id="a", fail_parent_on_failure=True)
    tree = await done(flow.add(FlowJob("r", queue_name="q", children=[child])))
    assert await done(tree.job.get_state()) == "waiting-children"
    await job.retry()
    await run_all(pages, redisbox, 1)
    assert await done(tree.job.get_state()) == "waiting"


async def test_a_root_that_is_there_gets_more_children(flow: Any, pages: Any) -> None:
    first = await done(
        flow.add(FlowJob("r", queue_name="q", job_id="r", children=[FlowJob("a", queue_name="pages")]))
    )
    more = await done(flow.add(FlowJob("r", queue_name="q", job_id="r", children=[FlowJob("b", queue_name="pages")])))
    assert (more.job.is_duplicate, more.children[0].job.is_duplicate) == (True, False)
    assert (await done(first.job.get_dependencies_count())).unprocessed == 2


async def test_a_flow_below_a_job_that_is_there(flow: Any, queue: Any, pages: Any) -> None:
    top = await done(flow.add(FlowJob("top", queue_name="q", children=[FlowJob("a", queue_name="pages")])))
    tree = await done(
        flow.add(FlowJob("r", queue_name="q", parent=top.job, children=[FlowJob("b", queue_name="pages")]))
    )
    assert tree.job.parent_key == queue.to_key(top.job.id)
    read = await done(flow.get_flow("q", top.job.id))
    assert sorted(map(str, map(names, read.children))) == ["('r', ['b'])", "a"]


async def test_a_lone_job_may_give_way_to_another(flow: Any) -> None:
    first, second = [
        await done(flow.add(FlowJob("r", queue_name="q", deduplication=Deduplication.simple("K")))) for _ in range(2)
    ]
    assert (second.job.id, second.job.is_duplicate) == (first.job.id, True)


# --- refused: nothing of it is added ----------------------------------------------------------------------------------


@pytest.fixture
def unchanged(redis: redis_py.Redis, prefix: str) -> Any:
    """Says whether anything was written since the test asked first."""
    seen: list[Any] = []

    def check() -> None:
        seen.append(keyspace(redis, prefix))
        assert seen[0] == seen[-1]

    return check


async def test_a_missing_parent_is_named(flow: Any, prefix: str, unchanged: Any) -> None:
    unchanged()
    parent = {"id": "gone", "queue": f"{prefix}:q"}
    root = FlowJob("r", queue_name="q", job_id="r", parent=parent, children=[FlowJob("c", queue_name="pages")])
    with pytest.raises(ParentNotFoundError) as error:
        await done(flow.add(root))
    assert str(error.value) == (
        f'flow (job "r" r of {prefix}:q): its parent {prefix}:q:gone does not exist; add that first, or leave the '
        "option out; nothing was added"
    )
    assert (error.value.code, error.value.job_id) == (-5, "r")
    with pytest.raises(ParentNotFoundError, match=r"^flows\[1\] \(job"):
        await done(flow.add_bulk([FlowJob("x", queue_name="q"), root]))
    unchanged()


async def test_a_child_of_another_parent_is_named_with_its_owner(flow: Any, prefix: str, unchanged: Any) -> None:
    mine = FlowJob("c", queue_name="pages", job_id="mine")
    await done(flow.add(FlowJob("r", queue_name="q", job_id="owner", children=[mine])))
    unchanged()
    other = FlowJob("r", queue_name="q", children=[FlowJob("x", queue_name="q"), FlowJob("m", queue_name="q")])
    other.children[1].children.append(mine)  # type: ignore[union-attr]
    with pytest.raises(ParentConflictError) as error:
        await done(flow.add(other))
    assert str(error.value) == (
        f'children[1].children[0] (job "c" mine of {prefix}:pages): it is the child of {prefix}:q:owner already; let '
        "that go without it first (job.remove_child_dependency()), or give this one another job_id; nothing was added"
    )
    assert (error.value.code, error.value.job_id) == (-7, "mine")
    unchanged()


async def test_one_tree_of_many_that_is_refused_keeps_all_of_them_out(flow: Any, unchanged: Any) -> None:
    mine = FlowJob("c", queue_name="pages", job_id="mine")
    await done(flow.add(FlowJob("r", queue_name="q", job_id="owner", children=[mine])))
    unchanged()
    good, bad = FlowJob("g", queue_name="q"), FlowJob("b", queue_name="q", children=[mine])
    with pytest.raises(ParentConflictError, match=r"^flows\[1\]\.children\[0\] "):
        await done(flow.add_bulk([good, bad]))
    unchanged()


async def test_a_job_is_never_below_itself(flow: Any, unchanged: Any) -> None:
    leaf = FlowJob("c", queue_name="q", job_id="leaf")
    await done(flow.add(FlowJob("r", queue_name="q", job_id="top", children=[leaf])))
    unchanged()
    again = FlowJob("c", queue_name="q", job_id="leaf", children=[FlowJob("r", queue_name="q", job_id="top")])
    with pytest.raises(ParentConflictError, match=r"^children\[0\] .* is below it, so that both would wait for ever"):
        await done(flow.add(again))
    unchanged()


@pytest.mark.leaves_keys_broken("something else stands where a queue needs a list")
async def test_a_key_that_holds_something_else_is_named(
    flow: Any, redis: redis_py.Redis, prefix: str, unchanged: Any
) -> None:
    redis.set(f"{prefix}:pages:wait", "odd")
    unchanged()
    with pytest.raises(ScriptError, match=rf"^children\[0\] .*: {prefix}:pages:wait holds something else than it must"):
        await done(flow.add(FlowJob("r", queue_name="q", children=[FlowJob("c", queue_name="pages")])))
    unchanged()


def tree_with(**options: Any) -> FlowJob:
    return FlowJob("r", queue_name="q", children=[FlowJob("a", queue_name="q"), FlowJob("c", **options)])


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        ({"queue_name": "a:b"}, ConfigurationError, r"^children\[1\]\.queue name: got 'a:b'"),
        ({"queue_name": "q", "prefix": ""}, ConfigurationError, r"^children\[1\]\.prefix: got ''"),
        ({"queue_name": "q", "data": {"x": {1, 2}}}, SerializationError, r"^children\[1\]\.data\.x"),
        ({"queue_name": "q", "attempts": -1}, ConfigurationError, r"^children\[1\]\.attempts: got -1"),
        ({"queue_name": "q", "atempts": 1}, TypeError, r"^children\[1\]\.a job has no option 'atempts'.*'attempts'"),
        ({"queue_name": "q", "opts": {"job_id": "5"}}, ConfigurationError, r"^children\[1\]\.job_id: '5' is a number"),
        ({"queue_name": "q", "job_id": 5}, ConfigurationError, r"^children\[1\]\.job_id: got 5"),
        ({"queue_name": "q", "data": "x" * 9, "size_limit": 5}, ConfigurationError, r"^children\[1\]\.data: 11 bytes"),
        ({"queue_name": "q", "run_at": datetime(2030, 1, 1)}, ConfigurationError, r"^children\[1\]\.run_at: .*naive"),
        ({"queue_name": "q", "parent": {"id": "p", "queue": "b:q"}}, ConfigurationError, r"^children\[1\]\.parent: i"),
        ({"queue_name": "q", "deduplication": {"id": "K"}}, ConfigurationError, r"^children\[1\]\.deduplication: "),
        ({"queue_name": "q", "children": [7]}, ConfigurationError, r"^children\[1\]\.children\[0\]: got 7"),
        ({"queue_name": "q", "children": [{"name": "x"}]}, ConfigurationError, r"children\[0\]\.queue_name: missing"),
        ({"queue_name": "q", "children": [{"nam": "x"}]}, TypeError, r"^children\[1\]\.children\[0\]: .*'name'"),
        (
            {"queue_name": "q", "fail_parent_on_failure": True, "remove_dependency_on_failure": True},
            ConfigurationError,
            r"^children\[1\]\.remove_dependency_on_failure",
        ),
    ],
)
async def test_what_is_wrong_with_a_job_is_said_with_its_place(
    flow: Any, unchanged: Any, bad: Any, error: Any, said: str
) -> None:
    unchanged()
    with pytest.raises(error, match=said):
        await done(flow.add(tree_with(**bad)))
    with pytest.raises(error, match=said.replace("^", r"^flows\[0\]\.")):
        await done(flow.add_bulk([tree_with(**bad)]))
    unchanged()


async def test_what_is_wrong_with_a_whole_flow_is_said(flow: Any, unchanged: Any) -> None:
    unchanged()
    with pytest.raises(ConfigurationError, match=r"^flow: got 7; allowed is a FlowJob"):
        await done(flow.add(7))
    with pytest.raises(ConfigurationError, match=r"^flows: got .*; allowed is a list of FlowJobs"):
        await done(flow.add_bulk({"name": "r"}))
    for options, said in (
        (7, r"^queues_options: got 7"),
        ({"q": 7}, r"^queues_options\['q'\]: got 7"),
        ({"q": {"default_job_options": {"attempts": -1}}}, r"^queues_options\['q'\]\.default_job_options\.attempts"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            await done(flow.add(FlowJob("r", queue_name="q"), queues_options=options))
    with pytest.raises(TypeError, match="did you mean 'default_job_options'"):
        await done(flow.add(FlowJob("r", queue_name="q"), queues_options={"q": {"default_job_option": {}}}))
    root = FlowJob("r", queue_name="q", deduplication={"id": "K"}, children=[FlowJob("c", queue_name="q")])
    with pytest.raises(ConfigurationError, match="deduplication: only a job without parent and children"):
        await done(flow.add(root))
    unchanged()


async def test_an_id_comes_once_in_a_flow(flow: Any, unchanged: Any) -> None:
    unchanged()
    twice = FlowJob("c", queue_name="q", job_id="x")
    with pytest.raises(ConfigurationError, match=r"^children\[1\]\.job_id: 'x' is that of children\[0\] as well"):
        await done(flow.add(FlowJob("r", queue_name="q", children=[twice, twice])))
    with pytest.raises(ConfigurationError, match=r"^children\[0\]\.job_id: 'x' is that of the flow as well"):
        await done(flow.add(FlowJob("r", queue_name="q", job_id="x", children=[twice])))
    unchanged()


@pytest.mark.parametrize("form", [lambda: FlowJob("r", queue_name="q"), lambda: {"name": "r", "queue_name": "q"}])
async def test_a_tree_that_contains_itself(flow: Any, form: Any) -> None:
    root = form()
    if isinstance(root, dict):
        root["children"] = [root]
    else:
        root.children.append(root)
    with pytest.raises(ConfigurationError, match=r"^children\[0\]: the same FlowJob as the flow above it"):
        await done(flow.add(root))


async def test_a_very_deep_tree(flow: Any) -> None:
    root = FlowJob("leaf", queue_name="q")
    for _ in range(1500):
        root = FlowJob("n", queue_name="q", children=[root])
    tree = await done(flow.add(root))
    read = await done(flow.get_flow("q", tree.job.id, depth=2000))
    depth = 0
    while read.children:
        (read,) = read.children
        depth += 1
    assert (depth, read.job.name) == (1500, "leaf")


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_a_tree_is_read_as_far_as_asked(flow: Any, prefix: str) -> None:
    def level(depth: int, name: str) -> FlowJob:
        children = [level(depth - 1, f"{name}{n}") for n in range(3)] if depth else []
        return FlowJob(name, queue_name="q", job_id=name, children=children)

    await done(flow.add(level(2, "n")))
    assert names(await done(flow.get_flow("q", "n", depth=1))) == "n"
    assert names(await done(flow.get_flow("q", "n", depth=2))) == ("n", ["n0", "n1", "n2"])
    whole = ("n", [(f"n{n}", [f"n{n}{m}" for m in range(3)]) for n in range(3)])
    assert names(await done(flow.get_flow("q", "n"))) == whole
    read = await done(flow.get_flow("q", "n", max_children=2, states=True))
    assert (len(read.children), read.children_count) == (2, 3)
    assert await done(flow.get_flow("q", "missing")) is None


async def test_children_of_every_outcome_are_read(flow: Any, pages: Any, redisbox: RedisBox, prefix: str) -> None:
    children = [
        FlowJob("good", queue_name="pages"),
        FlowJob("bad", queue_name="pages", ignore_dependency_on_failure=True),
        FlowJob("ugly", queue_name="pages", fail_parent_on_failure=True),
        FlowJob("late", queue_name="pages", delay=600_000),
    ]
    tree = await done(flow.add(FlowJob("r", queue_name="q", children=children)))

    async def work(job: Any) -> str:
        if job.name == "good":
            return "fine"
        raise ValueError(job.name)

    async with Worker("pages", work, connection=redisbox.url, prefix=prefix):
        for node, state in zip(tree.children, ("completed", "failed", "failed", "delayed"), strict=True):
            await ended(node.job, state)
    read = await done(flow.get_flow("q", tree.job.id, states=True))
    assert [(child.job.name, child.state) for child in read.children] == [
        ("good", "completed"), ("late", "delayed"), ("ugly", "failed"), ("bad", "failed"),
    ]  # fmt: skip
    assert read.children[2].job.failed_reason == "ugly"
    assert list((await done(read.job.get_ignored_children_failures())).values()) == ["bad"]
    assert tuple(await done(read.job.get_dependencies_count())) == (1, 1, 1, 1)
    assert await done(read.job.get_dependencies(failed={"count": 5})) == {
        "failed": [pages.to_key(tree.children[2].job.id)],
        "next_failed_cursor": 0,
    }


async def test_children_that_were_removed_are_left_out(flow: Any, pages: Any) -> None:
    children = [FlowJob(name, queue_name="pages", job_id=name) for name in ("a", "b")]
    await done(flow.add(FlowJob("r", queue_name="q", job_id="r", children=children)))
    await pages.remove("a")
    assert names(await done(flow.get_flow("q", "r"))) == ("r", ["b"])


async def test_ids_with_colons_are_read(flow: Any) -> None:
    child = FlowJob("c", queue_name="pages", job_id="a:b:c", children=[FlowJob("leaf", queue_name="q", job_id="x:y:z")])
    await done(flow.add(FlowJob("r", queue_name="q", job_id="r:r:r", children=[child])))
    read = await done(flow.get_flow("q", "r:r:r"))
    assert names(read) == ("r", [("c", ["leaf"])])
    assert read.children[0].children[0].job.id == "x:y:z"


@pytest.mark.leaves_keys_broken("a job is its own parent")
async def test_a_circle_that_somebody_made_ends(flow: Any, redis: redis_py.Redis, prefix: str) -> None:
    await done(flow.add(FlowJob("r", queue_name="q", job_id="r")))
    redis.sadd(f"{prefix}:q:r:dependencies", f"{prefix}:q:r")
    assert names(await done(flow.get_flow("q", "r"))) == "r"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a:b", "x"), "queue name: got 'a:b'"),
        (("q", "wait"), "job_id: 'wait' is the name"),
        (("q", "x", {"depth": 0}), "depth: got 0"),
        (("q", "x", {"max_children": 0}), "max_children: got 0"),
        (("q", "x", {"prefix": ""}), "prefix: got ''"),
        (("q", "x", {"states": 1}), "states: got 1"),
    ],
)
async def test_what_can_t_be_read_is_refused(flow: Any, arguments: Any, said: str) -> None:
    queue_name, job_id, *options = arguments
    with pytest.raises(ConfigurationError, match=said):
        await done(flow.get_flow(queue_name, job_id, **(options[0] if options else {})))


# --- its life ---------------------------------------------------------------------------------------------------------


async def test_a_producer_is_ready_and_closed(face: Any, redisbox: RedisBox, prefix: str) -> None:
    made = face.FlowProducer(connection=redisbox.url, prefix=prefix)
    await done(made.wait_until_ready())
    tree = await done(made.add(FlowJob("r", queue_name="q")))
    await done(made.disconnect())
    await done(made.close())
    assert await done(made.get_flow("q", tree.job.id)) is not None
    await done(made.close())


async def test_a_producer_is_a_context(redisbox: RedisBox, prefix: str) -> None:
    async with FlowProducer(connection=Connection(redisbox.url), prefix=prefix) as made:
        assert (await made.add(FlowJob("r", queue_name="q"))).job.prefix == prefix
    with sync.FlowProducer(connection=redisbox.url, prefix=prefix) as blocking:
        assert blocking.add(FlowJob("r", queue_name="q")).job.prefix == prefix


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'prefix'"):
        FlowProducer(prefx="x")  # type: ignore[call-arg]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["request", "reply"])
@pytest.mark.parametrize("own", [False, True], ids=["made ids", "own ids"])
async def test_a_flow_is_added_once(
    redisbox: RedisBox, redis: redis_py.Redis, prefix: str, lost: Literal["request", "reply"], own: bool
) -> None:
    def node(name: str, queue: str, **options: Any) -> FlowJob:
        return FlowJob(name, queue_name=queue, **({"job_id": name} if own else {}), **options)

    async with (
        LossyProxy(redisbox.url) as proxy,
        FlowProducer(connection=proxy.url, prefix=prefix) as flow,
    ):
        await flow.add(FlowJob("first", queue_name="q"))
        with proxy.losing(lost):
            tree = await flow.add(node("r", "q", children=[node("a", "pages"), node("b", "pages", priority=2)]))
    assert not tree.job.is_duplicate
    children = [child.job.id for child in tree.children]
    assert redis.smembers(f"{prefix}:q:{tree.job.id}:dependencies") == {f"{prefix}:pages:{name}" for name in children}
    assert redis.lrange(f"{prefix}:pages:wait", 0, -1) == children[:1]
    assert redis.zrange(f"{prefix}:pages:prioritized", 0, -1) == children[1:]
    assert redis.zcard(f"{prefix}:q:waiting-children") == 1


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_flow_with_ids_that_lived_before_lives_again(
    redisbox: RedisBox, prefix: str, pages: Any, lost: Literal["request", "reply"]
) -> None:
    daily = FlowJob("r", queue_name="q", job_id="r", children=[FlowJob("c", queue_name="pages", job_id="c")])
    async with (
        LossyProxy(redisbox.url) as proxy,
        FlowProducer(connection=proxy.url, prefix=prefix) as flow,
    ):
        for _ in range(3):
            with proxy.losing(lost):
                tree = await flow.add(daily)
            assert (tree.job.is_duplicate, tree.children[0].job.is_duplicate) == (False, False)
            assert await tree.job.get_state() == "waiting-children"
            assert await pages.get_job_state("c") == "waiting"
            await tree.job.remove()


async def test_a_server_that_is_killed_leaves_every_flow_whole() -> None:
    """Each flow that was told to be there is there with all its jobs, and none is there in part or twice."""
    children = [FlowJob("c", queue_name="pages") for _ in range(20)]

    def give(n: int) -> FlowJob:
        return FlowJob("r", queue_name="q", job_id=f"r{n}", children=children)

    with RedisBox(appendonly=True) as box:
        async with FlowProducer(connection=Connection(box.url, command_timeout=30_000)) as flow:
            await flow.add(give(0))
            adding = [asyncio.create_task(flow.add(give(n))) for n in range(1, 200)]
            await aeventually(lambda: any(one.done() for one in adding))
            await asyncio.to_thread(box.restart, kill=True)
            trees = await asyncio.gather(*adding)
            await flow.add(give(200))
        client = box.client()
        assert not any(tree.job.is_duplicate for tree in trees)
        assert client.zcard("bull:q:waiting-children") == 201
        assert client.llen("bull:pages:wait") == 201 * 20
        for n in range(201):
            assert client.scard(f"bull:q:r{n}:dependencies") == 20


async def test_a_flow_fails_when_the_server_stays_away() -> None:
    box = RedisBox()
    with box:
        async with FlowProducer(connection=Connection(box.url, command_timeout=300)) as flow:
            await flow.add(FlowJob("r", queue_name="q"))
            box.kill()
            with pytest.raises(RedisConnectionError):
                await flow.add(FlowJob("r", queue_name="q"))
            box.start()


async def test_what_a_flow_stores_is_json(flow: Any, redis: redis_py.Redis, prefix: str) -> None:
    child = FlowJob("c", queue_name="q", job_id="c", data={"ü": "ß"}, continue_parent_on_failure=True)
    await done(flow.add(FlowJob("r", queue_name="q", job_id="r", children=[child])))
    found = redis.hgetall(f"{prefix}:q:c")
    assert json.loads(found["data"]) == {"ü": "ß"}
    assert json.loads(found["parent"]) == {"id": "r", "queueKey": f"{prefix}:q", "cpof": True}
    assert json.loads(found["opts"]) == {
        "attempts": 0, "cpof": True, "jobId": "c", "parent": {"id": "r", "queue": f"{prefix}:q"},
    }  # fmt: skip
