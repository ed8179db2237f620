"""What tests of job schedulers share: a worker that notes what it runs, and what is delayed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.support.eventually import aeventually
from toromq import Queue, Worker

if TYPE_CHECKING:
    import redis as redispy

HOUR = 3_600_000


class Runs:
    """A worker that notes what it runs."""

    def __init__(self, queue: Queue[Any, Any], url: str, **options: Any) -> None:
        self.jobs: list[Any] = []
        self.errors: list[Exception] = []
        self.worker = Worker("q", self._run, connection=url, prefix=queue.prefix, **options)
        self.worker.on("error")(self.errors.append)

    async def _run(self, job: Any) -> int:
        self.jobs.append(job)
        return len(self.jobs)

    async def __aenter__(self) -> Runs:
        await self.worker.__aenter__()
        return self

    async def __aexit__(self, *why: Any) -> None:
        await self.worker.__aexit__(*why)

    async def ran(self, count: int) -> list[Any]:
        await aeventually(lambda: len(self.jobs) >= count, message=f"{count} runs; errors: {self.errors}")
        return self.jobs


def now() -> int:
    return time.time_ns() // 1_000_000


def delayed(redis: redispy.Redis, key: Any) -> list[str]:
    return [str(job_id) for job_id in redis.zrange(key("delayed"), 0, -1)]
