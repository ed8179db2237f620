"""What runs in a child process: the processor, in the main thread, and a thread that reads what the worker says."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import functools
import itertools
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

from toromq._bridge import from_json
from toromq._cancellation import Cancellation
from toromq._job_fields import Stored
from toromq._payload import ANY_JSON, PayloadType
from toromq._sandbox.failure import packed_error, unpacked_error
from toromq._sandbox.frames import Channel, ChannelClosedError
from toromq._sandbox.target import LoadError, Target, load, load_type
from toromq.errors import JobCancelledError, ToroError
from toromq.sandbox_job import SandboxJob
from toromq.sync.sandbox_job import SandboxJob as BlockingSandboxJob

# Seconds after which a process that has no worker any more ends, whatever its threads and exit handlers are at.
_LAST_WORDS: Final = 5.0
_NO_WORKER: Final = 75


def main() -> None:
    """Run jobs until the worker closes the channel; see process.py for the arguments."""
    _, ends, named, types = map(json.loads, sys.argv[1:5])
    target = Target(*named)
    sys.argv[:] = [str(target)]
    channel_end, life_end, words_end = ends
    for end in ends:
        # What the processor starts must not hold them open.
        os.set_inheritable(end, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_the_worker(life_end)
    # Both work while the interpreter's lock is held elsewhere, and so tell of a function that hangs, too.
    faulthandler.enable(words_end, all_threads=False)
    faulthandler.register(signal.SIGTERM, words_end, all_threads=False, chain=True)
    channel = Channel(socket.socket(fileno=channel_end))

    def after_fork() -> None:
        # Its own, and the processor may have closed them.
        with contextlib.suppress(OSError):
            channel.forget()
        with contextlib.suppress(OSError):
            os.close(life_end)

    os.register_at_fork(after_in_child=after_fork)
    _Sandbox(channel).run(target, types)


def _die_with_the_worker(life_end: int) -> None:
    """Have the kernel kill this process, and what it started, when nobody holds the other end any more.

    The thread that reads the channel would end it as well, but not while a function holds the interpreter's lock.
    """
    if sys.platform != "linux":
        return
    import fcntl

    fcntl.fcntl(life_end, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life_end, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life_end, fcntl.F_SETFL, fcntl.fcntl(life_end, fcntl.F_GETFL) | os.O_ASYNC)


class _Queue:
    """All that a job in a child knows of its queue."""

    def __init__(self, prefix: str, name: str) -> None:
        self.prefix, self.name, self.qualified_name = prefix, name, f"{prefix}:{name}"
        self._data_type = self._result_type = ANY_JSON


class Calls:
    """What a job asks of the worker, from any thread; the thread that reads brings the answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._is_over = False

    def begin(self, method: str, arguments: tuple[bytes, ...], options: dict[str, bytes]) -> Future[Any]:
        """Ask for something; arguments are JSON texts."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        # So that it cannot be cancelled: what was asked for will be done, and the answer come.
        future.set_running_or_notify_cancel()
        named = b",".join(b'"%b":%b' % (name.encode(), text) for name, text in options.items())
        text = b"[[%b],{%b}]" % (b",".join(arguments), named)
        frame = {"is": "call", "call": number, "method": method, "arguments": text.decode()}
        with self._guard:
            # Checked and sent in one: what comes after the job's end would be taken for the next job's.
            if self._is_over:
                raise ToroError(f"job.{method}: the job has ended")
            self._waiting[number] = future
            try:
                self._channel.send(frame)
            except ChannelClosedError:
                raise ToroError(f"job.{method}: there is no worker any more, or this is another process") from None
        return future

    def answer(self, frame: dict[str, Any]) -> None:
        """Bring an answer."""
        future = self._waiting.pop(frame["reply"], None)
        if future is None:
            return
        if "error" in frame:
            future.set_exception(unpacked_error(frame["error"], with_stack=False))
        else:
            future.set_result(from_json(frame["value"].encode()))

    def end(self) -> None:
        """The job has ended; whoever still waits for an answer gets none."""
        with self._guard:
            self._is_over = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for future in waiting:
            future.set_exception(ToroError("the job has ended"))


class BlockingCalls(Calls):
    """For a plain function."""

    def call(self, method: str, *arguments: bytes, **options: bytes) -> Any:
        """Ask and wait for the answer."""
        return self.begin(method, arguments, options).result()


class AsyncCalls(Calls):
    """For a coroutine."""

    async def call(self, method: str, *arguments: bytes, **options: bytes) -> Any:
        """Ask and wait for the answer."""
        return await asyncio.wrap_future(self.begin(method, arguments, options))


_Types = tuple[PayloadType, PayloadType]


class _Given:
    """A job as it arrived, before it is known which kind of processor runs it."""

    def __init__(self, frame: dict[str, Any]) -> None:
        self.run: int = frame["run"]
        self.cancellation = Cancellation()
        self.calls: Calls | None = None
        self._queue = _Queue(*frame["queue"])
        self._trace: str | None = frame["trace"]
        *rest, fields = frame["job"]
        self._stored: Stored = (*rest, {name: value.encode("latin-1") for name, value in fields.items()})

    def context(self) -> contextvars.Context:
        """One to run it in: its spans become children of the worker's."""
        context = contextvars.copy_context()
        if self._trace is not None:
            # Only here: most programs are not traced.
            from toromq.telemetry import enter

            context.run(enter, self._trace)
        return context

    def job(self, calls: Calls, types: _Types) -> tuple[_Queue, Stored, Calls, Cancellation]:
        """What its job is made of."""
        self.calls = calls
        self._queue._data_type, self._queue._result_type = types
        return self._queue, self._stored, calls, self.cancellation


class _Sandbox:
    """Runs one job after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox: queue.SimpleQueue[_Given | None] = queue.SimpleQueue()
        # Called when something was put there.
        self._wake: Callable[[], object] = bool
        # The job that was given and has not ended: set by the thread that reads, cleared by the one that runs.
        self._current: _Given | None = None
        self._types: _Types = (ANY_JSON, ANY_JSON)

    def run(self, target: Target, types: list[str]) -> None:
        """Import the processor and run it on each job that comes."""
        # First, for a job may be more than the channel holds, and its worker waits until it is read.
        threading.Thread(target=self._read, name="toromq-sandbox", daemon=True).start()
        try:
            processor, is_async = load(target)
            data_type, result_type = map(load_type, types)
        except LoadError as error:
            self._end({"is": "unusable", "error": packed_error(error)})
            return
        self._types = (data_type, result_type)
        if is_async:
            asyncio.run(self._run_coroutines(processor))
        else:
            self._run_functions(processor)

    # --- in the thread that reads -----------------------------------------------------------------------------------

    def _read(self) -> None:
        while (frame := self._channel.receive()) is not None:
            current = self._current
            if "job" in frame:
                self._current = given = _Given(frame)
                self._put(given)
            elif "reply" in frame:
                if current is not None and current.calls is not None:
                    current.calls.answer(frame)
            elif current is not None and current.run == frame["run"]:
                current.cancellation.set(frame["cancel"], fails=True)
        if self._current is not None:
            # The worker is gone, and nobody wants the result.
            os._exit(_NO_WORKER)
        self._leave()

    def _leave(self) -> None:
        self._put(None)
        time.sleep(_LAST_WORDS)
        os._exit(_NO_WORKER)

    def _put(self, given: _Given | None) -> None:
        self._inbox.put(given)
        # A loop that has ended does not wait for it.
        with contextlib.suppress(RuntimeError):
            self._wake()

    # --- in the main thread -----------------------------------------------------------------------------------------

    def _run_functions(self, processor: Callable[[Any], Any]) -> None:
        while (given := self._inbox.get()) is not None:
            job: BlockingSandboxJob[Any, Any] = BlockingSandboxJob(
                *given.job(BlockingCalls(self._channel), self._types)
            )
            try:
                self._begin(job)
                frame = self._done(given.context().run(processor, job))
            except BaseException as error:
                frame = _failed(error)
            self._end(frame)

    async def _run_coroutines(self, processor: Callable[[Any], Awaitable[Any]]) -> None:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(arrived.set)
        while True:
            try:
                given = self._inbox.get_nowait()
            except queue.Empty:
                await arrived.wait()
                arrived.clear()
                continue
            if given is None:
                return
            job: SandboxJob[Any, Any] = SandboxJob(*given.job(AsyncCalls(self._channel), self._types))
            task = loop.create_task(self._run_coroutine(processor, job), context=given.context())
            # The reason that comes with the call is what the task is cancelled with.
            given.cancellation.add_callback(functools.partial(loop.call_soon_threadsafe, task.cancel))
            await asyncio.wait((task,))
            # Else it was cancelled before its first step.
            self._end(_failed(JobCancelledError(job.cancel_reason or "")) if task.cancelled() else task.result())

    async def _run_coroutine(
        self, processor: Callable[[Any], Awaitable[Any]], job: SandboxJob[Any, Any]
    ) -> dict[str, Any]:
        try:
            self._begin(job)
            return self._done(await processor(job))
        except asyncio.CancelledError as error:
            if job.cancel_reason is None:
                return _failed(error)
            cancelled = JobCancelledError(job.cancel_reason)
            cancelled.__cause__ = error
            return _failed(cancelled)
        # Even what ends a program ends no more than the job, as in a worker's threads.
        except BaseException as error:
            return _failed(error)

    def _done(self, result: Any) -> dict[str, Any]:
        return {"is": "done", "value": self._types[1].encode(result, "returnvalue").decode()}

    def _begin(self, job: SandboxJob[Any, Any] | BlockingSandboxJob[Any, Any]) -> None:
        # It may have been told to end while the processor was imported.
        job.raise_if_cancelled()
        self._channel.send({"is": "begun"})

    def _end(self, frame: dict[str, Any]) -> None:
        # What was printed is seen before the result is, and not lost if this process is killed.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        given, self._current = self._current, None
        if given is not None and given.calls is not None:
            given.calls.end()
        try:
            self._channel.send(frame)
        except ChannelClosedError:
            # Nobody wants it, or the processor closed what leads there: then the thread that reads waits in vain, and
            # only the end of this process tells the worker.
            threading.Thread(target=self._leave, name="toromq-sandbox-end", daemon=True).start()


def _failed(error: BaseException) -> dict[str, Any]:
    return {"is": "failed", "error": packed_error(error)}

