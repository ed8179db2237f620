"""Queues: adding jobs, looking at them and controlling them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from toromq._bridge import port, to_json
from toromq._guards import is_mapping
from toromq._job_fields import DataT, Packed, ResultT
from toromq._packing import packed
from toromq._tracing import (
    BULK_COUNT,
    BULK_NAMES,
    CLEAN_COUNT,
    CLEAN_LIMIT,
    DEDUPLICATION_KEY,
    DRAIN_DELAYED,
    EVENTS_LENGTH,
    GRACE,
    JOB_ID,
    JOB_NAME,
    JOB_OPTIONS,
    JOB_PROGRESS,
    JOB_TYPE,
    MOST_NAMES,
    QUEUE_OPTIONS,
    carrying,
    options_text,
)
from toromq.errors import ConfigurationError, not_all_added
from toromq.job import Job
from toromq.options import (
    MISSING,
    STATES,
    JobOptions,
    JobState,
    Missing,
    flag,
    job_id_of,
    milliseconds,
    moment,
    state_of,
    text,
    whole,
)
from toromq.queue_limits import QueueLimits
from toromq.queue_metrics import QueueFigures
from toromq.queue_schedulers import QueueSchedulers

if TYPE_CHECKING:
    from toromq.telemetry import Span


# What an entry of a bulk may be: asked for each, so it is not made anew each time.
_ENTRY = (tuple, list)


class Queue(QueueFigures[DataT, ResultT], QueueLimits[DataT, ResultT], QueueSchedulers[DataT, ResultT]):
    """A named set of jobs in Redis. Making one has no side effect; the first operation connects.

    Args:
        name: the queue's name; no ':' in it.
        connection: a toromq.Connection, which queues can share, or a URL: redis://, rediss://, unix:// or
            embedded:PATH. Default: $TOROMQ_URL, else redis://localhost:6379/0.
        prefix: what its keys begin with.
        default_job_options: options for every job that does not give its own.
        max_len_events: about how many events to keep; default: what the queue has, or 10,000.
        skip_metas_update: leave the queue's settings as they are, its version and the length of its events: for
            programs that look at the queues of others.
        data_type: what a job's data is: a pydantic model or TypeAdapter, a msgspec Struct, or a dataclass. `add` takes
            one, or what one can be made from, and refuses what is not valid; `job.data` gives one. Stored is JSON, by
            the names that the type gives its fields.
        result_type: the same for `job.returnvalue`.
        telemetry: traces what is done through this object, and lets its jobs carry the trace:
            toromq.telemetry.OpenTelemetry(), or another tracer.

    Events, for `on`, of what is done through this object. Listeners get: waiting (job that was added), progress (job
    id, progress), removed (job id), cleaned (ids, state); paused and resumed nothing.

    Operations raise RedisConnectionError when Redis stays away for the connection's `command_timeout`.
    """

    async def __aenter__(self) -> Self:
        """Give the queue itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close its connection, unless it was given one that others may share. Closing twice is harmless."""
        with self._traced("close"):
            self._made = None
            self._end_waits()
            if self._owns_connection:
                self._connection.close()

    async def disconnect(self) -> None:
        """The same as `close`: nothing is waited for in either."""
        await self.close()

    async def wait_until_ready(self) -> None:
        """Return once Redis answers.

        Raises:
            RedisConnectionError: it did not for the connection's `command_timeout`.
        """
        await port().call(self._native().wait_until_ready)

    async def add(
        self, name: str, data: DataT | Missing = MISSING, /, **options: Unpack[JobOptions]
    ) -> Job[DataT, ResultT]:
        """Add a job.

        Adds from many coroutines share a round trip. A job whose reply was lost is looked for before it is sent again,
        so that one call never makes two jobs.

        Where its `job_id` or deduplication id is taken, nothing is stored: the job that is returned has the id of the
        one that is there, and its `is_duplicate` is True.

        Raises:
            SerializationError: `data` is not JSON, or not what `data_type` says; the message gives the path.
            ConfigurationError: an option is not allowed.
            ParentNotFoundError: its parent does not exist.
            ParentConflictError: its `job_id` is that of another parent's child.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`.
        """
        if self._tracing is None:
            return await self._add(name, data, options)
        with self._tracing.span("add", {JOB_NAME: name}, "producer", f"{self.name}.{name}") as span:
            carried = carrying(options, self.default_job_options, span.context(), overwrite=True)
            added = await self._add(name, data, carried)
            span.set_attributes({JOB_ID: added.id})
            return added

    async def _add(self, name: str, data: DataT | Missing, options: Mapping[str, Any]) -> Job[DataT, ResultT]:
        stored = b"{}" if isinstance(data, Missing) else self._data_type.encode(data, "data")
        job = packed(name, stored, options, self.default_job_options)
        (added,) = await port().call(self._native().add, [job])
        if isinstance(added, Exception):
            raise added
        return self._added(added, job)

    async def add_bulk(
        self, jobs: Iterable[tuple[str, DataT] | tuple[str, DataT, JobOptions]]
    ) -> list[Job[DataT, ResultT]]:
        """Add many jobs: (name, data) or (name, data, options) each. One that is refused leaves all of them unsent.

        They go in batches of bounded size, in the order given; all of a batch are stored or none, but for jobs that
        their parent keeps out.

        Raises:
            ParentNotFoundError, ParentConflictError: as for `add`. The message says which jobs were not added; the
                others were, and are in the error's `added`.
        """
        if self._tracing is None:
            return await self._add_bulk(jobs, None)
        with self._tracing.span("addBulk", kind="producer") as span:
            return await self._add_bulk(jobs, span)

    async def _add_bulk(
        self, jobs: Iterable[tuple[str, DataT] | tuple[str, DataT, JobOptions]], span: Span | None
    ) -> list[Job[DataT, ResultT]]:
        context = None if span is None else span.context()
        if not isinstance(jobs, Iterable):
            raise ConfigurationError(f"jobs: got {jobs!r}; allowed is a list of (name, data) or (name, data, options)")
        entries: list[Packed] = []
        for n, job in enumerate(jobs):
            if not isinstance(job, _ENTRY) or len(job) not in (2, 3):
                raise ConfigurationError(f"jobs[{n}]: got {job!r}; allowed is (name, data) or (name, data, options)")
            options: Any = job[2] if len(job) == 3 else {}
            if not is_mapping(options):
                raise ConfigurationError(f"jobs[{n}]: got {options!r} for its options; allowed is a dict of them")
            if context is not None:
                options = carrying(options, self.default_job_options, context, overwrite=False)
            place = f"jobs[{n}]."
            data = self._data_type.encode(job[1], f"{place}data")
            entries.append(packed(job[0], data, options, self.default_job_options, place))
        if span is not None:
            names = [str(entry[1]) for entry in entries[:MOST_NAMES]]
            span.set_attributes({BULK_NAMES: names, BULK_COUNT: len(entries)})
        if not entries:
            return []
        outcomes = await port().call(self._native().add, entries)
        added = [
            None if isinstance(outcome, Exception) else self._added(outcome, job)
            for outcome, job in zip(outcomes, entries, strict=True)
        ]
        if None in added:
            raise not_all_added(outcomes, added)
        return [job for job in added if job is not None]

    def _added(self, outcome: tuple[str, bool], job: Packed) -> Job[DataT, ResultT]:
        job_id, duplicate = outcome
        made: Job[DataT, ResultT] = Job._of_added(self, job_id, job)
        if duplicate:
            made.is_duplicate = True
        elif self._listeners:
            self._tell("waiting", made)
        return made

    async def get_deduplication_job_id(self, deduplication_id: str) -> str | None:
        """The id of the job that owns a deduplication id."""
        given = text("deduplication_id", deduplication_id)
        return await port().call(self._native().get_deduplication_owner, given) or None

    async def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Let the next job with this deduplication id be added; gives whether a job owned it."""
        given = text("deduplication_id", deduplication_id)
        with self._traced("removeDeduplicationKey", {DEDUPLICATION_KEY: given}):
            return bool(await port().call(self._native().remove_deduplication_key, given, ""))

    async def update_job_progress(self, job_id: str, progress: Any) -> None:
        """Store and publish a job's progress.

        Raises:
            JobNotFoundError: there is no such job.
        """
        stored = to_json(progress, "progress")
        with self._traced("updateJobProgress", {JOB_ID: job_id_of(job_id), JOB_PROGRESS: stored.decode()}):
            await port().call(self._native().update_progress, job_id, stored)
        self._tell("progress", job_id, progress)

    async def add_job_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """Append a line to a job's log and keep the newest `keep_logs`; gives how many there are.

        Raises:
            JobNotFoundError: there is no such job.
        """
        keep = 0 if keep_logs is None else whole("keep_logs", keep_logs, 0)
        return int(await port().call(self._native().add_log, job_id_of(job_id), text("row", row), keep))

    async def pause(self) -> None:
        """Let no more jobs start, in the workers of every client, until `resume`. Jobs in flight go on, and adding."""
        with self._traced("pause"):
            await port().call(self._native().pause)
        self._tell("paused")

    async def resume(self) -> None:
        """Let jobs start again. Jobs that a client of BullMQ 5 or older put aside while it paused come back first."""
        with self._traced("resume"):
            await port().call(self._native().resume)
        self._tell("resumed")

    async def remove(self, job_id: str, *, remove_children: bool = True) -> bool:
        """Delete a job, whatever its state, and unless `remove_children` is False all jobs below it.

        True when it is gone, also if there was none; False when a worker runs it, or a pending child: then nothing was
        removed.

        Raises:
            SchedulerConflictError: it is the next job of a job scheduler; remove that.
        """
        job_id = job_id_of(job_id)
        below = flag("remove_children", remove_children)
        with self._traced("remove", {JOB_ID: job_id, JOB_OPTIONS: options_text({"removeChildren": below})}):
            removed = bool(await port().call(self._native().remove, job_id, below))
        if removed:
            self._tell("removed", job_id)
        return removed

    async def drain(self, delayed: bool = False) -> None:
        """Delete all jobs that wait, with or without a priority, and with `delayed` the delayed ones as well.

        Jobs that run or have finished stay, and the next jobs of job schedulers. Jobs added meanwhile may go too.
        """
        delayed_too = flag("delayed", delayed)
        with self._traced("drain", {DRAIN_DELAYED: delayed_too}):
            await port().call(self._native().drain, delayed_too)

    async def clean(self, grace: int | timedelta, limit: int = 0, type: JobState = "completed") -> list[str]:
        """Delete jobs of one state that are older than `grace` (milliseconds, or a timedelta); give their ids.

        Args:
            grace: 0 for jobs of any age. Finished jobs are as old as their end, others as their start or their adding.
            limit: how many at most; 0 for all.
            type: completed, failed, waiting, prioritized, delayed, active or waiting-children. Of the active jobs only
                those go whose lock has run out. The next jobs of job schedulers stay.

        Raises:
            RedisConnectionError: as always; with a `limit` also when an answer was lost, for some may have gone then.
        """
        age = milliseconds("grace", grace)
        most = whole("limit", limit, 0) or None
        state = state_of("type", type, STATES)
        with self._traced("clean", {GRACE: age, JOB_TYPE: state, CLEAN_LIMIT: most or 0}) as span:
            ids: list[str] = await port().call(self._native().clean, state, age, most)
            if span is not None:
                span.set_attributes({CLEAN_COUNT: len(ids)})
        self._tell("cleaned", ids, state)
        return ids

    async def obliterate(self, *, force: bool = False, count: int = 1000) -> None:
        """Delete the queue and everything in it: jobs of every state, job schedulers, settings, events, limits.

        It is paused first. Children in other queues stay there, without a parent.

        Args:
            force: also when jobs are active; their results will be lost.
            count: how many jobs to delete in one round trip.

        Raises:
            ScriptError: jobs are active, and it was not forced; the queue stays paused.
        """
        forced, most = flag("force", force), whole("count", count, 1, 5000)
        with self._traced("obliterate"):
            await port().call(self._native().obliterate, forced, most)

    async def retry_jobs(
        self,
        *,
        state: Literal["failed", "completed"] = "failed",
        count: int = 1000,
        timestamp: int | datetime | None = None,
    ) -> None:
        """Queue all failed (or completed) jobs again, those that finished by `timestamp` (default: by now).

        They go behind the standard jobs that wait, whatever their priority. Attempts are not reset: a job that used up
        its attempts gets one more. `count` is how many move in one round trip.
        """
        chosen = state_of("state", state, ("failed", "completed"))
        cutoff = time.time_ns() // 1_000_000 if timestamp is None else moment("timestamp", timestamp)
        most = whole("count", count, 1, 5000)
        with self._traced("retryJobs", {QUEUE_OPTIONS: options_text({"state": chosen, "count": most})}, "producer"):
            await port().call(self._native().retry_jobs, chosen, most, cutoff)

    async def promote_jobs(self, *, count: int = 1000) -> None:
        """Queue all delayed jobs now, whatever their priority; `count` of them in one round trip."""
        most = whole("count", count, 1, 5000)
        with self._traced("promoteJobs", {QUEUE_OPTIONS: options_text({"count": most})}):
            await port().call(self._native().retry_jobs, "delayed", most, None)

    async def remove_orphaned_jobs(self, count: int = 1000, limit: int = 0) -> int:
        """Delete jobs that are in no state, which nothing would ever run, list or remove; give how many.

        Every key of the queue is looked at, `count` of them in one round trip. `limit` is how many go at most, 0 for
        all.
        """
        most = whole("limit", limit, 0) or None
        looked_at = whole("count", count, 1, 5000)
        return int(await port().call(self._native().remove_orphaned_jobs, looked_at, most))

    async def remove_deprecated_priority_key(self) -> bool:
        """Delete the key `priority`, which only very old clients wrote; whether there was one."""
        return bool(await port().call(self._native().remove_deprecated_priority_key))

    async def wait_until_finished(self, job_id: str, timeout: int | timedelta | None = None) -> ResultT:
        """Wait until a job has ended; gives what it returned.

        All who wait on a queue share one connection, which reads the queue's events. A wait that has begun goes on
        while Redis is away. A job that is tried again has not ended.

        Args:
            job_id: the job.
            timeout: milliseconds or a timedelta; 0 only looks. Default: as long as it takes.

        Raises:
            JobFailedError: it failed, with no attempts left.
            JobNotFoundError: there is no such job, or it was removed before it ended. What became of one that was
                removed when it ended is known to those who waited by then.
            JobTimeoutError: the time is up; the job goes on.
            SerializationError: what it returned is no JSON, or not what the queue's `result_type` says.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout` before the wait had begun.
            ToroError: the queue was closed meanwhile.
        """
        job_id = job_id_of(job_id)
        limit = None if timeout is None else milliseconds("timeout", timeout)
        ended = await port().call(self._waits().wait, job_id, limit)
        return cast(ResultT, self._result_of(job_id, limit, ended))

    async def trim_events(self, max_length: int) -> int:
        """Drop old events and keep about the newest `max_length`; gives how many went.

        Redis drops whole blocks of them (100 events by default), so a few more may stay.
        """
        length = whole("max_length", max_length, 0)
        with self._traced("trimEvents", {EVENTS_LENGTH: length}):
            return int(await port().call(self._native().trim_events, length))
