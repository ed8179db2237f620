# Made from ../queue.py by tools/make_sync.py; change that one.
"""Queues: adding jobs, looking at them and controlling them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, Unpack

from toromq._bridge import blocking_port as port
from toromq._bridge import to_json
from toromq._job_fields import DataT, ResultT
from toromq.errors import ConfigurationError
from toromq.options import MISSING, JobOptions, Missing, job_id_of, packed, text, whole
from toromq.sync.job import Job
from toromq.sync.queue_getters import QueueGetters


class Queue(QueueGetters[DataT, ResultT]):
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

    def __enter__(self) -> Self:
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
