# Made from ../worker.py by tools/make_sync.py; change that one.
"""Workers: taking jobs and running the processor on them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Self, Unpack

from toromq._bridge import blocking_port as port
from toromq._bridge import is_receiving
from toromq._job_fields import DataT, ResultT
from toromq._listeners import Listeners
from toromq._tasks import LAST_TURN
from toromq._tracing import DO_NOT_WAIT_ACTIVE, FORCE_CLOSE, WORKER_RATE_LIMIT
from toromq.errors import ToroError
from toromq.options import flag, some_milliseconds
from toromq.sync.job import Job
from toromq.sync.queue import Queue
from toromq.sync.worker_by_hand import ByHand

if TYPE_CHECKING:
    from toromq.types import WorkerOptions


class Worker(ByHand[DataT, ResultT], Listeners):
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

    Constructing one has no side effect: `with worker`, `worker.run()` or `toromq.run(worker)` starts it.

    Raises:
        ConfigurationError: an option is not allowed.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            queue_name: str,
            processor: Callable[[Job[DataT, ResultT]], ResultT]
            | str
            | os.PathLike[str]
            | None = None,
            /,
            **options: Unpack[WorkerOptions],
        ) -> None:
            """See the class."""

    _job_type = Job
    _queue_type = Queue
    _ready: threading.Event | None = None
    _has_answered = False
    _ended: threading.Event | None = None
    _runs = 0

    def __enter__(self) -> Self:
        """Start."""
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the jobs in flight and end."""
        self.close()

    def run(self) -> None:
        """Start, unless that was done, and return when closed."""
        if not self.is_running():
            self._begin()
        assert self._ended is not None
        self._runs += 1
        try:
            self._ended.wait()
        finally:
            self._runs -= 1

    def close(self, force: bool = False) -> None:
        """Take no more jobs, wait for those in flight, and end, for good. Calling it twice is harmless.

        With `force`, coroutines are cancelled and their jobs handed back, next to run, without a spent attempt.
        Threads can't be stopped, nor coroutines that go on for five seconds: the jobs they run go to another worker
        once their locks have run out. Plain functions see it in `job.is_cancelled`. Child processes are killed, and
        their jobs handed back.
        """
        if self.is_running():
            self._refuse_inside("closes", "close it from another thread, or create a task for worker.close()")
        with self._traced("close", {FORCE_CLOSE: bool(force)}):
            self._close(force)

    def _close(self, force: bool) -> None:
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
                self._cancel_all()
                if self._sandbox is not None and not is_receiving():
                    # Killed children hand back their jobs, and the engine ends when it has them all.
                    with contextlib.suppress(TimeoutError):
                        self._ended.wait(LAST_TURN)
            self._native.close(force)
        # A listener can't wait for what is told to its own thread.
        if not is_receiving():
            self._ended.wait()

    def pause(self, do_not_wait_active: bool = False) -> None:
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
                port().call(self._native.when_idle)
        self._tell("paused")

    def resume(self) -> None:
        """Take jobs again."""
        with self._traced("resume"):
            self._set_paused(False)
        self._tell("resumed")

    def wait_until_ready(self) -> None:
        """Return once Redis has answered: the worker itself if it was started, which tries for ever.

        Raises:
            RedisConnectionError: it was not started, and Redis stayed away for the connection's `command_timeout`.
            ToroError: it was closed before Redis answered.
        """
        # A listener can't wait for what is told to its own thread.
        if self._ready is None or not self._is_ours() or is_receiving():
            self._queue.wait_until_ready()
            return
        self._ready.wait()
        if not self._has_answered:
            raise ToroError(f"the worker of {self.queue_name} was closed before Redis answered")

    def rate_limit(self, duration: int | timedelta) -> None:
        """Let no job of the queue start for `duration` (milliseconds or a timedelta), as `Queue.rate_limit` does.

        A job calls it when it ran into a limit of somebody else's, and then raises RateLimitError. What can't it,
        such as a plain function of an async worker, raises RateLimitError(retry_after=...), which does both in one.
        """
        with self._traced("rateLimit", {WORKER_RATE_LIMIT: some_milliseconds("duration", duration)}):
            self._queue.rate_limit(duration)

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._ended is not None and not self._ended.is_set() and self._is_ours()

    def _begin(self) -> None:
        self._check_start()
        self._ready, ended = threading.Event(), threading.Event()
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
        return self._runs > 0

    def _answered(self) -> None:
        self._has_answered = True
        if self._ready is not None:
            self._ready.set()

    def _closed(self) -> None:
        port().detach(self._ticket)
        assert self._ended is not None
        assert self._ready is not None
        self._ended.set()
        self._ready.set()

    def _stop_checking(self) -> None:
        if self._checking is not None and self._hand is not None and self._is_ours():
            self._hand[1].stop_checking()
            port().detach(self._checking)
            self._checking = None
