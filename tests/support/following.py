"""Readers of events in both faces, whose loops and listeners a test can look at."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import redis

import toromq
from tests.support.eventually import aeventually

NAME = "mail"


class Loop:
    """A loop over events, in a task or a thread; ``hold`` lets it take no more until ``go_on``."""

    def __init__(self, face: Any, events: Any, until: int | None = None) -> None:
        self.seen: list[Any] = []
        self.error: BaseException | None = None
        self.ended = False
        self._until = until
        # Made here and not where it is gone over: what happens next is in it.
        self._iterator = iter(events) if face is not toromq else aiter(events)
        self._open = threading.Event()
        self._open.set()
        if face is toromq:
            self._task: Any = asyncio.ensure_future(self._go_over())
        else:
            self._task = threading.Thread(target=self._go_over_here, daemon=True)
            self._task.start()

    def hold(self) -> None:
        """Take no more."""
        self._open.clear()

    def go_on(self) -> None:
        """Take more again."""
        self._open.set()

    def _take(self, event: Any) -> bool:
        self.seen.append(event)
        return self._until is not None and len(self.seen) >= self._until

    async def _go_over(self) -> None:
        try:
            async for event in self._iterator:
                while not self._open.is_set():
                    await asyncio.sleep(0.01)
                if self._take(event):
                    return
        except BaseException as error:
            self.error = error
            raise
        finally:
            del self._iterator
            self.ended = True

    def _go_over_here(self) -> None:
        try:
            for event in self._iterator:
                self._open.wait()
                if self._take(event):
                    return
        except BaseException as error:
            self.error = error
        finally:
            del self._iterator
            self.ended = True

    def names(self) -> list[str]:
        """The names of what was seen."""
        return [event.event for event in self.seen]

    async def sees(self, count: int, timeout: float = 20) -> list[Any]:
        """Waits until so many events came, and gives all."""

        def enough() -> bool:
            assert len(self.seen) >= count, f"{len(self.seen)} came, the last: {self.seen[-3:]}, {self.error}"
            return True

        await aeventually(enough, timeout, f"{count} events")
        return self.seen


class Stand:
    """The events of one queue, written by hand, and read in one face."""

    def __init__(self, face: Any, url: str, prefix: str, client: redis.Redis) -> None:
        self.face = face
        self.redis = client
        self.options: dict[str, Any] = {"connection": url, "prefix": prefix}
        self.key = f"{prefix}:{NAME}:events"
        self._reader_name = f"{prefix}:{b64encode(NAME.encode()).decode()}:qe"
        self._made: list[Any] = []
        self._loops: list[Loop] = []

    async def call(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls something of the face."""
        if self.face is toromq:
            return await operation(*arguments, **options)
        return await asyncio.to_thread(operation, *arguments, **options)

    def make(self, **options: Any) -> Any:
        """A reader, not started; closed with the stand."""
        made = self.face.QueueEvents(NAME, **{**self.options, **options})
        self._made.append(made)
        return made

    async def started(self, **options: Any) -> Any:
        """A reader that listens."""
        events = self.make(**options)
        await self.call(events.wait_until_ready)
        return events

    def loop(self, events: Any, until: int | None = None) -> Loop:
        """Goes over events."""
        made = Loop(self.face, events, until)
        self._loops.append(made)
        return made

    def errors(self, events: Any) -> list[Any]:
        """What a reader tells as errors from now on."""
        told: list[Any] = []
        events.on("error", told.append)
        return told

    def add(self, event: str, /, **fields: Any) -> str:
        """An entry; gives its id."""
        return str(self.redis.xadd(self.key, {"event": event, **fields}))

    def add_many(self, count: int, start: int = 0) -> None:
        """So many entries named ``n``, numbered."""
        for first in range(start, start + count, 1000):
            pipe = self.redis.pipeline(transaction=False)
            for number in range(first, min(first + 1000, start + count)):
                pipe.xadd(self.key, {"event": "n", "number": number})
            pipe.execute()

    def readers(self) -> list[dict[str, str]]:
        """The connections that read events."""
        return [client for client in self.redis.client_list() if client["name"] == self._reader_name]

    async def close(self) -> None:
        """Closes all readers; their loops must end by that."""
        for loop in self._loops:
            loop.go_on()
        for made in self._made:
            await self.call(made.close)
        for loop in self._loops:
            await aeventually(lambda loop=loop: loop.ended, message="a loop ends when its reader is closed")  # type: ignore[misc]


def numbers(events: list[Any]) -> list[int]:
    """What entries named ``n`` say."""
    return [int(event.fields["number"]) for event in events]
