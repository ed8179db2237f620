"""bullmq's Queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import toromq
from toromq._guards import is_mapping
from toromq.compat.bullmq._adapter import EventEmitter, Told, ask
from toromq.compat.bullmq._job import Job
from toromq.compat.bullmq._keys import Keys
from toromq.compat.bullmq._options import Opts, job_options, queue_options
from toromq.compat.bullmq._scheduler import JobScheduler
from toromq.errors import ConfigurationError

_STATES = ("active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children")


class Queue(EventEmitter):
    """A named set of jobs. Options: connection, prefix, defaultJobOptions.

    Events are those of toromq.Queue, of what is done through this object: waiting (job), progress (job id, progress),
    removed (job id), cleaned (ids, state), paused, resumed, error (error).

    Attributes:
        toromq: the toromq.Queue behind it.
    """

    _TOLD: ClassVar[Told] = {
        "waiting": ("waiting", lambda queue, told: (Job._of(queue, told[0]),)),
        **{name: (name, lambda _, told: told) for name in ("progress", "removed", "cleaned", "paused", "resumed")},
        "error": ("error", lambda _, told: told),
    }  # fmt: skip

    def __init__(self, name: str, opts: Opts = None) -> None:
        super().__init__()
        self.toromq: toromq.Queue[Any, Any] = toromq.Queue(name, **queue_options(opts))
        self.name = name
        self.opts = dict(opts or {})
        self.jobsOpts = dict(self.opts.get("defaultJobOptions") or {})
        self.prefix = self.toromq.prefix
        self.qualifiedName = self.toromq.qualified_name
        self.keys = Keys(self.toromq.to_key)
        self._scheduler: JobScheduler | None = None

    def _teller(self) -> Any:
        return self.toromq

    def _jobs(self, found: Iterable[Any]) -> list[Job]:
        return [Job._of(self, job) for job in found]

    def toKey(self, type: str) -> str:
        """The full name of one of its keys."""
        return self.toromq.to_key(type)

    async def close(self) -> None:
        """Close its connection."""
        await self.toromq.close()

    # --- adding ------------------------------------------------------------------------------------------------------

    async def add(self, name: str, data: Any, opts: Opts = None) -> Job:
        """Add a job."""
        return Job._of(self, await ask(self.toromq.add, name, data, **job_options(opts)))

    async def addBulk(self, jobs: list[dict[str, Any]]) -> list[Job]:
        """Add many jobs, each a dict of name, data and opts."""
        entries = [_entry(n, job) for n, job in enumerate(jobs)]
        added: list[Job] = await ask(self.toromq.add_bulk, entries, then=self._jobs)
        return added

    # --- looking -----------------------------------------------------------------------------------------------------

    async def getJob(self, job_id: str) -> Job | None:
        """The job with this id."""
        job: Job | None = await ask(self.toromq.get_job, job_id, then=lambda job: job and Job._of(self, job))
        return job

    async def getJobs(self, types: Any, start: int = 0, end: int = -1, asc: bool = False) -> list[Job]:
        """Jobs in the given states, newest first unless `asc`."""
        return await self._page(self.toromq.get_jobs, types or None, start, end, asc)

    async def _page(self, getter: Any, *arguments: Any) -> list[Job]:
        found: list[Job] = await ask(getter, *arguments, then=self._jobs)
        return found

    async def getActive(self, start: int = 0, end: int = -1) -> list[Job]:
        """Jobs that run."""
        return await self._page(self.toromq.get_active, start, end)

    async def getCompleted(self, start: int = 0, end: int = -1) -> list[Job]:
        """Completed jobs."""
        return await self._page(self.toromq.get_completed, start, end)

    async def getDelayed(self, start: int = 0, end: int = -1) -> list[Job]:
        """Delayed jobs."""
        return await self._page(self.toromq.get_delayed, start, end)

    async def getFailed(self, start: int = 0, end: int = -1) -> list[Job]:
        """Failed jobs."""
        return await self._page(self.toromq.get_failed, start, end)

    async def getPrioritized(self, start: int = 0, end: int = -1) -> list[Job]:
        """Jobs with a priority that wait."""
        return await self._page(self.toromq.get_prioritized, start, end)

    async def getWaiting(self, start: int = 0, end: int = -1) -> list[Job]:
        """Standard jobs that wait."""
        return await self._page(self.toromq.get_waiting, start, end)

    async def getWaitingChildren(self, start: int = 0, end: int = -1) -> list[Job]:
        """Jobs that wait for their children."""
        return await self._page(self.toromq.get_waiting_children, start, end)

    async def getJobState(self, job_id: str) -> str:
        """The state of a job, 'unknown' if there is none."""
        state: str = await ask(self.toromq.get_job_state, job_id)
        return state

    async def getJobCounts(self, *types: str) -> dict[str, int]:
        """How many jobs each state holds, under the names asked for."""
        asked = types or _STATES
        states = {name: "waiting" if name == "wait" else name for name in asked if name not in ("paused", "repeat")}
        counts: dict[str, int] = {}
        if states:
            counts = await ask(self.toromq.get_job_counts, *dict.fromkeys(states.values()))
        if "repeat" in asked:
            counts["repeat"] = await ask(self.toromq.get_job_schedulers_count)
            states["repeat"] = "repeat"
        # Jobs of a paused queue stay where they wait, and are counted there.
        return {name: counts[states[name]] if name in states else 0 for name in asked}

    async def getJobCountByTypes(self, *types: str) -> int:
        """How many jobs the given states hold together."""
        return sum((await self.getJobCounts(*dict.fromkeys(types))).values())

    async def getCompletedCount(self) -> int:
        """How many completed jobs are kept."""
        return await self.getJobCountByTypes("completed")

    async def getDelayedCount(self) -> int:
        """How many jobs are delayed."""
        return await self.getJobCountByTypes("delayed")

    async def getFailedCount(self) -> int:
        """How many failed jobs are kept."""
        return await self.getJobCountByTypes("failed")

    async def getWaitingCount(self) -> int:
        """How many standard jobs wait."""
        return await self.getJobCountByTypes("waiting")

    async def getCountsPerPriority(self, priorities: Iterable[int]) -> dict[str, int]:
        """How many jobs of each of these priorities wait, under the priorities as texts."""
        counts = await ask(self.toromq.get_counts_per_priority, list(dict.fromkeys(priorities)))
        return {str(priority): count for priority, count in counts.items()}

    def sanitizeJobTypes(self, types: Iterable[str]) -> list[str]:
        """The states asked for, each once; all of them where none is."""
        return sorted(set(types) or set(_STATES))

    async def getJobLogs(self, job_id: str, start: int = 0, end: int = -1, asc: bool = True) -> dict[str, Any]:
        """Lines of a job's log, as `logs`, and their `count`."""
        logs, count = await ask(self.toromq.get_job_logs, job_id, start, end, asc)
        return {"logs": logs, "count": count}

    async def getDeduplicationJobId(self, id: str) -> str | None:
        """The id of the job that owns a deduplication id."""
        owner: str | None = await ask(self.toromq.get_deduplication_job_id, id)
        return owner

    async def get_workers(self) -> list[dict[str, str]]:
        """The workers that are connected: what the server tells of each one's connection, which is its `rawname`."""
        found = await ask(self.toromq.get_workers)
        return [{**worker.fields, "name": worker.name, "rawname": worker.rawname} for worker in found]

    async def get_workers_count(self) -> int:
        """How many workers are connected."""
        count: int = await ask(self.toromq.get_workers_count)
        return count

    # --- controlling -------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Let no more jobs start, in the workers of every client."""
        await ask(self.toromq.pause)

    async def resume(self) -> None:
        """Let jobs start again."""
        await ask(self.toromq.resume)

    async def isPaused(self) -> bool:
        """Whether it is paused."""
        paused: bool = await ask(self.toromq.is_paused)
        return paused

    async def remove(self, job_id: str, opts: Opts = None) -> int:
        """Delete a job and, unless `removeChildren` is False, all jobs below it; 1 when it is gone, else 0."""
        children = (opts or {}).get("removeChildren", True)
        return int(await ask(self.toromq.remove, job_id, remove_children=children))

    async def drain(self, delayed: bool = False) -> None:
        """Delete all jobs that wait, with `delayed` the delayed ones as well."""
        await ask(self.toromq.drain, delayed)

    async def clean(self, grace: int, limit: int, type: str) -> list[str]:
        """Delete jobs of one state that are older than `grace` milliseconds; gives their ids."""
        ids: list[str] = await ask(self.toromq.clean, grace, limit, type)
        return ids

    async def obliterate(self, force: bool = False) -> None:
        """Delete the queue and everything in it; with `force` also when jobs are active."""
        await ask(self.toromq.obliterate, force=force)

    async def retryJobs(self, opts: Opts = None) -> None:
        """Queue all failed jobs again; options: state, count, timestamp."""
        await ask(self.toromq.retry_jobs, **(opts or {}))

    async def promoteJobs(self, opts: Opts = None) -> None:
        """Queue all delayed jobs now; options: count."""
        await ask(self.toromq.promote_jobs, **(opts or {}))

    async def trimEvents(self, maxLength: int) -> int:
        """Drop old events and keep about the newest `maxLength`; gives how many went."""
        count: int = await ask(self.toromq.trim_events, maxLength)
        return count

    async def removeDeprecatedPriorityKey(self) -> int:
        """Delete a key that only very old clients wrote; 1 when there was one."""
        return int(await ask(self.toromq.remove_deprecated_priority_key))

    # --- limits ------------------------------------------------------------------------------------------------------

    async def setGlobalConcurrency(self, concurrency: int) -> int:
        """Let at most so many jobs be active at once, over all workers; 1 when there was no such limit, else 0."""
        before = await self.getGlobalConcurrency()
        await ask(self.toromq.set_global_concurrency, concurrency)
        return int(before is None)

    async def getGlobalConcurrency(self) -> int | None:
        """How many jobs may be active at once."""
        most: int | None = await ask(self.toromq.get_global_concurrency)
        return most

    async def removeGlobalConcurrency(self) -> int:
        """Let any number of jobs be active at once; 1 when there was a limit, else 0."""
        before = await self.getGlobalConcurrency()
        await ask(self.toromq.remove_global_concurrency)
        return int(before is not None)

    async def setGlobalRateLimit(self, max_jobs: int, duration_ms: int) -> int:
        """Let at most `max_jobs` jobs start within `duration_ms`, over all workers; 2 if there was no limit, else 0."""
        before = await self.getGlobalRateLimit()
        await ask(self.toromq.set_global_rate_limit, max_jobs, duration_ms)
        return 2 * int(before is None)

    async def getGlobalRateLimit(self) -> dict[str, int] | None:
        """The rate limit for all workers, as `max` and `duration`."""
        limit = await ask(self.toromq.get_global_rate_limit)
        return None if limit is None else limit._asdict()

    async def removeGlobalRateLimit(self) -> int:
        """Let any number of jobs start in any time; 2 when there was a limit, else 0."""
        before = await self.getGlobalRateLimit()
        await ask(self.toromq.remove_global_rate_limit)
        return 2 * int(before is not None)

    async def rateLimit(self, expire_time_ms: int) -> None:
        """Let no job start for so many milliseconds."""
        await ask(self.toromq.rate_limit, expire_time_ms)

    async def removeRateLimitKey(self) -> int:
        """End the current limit; 1 when there was one."""
        return int(await ask(self.toromq.remove_rate_limit_key))

    async def getRateLimitTtl(self) -> int:
        """Milliseconds until a job may start."""
        left: int = await ask(self.toromq.get_rate_limit_ttl)
        return left

    # --- job schedulers ----------------------------------------------------------------------------------------------

    @property
    def jobScheduler(self) -> JobScheduler:
        """The job schedulers of this queue."""
        if self._scheduler is None:
            self._scheduler = JobScheduler(self)
        return self._scheduler

    async def upsertJobScheduler(
        self,
        job_scheduler_id: str,
        repeat_opts: dict[str, Any],
        job_name: str | None = None,
        job_data: Any = None,
        opts: Opts = None,
        override: bool = True,
        producer_id: str | None = None,
    ) -> Job | None:
        """See JobScheduler."""
        name = job_name or job_scheduler_id
        return await self.jobScheduler.upsertJobScheduler(
            job_scheduler_id, repeat_opts, name, job_data, opts, override, producer_id
        )

    async def getJobScheduler(self, job_scheduler_id: str) -> dict[str, Any] | None:
        """See JobScheduler."""
        return await self.jobScheduler.getScheduler(job_scheduler_id)

    async def getJobSchedulers(self, start: int = 0, end: int = -1, asc: bool = False) -> list[dict[str, Any]]:
        """See JobScheduler."""
        return await self.jobScheduler.getJobSchedulers(start, end, asc)

    async def getJobSchedulersCount(self) -> int:
        """See JobScheduler."""
        return await self.jobScheduler.getSchedulersCount()

    async def isJobScheduler(self, job_scheduler_id: str) -> bool:
        """See JobScheduler."""
        return await self.jobScheduler.isJobScheduler(job_scheduler_id)

    async def removeJobScheduler(self, job_scheduler_id: str) -> int:
        """See JobScheduler."""
        return await self.jobScheduler.removeJobScheduler(job_scheduler_id)


def _entry(n: int, job: Any) -> tuple[str, Any, dict[str, Any]]:
    if not is_mapping(job) or "name" not in job:
        raise ConfigurationError(f"jobs[{n}]: got {job!r}; allowed is a dict of name, data and opts")
    return job["name"], job.get("data"), job_options(job.get("opts"), f"jobs[{n}]")
