# Made from ../queue_getters.py by tools/make_sync.py; change that one.
"""Reading a queue: its jobs, their states and counts."""

from __future__ import annotations

from collections.abc import Sequence

from toromq._bridge import blocking_port as port
from toromq._job_fields import DataT, ResultT
from toromq._listeners import Listeners
from toromq._queue_base import QueueBase
from toromq.options import STATES, JobLogs, flag, job_id_of, states_of, whole
from toromq.sync.job import Job


class QueueGetters(QueueBase[DataT, ResultT], Listeners):
    """The part of a queue that reads."""

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
