"""The only importer of the native module. Private and unstable: nothing in it is for users."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from toromq import _native

to_json = _native.to_json
from_json = _native.from_json
NativeQueue = _native.NativeQueue
NativeWorker = _native.NativeWorker
NativeByHand = _native.NativeByHand
version: str = _native.version

_tickets = itertools.count(1)
_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Port] = weakref.WeakKeyDictionary()

# Before the interpreter waits for its threads: the engine's own must be gone by then.
threading._register_atexit(_native.shutdown)  # type: ignore[attr-defined]
# A forked child has none of the engine's threads and none of the parent's event loops.
os.register_at_fork(after_in_child=_ports.clear)


class Port:
    """Where the engine's answers reach one event loop: one wake-up brings all that is ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch for answers on `loop`."""
        self._port = _native.Port()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._receivers: dict[int, Callable[[Any], None]] = {}
        loop.add_reader(self._port.fileno(), self._drain)

    def _drain(self) -> None:
        for ticket, value in self._port.drain():
            receiver = self._receivers.get(ticket)
            if receiver is not None:
                receiver(value)
                continue
            future = self._waiting.pop(ticket, None)
            # A caller who was cancelled waits no more; what it asked for is done all the same.
            if future is None or future.done():
                continue
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)

    async def call(self, operation: Callable[..., None], *arguments: Any) -> Any:
        """Start an operation of the engine and wait for its answer."""
        ticket = next(_tickets)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            operation(self._port, ticket, *arguments)
        except BaseException:
            del self._waiting[ticket]
            raise
        return await future

    def attach(self, receiver: Callable[[Any], None], start: Callable[[Any, int], Any]) -> tuple[int, Any]:
        """Start something that keeps sending; give its ticket and what `start` returned."""
        ticket = next(_tickets)
        self._receivers[ticket] = receiver
        try:
            return ticket, start(self._port, ticket)
        except BaseException:
            del self._receivers[ticket]
            raise

    def detach(self, ticket: int) -> None:
        """Stop listening to a ticket."""
        with contextlib.suppress(KeyError):
            del self._receivers[ticket]


def port() -> Port:
    """The port of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _ports.get(loop)
    if found is None:
        found = _ports[loop] = Port(loop)
    return found
