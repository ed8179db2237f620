"""bullmq's JobScheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toromq.compat.bullmq._adapter import NotSupportedError
from toromq.compat.bullmq._options import Opts

if TYPE_CHECKING:
    from toromq.compat.bullmq._job import Job
    from toromq.compat.bullmq._queue import Queue
    from toromq.compat.bullmq._worker import Worker

_MISSING = "toromq has no job schedulers yet"


class JobScheduler:
    """The job schedulers of a queue. toromq has none yet: every method raises NotSupportedError.

    Attributes:
        queue: the queue they make jobs for.
    """

    def __init__(self, queue: Queue | Worker, repeat_strategy: Any = None) -> None:
        self.queue = queue

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
        """Not there yet."""
        raise NotSupportedError(f"upsertJobScheduler: {_MISSING}")

    async def getScheduler(self, job_scheduler_id: str) -> dict[str, Any] | None:
        """Not there yet."""
        raise NotSupportedError(f"getJobScheduler: {_MISSING}")

    async def getJobSchedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        """Not there yet."""
        raise NotSupportedError(f"getJobSchedulers: {_MISSING}")

    async def getSchedulersCount(self) -> int:
        """Not there yet."""
        raise NotSupportedError(f"getJobSchedulersCount: {_MISSING}")

    async def isJobScheduler(self, job_scheduler_id: str) -> bool:
        """Not there yet."""
        raise NotSupportedError(f"isJobScheduler: {_MISSING}")

    async def removeJobScheduler(self, job_scheduler_id: str) -> int:
        """Not there yet."""
        raise NotSupportedError(f"removeJobScheduler: {_MISSING}")
