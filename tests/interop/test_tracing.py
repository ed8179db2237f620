"""One trace across Node BullMQ and us, in both directions: the context that a job carries, and the names of spans."""

from __future__ import annotations

import asyncio
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

import toromq.sync
from tests.interop.keys import QueueKeys
from tests.support.eventually import aeventually
from tests.support.node_peer import NodePeer
from tests.support.redisbox import RedisBox
from tests.support.tracing import Recorder

# By the numbers that OpenTelemetry gives them in Node; ours begin with the same.
_KINDS = {"INTERNAL": 0, "PRODUCER": 3, "CONSUMER": 4}


@dataclass(frozen=True)
class Seen:
    """A span, whoever made it."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: dict[str, Any]


class Traced(ABC):
    """The queue under test through one implementation, traced."""

    @abstractmethod
    async def add(self, name: str, **options: Any) -> str:
        """Adds a job without data and returns its id."""

    @abstractmethod
    async def add_bulk(self, jobs: list[tuple[str, dict[str, Any]]]) -> list[str]:
        """Adds jobs with their options in one call and returns their ids."""

    @abstractmethod
    async def call(self, operation: str, *arguments: Any) -> Any:
        """Any other operation of the queue, by its name in Python."""

    @abstractmethod
    async def schedule(self, scheduler_id: str, every: int) -> None:
        """Sets up a job scheduler."""

    @abstractmethod
    async def add_flow(self, flow: dict[str, Any]) -> None:
        """Adds a tree of jobs, given the Python way."""

    @abstractmethod
    async def work(self, failures: int = 0) -> None:
        """Starts a worker whose jobs fail so many times before they complete."""

    @abstractmethod
    async def rest(self) -> None:
        """Closes its workers."""

    @abstractmethod
    async def spans(self) -> list[Seen]:
        """What it traced so far."""

    async def ended(self, name: str, count: int = 1) -> list[Seen]:
        """The spans of one name, once so many have ended."""

        async def enough() -> list[Seen]:
            spans = await self.spans()
            found = [span for span in spans if span.name == name]
            assert len(found) == count, [span.name for span in spans]
            return found

        return await aeventually(enough, 20)

    async def span(self, name: str) -> Seen:
        """The only one of a name, once it has ended."""
        return (await self.ended(name))[0]


class TracedNode(Traced):
    """Node BullMQ with its adapter for OpenTelemetry."""

    def __init__(self, peer: NodePeer) -> None:
        self._peer = peer
        self._queue = ""
        self._workers: list[str] = []

    async def _handle(self) -> str:
        self._queue = self._queue or await self._peer.queue("mail", telemetry=True)
        return self._queue

    async def add(self, name: str, **options: Any) -> str:
        job = await self._peer.call(await self._handle(), "add", name, {}, _camel(options))
        return str(job["id"])

    async def add_bulk(self, jobs: list[tuple[str, dict[str, Any]]]) -> list[str]:
        entries = [{"name": name, "data": {}, "opts": _camel(options)} for name, options in jobs]
        return [str(job["id"]) for job in await self._peer.call(await self._handle(), "addBulk", entries)]

    async def call(self, operation: str, *arguments: Any) -> Any:
        return await self._peer.call(await self._handle(), _camel_word(operation), *arguments)

    async def schedule(self, scheduler_id: str, every: int) -> None:
        await self._peer.call(await self._handle(), "upsertJobScheduler", scheduler_id, {"every": every})

    async def add_flow(self, flow: dict[str, Any]) -> None:
        handle = await self._peer.flow_producer(telemetry=True)
        await self._peer.call(handle, "add", _camel(flow))

    async def work(self, failures: int = 0) -> None:
        script = {"name": "fail_times", "times": failures}
        self._workers.append(await self._peer.worker("mail", script, telemetry=True, name="w"))

    async def rest(self) -> None:
        while self._workers:
            await self._peer.close_handle(self._workers.pop())

    async def spans(self) -> list[Seen]:
        return [
            Seen(span["name"], span["kind"], span["traceId"], span["spanId"], span["parentSpanId"], span["attributes"])
            for span in await self._peer.command("spans")
        ]


class TracedOurs(Traced):
    """One of our faces."""

    def __init__(self, module: Any, options: dict[str, Any], recorder: Recorder) -> None:
        self._module, self._recorder = module, recorder
        self._options = {**options, "telemetry": recorder.telemetry}
        self._queue = module.Queue("mail", **self._options)
        self._workers: list[Any] = []

    async def _do(self, method: Any, *arguments: Any, **options: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(*arguments, **options)
        return await asyncio.to_thread(method, *arguments, **options)

    async def add(self, name: str, **options: Any) -> str:
        return str((await self._do(self._queue.add, name, {}, **options)).id)

    async def add_bulk(self, jobs: list[tuple[str, dict[str, Any]]]) -> list[str]:
        added = await self._do(self._queue.add_bulk, [(name, {}, options) for name, options in jobs])
        return [str(job.id) for job in added]

    async def call(self, operation: str, *arguments: Any) -> Any:
        return await self._do(getattr(self._queue, operation), *arguments)

    async def schedule(self, scheduler_id: str, every: int) -> None:
        await self._do(self._queue.upsert_job_scheduler, scheduler_id, every=every)

    async def add_flow(self, flow: dict[str, Any]) -> None:
        flows = self._module.FlowProducer(**self._options)
        await self._do(flows.add, flow)
        await self._do(flows.close)

    async def work(self, failures: int = 0) -> None:
        def fail(job: Any) -> None:
            if job.attempts_made < failures:
                raise RuntimeError("not yet")

        async def fail_async(job: Any) -> None:
            fail(job)

        is_async = self._module is toromq
        worker = self._module.Worker("mail", fail_async if is_async else fail, **self._options, name="w")
        self._workers.append(worker)
        await self._do(worker.__aenter__ if is_async else worker.__enter__)

    async def rest(self) -> None:
        while self._workers:
            await self._do(self._workers.pop().close)

    async def spans(self) -> list[Seen]:
        seen = []
        for span in self._recorder.spans():
            assert span.context is not None
            parent = None if span.parent is None else f"{span.parent.span_id:016x}"
            told = {name: _as_list(value) for name, value in (span.attributes or {}).items()}
            ids = f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"
            seen.append(Seen(span.name, _KINDS[span.kind.name], *ids, parent, told))
        return seen

    async def close(self) -> None:
        """Closes everything that was opened."""
        await self.rest()
        await self._do(self._queue.close)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _camel_word(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _camel(options: dict[str, Any]) -> dict[str, Any]:
    return {_camel_word(name): _camel_value(value) for name, value in options.items()}


def _camel_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel_value(item) for item in value]
    return _camel(value) if isinstance(value, dict) else value


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What we trace."""
    made = Recorder()
    yield made
    made.close()


@pytest_asyncio.fixture
async def sides(
    peer: NodePeer, redisbox: RedisBox, prefix: str, recorder: Recorder
) -> AsyncIterator[dict[str, Traced]]:
    """All three."""
    options = {"connection": redisbox.unix_url, "prefix": prefix}
    ours = {name: TracedOurs(module, options, recorder) for name, module in (("async", toromq), ("sync", toromq.sync))}
    yield {"node": TracedNode(peer), **ours}
    for side in ours.values():
        await side.close()


# Node with itself is the control, as everywhere here.
_directions = pytest.mark.parametrize(
    ("first", "second"), [("node", "async"), ("node", "sync"), ("async", "node"), ("sync", "node"), ("node", "node")]
)
_all_sides = pytest.mark.parametrize("which", ["node", "async", "sync"])


def _assert_below(child: Seen, parent: Seen) -> None:
    assert (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)


def _carried(span: Seen) -> str:
    """What a job carries of it, but for the flags: each SDK sets its own."""
    return f'{{"traceparent":"00-{span.trace_id}-{span.span_id}-'


@_directions
async def test_the_trace_of_a_producer_goes_on_in_the_worker_of_the_other_side(
    first: str, second: str, sides: dict[str, Traced]
) -> None:
    producer, consumer = sides[first], sides[second]
    await consumer.work()
    job_id = await producer.add("welcome")
    added, process = await producer.span("add mail.welcome"), await consumer.span("process mail")
    _assert_below(process, added)
    _assert_below(await consumer.span("complete mail"), process)
    assert (added.kind, process.kind) == (_KINDS["PRODUCER"], _KINDS["CONSUMER"])
    assert added.attributes["bullmq.job.id"] == process.attributes["bullmq.job.id"] == job_id


@_directions
async def test_so_does_that_of_many_jobs_added_at_once(first: str, second: str, sides: dict[str, Traced]) -> None:
    producer, consumer = sides[first], sides[second]
    await consumer.work()
    await producer.add_bulk([("a", {}), ("b", {})])
    added = await producer.span("addBulk mail")
    for process in await consumer.ended("process mail", 2):
        _assert_below(process, added)


@_directions
async def test_each_attempt_on_the_other_side_belongs_to_the_one_who_added(
    first: str, second: str, sides: dict[str, Traced]
) -> None:
    producer, consumer = sides[first], sides[second]
    await consumer.work(failures=2)
    await producer.add("welcome", attempts=3)
    added = await producer.span("add mail.welcome")
    for process in await consumer.ended("process mail", 3):
        _assert_below(process, added)
    # Of the first and the second attempt.
    retried = {span.parent_id for span in await consumer.ended("retry mail", 2)}
    assert retried < {span.span_id for span in await consumer.ended("process mail", 3)}


@_directions
async def test_the_jobs_of_a_scheduler_go_on_with_the_trace_that_set_it_up(
    first: str, second: str, sides: dict[str, Traced]
) -> None:
    producer, consumer = sides[first], sides[second]
    await producer.schedule("beat", 50)
    await consumer.work()
    added = (await producer.spans())[0]
    assert (added.name, added.attributes["bullmq.job.scheduler.id"]) == ("add mail.beat", "beat")

    async def some() -> list[Seen]:
        ran = [span for span in await consumer.spans() if span.name == "process mail"]
        assert len(ran) >= 3
        return ran

    for process in await aeventually(some, 20):
        _assert_below(process, added)
    await producer.call("remove_job_scheduler", "beat")


# Node lets a job that has no options at all carry nothing.
_FLOW: dict[str, Any] = {
    "name": "parent",
    "queue_name": "mail",
    "opts": {"attempts": 1},
    "children": [{"name": "child", "queue_name": "mail", "opts": {"job_id": "child"}}],
}


@_directions
async def test_each_job_of_a_flow_goes_on_with_the_trace_of_its_own_span(
    first: str, second: str, sides: dict[str, Traced]
) -> None:
    producer, consumer = sides[first], sides[second]
    await consumer.work()
    await producer.add_flow(_FLOW)
    added = {span.attributes["bullmq.job.name"]: span for span in await producer.ended("addNode mail", 2)}
    ran = {span.attributes["bullmq.job.name"]: span for span in await consumer.ended("process mail", 2)}
    flow = await producer.span("addFlow mail")
    _assert_below(added["parent"], flow)
    _assert_below(added["child"], added["parent"])
    assert {span.kind for span in (flow, *added.values())} == {_KINDS["PRODUCER"]}
    for name in ("parent", "child"):
        _assert_below(ran[name], added[name])


@_all_sides
async def test_we_read_what_each_job_of_a_flow_carries(
    which: str, sides: dict[str, Traced], redisbox: RedisBox, prefix: str
) -> None:
    side = sides[which]
    await side.add_flow(_FLOW)
    added = {span.attributes["bullmq.job.name"]: span for span in await side.ended("addNode mail", 2)}
    async with toromq.FlowProducer(connection=redisbox.unix_url, prefix=prefix) as flows:
        parent = await flows.get_flow("mail", added["parent"].attributes["bullmq.job.id"], states=True)
    assert isinstance(parent, toromq.JobNode)
    (child,) = parent.children
    assert (parent.children_count, child.children_count) == (1, 0)
    assert child.job.opts["tm"].startswith(_carried(added["child"]))
    assert parent.job.opts["tm"].startswith(_carried(added["parent"]))


@_all_sides
async def test_a_failed_attempt_leaves_its_trace_in_the_job(
    which: str, sides: dict[str, Traced], keys: QueueKeys
) -> None:
    side = sides[which]
    await side.work(failures=1)
    job_id = await side.add("welcome")
    added = await side.span("add mail.welcome")
    await side.span("fail mail")
    stored = keys.hash(job_id)
    kept, opts = json.loads(stored["tm"]), stored["opts"]
    assert kept["traceparent"].split("-")[1] == added.trace_id
    # Node keeps the span that wrote the failure, we the one that failed; the next attempt belongs to neither.
    assert kept["traceparent"].split("-")[2] != added.span_id
    assert opts["tm"].startswith(_carried(added))


@_all_sides
async def test_who_wins_of_the_trace_and_the_callers_metadata(
    which: str, sides: dict[str, Traced], keys: QueueKeys
) -> None:
    side = sides[which]
    mine, omitted = {"telemetry": {"metadata": "mine"}}, {"telemetry": {"omit_context": True, "metadata": "mine"}}
    ids = [await side.add("a", **mine), await side.add("b", **omitted)]
    ids += await side.add_bulk([("c", mine), ("d", omitted)])
    stored = [keys.hash(job_id)["opts"] for job_id in ids]
    added = await side.span("add mail.a")
    assert stored[0]["tm"].startswith(_carried(added))
    assert [job["tm"] for job in stored[1:]] == ["mine"] * 3
    assert [job.get("omc") for job in stored] == [None, True, None, True]


@pytest.mark.parametrize("which", ["async", "sync"])
async def test_spans_of_a_queue_are_named_as_in_node(which: str, sides: dict[str, Traced]) -> None:
    """Every operation that Node makes a span for: the same name, kind and attributes, in the same order."""
    told = []
    for side in (sides["node"], sides[which]):
        await side.add("welcome", delay=60_000)
        await side.add_bulk([("a", {"delay": 60_000}), ("b", {"delay": 60_000})])
        for operation, *arguments in (
            ("pause",), ("resume",), ("rate_limit", 1), ("drain",), ("drain", True), ("clean", 5, 7, "completed"),
            ("promote_jobs",), ("retry_jobs",), ("trim_events", 10), ("remove_deduplication_key", "d"),
            ("remove", "none"), ("get_job_counts",), ("count",), ("is_paused",), ("remove_rate_limit_key",),
        ):  # fmt: skip
            await side.call(operation, *arguments)
        told.append([(span.name, span.kind, _comparable(span.attributes)) for span in await side.spans()])
    assert told[0] == told[1]


@pytest.mark.parametrize("which", ["async", "sync"])
async def test_spans_of_a_worker_are_named_as_in_node(which: str, sides: dict[str, Traced]) -> None:
    told = []
    for side in (sides["node"], sides[which]):
        await side.add("welcome", attempts=2)
        await side.work(failures=1)
        await side.ended("process mail", 2)
        await side.ended("complete mail")
        # Ours end in another order: what is written is written later.
        spans = [span for span in await side.spans() if span.name in _OF_A_RUN]
        told.append(sorted((span.name, span.kind, _comparable(span.attributes)) for span in spans))
        await side.rest()
    assert told[0] == told[1]


_OF_A_RUN = ("add mail.welcome", "process mail", "retry mail", "complete mail")


def _comparable(attributes: dict[str, Any]) -> list[tuple[str, Any]]:
    """Without ids and times; options as they are written by each."""
    own = ("timestamp", "worker.id", "job.id", "options")
    return sorted((name, None if name.endswith(own) else value) for name, value in attributes.items())
