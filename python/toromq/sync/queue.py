# Made from ../queue.py by tools/make_sync.py; change that one.
"""Queues: adding jobs and looking at them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Unpack

from toromq._bridge import NativeQueue, make, to_json, version
from toromq._bridge import blocking_port as port
from toromq._job_fields import DataT, ResultT
from toromq.connection import Connection, connection_of
from toromq.errors import ConfigurationError
from toromq.options import (
    MISSING,
    STATES,
    JobLogs,
    JobOptions,
    Missing,
    check_prefix,
    check_queue_name,
    flag,
    job_id_of,
    packed,
    states_of,
    text,
    whole,
    with_hints,
)
from toromq.sync.job import Job


class Queue(Generic[DataT, ResultT]):
    """A named set of jobs in Redis. Making one has no side effect; the first operation connects.

    Args:
        name: the queue's name; no ':' in it.
        connection: a toromq.Connection, which queues can share, or a URL: redis://, rediss://, unix:// or
            embedded:PATH. Default: $TOROMQ_URL, else redis://localhost:6379/0.
        prefix: what its keys begin with.
        default_job_options: options for every job that does not give its own.
        max_len_events: about how many events to keep; default: what the queue has, or 10,000.

    Operations raise RedisConnectionError when Redis stays away for the connection's `command_timeout`.
    """

    @with_hints
    def __init__(
        self,
        name: str,
        /,
        *,
        connection: Connection | str | None = None,
        prefix: str = "bull",
        default_job_options: JobOptions | None = None,
        max_len_events: int | None = None,
    ) -> None:
        """See the class."""
        self.name = check_queue_name(name)
        self.prefix = check_prefix(prefix)
        if default_job_options is not None and not isinstance(default_job_options, Mapping):
            raise ConfigurationError(f"default_job_options: got {default_job_options!r}; allowed are options of a job")
        self.default_job_options: JobOptions = default_job_options or {}
        packed("check", b"{}", {}, self.default_job_options, "default_job_options.")
        self._connection = connection_of(connection)
        self._owns_connection = self._connection is not connection
        self._max_events = None if max_len_events is None else whole("max_len_events", max_len_events, 0)
        self._made: tuple[int, NativeQueue] | None = None
        self._on_progress: Callable[[Job[Any, Any], Any], None] | None = None

    def _native(self) -> NativeQueue:
        pid = os.getpid()
        # A forked child must not use its parent's connection.
        if self._made is None or self._made[0] != pid:
            connection = self._connection._native()
            writer = f"toromq:{version}"
            made = make(NativeQueue, connection, self.prefix, self.name, writer, self._max_events)
            self._made = (pid, made)
        return self._made[1]

    def _progressed(self, job: Job[Any, Any], progress: Any) -> None:
        if self._on_progress is not None:
            self._on_progress(job, progress)

    def __enter__(self) -> Queue[DataT, ResultT]:
        """Give the queue itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its connection, unless it was given one that others may share. Closing twice is harmless."""
        self._made = None
        if self._owns_connection:
            self._connection.close()

    def add(
        self, name: str, data: DataT | Missing = MISSING, /, **options: Unpack[JobOptions]
    ) -> Job[DataT, ResultT]:
        """Add a job.

        Adds from many coroutines share a round trip. A job whose reply was lost is looked for before it is sent again,
        so that one call never makes two jobs.

        Raises:
            SerializationError: `data` is not JSON; the message gives the path.
            ConfigurationError: an option is not allowed.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`.
        """
        stored = b"{}" if isinstance(data, Missing) else to_json(data, "data")
        job = packed(name, stored, options, self.default_job_options)
        (job_id,) = port().call(self._native().add, [job])
        return self._added(job_id, job)

    def add_bulk(
        self, jobs: Iterable[tuple[str, DataT] | tuple[str, DataT, Mapping[str, Any]]]
    ) -> list[Job[DataT, ResultT]]:
        """Add many jobs: (name, data) or (name, data, options) each. One that is refused leaves all of them unsent.

        They go in batches of bounded size, in the order given; all of a batch are stored or none.
        """
        if not isinstance(jobs, Iterable):
            raise ConfigurationError(f"jobs: got {jobs!r}; allowed is a list of (name, data) or (name, data, options)")
        entries = []
        for n, job in enumerate(jobs):
            if not isinstance(job, tuple | list) or len(job) not in (2, 3):
                raise ConfigurationError(f"jobs[{n}]: got {job!r}; allowed is (name, data) or (name, data, options)")
            options = job[2] if len(job) == 3 else {}
            if not isinstance(options, Mapping):
                raise ConfigurationError(f"jobs[{n}]: got {options!r} for its options; allowed is a dict of them")
            data = to_json(job[1], f"jobs[{n}].data")
            entries.append(packed(job[0], data, options, self.default_job_options, f"jobs[{n}]."))
        if not entries:
            return []
        ids = port().call(self._native().add, entries)
        return [self._added(job_id, job) for job_id, job in zip(ids, entries, strict=True)]

    def _added(self, job_id: str, job: tuple[Any, ...]) -> Job[DataT, ResultT]:
        _, name, data, opts, timestamp, delay, priority, _ = job
        fields = {
            "name": name.encode(),
            "data": data,
            "opts": opts,
            "timestamp": b"%d" % timestamp,
            "delay": b"%d" % delay,
            "priority": b"%d" % priority,
        }
        return Job(self, (job_id, "", 0, 0, fields))

    def get_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """The job with this id, or None."""
        stored = port().call(self._native().get_job, job_id_of(job_id))
        return None if stored is None else Job(self, stored)

    def get_jobs(
        self, types: str | Sequence[str] | None = None, start: int = 0, end: int = -1, asc: bool = False
    ) -> list[Job[DataT, ResultT]]:
        """Jobs in the given states (default: all), each state's range on its own; newest first unless `asc`."""
        states = states_of((types,) if isinstance(types, str) else STATES if types is None else types)
        bounds = whole("start", start, -(2**53)), whole("end", end, -(2**53)), flag("asc", asc)
        found = port().call(self._native().get_jobs, states, *bounds)
        return [Job(self, stored) for stored in found]

    def get_job_counts(self, *types: str) -> dict[str, int]:
        """How many jobs each state holds, at one moment; all states without arguments."""
        states = states_of(types or STATES)
        counts = port().call(self._native().get_counts, states)
        return dict(zip(states, counts, strict=True))

    def get_job_state(self, job_id: str) -> str:
        """The state of a job, 'unknown' if there is none."""
        return str(port().call(self._native().get_state, job_id_of(job_id)))

    def get_job_logs(self, job_id: str, start: int = 0, end: int = -1, asc: bool = True) -> JobLogs:
        """Lines of a job's log."""
        bounds = whole("start", start, -(2**53)), whole("end", end, -(2**53)), flag("asc", asc)
        lines, count = port().call(self._native().get_logs, job_id_of(job_id), *bounds)
        return JobLogs(lines, count)

    def update_job_progress(self, job_id: str, progress: Any) -> None:
        """Store and publish a job's progress.

        Raises:
            JobNotFoundError: there is no such job.
        """
        port().call(self._native().update_progress, job_id_of(job_id), to_json(progress, "progress"))

    def add_job_log(self, job_id: str, row: str, keep_logs: int | None = None) -> int:
        """Append a line to a job's log and keep the newest `keep_logs`; gives how many there are.

        Raises:
            JobNotFoundError: there is no such job.
        """
        keep = 0 if keep_logs is None else whole("keep_logs", keep_logs, 0)
        return int(port().call(self._native().add_log, job_id_of(job_id), text("row", row), keep))
