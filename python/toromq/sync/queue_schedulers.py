# Made from ../queue_schedulers.py by tools/make_sync.py; change that one.
"""Job schedulers of a queue."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from toromq._bridge import blocking_port as port
from toromq._guards import is_mapping
from toromq._job_fields import DataT, ResultT
from toromq._queue_base import QueueBase
from toromq._tracing import JOB_ID, SCHEDULER_ID, carrying
from toromq.options import MISSING, JobOptions, Missing, flag, whole
from toromq.sync.job import Job

if TYPE_CHECKING:
    from toromq.schedulers import JobScheduler


class QueueSchedulers(QueueBase[DataT, ResultT]):
    """The part of a queue that makes jobs again and again."""

    def upsert_job_scheduler(
        self,
        id: str,
        /,
        *,
        every: int | timedelta | None = None,
        pattern: str | None = None,
        tz: str | None = None,
        start_date: int | datetime | None = None,
        end_date: int | datetime | None = None,
        limit: int | None = None,
        offset: int | timedelta | None = None,
        immediately: bool = False,
        hash_seed: str | None = None,
        name: str | None = None,
        data: DataT | Missing = MISSING,
        opts: JobOptions | None = None,
    ) -> Job[DataT, ResultT] | None:
        """Make a job scheduler, or replace the one with this id. When one of its jobs starts, the next one is made.

        Calling it again with the same arguments, at each start of a program, changes nothing: a job that waits for its
        time is replaced by one for the same time. One job is made for each time; times that passed while nothing ran
        are skipped, but for the job that waits already.

        Args:
            id: its name in the queue, as you like.
            every: the interval, in milliseconds or as a timedelta; the first job is due at once. This or `pattern`.
            pattern: a cron pattern of five or six fields, the first of six for seconds, or one such as "@daily".
            tz: the zone that the pattern is meant in, such as "Europe/Madrid". Default: "UTC". It is stored, so that
                the workers of all clients agree.
            start_date, end_date: no job before, none after: an aware datetime or milliseconds since 1970. By `every`,
                the first job is at `start_date`.
            limit: how many jobs it makes; each upsert begins to count anew.
            offset: where in its interval each job stands, in milliseconds or as a timedelta: with an interval of an
                hour, five minutes are five past, and an hour is each full hour. Default, and with 0: the first job is
                due at once, and the others go on from there.
            immediately: let the first job of a pattern be due now.
            hash_seed: what the choice of an `H` in the pattern depends on. Default: `id`.
            name: the name of the jobs. Default: `id`.
            data: their data. Default: `{}`.
            opts: their options, as `add` takes them, but for what is each job's own: delay, run_at, job_id, timestamp,
                deduplication, parent. The queue's `default_job_options` hold as well.

        Returns:
            Its next job; None where there is none to make: `limit` is 0, or no time of `pattern` is before `end_date`.

        Raises:
            ConfigurationError, TypeError: an argument is not allowed, or the pattern or zone can't be understood;
                nothing was sent.
            SerializationError: `data` is not JSON, or not what `data_type` says.
            SchedulerConflictError: the next 32 times are taken by jobs of its that exist.
            RedisConnectionError: Redis stayed away for the connection's `command_timeout`.

        Example:
            >>> queue.upsert_job_scheduler("heartbeat", every=1000)
            >>> queue.upsert_job_scheduler("nightly-report", pattern="0 15 3 * * *", tz="Europe/Madrid",
            ...                                  name="report", data={"kind": "daily"}, opts={"attempts": 5})
        """
        # Of no use to those who add jobs.
        from toromq.schedulers import bounds_of, scheduler_id_of, template_of, when_of

        key = scheduler_id_of(id)
        when = when_of(every, pattern, tz, offset, immediately, hash_seed, key)
        bounds = bounds_of(start_date, end_date, limit, immediately)
        stored = b"{}" if isinstance(data, Missing) else self._data_type.encode(data, "data")
        job_name = key if name is None else name
        with self._traced("add", {SCHEDULER_ID: key}, "producer", f"{self.name}.{job_name}") as span:
            if span is not None and (opts is None or is_mapping(opts)):
                # The jobs after the first inherit it.
                opts = cast(JobOptions, carrying(opts or {}, self.default_job_options, span.context(), overwrite=False))
            template = template_of(job_name, stored, opts, self.default_job_options)
            made = port().call(self._native().upsert_job_scheduler, (key, when, *bounds, *template))
            if span is not None and made is not None:
                span.set_attributes({JOB_ID: made[0]})
        return None if made is None else Job(self, made)

    def get_job_scheduler(self, id: str, /) -> JobScheduler | None:
        """The job scheduler with this id, or None."""
        from toromq.schedulers import JobScheduler, scheduler_id_of

        found = port().call(self._native().get_job_scheduler, scheduler_id_of(id))
        return JobScheduler._of(*found[0]) if found else None

    def is_job_scheduler(self, id: str, /) -> bool:
        """Whether there is a job scheduler with this id."""
        return self.get_job_scheduler(id) is not None

    def get_job_schedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[JobScheduler]:
        """The job schedulers by the time of their newest job, the latest first unless `asc`.

        `start` and `end` are places, from 0, both included; -1 is the last. One of which half is missing is deleted, as
        BullMQ does.

        Example:
            >>> [scheduler.key for scheduler in queue.get_job_schedulers(asc=True)]
            ['heartbeat', 'nightly-report']
        """
        from toromq.schedulers import JobScheduler

        bounds = whole("start", start, -(2**53)), whole("end", end, -(2**53)), flag("asc", asc)
        return [JobScheduler._of(*found) for found in port().call(self._native().get_job_schedulers, *bounds)]

    def get_job_schedulers_count(self) -> int:
        """How many job schedulers there are."""
        return int(port().call(self._native().get_job_schedulers_count))

    def remove_job_scheduler(self, id: str, /) -> bool:
        """Delete a job scheduler, and its next job if that is delayed; whether there was one.

        A job of its that runs, or waits for a worker, goes on.

        Example:
            >>> queue.remove_job_scheduler("heartbeat")
            True
        """
        from toromq.schedulers import scheduler_id_of

        removed: bool = port().call(self._native().remove_job_scheduler, scheduler_id_of(id))
        return removed
