"""Which spans queues and workers make, and what they say: names and attributes are those of BullMQ."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from toromq._failure import failure_of
from toromq._guards import is_mapping
from toromq._job_fields import JobFields, Run
from toromq._tracer_guard import Guard
from toromq.errors import ConfigurationError, DelayedError

if TYPE_CHECKING:
    from toromq.telemetry import Attributes, Span, SpanKind, Telemetry

QUEUE: Final = "bullmq.queue.name"
OPERATION: Final = "bullmq.queue.operation"
BULK_COUNT: Final = "bullmq.job.bulk.count"
BULK_NAMES: Final = "bullmq.job.bulk.names"
JOB_NAME: Final = "bullmq.job.name"
JOB_ID: Final = "bullmq.job.id"
JOB_STATE: Final = "bullmq.job.state"
JOB_TYPE: Final = "bullmq.job.type"
JOB_PROGRESS: Final = "bullmq.job.progress"
JOB_OPTIONS: Final = "bullmq.job.options"
ATTEMPTS_MADE: Final = "bullmq.job.attempts.made"
ATTEMPT_FINISHED: Final = "bullmq.job.attempt_finished_timestamp"
PROCESSED: Final = "bullmq.job.processed.timestamp"
FAILED_REASON: Final = "bullmq.job.failed.reason"
SCHEDULER_ID: Final = "bullmq.job.scheduler.id"
FLOW_NAME: Final = "bullmq.flow.name"
DEDUPLICATION_KEY: Final = "bullmq.job.deduplication.key"
DRAIN_DELAYED: Final = "bullmq.queue.drain.delay"
GRACE: Final = "bullmq.queue.grace"
CLEAN_LIMIT: Final = "bullmq.queue.clean.limit"
CLEAN_COUNT: Final = "bullmq.queue.clean.count"
QUEUE_RATE_LIMIT: Final = "bullmq.queue.rate.limit"
QUEUE_OPTIONS: Final = "bullmq.queue.options"
EVENTS_LENGTH: Final = "bullmq.queue.event.max.length"
JOBS_STATE: Final = "bullmq.queue.jobs.state"
WORKER_ID: Final = "bullmq.worker.id"
WORKER_NAME: Final = "bullmq.worker.name"
WORKER_RATE_LIMIT: Final = "bullmq.worker.rate.limit"
WORKER_OPTIONS: Final = "bullmq.worker.options"
DO_NOT_WAIT_ACTIVE: Final = "bullmq.worker.do.not.wait.active"
FORCE_CLOSE: Final = "bullmq.worker.force.close"

NO_SPAN: Final = contextlib.nullcontext()
# Of a bulk of any size, so many names are told.
MOST_NAMES: Final = 100
_METHODS: Final = ("start_span", "count", "duration", "gauge")

Ending = Literal["completed", "failed", "retried", "delayed", "waiting", "waiting-children"]
_PLACES: Final[Mapping[str, Ending]] = {
    "delayed": "delayed",
    "wait": "waiting",
    "waiting-children": "waiting-children",
}
_OPERATIONS: Final = {"completed": "complete", "failed": "fail", "retried": "retry", "delayed": "delay"}


def options_text(options: Mapping[str, Any]) -> str:
    """What an operation was told, as its span tells it."""
    import json

    return json.dumps(options)


def check_telemetry(given: Any) -> Telemetry | None:
    """A tracer of which no method raises, or None."""
    if given is None:
        return None
    if not all(callable(getattr(given, method, None)) for method in _METHODS):
        raise ConfigurationError(
            f"telemetry: got {given!r}; allowed is toromq.telemetry.OpenTelemetry(), or an object that has the methods "
            "of toromq.telemetry.Telemetry"
        )
    return Guard(given)


def carrying(
    options: Mapping[str, Any], defaults: Mapping[str, Any], context: str | None, *, overwrite: bool
) -> Mapping[str, Any]:
    """Options of a job that carries its trace, unless it is told not to; metadata of its own goes first or not."""
    own = options.get("telemetry") if options.get("telemetry") is not None else defaults.get("telemetry")
    if own is None:
        own = {}
    # What is neither is refused with all other options.
    if context is None or not is_mapping(own) or own.get("omit_context"):
        return options
    if not overwrite and own.get("metadata") is not None:
        return options
    return {**options, "telemetry": {**own, "metadata": context}}


class QueueTracing:
    """The spans of one queue."""

    def __init__(self, telemetry: Telemetry, queue_name: str, always: Mapping[str, str] | None = None) -> None:
        """`always` is told of what is done to it, beside the queue and the operation."""
        self._telemetry = telemetry
        self._queue = queue_name
        self._always = always or {}

    def _start(
        self,
        operation: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        destination: str | None = None,
        parent: Span | str | None = None,
        started: int | None = None,
    ) -> Span:
        name = f"{operation} {destination or self._queue}".rstrip()
        told = {QUEUE: self._queue, OPERATION: operation, **attributes}
        return self._telemetry.start_span(name, kind, told, parent=parent, started=started)

    @contextlib.contextmanager
    def span(
        self,
        operation: str,
        attributes: Attributes | None = None,
        kind: SpanKind = "internal",
        destination: str | None = None,
    ) -> Generator[Span]:
        """A span, current for what is done in the block."""
        told = {**self._always, **(attributes or {})}
        with self._around(self._start(operation, kind, told, destination=destination)) as span:
            yield span

    @contextlib.contextmanager
    def _around(self, span: Span) -> Generator[Span]:
        try:
            with span.current():
                yield span
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            span.end()

    def job_counts(self, counts: Mapping[str, int]) -> None:
        """Say how many jobs are in each state."""
        for state, count in counts.items():
            self._telemetry.gauge("bullmq.queue.jobs", count, {QUEUE: self._queue, JOBS_STATE: state})


class FlowSpans:
    """The spans of the jobs of flows that are being added."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Within the current span."""
        self._telemetry = telemetry
        self._begun: list[Span] = []

    def begin(self, queue_name: str, name: str, job_id: str, above: Span | None) -> Span:
        """One for a job, below that of the job above it."""
        told = {QUEUE: queue_name, OPERATION: "addNode", JOB_NAME: name, JOB_ID: job_id}
        span = self._telemetry.start_span(f"addNode {queue_name}", "producer", told, parent=above)
        self._begun.append(span)
        return span

    def end(self) -> None:
        """All of them, those below before those above."""
        for span in reversed(self._begun):
            span.end()


@contextlib.contextmanager
def adding_flows(telemetry: Telemetry, flows: list[Any], in_bulk: bool) -> Generator[FlowSpans]:
    """The span of flows that are added in one step, current in the block, and those of their jobs."""
    names, queues = ([_part(flow, part) for flow in flows] for part in ("name", "queue_name"))
    if in_bulk:
        tracing = QueueTracing(telemetry, "")
        around = tracing.span("addBulkFlows", {BULK_COUNT: len(flows), BULK_NAMES: names[:MOST_NAMES]}, "producer")
    else:
        around = QueueTracing(telemetry, queues[0]).span("addFlow", {FLOW_NAME: names[0]}, "producer")
    with around:
        spans = FlowSpans(telemetry)
        try:
            yield spans
        finally:
            spans.end()


def _part(flow: Any, name: str) -> str:
    # Whatever it is: it is checked later.
    return str(flow.get(name, "") if is_mapping(flow) else getattr(flow, name, ""))


class _End(NamedTuple):
    """A run whose outcome is on its way to Redis."""

    span: Span
    # When that was, in nanoseconds since the epoch, and how many milliseconds the processor took.
    at: int
    ran: float
    name: str
    # What becomes of it, if it does not fail for good.
    ending: Ending


class WorkerTracing(QueueTracing):
    """The spans of one worker."""

    def __init__(self, telemetry: Telemetry, queue_name: str, worker_name: str) -> None:
        """For a worker, which has an id for the time it exists."""
        from uuid import uuid4  # Only those who trace pay for it.

        super().__init__(telemetry, queue_name, {WORKER_ID: str(uuid4()), WORKER_NAME: worker_name})
        self._ends: dict[Run, _End] = {}

    # --- runs -------------------------------------------------------------------------------------------------------

    def begin(self, job: JobFields[Any, Any]) -> None:
        """A processor is about to run."""
        attributes = {**self._always, JOB_ID: job.id, JOB_NAME: job.name}
        job._span = self._start("process", "consumer", attributes, parent=_carried(job))

    def end(self, job: JobFields[Any, Any]) -> None:
        """It has ended, and what became of it was said."""
        if job._span is not None:
            now = time.time_ns() // 1_000_000
            job._span.set_attributes({ATTEMPT_FINISHED: now, PROCESSED: job.processed_on or now})
            job._span.end()

    def returned(self, job: JobFields[Any, Any]) -> None:
        """It returned."""
        self.note_return(job)
        self._ended(job, "completed")

    def raised(self, job: JobFields[Any, Any], error: BaseException, delay: float | None) -> str | None:
        """It failed; gives what the job is to keep of the trace."""
        self.note_failure(job, error)
        self._ended(job, "delayed" if _waits(job, delay) else "retried")
        return None if job._span is None else job._span.context()

    def note_return(self, job: JobFields[Any, Any]) -> None:
        """Say in its span that it returned."""
        if job._span is not None:
            job._span.set_attributes({ATTEMPTS_MADE: job.attempts_made + 1})
            # What it returned is the users' own, and a trace no place for it.
            job._span.add_event("job completed", {})

    def note_failure(self, job: JobFields[Any, Any], error: BaseException) -> None:
        """Say in its span that it failed."""
        if job._span is not None:
            job._span.set_attributes({ATTEMPTS_MADE: job.attempts_made + 1})
            job._span.add_event("job failed", {FAILED_REASON: failure_of(error).reason})
            job._span.fail(error)

    def _ended(self, job: JobFields[Any, Any], ending: Ending) -> None:
        span = job._span
        if span is None:
            return
        ran = (time.perf_counter() - job._began) * 1000
        self._ends[job.id, job.token] = _End(span, time.time_ns(), ran, job.name, ending)

    def put_back(self, job: JobFields[Any, Any], signal: BaseException) -> None:
        """It put its job somewhere else, which is no attempt."""
        ending: Ending = "delayed" if isinstance(signal, DelayedError) and signal.due is not None else "waiting"
        if job._moved is not None:
            ending = _PLACES[job._moved]
        self._count(job.name, ending, (time.perf_counter() - job._began) * 1000)

    def written(self, run: Run) -> None:
        """The outcome of a run that returned stands in Redis."""
        end = self._ends.pop(run, None)
        if end is not None:
            self._tell_end(run, end.name, "completed", end)

    def failed(self, job: JobFields[Any, Any], is_final: bool) -> None:
        """A failure stands in Redis: of a run, or of a job that could not be run."""
        run = (job.id, job.token)
        end = self._ends.pop(run, None)
        again: Ending = "delayed" if end is not None and end.ending == "delayed" else "retried"
        self._tell_end(run, job.name, "failed" if is_final else again, end, _carried(job))

    def _tell_end(self, run: Run, name: str, ending: Ending, end: _End | None, carried: str = "") -> None:
        attributes = {JOB_NAME: name, JOB_ID: run[0]}
        parent, started = (carried, None) if end is None else (end.span, end.at)
        self._start(_OPERATIONS[ending], "internal", attributes, parent=parent, started=started).end()
        self._count(name, ending, None if end is None else end.ran)

    def _count(self, name: str, ending: Ending, ran: float | None) -> None:
        attributes = {QUEUE: self._queue, JOB_NAME: name, JOB_STATE: ending}
        self._telemetry.count(f"bullmq.jobs.{ending.replace('-', '_')}", attributes)
        if ran is not None:
            self._telemetry.duration("bullmq.job.duration", ran, attributes)

    def dropped(self, run: Run) -> None:
        """The outcome of a run will not be written."""
        self._ends.pop(run, None)

    # --- by hand ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def run_by_hand(self, job: JobFields[Any, Any]) -> Generator[None]:
        """A job that was fetched by hand is run, and what became of it written."""
        job._began = time.perf_counter()
        self.begin(job)
        try:
            with NO_SPAN if job._span is None else job._span.current():
                yield
        finally:
            self.end(job)

    def fetched(self, job: JobFields[Any, Any], since: int, block: bool) -> None:
        """A job was fetched by hand. Looks that find none are no part of any trace."""
        options = f'{{"block":{str(block).lower()}}}'
        attributes = {WORKER_ID: self._always[WORKER_ID], WORKER_OPTIONS: options, JOB_ID: job.id}
        self._start("getNextJob", "internal", attributes, parent=_carried(job), started=since).end()

    @contextlib.contextmanager
    def finishing(
        self,
        job: JobFields[Any, Any],
        returnvalue: bytes | None,
        reason: str | None,
        stack: str | None,
        unrecoverable: bool,
        delay: float | None,
    ) -> Generator[Span]:
        """The outcome of a job that was fetched by hand is being written."""
        ending: Ending = "completed"
        if returnvalue is None:
            attempts = job.opts.get("attempts")
            tries_left = isinstance(attempts, int | float) and job.attempts_made + 1 < attempts
            is_final = unrecoverable or not tries_left or (delay is not None and delay < 0)
            ending = "failed" if is_final else "delayed" if _waits(job, delay) else "retried"
        with self._around(self._start(_OPERATIONS[ending], "internal", {JOB_NAME: job.name, JOB_ID: job.id})) as span:
            yield span
        self._count(job.name, ending, (time.perf_counter() - job._began) * 1000 if job._span is not None else None)


def _carried(job: JobFields[Any, Any]) -> str:
    """The trace that a job is part of; empty for none."""
    options: Any = job.opts
    found = options.get("tm") if is_mapping(options) else None
    return found if isinstance(found, str) else ""


def _waits(job: JobFields[Any, Any], delay: float | None) -> bool:
    """Whether a job that failed waits for a time before it is tried again."""
    if delay is not None:
        return delay > 0
    backoff = job.opts.get("backoff")
    return bool(backoff.get("delay") if is_mapping(backoff) else backoff)


def run_in(span: Span, process: Callable[[Any], Any], job: Any) -> Any:
    """Run a plain function within a span."""
    with span.current():
        return process(job)
