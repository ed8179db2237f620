# Made from ../queue_getters.py by tools/make_sync.py; change that one.
"""Reading a queue: its jobs, their states and counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from toromq._bridge import blocking_port as port
from toromq._bridge import from_json
from toromq._job_fields import DataT, ResultT
from toromq._listeners import Listeners
from toromq._queue_base import QueueBase
from toromq.errors import ConfigurationError
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
from toromq.sync.job import Job

Types = str | Sequence[str] | None


class QueueGetters(QueueBase[DataT, ResultT], Listeners):
    """The part of a queue that reads."""

    def get_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """The job with this id, or None."""
        stored = port().call(self._native().get_job, job_id_of(job_id))
        return None if stored is None else Job(self, stored)

    def get_jobs(
        self, types: Types = None, start: int = 0, end: int = -1, asc: bool = False
    ) -> list[Job[DataT, ResultT]]:
        """Jobs in the given states (default: all), at one moment: each state's range on its own, each job once.

        Newest first, unless `asc`. `start` and `end` are places, from 0, both included; -1 is the last. While jobs
        move, a place is another job's at the next call: `iter_jobs` reads all without missing or repeating one.
        """
        bounds = _bounds(start, end, asc)
        return [Job(self, stored) for stored in port().call(self._native().get_jobs, _types(types), *bounds)]

    def iter_jobs(
        self, types: Types = None, *, asc: bool = False, batch: int = 100
    ) -> Iterator[Job[DataT, ResultT]]:
        """Each job that is in one of the states now, once, however jobs move while they are read.

        Ids are taken at one moment, jobs as they are when their turn comes; those removed by then are left out. `batch`
        is how many are read in one round trip.

        Example:
            >>> for job in queue.iter_jobs("failed"):
            ...     print(job.id, job.failed_reason)
        """
        size = whole("batch", batch, 1, 1000)
        ids = port().call(self._native().get_ranges, _types(types), *_bounds(0, -1, asc))
        for first in range(0, len(ids), size):
            for stored in port().call(self._native().get_jobs_by_id, ids[first : first + size]):
                yield Job(self, stored)

    def get_ranges(self, types: Types = None, start: int = 0, end: int = -1, asc: bool = False) -> list[str]:
        """The same as `get_jobs`, but ids only, those without a job included."""
        bounds = _bounds(start, end, asc)
        return cast("list[str]", port().call(self._native().get_ranges, _types(types), *bounds))

    def get_waiting(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Standard jobs that wait, the next to run first."""
        return self.get_jobs("waiting", start, end, True)

    def get_prioritized(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs with a priority that wait, the next to run first."""
        return self.get_jobs("prioritized", start, end, True)

    def get_delayed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Delayed jobs, the next to be due first."""
        return self.get_jobs("delayed", start, end, True)

    def get_active(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that run, the first that began first."""
        return self.get_jobs("active", start, end, True)

    def get_waiting_children(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that wait for their children, the oldest first."""
        return self.get_jobs("waiting-children", start, end, True)

    def get_completed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Completed jobs, the newest first."""
        return self.get_jobs("completed", start, end, False)

    def get_failed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Failed jobs, the newest first."""
        return self.get_jobs("failed", start, end, False)

    def get_job_counts(self, *types: str) -> dict[str, int]:
        """How many jobs each state holds, at one moment; all states without arguments."""
        states = states_of(types or STATES)
        counts = port().call(self._native().get_counts, states)
        return dict(zip(states, counts, strict=True))

    def get_job_count_by_types(self, *types: str) -> int:
        """How many jobs the given states hold together; all states without arguments."""
        return sum((self.get_job_counts(*types)).values())

    def count(self) -> int:
        """How many jobs have still to run: waiting, prioritized, delayed, or waiting for their children."""
        return self.get_job_count_by_types("waiting", "prioritized", "delayed", "waiting-children")

    def get_waiting_count(self) -> int:
        """How many standard jobs wait."""
        return self.get_job_count_by_types("waiting")

    def get_prioritized_count(self) -> int:
        """How many jobs with a priority wait."""
        return self.get_job_count_by_types("prioritized")

    def get_delayed_count(self, timestamp: Any = None) -> int:
        """How many jobs are delayed; with `timestamp`, an aware datetime or milliseconds, those due before then."""
        if timestamp is None:
            return self.get_job_count_by_types("delayed")
        return int(port().call(self._native().get_delayed_count, moment("timestamp", timestamp)))

    def get_active_count(self) -> int:
        """How many jobs run."""
        return self.get_job_count_by_types("active")

    def get_waiting_children_count(self) -> int:
        """How many jobs wait for their children."""
        return self.get_job_count_by_types("waiting-children")

    def get_completed_count(self) -> int:
        """How many completed jobs are kept."""
        return self.get_job_count_by_types("completed")

    def get_failed_count(self) -> int:
        """How many failed jobs are kept."""
        return self.get_job_count_by_types("failed")

    def get_counts_per_priority(self, priorities: Sequence[int]) -> dict[int, int]:
        """How many jobs of each of these priorities wait, at one moment; 0 stands for the standard jobs."""
        if isinstance(priorities, str) or not isinstance(priorities, Sequence):
            raise ConfigurationError(f"priorities: got {priorities!r}; allowed is a list of whole numbers")
        wanted = [whole(f"priorities[{n}]", given, 0, PRIORITY_LIMIT) for n, given in enumerate(priorities)]
        counts = port().call(self._native().get_counts_per_priority, wanted)
        return dict(zip(wanted, counts, strict=True))

    def get_job_state(self, job_id: str) -> JobState:
        """The state of a job, 'unknown' if there is none."""
        return cast(JobState, port().call(self._native().get_state, job_id_of(job_id)))

    def get_job_logs(self, job_id: str, start: int = 0, end: int = -1, asc: bool = True) -> JobLogs:
        """Lines of a job's log."""
        lines, count = port().call(self._native().get_logs, job_id_of(job_id), *_bounds(start, end, asc))
        return JobLogs(lines, count)

    def is_paused(self) -> bool:
        """Whether the queue is paused, for the workers of every client."""
        return (self.get_meta()).get("paused", False)

    def get_meta(self) -> QueueMeta:
        """The queue's settings."""
        stored = dict(port().call(self._native().get_meta))
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

    def get_version(self) -> str | None:
        """Which library, and which version of it, made the queue, such as 'bullmq:6.7.0'."""
        return (self.get_meta()).get("version")

    def get_dependencies(
        self, parent_id: str, type: str, start: int = 0, end: int = -1
    ) -> tuple[list[tuple[str, Any]], int]:
        """A page of a job's children: (key, result) each, and how many there are.

        `type` is 'processed', for those that completed, or 'pending', whose result is None. Their order is Redis' own,
        and may change when children come and go.
        """
        parent_id = job_id_of(parent_id)
        kind = state_of("type", type, ("processed", "pending"))
        first, last = whole("start", start, 0), whole("end", end, -1)
        counts = port().call(self._native().get_dependencies_count, parent_id)
        total = int(counts[0] if kind == "processed" else counts[1])
        outcome = "processed" if kind == "processed" else "unprocessed"
        children: list[tuple[str, Any]] = []
        cursor = 0
        while True:
            cursor, page = port().call(self._native().scan_dependencies, parent_id, outcome, cursor, 100)
            if kind == "processed":
                children += [(key.decode(), from_json(value)) for key, value in zip(page[::2], page[1::2], strict=True)]
            else:
                children += [(key.decode(), None) for key in page]
            if cursor == 0 or 0 <= last < len(children):
                # A scan may give a child twice.
                unique = list(dict(children).items())
                if cursor == 0 or last < len(unique):
                    return unique[first : None if last < 0 else last + 1], total

    def get_workers(self) -> list[WorkerInfo]:
        """The workers that are connected, those of Node among them, as the server lists their connections.

        Raises:
            ToroError: the server lists no clients; some managed ones refuse to.
        """
        found = port().call(self._native().get_workers)
        return [WorkerInfo.of(self.name, worker_name, dict(fields)) for worker_name, fields in found]

    def get_workers_count(self) -> int:
        """How many workers are connected, those of Node among them."""
        return len(self.get_workers())


def _types(types: Types) -> list[str]:
    return states_of((types,) if isinstance(types, str) else STATES if types is None else types)


def _bounds(start: int, end: int, asc: bool) -> tuple[int, int, bool]:
    return whole("start", start, -(2**53)), whole("end", end, -(2**53)), flag("asc", asc)


def _integer(stored: str) -> int:
    try:
        return int(float(stored))
    except (ValueError, OverflowError):
        return 0
