"""Reading a queue: its jobs, their states and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from toromq._bridge import from_json, port
from toromq._job_fields import DataT, ResultT
from toromq._listeners import AsyncListeners
from toromq._queue_base import QueueBase
from toromq.errors import ConfigurationError
from toromq.job import Job
from toromq.options import (
    PRIORITY_LIMIT,
    STATES,
    JobLogs,
    JobState,
    QueueMeta,
    WorkerInfo,
    flag,
    job_id_of,
    moment,
    state_of,
    states_of,
    whole,
)

Types = str | Sequence[str] | None


class QueueGetters(QueueBase[DataT, ResultT], AsyncListeners):
    """The part of a queue that reads."""

    async def get_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """The job with this id, or None."""
        stored = await port().call(self._native().get_job, job_id_of(job_id))
        return None if stored is None else Job(self, stored)

    async def get_jobs(
        self, types: Types = None, start: int = 0, end: int = -1, asc: bool = False
    ) -> list[Job[DataT, ResultT]]:
        """Jobs in the given states (default: all), at one moment: each state's range on its own, each job once.

        Newest first, unless `asc`. `start` and `end` are places, from 0, both included; -1 is the last. While jobs
        move, a place is another job's at the next call: `iter_jobs` reads all without missing or repeating one.
        """
        bounds = _bounds(start, end, asc)
        return [Job(self, stored) for stored in await port().call(self._native().get_jobs, _types(types), *bounds)]

    async def iter_jobs(
        self, types: Types = None, *, asc: bool = False, batch: int = 100
    ) -> AsyncIterator[Job[DataT, ResultT]]:
        """Each job that is in one of the states now, once, however jobs move while they are read.

        Ids are taken at one moment, jobs as they are when their turn comes; those removed by then are left out. `batch`
        is how many are read in one round trip.

        Example:
            >>> async for job in queue.iter_jobs("failed"):
            ...     print(job.id, job.failed_reason)
        """
        size = whole("batch", batch, 1, 1000)
        ids = await port().call(self._native().get_ranges, _types(types), *_bounds(0, -1, asc))
        for first in range(0, len(ids), size):
            for stored in await port().call(self._native().get_jobs_by_id, ids[first : first + size]):
                yield Job(self, stored)

    async def get_ranges(self, types: Types = None, start: int = 0, end: int = -1, asc: bool = False) -> list[str]:
        """The same as `get_jobs`, but ids only, those without a job included."""
        bounds = _bounds(start, end, asc)
        return cast("list[str]", await port().call(self._native().get_ranges, _types(types), *bounds))

    async def get_waiting(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Standard jobs that wait, the next to run first."""
        return await self.get_jobs("waiting", start, end, True)

    async def get_prioritized(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs with a priority that wait, the next to run first."""
        return await self.get_jobs("prioritized", start, end, True)

    async def get_delayed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Delayed jobs, the next to be due first."""
        return await self.get_jobs("delayed", start, end, True)

    async def get_active(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that run, the first that began first."""
        return await self.get_jobs("active", start, end, True)

    async def get_waiting_children(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that wait for their children, the oldest first."""
        return await self.get_jobs("waiting-children", start, end, True)

    async def get_completed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Completed jobs, the newest first."""
        return await self.get_jobs("completed", start, end, False)

    async def get_failed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Failed jobs, the newest first."""
        return await self.get_jobs("failed", start, end, False)

    async def get_job_counts(self, *types: str) -> dict[str, int]:
        """How many jobs each state holds, at one moment; all states without arguments."""
        states = states_of(types or STATES)
        counts = await port().call(self._native().get_counts, states)
        return dict(zip(states, counts, strict=True))

    async def get_job_count_by_types(self, *types: str) -> int:
        """How many jobs the given states hold together; all states without arguments."""
        return sum((await self.get_job_counts(*types)).values())

    async def count(self) -> int:
        """How many jobs have still to run: waiting, prioritized, delayed, or waiting for their children."""
        return await self.get_job_count_by_types("waiting", "prioritized", "delayed", "waiting-children")

    async def get_waiting_count(self) -> int:
        """How many standard jobs wait."""
        return await self.get_job_count_by_types("waiting")

    async def get_prioritized_count(self) -> int:
        """How many jobs with a priority wait."""
        return await self.get_job_count_by_types("prioritized")

    async def get_delayed_count(self, timestamp: Any = None) -> int:
        """How many jobs are delayed; with `timestamp`, an aware datetime or milliseconds, those due before then."""
        if timestamp is None:
            return await self.get_job_count_by_types("delayed")
        return int(await port().call(self._native().get_delayed_count, moment("timestamp", timestamp)))

    async def get_active_count(self) -> int:
        """How many jobs run."""
        return await self.get_job_count_by_types("active")

    async def get_waiting_children_count(self) -> int:
        """How many jobs wait for their children."""
        return await self.get_job_count_by_types("waiting-children")

    async def get_completed_count(self) -> int:
        """How many completed jobs are kept."""
        return await self.get_job_count_by_types("completed")

    async def get_failed_count(self) -> int:
        """How many failed jobs are kept."""
        return await self.get_job_count_by_types("failed")

    async def get_counts_per_priority(self, priorities: Sequence[int]) -> dict[int, int]:
        """How many jobs of each of these priorities wait, at one moment; 0 stands for the standard jobs."""
        if isinstance(priorities, str) or not isinstance(priorities, Sequence):
            raise ConfigurationError(f"priorities: got {priorities!r}; allowed is a list of whole numbers")
        wanted = [whole(f"priorities[{n}]", given, 0, PRIORITY_LIMIT) for n, given in enumerate(priorities)]
        counts = await port().call(self._native().get_counts_per_priority, wanted)
        return dict(zip(wanted, counts, strict=True))

    async def get_job_state(self, job_id: str) -> JobState:
        """The state of a job, 'unknown' if there is none."""
        return cast(JobState, await port().call(self._native().get_state, job_id_of(job_id)))

    async def get_job_logs(self, job_id: str, start: int = 0, end: int = -1, asc: bool = True) -> JobLogs:
        """Lines of a job's log."""
        lines, count = await port().call(self._native().get_logs, job_id_of(job_id), *_bounds(start, end, asc))
        return JobLogs(lines, count)

    async def is_paused(self) -> bool:
        """Whether the queue is paused, for the workers of every client."""
        return (await self.get_meta()).get("paused", False)

    async def get_meta(self) -> QueueMeta:
        """The queue's settings."""
        stored = dict(await port().call(self._native().get_meta))
        meta = QueueMeta(paused="paused" in stored)
        if "version" in stored:
            meta["version"] = stored["version"]
        if "library" in stored:
            meta["library"] = stored["library"]
        if "opts.maxLenEvents" in stored:
            meta["max_len_events"] = _integer(stored["opts.maxLenEvents"])
        if "concurrency" in stored:
            meta["concurrency"] = _integer(stored["concurrency"])
        if "max" in stored:
            meta["max"] = _integer(stored["max"])
        if "duration" in stored:
            meta["duration"] = _integer(stored["duration"])
        return meta

    async def get_version(self) -> str | None:
        """Which library, and which version of it, made the queue, such as 'bullmq:6.7.0'."""
        return (await self.get_meta()).get("version")

    async def get_dependencies(
        self, parent_id: str, type: str, start: int = 0, end: int = -1
    ) -> tuple[list[tuple[str, Any]], int]:
        """A page of a job's children: (key, result) each, and how many there are.

        `type` is 'processed', for those that completed, or 'pending', whose result is None. Their order is Redis' own,
        and may change when children come and go.
        """
        parent_id = job_id_of(parent_id)
        kind = state_of("type", type, ("processed", "pending"))
        first, last = whole("start", start, 0), whole("end", end, -1)
        counts = await port().call(self._native().get_dependencies_count, parent_id)
        total = int(counts[0] if kind == "processed" else counts[1])
        outcome = "processed" if kind == "processed" else "unprocessed"
        children: list[tuple[str, Any]] = []
        cursor = 0
        while True:
            cursor, page = await port().call(self._native().scan_dependencies, parent_id, outcome, cursor, 100)
            if kind == "processed":
                children += [(key.decode(), from_json(value)) for key, value in zip(page[::2], page[1::2], strict=True)]
            else:
                children += [(key.decode(), None) for key in page]
            if cursor == 0 or 0 <= last < len(children):
                # A scan may give a child twice.
                unique = list(dict(children).items())
                if cursor == 0 or last < len(unique):
                    return unique[first : None if last < 0 else last + 1], total

    async def get_workers(self) -> list[WorkerInfo]:
        """The workers that are connected, those of Node among them, as the server lists their connections.

        Raises:
            ToroError: the server lists no clients; some managed ones refuse to.
        """
        found = await port().call(self._native().get_workers)
        return [WorkerInfo.of(self.name, worker_name, dict(fields)) for worker_name, fields in found]

    async def get_workers_count(self) -> int:
        """How many workers are connected, those of Node among them."""
        return len(await self.get_workers())


def _types(types: Types) -> list[str]:
    return states_of((types,) if isinstance(types, str) else STATES if types is None else types)


def _bounds(start: int, end: int, asc: bool) -> tuple[int, int, bool]:
    return whole("start", start, -(2**53)), whole("end", end, -(2**53)), flag("asc", asc)


def _integer(stored: str) -> int:
    try:
        return int(float(stored))
    except (ValueError, OverflowError):
        return 0
