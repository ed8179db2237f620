"""Workers: taking jobs and running the processor on them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, Unpack

from toromq._bridge import NativeWorker, is_receiving, port
from toromq._cancellation import LOCK_LOST, WORKER_CLOSES
from toromq._endings import STEERING, as_delay, is_handed_back, waits_for_children
from toromq._job_fields import DataT, JobFields, ResultT, Run, Stored
from toromq._listeners import AsyncListeners
from toromq._tasks import LAST_TURN, TaskRunner
from toromq._tracing import DO_NOT_WAIT_ACTIVE, FORCE_CLOSE, WORKER_RATE_LIMIT
from toromq.errors import JobCancelledError, ToroError
from toromq.job import Job
from toromq.options import flag, some_milliseconds
from toromq.queue import Queue
from toromq.worker_by_hand import ByHand

if TYPE_CHECKING:
    from toromq import sync  # async only
    from toromq._sandbox.pool import Pool  # async only
    from toromq.types import WorkerOptions


class Worker(ByHand[DataT, ResultT], AsyncListeners):
    """Takes jobs from a queue and runs a processor on them, at most `concurrency` at once.

    A job runs at least once: it runs again when its worker died or was cut off from Redis for longer than
    `lock_duration`. While the process lives its jobs keep their locks, whatever the processor does to the interpreter.

    Args:
        queue_name: the queue.
        processor: takes the job, returns what is JSON. A plain `def` runs in threads; its job is a `toromq.sync.Job`,
            whose methods block. An `async def`, for `toromq.Worker` only, runs on the event loop. A text
            'package.module:function', 'path/to/file.py' (its function `process`) or 'path/to/file.py:function' names a
            function of either kind that runs in child processes, at most `concurrency` of them, whatever it does to
            them; its job is a `SandboxJob`. Without a processor, jobs are fetched by hand, or run by what
            `worker.processor(name)` was given.
        connection: as for Queue.
        prefix: as for Queue.
        name: stored on the jobs it runs.
        concurrency: how many jobs at once; settable while running.
        lock_duration: how long a job stays locked after its worker died, in milliseconds.
        lock_renew_time: age in milliseconds at which a lock is renewed; default: half of `lock_duration`.
        skip_lock_renewal: let locks run out: a job that takes longer than `lock_duration` is stopped and goes to
            another worker; `job.extend_lock` gives it more time.
        stalled_interval: milliseconds between two looks for jobs whose worker died.
        max_stalled_count: how often a job may lose its worker before it is failed.
        skip_stalled_check: leave that look to the queue's other workers.
        max_started_attempts: how often a job may begin, for whatever reason; one that begins once more fails unrun.
        drain_delay: seconds after which an idle worker looks by itself; default: 5, and 10 while nothing comes.
        limiter: how many jobs may begin within a time.
        maximum_rate_limit_delay: longest sleep under a rate limit, in milliseconds.
        run_retry_delay: longest pause between two tries while Redis is away, in milliseconds.
        metrics: count for each minute how many jobs complete and fail: Metrics(max_data_points), or that number.
        remove_on_complete: keep policy for jobs that have none: True, a number of jobs, or age, count and limit.
        remove_on_fail: the same for failed jobs.
        data_type: what a job's data is, as for Queue: a job with other data fails before the processor sees it.
        result_type: what the processor returns, as for Queue. Child processes import both types by their names.
        backoff_strategy: for backoff types of your own: (attempt, type, error, job) to milliseconds, -1 for no retry.
            May be async.
        sandbox: how child processes are treated.
        telemetry: traces each run of a job, as a part of the trace that the job carries, and measures them:
            toromq.telemetry.OpenTelemetry(), or another tracer.

    Events, for `on`, and what listeners get: active (job), completed (job, result), failed (job, error), progress
    (job, progress), stalled (job id), locks_renewed (job ids), lock_renewal_failed (job ids), lock_lost (job), error
    (error), closing (reason); drained, paused, resumed, ready and closed nothing.

    Constructing one has no side effect: `async with worker`, `await worker.run()` or `toromq.run(worker)` starts it.

    Raises:
        ConfigurationError: an option is not allowed.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            queue_name: str,
            processor: Callable[[sync.Job[DataT, ResultT]], ResultT]
            | Callable[[Job[DataT, ResultT]], Awaitable[ResultT]]  # async only
            | str
            | os.PathLike[str]
            | None = None,
            /,
            **options: Unpack[WorkerOptions],
        ) -> None:
            """See the class."""

    _job_type = Job
    _queue_type = Queue
    _ready: asyncio.Event | None = None
    _has_answered = False
    _ended: asyncio.Event | None = None
    _runs = 0
    _loop: asyncio.AbstractEventLoop | None = None  # async only
    _tasks: TaskRunner | None = None  # async only

    async def __aenter__(self) -> Self:
        """Start."""
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the jobs in flight and end."""
        await self.close()

    async def run(self) -> None:
        """Start, unless that was done, and return when closed."""
        if not self.is_running():
            await self._begin()
        assert self._ended is not None
        self._runs += 1
        try:
            await self._ended.wait()
        finally:
            self._runs -= 1

    async def close(self, force: bool = False) -> None:
        """Take no more jobs, wait for those in flight, and end, for good. Calling it twice is harmless.

        With `force`, coroutines are cancelled and their jobs handed back, next to run, without a spent attempt.
        Threads can't be stopped, nor coroutines that go on for five seconds: the jobs they run go to another worker
        once their locks have run out. Plain functions see it in `job.is_cancelled`. Child processes are killed, and
        their jobs handed back.
        """
        if self.is_running():
            self._refuse_inside("closes", "close it from another thread, or create a task for worker.close()")
        with self._traced("close", {FORCE_CLOSE: bool(force)}):
            await self._close(force)

    async def _close(self, force: bool) -> None:
        self._stop_checking()
        is_first, self._is_closed = not self._is_closed, True
        if self._ended is None and self._sandbox is not None:
            self._sandbox.close()
        if self._ended is None or not self._is_ours():
            return
        # Without an engine it is just being started, and is closed as soon as it has one.
        if self._native is not None and not self._ended.is_set():
            if is_first:
                self._tell("closing", "closing queue")
            if force:
                self._native.hand_back()
                await self._cancel_all()
                if self._sandbox is not None and not is_receiving():
                    # Killed children hand back their jobs, and the engine ends when it has them all.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ended.wait(), LAST_TURN)
            self._native.close(force)
        # A listener can't wait for what is told to its own thread.
        if not is_receiving():
            await self._ended.wait()

    async def pause(self, do_not_wait_active: bool = False) -> None:
        """Take no more jobs until `resume`, and return once those in flight have ended; `do_not_wait_active`: at once.

        Other workers of the queue go on; `Queue.pause` stops them all.
        """
        at_once = flag("do_not_wait_active", do_not_wait_active)
        waits = not at_once and self.is_running()
        if waits:
            self._refuse_inside("pauses", "use pause(do_not_wait_active=True)")
        with self._traced("pause", {DO_NOT_WAIT_ACTIVE: at_once}):
            self._set_paused(True)
            if waits and self._native is not None:
                await port().call(self._native.when_idle)
        self._tell("paused")

    async def resume(self) -> None:
        """Take jobs again."""
        with self._traced("resume"):
            self._set_paused(False)
        self._tell("resumed")

    async def wait_until_ready(self) -> None:
        """Return once Redis has answered: the worker itself if it was started, which tries for ever.

        Raises:
            RedisConnectionError: it was not started, and Redis stayed away for the connection's `command_timeout`.
            ToroError: it was closed before Redis answered.
        """
        # A listener can't wait for what is told to its own thread.
        if self._ready is None or not self._is_ours() or is_receiving():
            await self._queue.wait_until_ready()
            return
        await self._ready.wait()
        if not self._has_answered:
            raise ToroError(f"the worker of {self.queue_name} was closed before Redis answered")

    async def rate_limit(self, duration: int | timedelta) -> None:
        """Let no job of the queue start for `duration` (milliseconds or a timedelta), as `Queue.rate_limit` does.

        A job calls it when it ran into a limit of somebody else's, and then raises RateLimitError. What can't await it,
        such as a plain function of an async worker, raises RateLimitError(retry_after=...), which does both in one.
        """
        with self._traced("rateLimit", {WORKER_RATE_LIMIT: some_milliseconds("duration", duration)}):
            await self._queue.rate_limit(duration)

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._ended is not None and not self._ended.is_set() and self._is_ours()

    async def _begin(self) -> None:
        self._check_start()
        self._ready, ended = asyncio.Event(), asyncio.Event()
        self._ended = ended
        self._prepare()
        try:
            self._start(port())
        except BaseException:
            self._ended = None
            ended.set()
            raise
        # A close that came meanwhile found no engine.
        if self._is_closed and self._native is not None:
            self._native.close(False)

    def _is_driven(self) -> bool:
        if self._loop is not None:  # async only
            return self._loop.is_running()  # async only
        return self._runs > 0

    def _answered(self) -> None:
        self._has_answered = True
        if self._ready is not None:
            self._ready.set()

    def _closed(self) -> None:
        port().detach(self._ticket)
        assert self._ended is not None
        assert self._ready is not None
        if self._tasks is not None:  # async only
            self._tasks.end()  # async only
        self._ended.set()
        self._ready.set()

    def _stop_checking(self) -> None:
        if self._checking is not None and self._hand is not None and self._is_ours():
            self._hand[1].stop_checking()
            port().detach(self._checking)
            self._checking = None

    # --- async only: jobs as coroutines on the event loop ---

    def _prepare(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskRunner(self._run_job, self._hand_back)
        assert self._ended is not None
        self._keep_task(asyncio.ensure_future(self._end_with_the_loop(self._ended)))

    def _has_more(self) -> bool:
        return self._tasks is not None and self._tasks.has_waiting()

    async def _end_with_the_loop(self, ended: asyncio.Event) -> None:
        try:
            await ended.wait()
        except asyncio.CancelledError:
            # The program's loop ends, and nobody will run jobs any more: give back what has not begun. Those that run
            # are being cancelled as well, and give back theirs.
            self._is_closed = True
            if self._native is not None and self._tasks is not None:
                self._native.hand_back()
                port().deliver()
                self._tasks.hand_back_waiting()
            if self._sandbox is not None:
                threading.Thread(target=self._sandbox.close, name="toromq-sandbox-end").start()
            raise

    def _end_children(self) -> None:
        if self._sandbox is None:
            self._is_over()
        else:
            # It takes a moment, and must not hold up the loop.
            threading.Thread(target=self._close_sandbox, args=(self._sandbox,), name="toromq-sandbox-end").start()

    def _close_sandbox(self, sandbox: Pool) -> None:
        sandbox.close()
        assert self._loop is not None
        # Without its loop nobody waits for it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._is_over)

    def _make_blocking_face(self) -> tuple[Any, Any]:
        # Only for those who have plain functions, or fetch by hand for them.
        from toromq import sync

        queue: Any = sync.Queue(self.queue_name, **self._of_queue)
        queue._on_progress = self._progressed
        return sync.Job, queue

    def _hand_back(self, run: Run) -> None:
        assert self._native is not None
        self._native.wait(*run)

    async def _cancel_all(self) -> None:
        assert self._tasks is not None
        super()._cancel_all()
        port().deliver()
        await self._tasks.cancel_all(WORKER_CLOSES)

    def _refuse_inside(self, what: str, instead: str) -> None:
        super()._refuse_inside(what, instead)
        if self._tasks is not None and self._tasks.is_inside():
            raise ToroError(f"a job that {what} its worker would wait for itself; {instead}")

    def _tell(self, event: str, *arguments: Any) -> None:
        if event != "error" and not self._listeners.get(event):
            return
        if self._loop is None or self._loop is _running_loop():
            self._emit(event, *arguments)
        else:
            # The loop is gone when a thread outlives it; then nobody listens.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._emit, event, *arguments)

    def _receive(self, message: tuple[str, Any]) -> None:
        if message[0] == "jobs":
            assert self._tasks is not None
            self._tasks.put(message[1])
        else:
            super()._receive(message)

    def _lost(self, run: Run) -> None:
        super()._lost(run)
        assert self._tasks is not None
        self._tasks.cancel(run, LOCK_LOST)

    def _cancel_run(self, run: Run, reason: str) -> bool:
        if self._processors.any_async and self._loop is not None and self._loop is not _running_loop():
            # The loop is gone when a thread outlives it; what it ran was cancelled then.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel_run, run, reason)
            return False
        is_news = super()._cancel_run(run, reason)
        if is_news and self._tasks is not None:
            self._tasks.cancel(run, reason)
        return is_news

    async def _run_job(self, stored: Stored, run: Run) -> None:
        native = self._native
        assert native is not None
        assert self._tasks is not None
        job: Job[Any, Any] = Job(self._queue, stored)
        job._runner = native
        if self._listeners.get("active"):
            self._tell("active", job)
        try:
            try:
                self._begin_run(job, run)
                if self._has_data_type:
                    self._check_data(job)
                process = self._processor or self._processors.of(job.name)
                if job._span is None:
                    result = await process(job)
                else:
                    with job._span.current():
                        result = await process(job)
                text = self._queue._result_type.encode(result, "returnvalue")
            except BaseException as error:
                await self._run_raised(native, job, error)
            else:
                self._completed(native, job, result, text)
        except asyncio.CancelledError as cancelled:
            await self._run_cancelled(native, job, cancelled)
        finally:
            del self._running[run]
            if self._tracing is not None:
                self._tracing.end(job)

    async def _run_raised(self, native: NativeWorker, job: Job[Any, Any], error: BaseException) -> None:
        assert self._tasks is not None
        if isinstance(error, STEERING):
            try:
                if waits_for_children(job, error):
                    await job.move_to_waiting_children()
            except Exception as refused:
                error = refused
            else:
                self._steered(native, job, error)
                return
        if isinstance(error, asyncio.CancelledError) and self._tasks.was_cancelled():
            raise error
        if is_handed_back(job, error):
            native.wait(job.id, job.token)
            return
        await self._run_failed(native, job, error)
        if not isinstance(error, Exception | asyncio.CancelledError):
            raise error

    async def _run_cancelled(
        self, native: NativeWorker, job: Job[Any, Any], cancelled: asyncio.CancelledError
    ) -> None:
        told = job._cancellation
        if told.fails and told.reason is not None:
            error = JobCancelledError(told.reason)
            error.__cause__ = cancelled
            await self._run_failed(native, job, error)
        else:
            # By a forced close, by the end of the loop, or because the lock is gone; then the engine drops this.
            native.wait(job.id, job.token)

    async def _run_failed(self, native: NativeWorker, job: Job[Any, Any], error: BaseException) -> None:
        try:
            delay = await self._delay(job, error)
        except asyncio.CancelledError:
            if self._is_forced:
                native.wait(job.id, job.token)
                return
            # The processor had ended; what was cancelled is the strategy alone.
            delay = None
        self._failed(native, job, error, delay)

    async def _delay(self, job: JobFields[Any, Any], error: BaseException) -> float | None:
        try:
            chosen = self._backoff(job, error)
            if inspect.isawaitable(chosen):
                chosen = await chosen
            return as_delay(chosen)
        except Exception as broken:
            # A broken strategy must not keep the job: it is tried again at once, and the reason told.
            self._tell("error", broken)
            return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
