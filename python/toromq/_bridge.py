"""The only importer of the native module. Private and unstable: nothing in it is for users."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from toromq import _native

to_json = _native.to_json
from_json = _native.from_json
new_id = _native.new_id
Answer = _native.Answer
telemetry = _native.telemetry
NativeConnection = _native.NativeConnection
NativeFlows = _native.NativeFlows
NativeQueue = _native.NativeQueue
NativeFeed = _native.NativeFeed
NativeFields = _native.NativeFields
NativeWaits = _native.NativeWaits
NativeWorker = _native.NativeWorker
NativeByHand = _native.NativeByHand
version: str = _native.version

T = TypeVar("T")
_tickets = itertools.count(1)
_blocking = threading.local()
# A loop keeps its port, as long as it runs; the other way round, what waits on a loop would keep that for ever.
_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Port]] = weakref.WeakKeyDictionary()
# That of the loop which asked last: looking it up costs as much as all else that is done for a call here.
_last: tuple[weakref.ref[asyncio.AbstractEventLoop], weakref.ref[Port]] | tuple[Callable[[], None], Callable[[], None]]
_last = _NOBODY = (lambda: None, lambda: None)

# Workers that run, each with a method that lets its threads go.
live_workers: weakref.WeakSet[Any] = weakref.WeakSet()


def _end() -> None:
    for worker in list(live_workers):
        worker._program_ends()


# Before the interpreter waits for its threads: those of ours that only wait for more must go.
threading._register_atexit(_end)  # type: ignore[attr-defined]


def _shutdown() -> None:
    _native.shutdown()
    for callback in reversed(_after_shutdown):
        callback()


def after_shutdown(callback: Callable[[], None]) -> None:
    """Call this at the interpreter's exit, when the engine has written its last; the newest first."""
    _after_shutdown.append(callback)


_after_shutdown: list[Callable[[], None]] = []
# After the interpreter has waited for its threads, when nobody can use the engine any more.
atexit.register(_shutdown)

# Held while something of the engine is made, and during a fork: what is made at the first use is made without the
# interpreter's lock, and a child that was forked in the middle would wait for the end of it for ever.
_making = threading.RLock()


def make(kind: Callable[..., T], *arguments: Any) -> T:
    """Make an object of the engine."""
    with _making:
        return kind(*arguments)



def _after_fork() -> None:
    _making.release()
    _ports.clear()
    global _blocking, _last
    _last = _NOBODY
    _blocking = threading.local()


# A forked child has none of the engine's threads and none of the parent's event loops.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_after_fork)


class Port:
    """Where the engine's answers reach one event loop: one wake-up brings all that is ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch for answers on `loop`."""
        self._port = make(_native.Port)
        loop.add_reader(self._port.fileno(), self.deliver)

    def _watch(self) -> None:
        """Let the loop watch the sockets that it drives."""
        loop = asyncio.get_running_loop()
        while self._port.changed:
            for fd, what in self._port.changes():
                if what == "read":
                    loop.add_reader(fd, self.deliver)
                elif what == "wait":
                    loop.add_reader(fd, self._waited, loop, fd)
                elif what == "write":
                    loop.add_writer(fd, self.deliver)
                else:
                    loop.remove_writer(fd)
                    if what == "nothing":
                        loop.remove_reader(fd)

    def _waited(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        """Hand out the jobs that an idle worker has waited for."""
        self._port.ready(fd)
        try:
            self.deliver()
        finally:
            # After the job has begun: the engine's thread would want a core, and perhaps this one.
            loop.call_soon(self._port.used)

    def deliver(self) -> None:
        """Hand out what has arrived. Whoever awaits it goes on here, or in the next turn where a task calls this."""
        try:
            self._port.deliver()
        finally:
            if self._port.changed:
                self._watch()

    def call(self, operation: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Start an operation of the engine; await its answer, at once. One that only waits is ended with its caller."""
        answer = self._port.call(operation, *arguments)
        if self._port.changed:
            self._watch()
        return answer

    def attach(self, receiver: Callable[[Any], None], start: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
        """Start something that keeps sending, by `start(port, ticket, *arguments)`; give the ticket and its answer."""
        return self._port.attach(receiver, start, *arguments)

    def detach(self, ticket: int) -> None:
        """Stop listening to a ticket."""
        self._port.detach(ticket)


def port() -> Port:
    """The port of the running event loop."""
    global _last
    loop = asyncio.get_running_loop()
    last_loop, last = _last
    if last_loop() is loop and (found := last()) is not None:
        return found
    known = _ports.get(loop)
    found = None if known is None else known()
    if found is None:
        found = Port(loop)
        _ports[loop] = weakref.ref(found)
    _last = (weakref.ref(loop), weakref.ref(found))
    return found


class BlockingPort:
    """Where the engine's answers reach one thread that has nothing else to do."""

    def __init__(self, within: bool = False) -> None:
        """For the calling thread; `within` the call of another one."""
        self._port = make(_native.Port, True, threading.current_thread() is threading.main_thread(), True, within)
        self._calls = False

    def call(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Start an operation of the engine and wait for its answer, without the interpreter's lock."""
        if self._calls:
            # In a signal's handler, or a finaliser: what it waits for must not depend on the call that it holds up, nor
            # may it take the answer to that.
            return BlockingPort(within=True).call(operation, *arguments)
        self._calls, started = True, None
        try:
            ticket = next(_tickets)
            started = operation(self._port, ticket, *arguments)
            return self._port.answer(ticket)
        except BaseException:
            if started is not None:
                started.cancel()
            raise
        finally:
            self._calls = False

    def attach(self, receiver: Callable[[Any], None], start: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
        """The same for a thread of its own, which `receiver` is called in."""
        port = make(_native.Port, True, False, False)
        ticket = next(_tickets)
        started = start(port, ticket, *arguments)
        _received[ticket] = port

        def receive() -> None:
            _blocking.receives = True
            while ticket in _received and (arrived := port.wait()):
                for _, value in arrived:
                    receiver(value)

        threading.Thread(target=receive, name="toromq-events").start()
        return ticket, started

    def detach(self, ticket: int) -> None:
        """Stop listening to a ticket."""
        port = _received.pop(ticket, None)
        if port is not None:
            port.end()


# Tickets that a thread listens to, and where.
_received: dict[int, _native.Port] = {}


def received(ticket: int) -> _native.Port | None:
    """Where a thread listens to a ticket."""
    return _received.get(ticket)


def is_receiving() -> bool:
    """Whether the calling thread is one that engine's messages come to, and would wait for itself."""
    return getattr(_blocking, "receives", False)


def blocking_port() -> BlockingPort:
    """The port of the calling thread."""
    found: BlockingPort | None = getattr(_blocking, "port", None)
    if found is None:
        found = _blocking.port = BlockingPort()
    return found
