"""Limits of a queue that hold for all its workers, of every client."""

from __future__ import annotations

from datetime import timedelta

from toromq._bridge import port
from toromq._job_fields import DataT, ResultT
from toromq._queue_base import QueueBase
from toromq._tracing import QUEUE_RATE_LIMIT
from toromq.options import RateLimit, some_milliseconds, whole


class QueueLimits(QueueBase[DataT, ResultT]):
    """The part of a queue that limits: how many jobs at once, how many in a time, none for a time."""

    async def set_global_concurrency(self, concurrency: int) -> None:
        """Let at most so many jobs be active at once, over all workers; 0 for none. Those active go on.

        A worker that waits takes more at once when the limit was raised.
        """
        most = whole("concurrency", concurrency, 0)
        await port().call(self._native().set_global_concurrency, most)

    async def remove_global_concurrency(self) -> None:
        """Let any number of jobs be active at once."""
        await port().call(self._native().set_global_concurrency, None)

    async def get_global_concurrency(self) -> int | None:
        """How many jobs may be active at once, over all workers; None for any number."""
        found = await port().call(self._native().get_global_concurrency)
        return int(found[0]) if found else None

    async def is_maxed(self) -> bool:
        """Whether as many jobs are active as its global concurrency allows; False without one."""
        found: bool = await port().call(self._native().is_maxed)
        return found

    async def set_global_rate_limit(self, max: int, duration: int | timedelta) -> None:
        """Let at most `max` jobs start within `duration` (milliseconds or a timedelta), over all workers.

        `max` holds for every worker, whatever its own `limiter` says; a worker with a `limiter` keeps its own duration.
        The time is a fixed window that begins with a start: across the end of one and the beginning of the next,
        up to 2 * max - 1 jobs may start within `duration`. Workers that sleep until a window ends look again at once.
        """
        limit = whole("max", max, 1, 2**53 - 2), some_milliseconds("duration", duration)
        await port().call(self._native().set_global_rate_limit, limit)

    async def remove_global_rate_limit(self) -> None:
        """Let any number of jobs start in any time, where workers have no `limiter` of their own; at once."""
        await port().call(self._native().set_global_rate_limit, None)

    async def get_global_rate_limit(self) -> RateLimit | None:
        """The rate limit for all workers, or None; their own are not known here."""
        found = await port().call(self._native().get_global_rate_limit)
        return RateLimit(*found) if found else None

    async def rate_limit(self, duration: int | timedelta) -> None:
        """Let no job start for `duration` (milliseconds or a timedelta) from now.

        It holds for workers that know of a maximum: the queue's, or that of their own `limiter`. Without either, only a
        worker whose job raises RateLimitError waits for it.
        """
        time = some_milliseconds("duration", duration)
        with self._traced("rateLimit", {QUEUE_RATE_LIMIT: time}):
            await port().call(self._native().set_rate_limit, time)

    async def remove_rate_limit_key(self) -> bool:
        """End what `rate_limit` set, or the current rate window; whether there was one.

        Workers start at once, also those that sleep until it would have ended.
        """
        found: bool = await port().call(self._native().set_rate_limit, None)
        return found

    async def get_rate_limit_ttl(self, max_jobs: int | None = None) -> int:
        """Milliseconds until a job may start, 0 for now.

        That is by a maximum of `max_jobs`, else by the queue's own. Without either, what is left of the current rate
        window; -2 without one.
        """
        most = None if max_jobs is None else whole("max_jobs", max_jobs, 1)
        return int(await port().call(self._native().get_rate_limit_ttl, most))
