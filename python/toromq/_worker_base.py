"""What a worker is in both faces: its options, its listeners, and the threads that run plain functions."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from toromq import _bridge
from toromq._cancellation import LOCK_LOST, WORKER_CLOSES
from toromq._endings import DELAY_WITHOUT_END, SIGNALS, STEERING, as_delay, is_handed_back, waits_for_children
from toromq._failure import HOPELESS, failure_of
from toromq._guards import is_mapping, is_path
from toromq._job_fields import DataT, JobFields, ResultT, Run, Stored
from toromq._listeners import Listeners
from toromq._processors import Processors
from toromq._tracing import NO_SPAN, WorkerTracing, check_telemetry, run_in
from toromq._worker_options import EXPLAINED, Metrics, engine_options
from toromq.connection import Connection, connection_of
from toromq.errors import (
    ConfigurationError,
    DelayedError,
    JobCancelledError,
    RateLimitError,
    ToroError,
    UnrecoverableError,
)
from toromq.options import (
    KeepJobs,
    RateLimit,
    SandboxOptions,
    check_client_name,
    check_prefix,
    check_queue_name,
    check_token,
    job_id_of,
    text,
    whole,
    with_hints,
)

if TYPE_CHECKING:
    from toromq._sandbox.pool import Pool
    from toromq.telemetry import Attributes, Span, Telemetry
    from toromq.types import Adapter

_BUILT_IN_BACKOFFS: Final = frozenset(("fixed", "exponential"))


ProcessorT = TypeVar("ProcessorT", bound=Callable[..., Any])


class WorkerBase(Listeners, Generic[DataT, ResultT]):
    """The part of a worker that waits for nothing."""

    EVENTS = frozenset(
        (
            "active", "completed", "failed", "progress", "stalled", "drained", "paused", "resumed", "ready", "closing",
            "closed", "error", "lock_lost", "lock_renewal_failed", "locks_renewed",
        )
    )  # fmt: skip
    _job_type: ClassVar[Any]
    _queue_type: ClassVar[Any]
    _explained: ClassVar[Mapping[str, str]] = EXPLAINED

    @with_hints
    def __init__(
        self,
        queue_name: str,
        processor: Callable[[Any], Any] | str | os.PathLike[str] | None = None,
        /,
        *,
        connection: Connection | str | None = None,
        prefix: str = "bull",
        name: str | None = None,
        concurrency: int = 1,
        lock_duration: int | timedelta = 30_000,
        lock_renew_time: int | timedelta | None = None,
        skip_lock_renewal: bool = False,
        stalled_interval: int | timedelta = 30_000,
        max_stalled_count: int = 1,
        skip_stalled_check: bool = False,
        max_started_attempts: int | None = None,
        drain_delay: float | timedelta | None = None,
        limiter: RateLimit | None = None,
        maximum_rate_limit_delay: int | timedelta = 30_000,
        run_retry_delay: int | timedelta = 1000,
        metrics: Metrics | int | None = None,
        remove_on_complete: bool | int | KeepJobs | None = None,
        remove_on_fail: bool | int | KeepJobs | None = None,
        backoff_strategy: Callable[..., Any] | None = None,
        data_type: type[DataT] | Adapter | None = None,
        result_type: type[ResultT] | Adapter | None = None,
        sandbox: SandboxOptions | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """See Worker."""
        self.queue_name = check_queue_name(queue_name)
        super().__init__(f"worker of {self.queue_name}")
        self._sandbox = _sandbox_of(processor, sandbox, data_type, result_type)
        self._processors = Processors(allow_async=self._awaits)
        if processor is not None:
            self._processors.add(None, self._sandbox or processor)
        if backoff_strategy is not None and not callable(backoff_strategy):
            raise ConfigurationError(f"backoff_strategy: got {backoff_strategy!r}; allowed is a function")
        # Part of a client's name, by which others see which workers there are.
        self.name = check_client_name("name", name) if name else ""
        tracer = check_telemetry(telemetry)
        self._tracing = None if tracer is None else WorkerTracing(tracer, self.queue_name, self.name)
        self._connection = connection_of(connection)
        self._prefix = check_prefix(prefix)
        self._options = engine_options(
            name=self.name,
            concurrency=concurrency,
            lock_duration=lock_duration,
            lock_renew_time=lock_renew_time,
            skip_lock_renewal=skip_lock_renewal,
            stalled_interval=stalled_interval,
            max_stalled_count=max_stalled_count,
            skip_stalled_check=skip_stalled_check,
            max_started_attempts=max_started_attempts,
            drain_delay=drain_delay,
            limiter=limiter,
            maximum_rate_limit_delay=maximum_rate_limit_delay,
            run_retry_delay=run_retry_delay,
            metrics=metrics,
            remove_on_complete=remove_on_complete,
            remove_on_fail=remove_on_fail,
        )
        if self._sandbox is not None:
            self._sandbox.set_most(concurrency)
        # The only one; None where a job's name decides.
        self._processor: Callable[[Any], Any] | None = None
        self._backoff_strategy = backoff_strategy
        self._of_queue: dict[str, Any] = {
            "connection": self._connection,
            "prefix": prefix,
            "data_type": data_type,
            "result_type": result_type,
        }
        self._queue = self._queue_type(queue_name, **self._of_queue)
        self._queue._on_progress = self._progressed
        self._blocking_face: tuple[Any, Any] | None = None
        self._has_data_type = data_type is not None
        self._hand: tuple[int, _bridge.NativeByHand] | None = None
        self._checking: int | None = None
        self._native: _bridge.NativeWorker | None = None
        self._ticket = 0
        # Of jobs whose end somebody listens to: what the listener gets once Redis has it.
        # By id and token: a job may run again while an earlier run, whose lock was lost, goes on.
        self._results: dict[Run, tuple[JobFields[Any, Any], Any, bytes]] = {}
        self._errors: dict[Run, BaseException] = {}
        # Jobs whose processor is at work, and why those that have not begun shall fail instead.
        self._running: dict[Run, JobFields[Any, Any]] = {}
        self._unbegun: dict[Run, str] = {}
        self._inside = threading.local()
        self._context = contextvars.copy_context()
        self._is_closed = False
        self._is_forced = False
        self._pid = 0

    def _check_start(self) -> None:
        if self._native is not None or self._is_closed:
            done = "closed" if self._native is None else "started before"
            raise ToroError(f"the worker of {self.queue_name} was {done}; make a new one")
        if not self._processors:
            raise ConfigurationError("processor: None, so this worker can only fetch by hand; give it a function")
        self._processor = self._processors.only

    def _prepare(self) -> None:
        """Get ready to start."""

    def _cancel_all(self) -> Any:
        """Cancel the processors that can be cancelled; those that run in threads are told to end."""
        self._is_forced = True
        for job in list(self._running.values()):
            job._cancellation.set(WORKER_CLOSES)
        if self._sandbox is not None:
            self._sandbox.kill()

    def _traced(
        self, operation: str, attributes: Attributes | None = None
    ) -> AbstractContextManager[Span | None]:
        return NO_SPAN if self._tracing is None else self._tracing.span(operation, attributes)

    def _refuse_inside(self, what: str, instead: str) -> None:
        if getattr(self._inside, "running", False):
            raise ToroError(f"a job that {what} its worker would wait for itself; {instead}")

    def _start(self, port: Any) -> None:
        in_threads, routes = self._processors.runs_in_threads()
        connection = self._connection._native()
        self._note_life()
        self._context = contextvars.copy_context()
        # Before any job is taken: without this thread nobody would run it. It starts the next one.
        first = None
        if in_threads or any(routes.values()):
            # Its modules are imported here, and not while the first job waits.
            self._blocking_face = self._make_blocking_face()
            first = self._first_thread()
        try:
            self._ticket, native = port.attach(
                self._receive,
                functools.partial(_bridge.make, _bridge.NativeWorker),
                connection,
                self._prefix,
                self.queue_name,
                self._options,
                in_threads,
                routes,
            )
        except BaseException:
            if first is not None:
                first.set_result(None)
            raise
        self._native = native
        if first is not None:
            first.set_result(native)

    def _is_driven(self) -> bool:
        """Whether something waits for its end that goes on after the main thread has ended."""
        raise NotImplementedError

    def _note_life(self) -> None:
        """Have the program's end told to it."""
        self._pid = os.getpid()
        _bridge.live_workers.add(self)

    def _program_ends(self) -> None:
        if not self._is_ours() or self._is_driven():
            return
        if self._native is not None:
            self._native.end()
        for ticket in (self._ticket, self._checking):
            if ticket is not None and (events := _bridge.received(ticket)) is not None:
                events.end()

    def _by_hand(self, token: str) -> _bridge.NativeByHand:
        check_token(token)
        return self._hand_of_this_process()

    def _hand_of_this_process(self) -> _bridge.NativeByHand:
        pid = os.getpid()
        # A forked child must not use its parent's connection.
        if self._hand is None or self._hand[0] != pid:
            connection = self._connection._native()
            made = _bridge.make(_bridge.NativeByHand, connection, self._prefix, self.queue_name, self._options)
            self._hand = (pid, made)
        return self._hand[1]

    def _set_paused(self, paused: bool) -> None:
        self._options["paused"] = paused
        if self._native is not None and self._is_ours():
            self._native.set_paused(paused)

    def processor(self, name: str) -> Callable[[ProcessorT], ProcessorT]:
        """A decorator: let a function run the jobs of this name, instead of the worker's own processor if it has one.

        A job whose name has none fails, and is tried again if it has attempts left. Give all of them before the start.
        Coroutines and plain functions may be mixed; at most `concurrency` jobs run in all.

        Raises:
            ConfigurationError: the name has one already, or the function is none that can run here.
            ToroError: the worker was started before.

        Example:
            >>> @worker.processor("welcome")
            ... async def welcome(job): ...
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"name: got {name!r}; allowed is a job's name: @worker.processor('welcome')")

        def add(function: ProcessorT) -> ProcessorT:
            if self._native is not None or self._is_closed:
                raise ToroError(f"the worker of {self.queue_name} was started before; give it its processors first")
            self._processors.add(name, function)
            return function

        return add

    def cancel_job(self, job_id: str, reason: str | None = None) -> bool:
        """Tell a job of this worker to end; False if it runs none of this id, or only has to write what became of it.

        A coroutine gets CancelledError(reason) where it waits. A plain function goes on until it looks at
        `job.is_cancelled` or calls `job.raise_if_cancelled()`; one that never does completes. A job that ends by it
        fails with the reason and is tried again if it has attempts left, unless it raises UnrecoverableError itself.
        In a child process both kinds are told the same, and after `SandboxOptions.kill_after` the process is ended.
        """
        why = _reason(reason)
        runs = [] if self._native is None or not self._is_ours() else self._native.held(job_id_of(job_id))
        for run in runs:
            self._cancel_run(run, why)
        return bool(runs)

    def cancel_all_jobs(self, reason: str | None = None) -> None:
        """Tell all jobs that this worker runs to end, each as `cancel_job` does."""
        why = _reason(reason)
        if self._native is not None and self._is_ours():
            for run in self._native.held(None):
                self._cancel_run(run, why)

    @property
    def concurrency(self) -> int:
        """How many jobs run at once. Settable while running: fewer takes effect as jobs end."""
        return cast(int, self._options["concurrency"])

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        self._options["concurrency"] = whole("concurrency", value, 1, 100_000)
        if self._sandbox is not None:
            self._sandbox.set_most(value)
        if self._native is not None and self._native.set_concurrency(value):
            self._start_thread(self._native)

    def _is_ours(self) -> bool:
        """False in a forked child: the worker runs in its parent."""
        return self._pid in (0, os.getpid())

    def is_paused(self) -> bool:
        """Whether it takes no jobs."""
        return cast(bool, self._options["paused"])

    def __repr__(self) -> str:
        """Its queue and name."""
        return f"<{type(self).__name__} {self.name!r} of {self.queue_name!r}>"

    # --- what the engine says ---------------------------------------------------------------------------------------

    def _receive(self, message: tuple[str, Any]) -> None:
        event, value = message
        if event == "completed":
            run, finished_on = value
            if self._tracing is not None:
                self._tracing.written(run)
            kept = self._results.pop(run, None)
            if kept is not None:
                job, result, text = kept
                job._ended(finished_on, returnvalue=text)
                self._tell("completed", job, result)
        elif event == "failed":
            stored, reason, stacktrace, finished_on = value
            run = stored[:2]
            # A parent that ended too early had a result.
            self._results.pop(run, None)
            error = self._errors.pop(run, None)
            if self._tracing is None and not self._listeners.get("failed"):
                return
            job = self._job_type(self._queue, stored)
            if self._tracing is not None:
                self._tracing.failed(job, finished_on is not None)
            job._ended(finished_on, failedReason=reason.encode(), stacktrace=stacktrace.encode())
            self._tell("failed", job, UnrecoverableError(reason) if error is None else error)
        elif event == "lock_lost":
            (stored,) = value
            self._results.pop(stored[:2], None)
            self._errors.pop(stored[:2], None)
            self._unbegun.pop(stored[:2], None)
            if self._tracing is not None:
                self._tracing.dropped(stored[:2])
            self._lost(stored[:2])
            self._tell("lock_lost", self._job_type(self._queue, stored))
        elif event == "dropped":
            self._results.pop(value, None)
            self._errors.pop(value, None)
            if self._tracing is not None:
                self._tracing.dropped(value)
        elif event in ("stalled", "locks_renewed", "lock_renewal_failed"):
            self._tell(event, value)
        elif event == "ready":
            self._answered()
            self._tell(event)
        elif event == "drained":
            self._tell(event)
        elif event == "error":
            self._tell("error", value)
        elif event == "closed":
            self._end_children()

    def _lost(self, run: Run) -> None:
        """Stop the processor of a job whose lock is gone, where that can be done."""
        job = self._running.get(run)
        if job is not None:
            job._cancellation.set(LOCK_LOST)

    def _cancel_run(self, run: Run, reason: str) -> bool:
        """Tell a run to end, or not to begin; from any thread. Whether it has begun and was not told before."""
        # Noted before it is looked for: whether it has begun may change meanwhile, and one of us two finds the note.
        self._unbegun[run] = reason
        job = self._running.get(run)
        if job is None:
            if self._native is None or run not in self._native.held(run[0]):
                # It has ended meanwhile, and nobody would look for the note.
                self._unbegun.pop(run, None)
            return False
        if self._unbegun.pop(run, None) is None:
            return False
        return job._cancellation.set(reason, fails=True)

    def _begin_run(self, job: JobFields[Any, Any], run: Run) -> None:
        """Note that a job begins; raises where it was told to end before."""
        job._began = time.perf_counter()
        self._running[run] = job
        if self._tracing is not None:
            self._tracing.begin(job)
        if self._unbegun and (reason := self._unbegun.pop(run, None)) is not None:
            job._cancellation.set(reason, fails=True)
            raise JobCancelledError(reason)

    def _end_children(self) -> None:
        """Nothing more comes from the engine: end the child processes, then be closed."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._is_over()

    def _is_over(self) -> None:
        self._closed()
        self._tell("closed")

    def _answered(self) -> None:
        """Redis answered for the first time."""
        raise NotImplementedError

    def _closed(self) -> None:
        """Nothing more comes from the engine."""
        raise NotImplementedError

    def _has_more(self) -> bool:
        """Whether a job begins as soon as this one has ended, as far as the engine does not know."""
        return False

    # --- how a processor ended --------------------------------------------------------------------------------------

    def _completed(self, native: _bridge.NativeWorker, job: JobFields[Any, Any], result: Any, text: bytes) -> None:
        watched = bool(self._listeners.get("completed"))
        if watched:
            self._results[job.id, job.token] = (self._for_listener(job), result, text)
        if self._tracing is not None:
            self._tracing.returned(job)
            watched = True
        ran = time.perf_counter() - job._began
        if not native.complete(job.id, job.token, text, watched, ran, self._has_more()):
            self._results.pop((job.id, job.token), None)
            if self._tracing is not None:
                self._tracing.dropped((job.id, job.token))
            self._went_on(job, "returned")

    def _failed(
        self, native: _bridge.NativeWorker, job: JobFields[Any, Any], error: BaseException, delay: float | None
    ) -> None:
        self._errors[job.id, job.token] = error
        trace = None if self._tracing is None else self._tracing.raised(job, error, delay)
        if not native.fail(job.id, job.token, *failure_of(error), delay, trace, time.perf_counter() - job._began):
            self._errors.pop((job.id, job.token), None)
            if self._tracing is not None:
                self._tracing.dropped((job.id, job.token))
            self._went_on(job, f"raised {type(error).__name__}: {failure_of(error).reason}")

    def _went_on(self, job: JobFields[Any, Any], how: str) -> None:
        """A processor ended as if it had not moved its job: that must not vanish without a word."""
        if job._moved is not None:
            self._tell("error", ToroError(
                f"the processor of job {job.id} moved it to {job._moved} and then {how}, which is not stored; raise "
                f"{SIGNALS[job._moved]} after the move"
            ))  # fmt: skip

    def _steered(self, native: _bridge.NativeWorker, job: JobFields[Any, Any], signal: BaseException) -> None:
        if self._tracing is not None:
            self._tracing.put_back(job, signal)
        if isinstance(signal, DelayedError) and job._moved is None:
            if signal.due is not None:
                native.delay(job.id, job.token, signal.due)
                return
            self._tell("error", ToroError(DELAY_WITHOUT_END.format(job.id)))
        # Where it was moved already, this only gives back the slot.
        if isinstance(signal, RateLimitError):
            native.rate_limited(job.id, job.token, signal.retry_after)
        else:
            native.wait(job.id, job.token)

    def _backoff(self, job: JobFields[Any, Any], error: BaseException) -> Any:
        """What the user's own strategy says, which may have to be awaited; None without one."""
        attempts = job.opts.get("attempts")
        tries_left = isinstance(attempts, int | float) and job.attempts_made + 1 < attempts
        if isinstance(error, HOPELESS) or not tries_left:
            return None
        backoff = job.opts.get("backoff")
        kind = backoff.get("type") if is_mapping(backoff) else backoff if isinstance(backoff, str) else None
        if kind is None or kind in _BUILT_IN_BACKOFFS:
            return None
        if self._backoff_strategy is None:
            raise ConfigurationError(f"job {job.id} wants backoff {kind!r}, but the worker has no backoff_strategy")
        return self._backoff_strategy(job.attempts_made + 1, kind, error, job)

    def _delay(self, job: JobFields[Any, Any], error: BaseException) -> Any:
        """How long to wait before the next try, as the engine takes it."""
        try:
            chosen = self._backoff(job, error)
            return as_delay(asyncio.run(_wait_for(chosen)) if inspect.isawaitable(chosen) else chosen)
        except Exception as broken:
            # A broken strategy must not keep the job: it is tried again at once, and the reason told.
            self._tell("error", broken)
            return None

    def _check_data(self, job: JobFields[Any, Any]) -> None:
        """Refuse a job whose data is not of the worker's type, before its processor sees it."""
        _ = job.data

    def _progressed(self, job: JobFields[Any, Any], progress: Any) -> None:
        if self._listeners.get("progress"):
            self._tell("progress", self._for_listener(job), progress)

    def _for_listener(self, job: JobFields[Any, Any]) -> JobFields[Any, Any]:
        if type(job) is self._job_type:
            return job
        stored = (job.id, job.token, job.attempts_started, job.attempts_made, job._fields)
        return cast(JobFields[Any, Any], self._job_type(self._queue, stored))

    # --- threads for plain functions --------------------------------------------------------------------------------

    def _first_thread(self) -> Future[_bridge.NativeWorker | None]:
        """Start a thread, which goes to work when it is given the engine's worker, or ends when there is none."""
        given: Future[_bridge.NativeWorker | None] = Future()

        def work() -> None:
            native = given.result()
            if native is not None:
                self._work(native)

        try:
            threading.Thread(target=work, name="toromq-processor").start()
        except RuntimeError as error:
            raise ToroError(f"the worker of {self.queue_name} got no thread for its processor: {error}") from error
        return given

    def _start_thread(self, native: _bridge.NativeWorker) -> None:
        try:
            threading.Thread(target=self._work, args=(native,), name="toromq-processor").start()
        except RuntimeError as error:
            native.not_started()
            self._tell("error", ToroError(f"no more threads for processors: {error}; lower the concurrency"))

    def _work(self, native: _bridge.NativeWorker) -> None:
        self._inside.running = True
        new = True
        while (taken := native.take(new)) is not None:
            new = False
            stored, start_another = taken
            if start_another:
                self._start_thread(native)
            self._run_here(native, stored)

    def _run_here(self, native: _bridge.NativeWorker, stored: Stored) -> None:
        job = self._blocking_job(stored)
        job._runner = native
        run = (job.id, job.token)
        if self._listeners.get("active"):
            self._tell("active", self._for_listener(job))
        try:
            self._begin_run(job, run)
            if self._has_data_type:
                self._check_data(job)
            process = self._processor or self._processors.of(job.name)
            if job._span is not None:
                process = functools.partial(run_in, job._span, process)
            result = self._context.copy().run(process, job)
            text = self._queue._result_type.encode(result, "returnvalue")
        except BaseException as error:
            self._raised(native, job, error)
        else:
            self._completed(native, job, result, text)
        finally:
            self._running.pop(run, None)
            if self._tracing is not None:
                self._tracing.end(job)

    def _raised(self, native: _bridge.NativeWorker, job: Any, error: BaseException) -> None:
        if isinstance(error, STEERING):
            try:
                if waits_for_children(job, error):
                    job.move_to_waiting_children()
            except Exception as refused:
                error = refused
            else:
                self._steered(native, job, error)
                return
        if is_handed_back(job, error):
            native.wait(job.id, job.token)
            return
        # Not the face's own: this is a thread, which has nothing else to do while a strategy waits.
        self._failed(native, job, error, WorkerBase._delay(self, job, error))

    def _call(self, job: Any) -> Any:
        """Run the processor on a job that was fetched by hand."""
        return self._processors.of(job.name)(job)

    def _blocking(self, job: JobFields[Any, Any]) -> Any:
        """The same run of a job as plain functions get it."""
        stored = (job.id, job.token, job.attempts_started, job.attempts_made, job._fields)
        return self._blocking_job(stored)

    def _blocking_job(self, stored: Stored) -> Any:
        """A job for a plain function: those run in threads, so its methods block, in both faces."""
        if self._blocking_face is None:
            self._blocking_face = self._make_blocking_face()
        kind, queue = self._blocking_face
        return kind(queue, stored)

    def _make_blocking_face(self) -> tuple[Any, Any]:
        """The type of jobs that block, and the queue that they are of."""
        return self._job_type, self._queue



async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _sandbox_of(
    processor: Callable[[Any], Any] | str | os.PathLike[str] | None,
    options: SandboxOptions | None,
    data_type: Any,
    result_type: Any,
) -> Pool | None:
    if not is_path(processor):
        if options is not None:
            raise ConfigurationError("sandbox: these options are for processors in child processes; this is none")
        return None
    # Only here: starting processes takes modules that most programs have no use for.
    from toromq._sandbox.pool import Pool

    return Pool(processor, options or SandboxOptions(), data_type, result_type)


def _reason(given: Any) -> str:
    return "the job was cancelled" if given is None else text("reason", given)

