"""bullmq's Worker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Generator
from typing import Any, ClassVar

import toromq
from toromq import sync
from toromq.compat.bullmq._abort import AbortController
from toromq.compat.bullmq._adapter import EventEmitter, Told, ask, missing
from toromq.compat.bullmq._job import Job
from toromq.compat.bullmq._keys import Keys
from toromq.compat.bullmq._options import Opts, worker_options
from toromq.compat.bullmq._scheduler import JobScheduler

_LOOP = "the engine fetches, locks and retries by itself; by hand there are getNextJob and processJob"


class _Options(dict[str, Any]):
    """Options of a worker; its concurrency can be set while it runs."""

    def __init__(self, worker: toromq.Worker[Any, Any], given: Opts) -> None:
        super().__init__({"concurrency": worker.concurrency, **(given or {})})
        self._worker = worker

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "concurrency":
            self._worker.concurrency = value
        super().__setitem__(name, value)


class Worker(EventEmitter):
    """Takes jobs from a queue and runs a processor on them. Made in a running event loop, it starts by itself.

    The processor gets (job, token), or (job), or (job, token, signal), by how many arguments it takes. It may be
    `async`, or a plain function, which runs in a thread, where the job's methods block.

    Options: autorun, concurrency, connection, limiter, lockDuration, lockRenewTime, maxStalledCount, name, prefix,
    removeOnComplete, removeOnFail, settings.backoffStrategy, stalledInterval, and every other of toromq.Worker.

    Events, and what listeners get: active (job, 'waiting'), completed (job, result), failed (job, error), progress
    (job, progress), stalled (job id), locksRenewed (dict of count and jobIds), lockRenewalFailed (job ids), error
    (error), closing (reason); drained, paused, resumed, ready and closed nothing.

    Attributes:
        toromq: the toromq.Worker behind it.
    """

    _TOLD: ClassVar[Told] = {
        "active": ("active", lambda worker, told: (Job._of(worker, told[0]), "waiting")),
        **{
            name: (name, lambda worker, told: (Job._of(worker, told[0]), told[1]))
            for name in ("completed", "failed", "progress")
        },
        "locksRenewed": ("locks_renewed", lambda _, told: ({"count": len(told[0]), "jobIds": told[0]},)),
        "lockRenewalFailed": ("lock_renewal_failed", lambda _, told: told),
        **{
            name: (name, lambda _, told: told)
            for name in ("stalled", "drained", "paused", "resumed", "ready", "closing", "closed", "error")
        },
    }  # fmt: skip

    def __init__(self, name: str, processor: Callable[..., Any] | None, opts: Opts = None) -> None:
        super().__init__()
        options = worker_options(opts, toromq.Worker)
        if (strategy := options.get("backoff_strategy")) is not None:
            options["backoff_strategy"] = functools.partial(self._backoff, strategy)
        self.name = name
        self.processor = processor
        self._arguments = 0 if processor is None else _arguments(processor)
        self.toromq: toromq.Worker[Any, Any] = toromq.Worker(name, self._runner(), **options)
        self.opts = _Options(self.toromq, opts)
        self.prefix = options.get("prefix", "bull")
        self.qualifiedName = f"{self.prefix}:{name}"
        self.workerName = self.toromq.name or None
        self.id = uuid.uuid4().hex
        self.closing = False
        self.forceClosing = False
        self.closed = False
        self._controllers: dict[tuple[str, str], AbortController] = {}
        self.keys = Keys(self.toromq._queue.to_key)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._scheduler: JobScheduler | None = None
        self._found_nothing = False
        if processor is not None and self.opts.get("autorun", True):
            self._start()

    def _teller(self) -> Any:
        return self.toromq

    # --- running jobs ------------------------------------------------------------------------------------------------

    def _runner(self) -> Any:
        if self.processor is None:
            return None
        return self._run_async if _is_async(self.processor) else self._run_plain

    async def _run_async(self, job: toromq.Job[Any, Any]) -> Any:
        with self._given(job) as arguments:
            assert self.processor is not None
            return await self.processor(*arguments)

    def _run_plain(self, job: sync.Job[Any, Any]) -> Any:
        with self._given(job) as arguments:
            assert self.processor is not None
            result = self.processor(*arguments)
            if inspect.isawaitable(result):
                # A function that makes a coroutine, such as a lambda: it belongs on the worker's loop.
                assert self._loop is not None
                result = asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result()
            return result

    @contextlib.contextmanager
    def _given(self, job: Any) -> Generator[tuple[Any, ...]]:
        arguments = (Job._of(self, job), job.token)[: self._arguments]
        if self._arguments < 3:
            yield arguments
            return
        controller = AbortController()
        controller.signal._job = job
        run = (job.id, job.token)
        self._controllers[run] = controller
        try:
            yield (*arguments, controller.signal)
        finally:
            del self._controllers[run]

    def _backoff(self, strategy: Callable[..., Any], attempt: int, kind: str, error: BaseException, job: Any) -> Any:
        return strategy(attempt, kind, error, Job._of(self, job))

    def _job_on_the_loop(self, job: sync.Job[Any, Any]) -> toromq.Job[Any, Any]:
        made: toromq.Job[Any, Any] = toromq.Job(self.toromq._queue, _stored(job))
        made._runner = job._runner
        return made

    def cancelJob(self, job_id: str, reason: str | None = None) -> bool:
        """Abort the signal of a job that runs here; False if there is none, or the processor takes no signal.

        The processor is free to look at it. `worker.toromq.cancel_job` cancels coroutines where they wait.
        """
        controllers = [one for (running, _), one in list(self._controllers.items()) if running == job_id]
        for controller in controllers:
            controller.abort(reason)
        return bool(controllers)

    def cancelAllJobs(self, reason: str | None = None) -> None:
        """Abort the signals of all jobs that run here."""
        for controller in list(self._controllers.values()):
            controller.abort(reason)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a Worker starts when it is made, which needs a running event loop: make it inside a coroutine, or "
                "give it {'autorun': False} and call `await worker.run()`"
            ) from None
        self._task = loop.create_task(self._autorun())

    async def _autorun(self) -> None:
        try:
            await self.run()
        except Exception as error:
            # Nobody awaits this task.
            self.toromq._tell("error", error)

    async def run(self) -> None:
        """Start, unless that was done, and return when closed."""
        if self.closing:
            return
        self._loop = asyncio.get_running_loop()
        await self.toromq.run()
        self.closed = True

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.toromq.is_running()

    @property
    def paused(self) -> bool:
        """Whether it takes no jobs."""
        return self.toromq.is_paused()

    async def pause(self, do_not_wait_active: bool = False) -> None:
        """Take no more jobs until `resume`; returns when those in flight have ended, unless told not to wait."""
        await self.toromq.pause(do_not_wait_active)

    def resume(self) -> None:
        """Take jobs again."""
        self.toromq._set_paused(False)
        self.toromq._tell("resumed")

    async def close(self, force: bool = False) -> None:
        """Take no more jobs, wait for those in flight, and end. With `force`, they are cancelled and handed back."""
        self.closing = True
        self.forceClosing = self.forceClosing or force
        await self.toromq.close(force)
        if self._task is not None and self._task is not asyncio.current_task():
            await self._task
        self.closed = True

    # --- by hand -----------------------------------------------------------------------------------------------------

    async def getNextJob(self, token: str) -> Job | None:
        """Fetch one job by hand, locked under `token`; its lock is not renewed.

        Where the last call found nothing, this one waits for a job for up to `drainDelay` seconds.
        """
        found = await ask(self.toromq.get_next_job, token, self._found_nothing)
        self._found_nothing = found is None
        return None if found is None else Job._of(self, found)

    async def processJob(self, job: Job, token: str) -> None:
        """Run the processor on a job that was fetched by hand, and finish it."""
        self._loop = asyncio.get_running_loop()
        await ask(self.toromq.process_job, job.toromq, token, fetch_next=False)

    # --- what is not there -------------------------------------------------------------------------------------------

    @property
    def jobScheduler(self) -> JobScheduler:
        """The job schedulers of this queue."""
        if self._scheduler is None:
            self._scheduler = JobScheduler(self)
        return self._scheduler

    cancelProcessing = missing("Worker.cancelProcessing", "use `await worker.close(True)`")
    extendLocks = missing("Worker.extendLocks", _LOOP)
    getBlockTimeout = missing("Worker.getBlockTimeout", _LOOP)
    isConnectionError = missing("Worker.isConnectionError", _LOOP)
    moveToActive = missing("Worker.moveToActive", _LOOP)
    nextJobFromJobData = missing("Worker.nextJobFromJobData", _LOOP)
    retryIfFailed = missing("Worker.retryIfFailed", _LOOP)
    runStalledJobsCheck = missing("Worker.runStalledJobsCheck", _LOOP)
    waitForJob = missing("Worker.waitForJob", _LOOP)


def _is_async(processor: Any) -> bool:
    while isinstance(processor, functools.partial):
        processor = processor.func
    call = getattr(processor, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return inspect.iscoroutinefunction(processor) or inspect.iscoroutinefunction(call)


def _arguments(processor: Callable[..., Any]) -> int:
    """How many of job, token and signal a processor takes."""
    try:
        parameters = inspect.signature(processor).parameters.values()
    except (TypeError, ValueError):
        # Something that says nothing of itself.
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 3
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return min(len(places), 3)


def _stored(job: Any) -> tuple[str, str, int, int, dict[str, bytes]]:
    return job.id, job.token, job.attempts_started, job.attempts_made, job._fields


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
