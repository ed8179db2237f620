"""Workers: taking jobs and running the processor on them."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import signal
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final, Generic, NamedTuple, cast

from toromq import _bridge
from toromq._bridge import port, to_json
from toromq.errors import ConfigurationError, RateLimitError, SerializationError, ToroError, UnrecoverableError
from toromq.job import DataT, Job, ResultT, by_hand
from toromq.options import check_queue_name, keep_policy, milliseconds, resolve_connection, whole
from toromq.queue import Queue

log = logging.getLogger("toromq")

EVENTS: Final = frozenset(
    (
        "active", "completed", "failed", "progress", "stalled", "drained", "paused", "resumed", "ready", "closing",
        "closed", "error", "lock_lost",
    )
)
_BUILT_IN_BACKOFFS: Final = frozenset(("fixed", "exponential"))
Processor = Callable[[Job[Any, Any]], Any]
Listener = Callable[..., Any]


class RateLimit(NamedTuple):
    """At most `max` jobs begin within `duration` milliseconds."""

    max: int
    duration: int


class Worker(Generic[DataT, ResultT]):
    """Takes jobs from a queue and runs a processor on them, at most `concurrency` at once.

    A job runs at least once: it runs again when its worker died or was cut off from Redis for longer than
    `lock_duration`. While the process lives its jobs keep their locks, whatever the processor does to the interpreter.

    Args:
        queue_name: the queue.
        processor: `async def` or plain `def` (run in threads); takes the job, returns what is JSON.
        connection: as for Queue.
        prefix: as for Queue.
        name: stored on the jobs it runs.
        concurrency: how many jobs at once; settable while running.
        lock_duration: how long a job stays locked after its worker died, in milliseconds.
        lock_renew_time: age in milliseconds at which a lock is renewed; default: half of `lock_duration`.
        stalled_interval: milliseconds between two looks for jobs whose worker died.
        max_stalled_count: how often a job may lose its worker before it is failed.
        drain_delay: seconds after which an idle worker looks by itself.
        limiter: how many jobs may begin within a time.
        maximum_rate_limit_delay: longest sleep under a rate limit, in milliseconds.
        remove_on_complete: keep policy for jobs that have none: age, count, limit.
        remove_on_fail: the same for failed jobs.
        backoff_strategy: for backoff types of your own: (attempt, type, error, job) to milliseconds, -1 for no retry.

    Constructing one has no side effect: `async with worker`, `await worker.run()` or `toromq.run(worker)` starts it.
    """

    def __init__(
        self,
        queue_name: str,
        processor: Processor | None = None,
        /,
        *,
        connection: str | None = None,
        prefix: str = "bull",
        name: str | None = None,
        concurrency: int = 1,
        lock_duration: int | timedelta = 30_000,
        lock_renew_time: int | timedelta | None = None,
        stalled_interval: int | timedelta = 30_000,
        max_stalled_count: int = 1,
        drain_delay: float | timedelta = 5,
        limiter: RateLimit | None = None,
        maximum_rate_limit_delay: int | timedelta = 30_000,
        remove_on_complete: Mapping[str, Any] | None = None,
        remove_on_fail: Mapping[str, Any] | None = None,
        backoff_strategy: Callable[..., Any] | None = None,
    ) -> None:
        """See the class."""
        self.queue_name = check_queue_name(queue_name)
        if processor is not None and not callable(processor):
            raise ConfigurationError(f"processor: got {processor!r}; allowed is a function that takes a job")
        self.name = name or ""
        self._processor: Processor = cast(Processor, processor)
        self._hand: _bridge.NativeByHand | None = None
        call = getattr(processor, "__call__", None)  # noqa: B004 - an object may have an async __call__
        self._is_async = inspect.iscoroutinefunction(processor) or inspect.iscoroutinefunction(call)
        self._connection = connection
        self._prefix = prefix
        self._concurrency = whole("concurrency", concurrency, 1, 100_000)
        self._lock_duration = max(1, milliseconds("lock_duration", lock_duration))
        self._lock_renew = milliseconds(
            "lock_renew_time", self._lock_duration // 2 if lock_renew_time is None else lock_renew_time
        )
        self._stalled_interval = max(1, milliseconds("stalled_interval", stalled_interval))
        self._max_stalled = whole("max_stalled_count", max_stalled_count, 0)
        seconds = drain_delay.total_seconds() if isinstance(drain_delay, timedelta) else drain_delay
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 3600:
            raise ConfigurationError(f"drain_delay: got {drain_delay!r}; allowed are seconds, more than 0")
        self._drain_delay = float(seconds)
        self._limiter = limiter
        self._max_limit_delay = milliseconds("maximum_rate_limit_delay", maximum_rate_limit_delay)
        self._keep = [
            "" if given is None else json.dumps(keep_policy(option, given))
            for option, given in (("remove_on_complete", remove_on_complete), ("remove_on_fail", remove_on_fail))
        ]
        self._backoff_strategy = backoff_strategy
        self._queue: Queue[Any, Any] = Queue(queue_name, connection=connection, prefix=prefix)
        self._queue._on_progress = lambda job, progress: self._emit("progress", job, progress)
        self._listeners: dict[str, list[Listener]] = {}
        self._native: _bridge.NativeWorker | None = None
        self._ticket = 0
        self._jobs: dict[str, Job[Any, Any]] = {}
        self._results: dict[str, Any] = {}
        self._errors: dict[str, BaseException] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._ended: asyncio.Event | None = None
        self._is_paused = False

    def on(self, event: str, listener: Listener | None = None) -> Any:
        """Call `listener`, plain or async, at an event; without one, a decorator."""
        if event not in EVENTS:
            raise ConfigurationError(f"event: got {event!r}; allowed are {', '.join(sorted(EVENTS))}")
        if listener is None:
            return lambda listener: self.on(event, listener)
        self._listeners.setdefault(event, []).append(listener)
        return listener

    def once(self, event: str, listener: Listener) -> Listener:
        """Call `listener` at the next such event only."""

        def first(*arguments: Any) -> Any:
            self.off(event, first)
            return listener(*arguments)

        return cast(Listener, self.on(event, first))

    def off(self, event: str, listener: Listener) -> None:
        """Stop calling a listener."""
        if listener in self._listeners.get(event, ()):
            self._listeners[event].remove(listener)

    def _emit(self, event: str, *arguments: Any) -> None:
        listeners = self._listeners.get(event)
        if not listeners:
            if event == "error":
                log.error("worker of %s: %s", self.queue_name, arguments[0])
            return
        for listener in list(listeners):
            try:
                answer = listener(*arguments)
            except Exception:
                log.exception("a listener for %s of worker of %s raised", event, self.queue_name)
                continue
            if inspect.isawaitable(answer):
                self._keep_task(asyncio.ensure_future(_listen(answer, event, self.queue_name)))

    def _keep_task(self, task: asyncio.Future[Any]) -> None:
        # The loop alone holds a task weakly.
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def __aenter__(self) -> Worker[DataT, ResultT]:
        """Start."""
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the jobs in flight and end."""
        await self.close()

    def _start(self) -> None:
        if self._native is not None:
            raise ToroError(f"the worker of {self.queue_name} runs already")
        if self._processor is None:
            raise ConfigurationError("processor: None, so this worker can only fetch by hand; give it a function")
        self._ended = asyncio.Event()
        url = resolve_connection(self._connection)
        self._ticket, self._native = port().attach(
            self._receive,
            lambda native_port, ticket: _bridge.NativeWorker(
                native_port,
                ticket,
                url,
                self._prefix,
                self.queue_name,
                self.name,
                self._concurrency,
                self._lock_duration,
                self._lock_renew,
                self._stalled_interval,
                self._max_stalled,
                self._drain_delay,
                None if self._limiter is None else tuple(self._limiter),
                self._max_limit_delay,
                *self._keep,
            ),
        )
        self._native.set_paused(self._is_paused)
        self._emit("ready")

    async def run(self) -> None:
        """Start, and return when closed."""
        if self._native is None:
            self._start()
        assert self._ended is not None
        await self._ended.wait()

    async def close(self, force: bool = False) -> None:
        """Take no more jobs, wait for those in flight, and end. Calling it twice is harmless.

        With `force`, async processors are cancelled and their jobs handed back, next to run, without a spent attempt.
        Threads can't be stopped: the jobs they run go to another worker once their locks have run out.
        """
        if self._native is None or self._ended is None:
            return
        if not self._ended.is_set():
            self._emit("closing", "closing queue")
            if force:
                # Else it would take what it is handing back.
                self._native.set_paused(True)
                tasks = list(self._running.values())
                for task in tasks:
                    task.cancel("the worker closes")
                if tasks and self._is_async:
                    await asyncio.wait(tasks)
                    # The callbacks of the tasks that just ended run in the loop's next turn.
                    await asyncio.sleep(0)
            self._native.close(force)
        await self._ended.wait()

    async def get_next_job(self, token: str, block: bool = True) -> Job[DataT, ResultT] | None:
        """Fetch one job by hand, locked under `token` for `lock_duration`; its lock is not renewed.

        Finish it with `job.move_to_completed` or `job.move_to_failed`. With `block`, waits up to `drain_delay`.
        """
        if not isinstance(token, str) or not token or token == "0":
            raise ConfigurationError(f"token: got {token!r}; allowed is a text that is not empty and not '0'")
        if self._hand is None:
            limiter = None if self._limiter is None else tuple(self._limiter)
            self._hand = _bridge.NativeByHand(
                resolve_connection(self._connection),
                self._prefix,
                self.queue_name,
                self.name,
                self._lock_duration,
                self._drain_delay,
                limiter,
                *self._keep,
            )
        return by_hand(self._queue, self._hand, await port().call(self._hand.fetch, token, block))

    def pause(self) -> None:
        """Take no more jobs until `resume`; those in flight go on."""
        self._is_paused = True
        if self._native is not None:
            self._native.set_paused(True)
        self._emit("paused")

    def resume(self) -> None:
        """Take jobs again."""
        self._is_paused = False
        if self._native is not None:
            self._native.set_paused(False)
        self._emit("resumed")

    @property
    def concurrency(self) -> int:
        """How many jobs run at once."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        self._concurrency = whole("concurrency", value, 1, 100_000)
        if self._threads is not None:
            # The pool grows by itself up to this, and never beyond what the engine hands out.
            self._threads._max_workers = max(self._threads._max_workers, value)
        if self._native is not None:
            self._native.set_concurrency(value)

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._ended is not None and not self._ended.is_set()

    def is_paused(self) -> bool:
        """Whether it takes no jobs."""
        return self._is_paused

    def _receive(self, message: tuple[str, Any]) -> None:
        event, value = message
        if event == "jobs":
            for stored in value:
                job: Job[Any, Any] = Job(self._queue, stored)
                self._jobs[job.id] = job
                self._emit("active", job)
                task = self._running[job.id] = asyncio.create_task(self._run(job))
                task.add_done_callback(lambda _, job_id=job.id: self._never_began(job_id))  # type: ignore[misc]
        elif event == "completed":
            job = self._jobs.pop(value)
            self._emit("completed", job, self._results.pop(value, None))
        elif event == "failed":
            stored, reason, _ = value
            kept = self._jobs.pop(stored[0], None)
            job = kept if kept is not None else Job(self._queue, stored)
            job.attempts_made += 1
            job._fields["failedReason"] = reason.encode()
            self._results.pop(job.id, None)
            self._emit("failed", job, self._errors.pop(job.id, None) or UnrecoverableError(reason))
        elif event == "lock_lost":
            lost = self._jobs.pop(value, None)
            running = self._running.get(value)
            if running is not None:
                running.cancel("the job's lock was lost")
            if lost is not None:
                self._emit("lock_lost", lost)
        elif event == "stalled":
            self._emit("stalled", value)
        elif event == "drained":
            self._emit("drained")
        elif event == "error":
            self._emit("error", ToroError(value))
        elif event == "closed":
            port().detach(self._ticket)
            if self._threads is not None:
                self._threads.shutdown(wait=False)
            assert self._ended is not None
            self._ended.set()
            self._emit("closed")

    def _never_began(self, job_id: str) -> None:
        # A task that is cancelled before its first step runs none of its own code, so it says nothing of its job.
        if self._running.pop(job_id, None) is not None and self._native is not None:
            self._jobs.pop(job_id, None)
            self._native.wait(job_id)

    async def _run(self, job: Job[Any, Any]) -> None:
        native = self._native
        assert native is not None
        try:
            if self._is_async:
                result = await self._processor(job)
            else:
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(self._concurrency, "toromq-processor")
                result = await asyncio.get_running_loop().run_in_executor(self._threads, self._processor, job)
            text = to_json(result, "returnvalue")
        except RateLimitError:
            self._jobs.pop(job.id, None)
            native.wait(job.id)
        except asyncio.CancelledError:
            # By a forced close, or because the lock is gone; in that case the engine drops this.
            self._jobs.pop(job.id, None)
            native.wait(job.id)
        except BaseException as error:
            await self._fail(native, job, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._results[job.id] = result
            native.complete(job.id, text)
        finally:
            self._running.pop(job.id, None)

    async def _fail(self, native: _bridge.NativeWorker, job: Job[Any, Any], error: BaseException) -> None:
        self._errors[job.id] = error
        unrecoverable = isinstance(error, UnrecoverableError | SerializationError)
        delay = None
        try:
            backoff = job.opts.get("backoff")
            kind = backoff.get("type") if isinstance(backoff, dict) else backoff if isinstance(backoff, str) else None
            if kind is not None and kind not in _BUILT_IN_BACKOFFS and not unrecoverable:
                if self._backoff_strategy is None:
                    log.error("job %s wants backoff %r, but the worker has no backoff_strategy", job.id, kind)
                else:
                    chosen = self._backoff_strategy(job.attempts_made + 1, kind, error, job)
                    delay = float(await chosen if inspect.isawaitable(chosen) else chosen)
        except Exception as broken:
            # A broken strategy must not keep the job; it waits for nothing and the reason is told.
            self._emit("error", broken)
        try:
            reason = str(error)
        except Exception:
            reason = f"{type(error).__name__}, whose message could not be made"
        stack = "".join(traceback.format_exception(error))
        encodable = stack.encode("utf-8", "replace").decode()
        native.fail(job.id, reason.encode("utf-8", "replace").decode(), encodable, unrecoverable, delay)


async def _listen(answer: Awaitable[Any], event: str, queue_name: str) -> None:
    try:
        await answer
    except Exception:
        log.exception("a listener for %s of worker of %s raised", event, queue_name)


def run(*workers: Worker[Any, Any]) -> None:
    """Run workers until SIGINT or SIGTERM, then let the jobs in flight end. A second signal forces."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stopping: list[asyncio.Task[Any]] = []

        def stop() -> None:
            force = bool(stopping)
            stopping.extend(asyncio.ensure_future(worker.close(force)) for worker in workers)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        await asyncio.gather(*(worker.run() for worker in workers))

    asyncio.run(serve())
