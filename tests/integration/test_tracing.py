"""Spans of queues and workers, the trace that jobs carry, and the metrics that go with them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import redis as redispy
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

import toromq.sync
from tests.support.eventually import aeventually
from tests.support.redisbox import RedisBox
from tests.support.tracing import Recorder, attributes, header, is_child
from toromq import (
    ConfigurationError,
    DelayedError,
    ParentNotFoundError,
    Queue,
    RateLimitError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
    Worker,
)
from toromq.telemetry import OpenTelemetry, Span, Telemetry

_both_faces = pytest.mark.parametrize("face", [toromq, toromq.sync])
_KINDS = ("async def", "def", "def, blocking worker", "child process")
_all_kinds = pytest.mark.parametrize("kind", _KINDS)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What is traced."""
    made = Recorder()
    yield made
    made.close()


@pytest.fixture
def options(redisbox: RedisBox, prefix: str, recorder: Recorder) -> dict[str, Any]:
    """Of queues and workers that are traced."""
    return {"connection": redisbox.unix_url, "prefix": prefix, "telemetry": recorder.telemetry}


async def _call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a method of either face, in the same context."""
    if asyncio.iscoroutinefunction(method):
        return await method(*arguments, **options)
    return await asyncio.to_thread(method, *arguments, **options)


def _stored(redis: redispy.Redis, prefix: str, job_id: str) -> dict[str, Any]:
    opts: dict[str, Any] = json.loads(redis.hget(f"{prefix}:mail:{job_id}", "opts") or "{}")
    return opts


_TREE: dict[str, Any] = {
    "name": "report",
    "queue_name": "reports",
    "children": [
        {"name": "first", "queue_name": "pages"},
        {"name": "second", "queue_name": "pages", "opts": {"telemetry": {"metadata": "mine"}}},
    ],
}


class TestAdding:
    @_both_faces
    async def test_a_job_carries_the_span_that_added_it(
        self, face: Any, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        queue = face.Queue("mail", **options)
        with recorder.tracer.start_as_current_span("request") as request:
            job = await _call(queue.add, "welcome", {"to": "ada"})
        span = recorder.span("add mail.welcome")
        assert span.kind is SpanKind.PRODUCER
        assert attributes(span) == {
            "bullmq.queue.name": "mail",
            "bullmq.queue.operation": "add",
            "bullmq.job.name": "welcome",
            "bullmq.job.id": job.id,
        }
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert json.loads(_stored(redis, prefix, job.id)["tm"]) == {"traceparent": header(span)}
        await _call(queue.close)

    @_both_faces
    async def test_an_added_job_takes_no_metadata_of_its_own_unless_the_context_is_omitted(
        self, face: Any, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        queue = face.Queue("mail", **options)
        own = await _call(queue.add, "own", telemetry={"metadata": "mine"})
        omitted = await _call(queue.add, "omitted", telemetry={"omit_context": True})
        both = await _call(queue.add, "both", telemetry={"omit_context": True, "metadata": "mine"})
        assert json.loads(_stored(redis, prefix, own.id)["tm"]) == {
            "traceparent": header(recorder.span("add mail.own"))
        }
        assert _stored(redis, prefix, omitted.id) == {"attempts": 0, "omc": True}
        assert _stored(redis, prefix, both.id) == {"attempts": 0, "omc": True, "tm": "mine"}
        await _call(queue.close)

    @_both_faces
    async def test_in_a_bulk_the_callers_metadata_wins(
        self, face: Any, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        queue = face.Queue("mail", **options)
        jobs = await _call(
            queue.add_bulk,
            [
                ("a", 1),
                ("b", 2, {"telemetry": {"metadata": "mine"}}),
                ("c", 3, {"telemetry": {"omit_context": True}, "attempts": 2}),
            ],
        )
        span = recorder.span("addBulk mail")
        assert span.kind is SpanKind.PRODUCER
        assert attributes(span) == {
            "bullmq.queue.name": "mail",
            "bullmq.queue.operation": "addBulk",
            "bullmq.job.bulk.names": ("a", "b", "c"),
            "bullmq.job.bulk.count": 3,
        }
        first, second, third = (_stored(redis, prefix, job.id) for job in jobs)
        assert json.loads(first["tm"]) == {"traceparent": header(span)}
        assert second["tm"] == "mine"
        assert third == {"attempts": 2, "omc": True}
        await _call(queue.close)

    async def test_what_the_queue_gives_its_jobs_counts_as_well(
        self, options: dict[str, Any], redis: redispy.Redis, prefix: str
    ) -> None:
        defaults: Any = {"telemetry": {"omit_context": True}}
        async with Queue("mail", **options, default_job_options=defaults) as queue:
            (bulk,) = await queue.add_bulk([("a", 1)])
            single = await queue.add("a", 1)
        assert _stored(redis, prefix, bulk.id) == _stored(redis, prefix, single.id) == {"attempts": 0, "omc": True}

    async def test_adds_that_share_a_round_trip_have_a_span_each(
        self, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        async with Queue("mail", **options) as queue:
            jobs = await asyncio.gather(*(queue.add(f"n{n}", n) for n in range(20)))
        for n, job in enumerate(jobs):
            span = recorder.span(f"add mail.n{n}")
            assert attributes(span)["bullmq.job.id"] == job.id
            assert header(span) in _stored(redis, prefix, job.id)["tm"]

    @_both_faces
    async def test_a_refused_job_is_an_error_of_its_span(
        self, face: Any, options: dict[str, Any], recorder: Recorder, prefix: str
    ) -> None:
        queue = face.Queue("mail", **options)
        with pytest.raises(ParentNotFoundError):
            await _call(queue.add, "child", 1, parent={"id": "none", "queue": f"{prefix}:mail"})
        span = recorder.span("add mail.child")
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]
        await _call(queue.close)

    async def test_without_telemetry_a_job_carries_what_its_caller_says(
        self, redisbox: RedisBox, redis: redispy.Redis, prefix: str
    ) -> None:
        async with Queue("mail", connection=redisbox.unix_url, prefix=prefix) as queue:
            given = await queue.add("a", 1, telemetry={"metadata": "mine", "omit_context": True})
            plain = await queue.add("a", 1)
        assert _stored(redis, prefix, given.id) == {"attempts": 0, "omc": True, "tm": "mine"}
        assert _stored(redis, prefix, plain.id) == {"attempts": 0}

    async def test_spans_that_are_not_recorded_leave_no_trace(
        self, redisbox: RedisBox, redis: redispy.Redis, prefix: str
    ) -> None:
        telemetry = OpenTelemetry(tracer_provider=trace.NoOpTracerProvider())
        async with Queue("mail", connection=redisbox.unix_url, prefix=prefix, telemetry=telemetry) as queue:
            job = await queue.add("a", 1)
        assert _stored(redis, prefix, job.id) == {"attempts": 0}


class TestSchedulers:
    @_both_faces
    async def test_the_jobs_of_a_scheduler_carry_the_span_that_set_it_up(
        self, face: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        queue = face.Queue("mail", **options)
        job = await _call(queue.upsert_job_scheduler, "often", every=50, name="beat")
        span = recorder.span("add mail.beat")
        assert span.kind is SpanKind.PRODUCER
        assert attributes(span) == {
            "bullmq.queue.name": "mail",
            "bullmq.queue.operation": "add",
            "bullmq.job.scheduler.id": "often",
            "bullmq.job.id": job.id,
        }
        async with _Running(face.Worker("mail", _function, **options)):

            def some() -> bool:
                return len(recorder.spans("process mail")) >= 3

            await aeventually(some)
            await _call(queue.remove_job_scheduler, "often")
        assert all(is_child(ran, span) for ran in recorder.spans("process mail"))
        await _call(queue.close)

    @_both_faces
    async def test_a_schedulers_own_metadata_wins(self, face: Any, options: dict[str, Any]) -> None:
        queue = face.Queue("mail", **options)
        mine = {"telemetry": {"metadata": "mine"}}
        job = await _call(queue.upsert_job_scheduler, "a", every=60_000, opts=mine)
        assert job.opts["tm"] == "mine"
        omitted = await _call(queue.upsert_job_scheduler, "b", every=60_000, opts={"telemetry": {"omit_context": True}})
        assert "tm" not in omitted.opts
        with pytest.raises(ConfigurationError, match=r"^opts: got 5"):
            await _call(queue.upsert_job_scheduler, "c", every=60_000, opts=5)
        await _call(queue.close)


class TestFlows:
    @_both_faces
    async def test_each_job_of_a_flow_carries_a_span_below_that_of_the_job_above_it(
        self, face: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        flows = face.FlowProducer(**options)
        tree = await _call(flows.add, _TREE)
        flow = recorder.span("addFlow reports")
        assert attributes(flow) == {
            "bullmq.queue.name": "reports",
            "bullmq.queue.operation": "addFlow",
            "bullmq.flow.name": "report",
        }
        report, page = recorder.span("addNode reports"), recorder.spans("addNode pages")[1]
        assert {span.kind for span in recorder.spans()} == {SpanKind.PRODUCER}
        assert is_child(report, flow)
        assert is_child(page, report)
        assert attributes(page) == {
            "bullmq.queue.name": "pages",
            "bullmq.queue.operation": "addNode",
            "bullmq.job.name": "first",
            "bullmq.job.id": tree.children[0].job.id,
        }
        carried = [node.job.opts.get("tm") for node in (tree, *tree.children)]
        assert [json.loads(carried[n] or "")["traceparent"] for n in (0, 1)] == [header(report), header(page)]
        assert carried[2] == "mine"
        await _call(flows.close)

    @_both_faces
    async def test_flows_that_are_added_at_once_have_one_span_above_them(
        self, face: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        flows = face.FlowProducer(**options)
        await _call(flows.add_bulk, [_TREE, {"name": "alone", "queue_name": "reports"}])
        span = recorder.span("addBulkFlows")
        assert dict(attributes(span)) == {
            "bullmq.queue.name": "",
            "bullmq.queue.operation": "addBulkFlows",
            "bullmq.job.bulk.count": 2,
            "bullmq.job.bulk.names": ("report", "alone"),
        }
        assert [is_child(each, span) for each in recorder.spans("addNode reports")] == [True, True]
        await _call(flows.close)

    @_both_faces
    @pytest.mark.parametrize("flow", [{"name": "n"}, {**_TREE, "opts": {"attempts": -1}}, 5], ids=str)
    async def test_a_flow_that_is_refused_ends_its_spans(
        self, face: Any, flow: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        flows = face.FlowProducer(**options)
        with pytest.raises(ConfigurationError):
            await _call(flows.add, flow)
        assert recorder.spans()[-1].status.status_code is StatusCode.ERROR
        assert recorder.names()[-1].startswith("addFlow")
        await _call(flows.close)


_OPERATIONS: list[tuple[str, tuple[Any, ...], SpanKind, dict[str, Any]]] = [
    ("pause", (), SpanKind.INTERNAL, {}),
    ("resume", (), SpanKind.INTERNAL, {}),
    ("rate_limit", (5,), SpanKind.INTERNAL, {"bullmq.queue.rate.limit": 5}),
    ("update_job_progress", ("j", [5]), SpanKind.INTERNAL, {"bullmq.job.id": "j", "bullmq.job.progress": "[5]"}),
    ("drain", (True,), SpanKind.INTERNAL, {"bullmq.queue.drain.delay": True}),
    (
        "clean",
        (7, 8, "failed"),
        SpanKind.INTERNAL,
        {
            "bullmq.queue.grace": 7,
            "bullmq.queue.clean.limit": 8,
            "bullmq.job.type": "failed",
            "bullmq.queue.clean.count": 0,
        },
    ),
    ("retry_jobs", (), SpanKind.PRODUCER, {"bullmq.queue.options": '{"state": "failed", "count": 1000}'}),
    ("promote_jobs", (), SpanKind.INTERNAL, {"bullmq.queue.options": '{"count": 1000}'}),
    ("trim_events", (10,), SpanKind.INTERNAL, {"bullmq.queue.event.max.length": 10}),
    ("remove_deduplication_key", ("d",), SpanKind.INTERNAL, {"bullmq.job.deduplication.key": "d"}),
    (
        "remove",
        ("j",),
        SpanKind.INTERNAL,
        {"bullmq.job.id": "j", "bullmq.job.options": '{"removeChildren": true}'},
    ),
    ("obliterate", (), SpanKind.INTERNAL, {}),
    ("close", (), SpanKind.INTERNAL, {}),
]


class TestOperations:
    @_both_faces
    @pytest.mark.parametrize(("method", "arguments", "kind", "told"), _OPERATIONS, ids=lambda given: str(given))
    async def test_an_operation_of_a_queue_has_a_span(
        self,
        face: Any,
        method: str,
        arguments: tuple[Any, ...],
        kind: SpanKind,
        told: dict[str, Any],
        options: dict[str, Any],
        recorder: Recorder,
    ) -> None:
        queue = face.Queue("mail", **options)
        await _call(face.Queue("mail", **{**options, "telemetry": None}).add, "a", 1, job_id="j")
        await _call(getattr(queue, method), *arguments)
        head, *tail = method.split("_")
        operation = head + "".join(word.capitalize() for word in tail)
        span = recorder.span(f"{operation} mail")
        assert span.kind is kind
        assert attributes(span) == {"bullmq.queue.name": "mail", "bullmq.queue.operation": operation, **told}
        assert recorder.names() == [f"{operation} mail"]
        await _call(queue.close)

    @_both_faces
    async def test_counts_of_jobs_are_told_as_a_gauge(
        self, face: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        queue = face.Queue("mail", **options)
        await _call(queue.add_bulk, [("a", 1), ("b", 2), ("c", 3, {"delay": 60_000})])
        assert await _call(queue.record_job_counts_metric, "waiting", "delayed") == {"waiting": 2, "delayed": 1}
        assert recorder.measured()["bullmq.queue.jobs"] == {
            frozenset({("bullmq.queue.name", "mail"), ("bullmq.queue.jobs.state", "waiting")}): 2,
            frozenset({("bullmq.queue.name", "mail"), ("bullmq.queue.jobs.state", "delayed")}): 1,
        }
        assert len(await _call(queue.record_job_counts_metric)) == 7
        await _call(queue.close)

    @_both_faces
    async def test_there_is_nobody_to_tell_without_telemetry(self, face: Any) -> None:
        with pytest.raises(ConfigurationError, match="telemetry: None"):
            await _call(face.Queue("mail").record_job_counts_metric)


def _traceparent() -> str:
    return header(trace.get_current_span())


async def _coroutine(job: Any) -> str:
    await asyncio.sleep(0)
    return _traceparent()


def _function(job: Any) -> str:
    return _traceparent()


def _worker(kind: str, options: Mapping[str, Any], **more: Any) -> Any:
    module: Any = toromq.sync if kind == "def, blocking worker" else toromq
    processors: dict[str, Any] = {"async def": _coroutine, "child process": "tests.integration.test_tracing:_function"}
    return module.Worker("mail", processors.get(kind, _function), **{**options, "name": "w", **more})


class _Running:
    """A worker of either face, in a block of a coroutine."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._is_async = isinstance(worker, Worker)

    async def __aenter__(self) -> Any:
        await _call(self._worker.__aenter__ if self._is_async else self._worker.__enter__)
        return self._worker

    async def __aexit__(self, *_: object) -> None:
        await _call(self._worker.close)


class TestRuns:
    @_all_kinds
    async def test_a_processor_runs_in_a_span_below_the_one_that_added_its_job(
        self, kind: str, options: dict[str, Any], recorder: Recorder
    ) -> None:
        async with Queue("mail", **options) as queue:
            job = await queue.add("welcome", 1)
            async with _Running(_worker(kind, options)):
                seen = await queue.wait_until_finished(job.id, 20_000)
                (written,) = await recorder.ended("complete mail")
                (span,) = await recorder.ended("process mail")
        added = recorder.span("add mail.welcome")
        assert is_child(span, added)
        assert is_child(written, span)
        # In a child process the header is what it was given: the same span, by its context.
        assert seen == header(span)
        assert (span.kind, written.kind) == (SpanKind.CONSUMER, SpanKind.INTERNAL)
        assert span.status.status_code is StatusCode.UNSET
        assert [event.name for event in span.events] == ["job completed"]
        told = dict(attributes(span))
        assert told.pop("bullmq.worker.id")
        assert told.pop("bullmq.job.attempt_finished_timestamp") >= told.pop("bullmq.job.processed.timestamp") > 0
        assert told == {
            "bullmq.queue.name": "mail",
            "bullmq.queue.operation": "process",
            "bullmq.worker.name": "w",
            "bullmq.job.id": job.id,
            "bullmq.job.name": "welcome",
            "bullmq.job.attempts.made": 1,
        }
        state = {("bullmq.queue.name", "mail"), ("bullmq.job.name", "welcome"), ("bullmq.job.state", "completed")}
        measured = recorder.measured()
        assert measured["bullmq.jobs.completed"] == {frozenset(state): 1}
        assert measured["bullmq.job.duration"] == {frozenset(state): 1}

    @pytest.mark.parametrize("kind", _KINDS[:3])
    async def test_jobs_added_by_a_processor_go_on_with_its_trace(
        self, kind: str, options: dict[str, Any], recorder: Recorder
    ) -> None:
        async with Queue("mail", **options) as queue, Queue("next", **options) as following:

            async def coroutine(job: Any) -> None:
                await following.add("second", 2)

            def function(job: Any) -> None:
                with toromq.sync.Queue("next", **options) as blocking:
                    blocking.add("second", 2)

            job = await queue.add("first", 1)
            module: Any = toromq.sync if kind == "def, blocking worker" else toromq
            processor = coroutine if kind == "async def" else function
            async with _Running(module.Worker("mail", processor, **options)):
                await queue.wait_until_finished(job.id, 20_000)
                (process,) = await recorder.ended("process mail")
        assert is_child(recorder.span("add next.second"), process)

    @pytest.mark.parametrize("kind", _KINDS[:3])
    @pytest.mark.parametrize("carried", [None, "mine", "[]", '{"traceparent": 5}'])
    async def test_a_job_that_carries_nothing_begins_a_trace(
        self, kind: str, carried: str | None, options: dict[str, Any], recorder: Recorder
    ) -> None:
        untraced = {**options, "telemetry": None}
        # The worker runs within a span of its program's, which no job belongs to.
        with recorder.tracer.start_as_current_span("program"):
            async with Queue("mail", **untraced) as queue, _Running(_worker(kind, options)):
                metadata: Any = {} if carried is None else {"metadata": carried}
                await queue.add("welcome", 1, telemetry=metadata)
                await queue.add("welcome", 1, telemetry=metadata)
                first, second = await recorder.ended("process mail", 2)
        assert first.parent is second.parent is None
        assert first.context.trace_id != second.context.trace_id

    @pytest.mark.parametrize("kind", _KINDS[:3])
    async def test_each_failed_attempt_is_an_error_of_its_span(
        self, kind: str, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        async def coroutine(job: Any) -> None:
            raise ValueError(f"attempt {job.attempts_started}")

        def function(job: Any) -> None:
            raise ValueError(f"attempt {job.attempts_started}")

        module: Any = toromq.sync if kind == "def, blocking worker" else toromq
        processor = coroutine if kind == "async def" else function
        async with Queue("mail", **options) as queue:
            delays = {"attempts": 3, "backoff": {"type": "later"}}
            async with _Running(
                module.Worker("mail", processor, **options, backoff_strategy=lambda attempt, *_: 10 * (attempt - 1))
            ):
                job = await queue.add("welcome", 1, **delays)
                (failed,) = await recorder.ended("fail mail")
                spans = await recorder.ended("process mail", 3)
        added = recorder.span("add mail.welcome")
        assert all(is_child(span, added) for span in spans)
        for attempt, span in enumerate(spans, 1):
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description == f"ValueError: attempt {attempt}"
            assert {event.name: dict(event.attributes or {}) for event in span.events}["job failed"] == {
                "bullmq.job.failed.reason": f"attempt {attempt}"
            }
            assert attributes(span)["bullmq.job.attempts.made"] == attempt
        assert is_child(recorder.span("retry mail"), spans[0])
        assert is_child(recorder.span("delay mail"), spans[1])
        assert is_child(failed, spans[2])
        kept = redis.hmget(f"{prefix}:mail:{job.id}", "tm", "opts")
        assert json.loads(kept[0]) == {"traceparent": header(spans[2])}
        # What the next attempt belongs to is still the add.
        assert header(added) in kept[1]
        measured = recorder.measured()
        for state in ("retried", "delayed", "failed"):
            key = frozenset(
                {("bullmq.queue.name", "mail"), ("bullmq.job.name", "welcome"), ("bullmq.job.state", state)}
            )
            assert measured[f"bullmq.jobs.{state}"] == {key: 1}
            assert measured["bullmq.job.duration"][key] == 1

    async def test_an_error_whose_message_breaks_is_told_all_the_same(
        self, options: dict[str, Any], recorder: Recorder
    ) -> None:
        class Broken(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no message")

        async def processor(job: Any) -> None:
            raise Broken

        async with Queue("mail", **options) as queue, Worker("mail", processor, **options):
            await queue.add("welcome", 1)
            await recorder.ended("fail mail")
            (span,) = await recorder.ended("process mail")
        assert span.status.status_code is StatusCode.ERROR

    @pytest.mark.parametrize("to", ["delayed", "delayed by its error", "waiting", "limited", "waiting_children"])
    async def test_a_job_that_is_put_off_has_not_failed(
        self, to: str, options: dict[str, Any], recorder: Recorder
    ) -> None:
        async with Queue("mail", **options) as queue:

            async def processor(job: Any) -> None:
                if job.name == "child" or job.attempts_started > 1:
                    return
                if to == "delayed":
                    await job.move_to_delayed(1)
                    raise DelayedError
                if to == "delayed by its error":
                    raise DelayedError(delay=1)
                if to == "waiting":
                    await job.move_to_wait()
                    raise WaitingError
                if to == "limited":
                    raise RateLimitError(retry_after=1)
                await queue.add("child", 1, parent=job)
                raise WaitingChildrenError

            async with Worker("mail", processor, **options):
                job = await queue.add("welcome", 1)
                await queue.wait_until_finished(job.id, 20_000)
                await recorder.ended("complete mail", 2 if to == "waiting_children" else 1)
        spans = [span for span in recorder.spans("process mail") if attributes(span)["bullmq.job.id"] == job.id]
        assert [span.status.status_code for span in spans] == [StatusCode.UNSET] * 2
        assert "bullmq.job.attempts.made" not in attributes(spans[0])
        state = {"delayed by its error": "delayed", "limited": "waiting"}.get(to, to)
        assert list(recorder.measured()[f"bullmq.jobs.{state}"].values()) == [1]

    async def test_a_job_that_no_worker_may_run_fails_in_its_own_trace(
        self, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        async with Queue("mail", **options) as queue:
            job = await queue.add("welcome", 1)
            redis.hset(f"{prefix}:mail:{job.id}", "defa", "not to be run")
            async with Worker("mail", _coroutine, **options):
                (failed,) = await recorder.ended("fail mail")
        assert is_child(failed, recorder.span("add mail.welcome"))
        assert recorder.spans("process mail") == []

    @_both_faces
    async def test_what_is_done_to_a_worker_has_a_span(
        self, face: Any, options: dict[str, Any], recorder: Recorder
    ) -> None:
        async with _Running(face.Worker("mail", _function, **options, name="w")) as worker:
            await _call(worker.pause)
            await _call(worker.resume)
            await _call(worker.rate_limit, 5)
        told = {span.name: dict(attributes(span)) for span in recorder.spans()}
        assert {name: sorted(set(each) - {"bullmq.worker.id"}) for name, each in told.items()} == {
            f"{operation} mail": sorted(["bullmq.queue.name", "bullmq.queue.operation", "bullmq.worker.name", *more])
            for operation, *more in (
                ("pause", "bullmq.worker.do.not.wait.active"),
                ("resume",),
                ("rateLimit", "bullmq.worker.rate.limit"),
                ("close", "bullmq.worker.force.close"),
            )
        }
        assert len({each["bullmq.worker.id"] for each in told.values()}) == 1

    async def test_a_worker_that_is_traced_keeps_nothing_of_its_jobs(self, options: dict[str, Any]) -> None:
        async def processor(job: Any) -> None:
            if job.data:
                raise UnrecoverableError("no")

        async with Queue("mail", **options) as queue, Worker("mail", processor, **options) as worker:
            await queue.add_bulk([("a", n % 2) for n in range(50)])

            async def all_done() -> bool:
                assert await queue.get_job_counts("completed", "failed") == {"completed": 25, "failed": 25}
                assert worker._tracing is not None
                assert worker._tracing._ends == {}
                return True

            await aeventually(all_done)


class TestByHand:
    @_both_faces
    async def test_jobs_that_are_fetched_and_finished_by_hand(
        self, face: Any, options: dict[str, Any], recorder: Recorder, redis: redispy.Redis, prefix: str
    ) -> None:
        queue, worker = face.Queue("mail", **options), face.Worker("mail", **options)
        for name in ("good", "bad"):
            await _call(queue.add, name, 1)
        good = await _call(worker.get_next_job, "token")
        bad = await _call(good.move_to_completed, 1, "token")
        await _call(bad.move_to_failed, ValueError("why"), "token")
        assert await _call(worker.get_next_job, "token", block=False) is None
        fetched = recorder.spans("getNextJob mail")
        assert is_child(fetched[0], recorder.span("add mail.good"))
        assert attributes(fetched[0])["bullmq.job.id"] == good.id
        assert attributes(recorder.span("complete mail"))["bullmq.job.id"] == good.id
        failed = recorder.span("fail mail")
        assert json.loads(redis.hget(f"{prefix}:mail:{bad.id}", "tm") or "") == {"traceparent": header(failed)}
        assert sorted(recorder.measured()) == ["bullmq.jobs.completed", "bullmq.jobs.failed"]
        await _call(worker.close)
        await _call(queue.close)

    @_both_faces
    @pytest.mark.parametrize(("attempts", "backoff", "operation"), [(1, 0, "fail"), (2, 0, "retry"), (2, 9, "delay")])
    async def test_a_job_that_is_processed_by_hand(
        self, face: Any, attempts: int, backoff: int, operation: str, options: dict[str, Any], recorder: Recorder
    ) -> None:
        seen: list[str] = []

        def processor(job: Any) -> None:
            seen.append(_traceparent())
            if job.name == "bad":
                raise ValueError("why")

        queue, worker = face.Queue("mail", **options), face.Worker("mail", processor, **options)
        await _call(queue.add, "good", 1)
        await _call(worker.process_job, await _call(worker.get_next_job, "token"), fetch_next=False)
        await _call(queue.add, "bad", 1, attempts=attempts, backoff=backoff)
        await _call(worker.process_job, await _call(worker.get_next_job, "token"), fetch_next=False)
        good, bad = recorder.spans("process mail")
        assert seen == [header(good), header(bad)]
        assert is_child(good, recorder.span("add mail.good"))
        assert is_child(recorder.span("complete mail"), good)
        assert is_child(recorder.span(f"{operation} mail"), bad)
        assert (good.status.status_code, bad.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
        await _call(worker.close)
        await _call(queue.close)


class _Notes:
    """A tracer of another kind."""

    class _Span:
        def __init__(self, notes: _Notes, name: str) -> None:
            self._notes, self._name = notes, name

        def context(self) -> str | None:
            return f"note {self._name}"

        def current(self) -> AbstractContextManager[object]:
            return nullcontext()

        def set_attributes(self, attributes: Mapping[str, Any]) -> None: ...

        def add_event(self, name: str, attributes: Mapping[str, Any]) -> None: ...

        def fail(self, error: BaseException) -> None: ...

        def end(self) -> None:
            self._notes.ended.append(self._name)

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.parents: dict[str, Any] = {}

    def start_span(
        self,
        name: str,
        kind: Any,
        attributes: Mapping[str, Any],
        *,
        parent: Span | str | None = None,
        started: int | None = None,
    ) -> Span:
        self.parents[name] = parent
        return self._Span(self, name)

    def count(self, name: str, attributes: Mapping[str, Any]) -> None: ...

    def duration(self, name: str, milliseconds: float, attributes: Mapping[str, Any]) -> None: ...

    def gauge(self, name: str, value: int, attributes: Mapping[str, Any]) -> None: ...


class _Broken:
    """A tracer that raises in one place."""

    def __init__(self, broken: str) -> None:
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            if name == self._broken:
                raise RuntimeError(f"no {name}")
            if name in ("start_span", "current"):
                return self
            return "note" if name == "context" else None

        return method

    def __enter__(self) -> Any:
        if self._broken == "enter":
            raise RuntimeError("no enter")
        return self

    def __exit__(self, *_: object) -> None:
        if self._broken == "leave":
            raise RuntimeError("no leave")


class TestTracers:
    async def test_any_tracer_can_be_used(self, redisbox: RedisBox, prefix: str) -> None:
        notes: Telemetry = _Notes()
        options: dict[str, Any] = {"connection": redisbox.unix_url, "prefix": prefix, "telemetry": notes}
        async with Queue("mail", **options) as queue, Worker("mail", _coroutine, **options):
            await queue.wait_until_finished((await queue.add("welcome", 1)).id, 20_000)
            await aeventually(lambda: "complete mail" in notes.ended)
        assert notes.parents["process mail"] == "note add mail.welcome"

    @_both_faces
    @pytest.mark.parametrize(
        "broken",
        [
            *("start_span", "count", "duration", "gauge"),
            *("context", "current", "set_attributes", "add_event", "fail", "end", "enter", "leave"),
        ],
    )
    async def test_a_tracer_that_raises_stops_nothing(
        self, redisbox: RedisBox, prefix: str, face: Any, broken: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        options: dict[str, Any] = {"connection": redisbox.unix_url, "prefix": prefix, "telemetry": _Broken(broken)}
        queue, flow = face.Queue("mail", **options), face.FlowProducer(**options)

        def process(job: Any) -> None:
            if job.name == "bad":
                raise ValueError

        async with _Running(face.Worker("mail", process, **options)):
            good = await _call(queue.add, "good", 1)
            bad = await _call(queue.add, "bad", 1, attempts=2)
            child = {"name": "good", "queue_name": "mail"}
            tree = await _call(flow.add, {**child, "children": [child]})
            await _call(queue.upsert_job_scheduler, "s", every=60_000, name="good")

            async def all_ended() -> bool:
                counts = await _call(queue.get_job_counts, "completed", "failed", "delayed")
                return bool(counts == {"completed": 4, "failed": 1, "delayed": 1})

            await aeventually(all_ended)
        await _call(queue.record_job_counts_metric)
        assert (await _call(queue.get_job, bad.id)).attempts_made == 2
        assert [await _call(job.get_state) for job in (good, tree.job)] == ["completed", "completed"]
        await _call(queue.close)
        await _call(flow.close)
        assert "raised; the work goes on untraced" in caplog.text

    @_both_faces
    @pytest.mark.parametrize("given", [True, "otel", object(), trace.NoOpTracer()])
    def test_what_is_no_tracer_is_refused(self, face: Any, given: Any) -> None:
        for made, name in ((face.Queue, ["mail"]), (face.Worker, ["mail"]), (face.FlowProducer, [])):
            with pytest.raises(ConfigurationError, match=r"^telemetry: got .*OpenTelemetry\(\)"):
                made(*name, telemetry=given)

    def test_a_missing_package_is_named(self) -> None:
        program = (
            "import sys\n"
            "sys.modules['opentelemetry'] = None\n"
            "import toromq, toromq.sync, toromq.telemetry\n"
            "toromq.Queue('mail'), toromq.Worker('mail')\n"
            "try: toromq.telemetry.OpenTelemetry()\n"
            "except toromq.ConfigurationError as error: print(error)\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "pip install toromq[otel]" in ran.stdout

    def test_nothing_is_imported_for_those_who_do_not_trace(self) -> None:
        program = "import sys, toromq\ntoromq.Queue('mail'), toromq.Worker('mail')\nprint(*sys.modules)"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "opentelemetry" not in ran.stdout
        assert "toromq.telemetry" not in ran.stdout.split()
