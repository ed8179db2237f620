"""bullmq's JobScheduler."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import toromq
from toromq.compat.bullmq._adapter import ask
from toromq.compat.bullmq._job import Job
from toromq.compat.bullmq._options import Opts, camel, job_options, optsFromJSON, repeat_options

if TYPE_CHECKING:
    from toromq.compat.bullmq._queue import Queue
    from toromq.compat.bullmq._worker import Worker

# Given for a template they change nothing in bullmq: each job has its own.
_IDLE: Final = ("delay", "job_id", "timestamp")


class JobScheduler:
    """The job schedulers of a queue.

    Attributes:
        queue: the queue they make jobs for.
    """

    def __init__(self, queue: Queue | Worker, repeat_strategy: Any = None) -> None:
        self.queue = queue

    def _queue(self) -> toromq.Queue[Any, Any]:
        inner = self.queue.toromq
        return inner._queue if isinstance(inner, toromq.Worker) else inner

    async def upsertJobScheduler(
        self,
        job_scheduler_id: str,
        repeat_opts: dict[str, Any],
        job_name: str,
        job_data: Any = None,
        opts: Opts = None,
        override: bool = True,
        producer_id: str | None = None,
    ) -> Job | None:
        """Make or replace a job scheduler; gives its next job. Options: those of RepeatOptions.

        A pattern without `tz` is meant in UTC. Without `override` nothing is replaced.
        """
        when = repeat_options(repeat_opts)
        end = when.get("end_date")
        if isinstance(end, int | float) and end <= time.time() * 1000:
            return None
        if not override and await self.getScheduler(job_scheduler_id) is not None:
            return None
        template = {name: value for name, value in job_options(opts).items() if name not in _IDLE}
        given = {} if job_data is None else {"data": job_data}
        made: Job | None = await ask(
            self._queue().upsert_job_scheduler, job_scheduler_id, name=job_name, opts=template, **given, **when,
            then=lambda job: job and Job._of(self.queue, job),
        )  # fmt: skip
        return made

    async def getScheduler(self, job_scheduler_id: str) -> dict[str, Any] | None:
        """A job scheduler, None if there is none."""
        found = await ask(self._queue().get_job_scheduler, job_scheduler_id)
        return None if found is None else _shown(found)

    async def getJobSchedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        """The job schedulers, by the time of their next job."""
        found: list[dict[str, Any]] = await ask(
            self._queue().get_job_schedulers, start, end, asc, then=lambda all_: [_shown(one) for one in all_]
        )
        return found

    async def getSchedulersCount(self) -> int:
        """How many job schedulers there are."""
        count: int = await ask(self._queue().get_job_schedulers_count)
        return count

    async def isJobScheduler(self, job_scheduler_id: str) -> bool:
        """Whether there is such a job scheduler."""
        found: bool = await ask(self._queue().is_job_scheduler, job_scheduler_id)
        return found

    async def removeJobScheduler(self, job_scheduler_id: str) -> int:
        """Delete a job scheduler; 0 when it is gone, 1 when there was none."""
        return int(not await ask(self._queue().remove_job_scheduler, job_scheduler_id))


def _shown(scheduler: toromq.JobScheduler) -> dict[str, Any]:
    """A job scheduler as bullmq shows it: what is not set is left out."""
    shown = {camel(name): value for name, value in vars(scheduler).items() if value is not None and name != "template"}
    if scheduler.template is not None:
        data, opts = scheduler.template.data, optsFromJSON(scheduler.template.opts)
        shown["template"] = {**({} if data is None else {"data": data}), **({"opts": opts} if opts else {})}
    return shown
